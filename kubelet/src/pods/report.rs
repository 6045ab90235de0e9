//! Telling the API server about a pod: beside the work on it, the newest status in place of any that has not been told yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{Value, object};
use async_trait::async_trait;
use client::resource::PODS;
use client::{Client, Patch};
use prometheus::Histogram;
use tokio::sync::watch;

use super::actor::Actor;
use super::spec;
use crate::allocation::Conditions;

/// How long to wait after a failure: first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The conditions that are the kubelet's to write.
const OWN: [&str; 8] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "AllContainersRestarting",
    Conditions::TYPES[0],
    Conditions::TYPES[1],
];

/// A status that is to be told.
#[derive(Debug)]
pub(super) struct Report {
    number: u64,
    namespace: String,
    name: String,
    uid: String,
    /// The status that the object had by the watch.
    seen: Value,
    status: Value,
    /// Since when there is something to tell.
    since: Instant,
}

/// What is to be told of a pod.
pub(super) struct Reports {
    count: u64,
    newest: watch::Sender<Option<Arc<Report>>>,
    told: watch::Receiver<u64>,
}

/// Who tells it.
pub(super) struct Reporter<S> {
    server: S,
    newest: watch::Receiver<Option<Arc<Report>>>,
    told: watch::Sender<u64>,
    /// The status that an object has as far as it is known, by the object's uid.
    known: Option<(String, Value)>,
    /// A report may have arrived or not.
    doubtful: bool,
    pauses: Pauses,
    /// How long it takes until something is told.
    durations: Histogram,
}

/// The pauses after failures in a row.
struct Pauses {
    first: Duration,
    next: Duration,
}

impl Pauses {
    fn from(first: Duration) -> Self {
        Self { first, next: first }
    }

    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        pause
    }

    fn end(&mut self) {
        self.next = self.first;
    }
}

/// Nothing to tell yet.
pub(super) fn channel<S: Server>(server: S, durations: Histogram) -> (Reports, Reporter<S>) {
    let (newest, reports) = watch::channel(None);
    let (teller, told) = watch::channel(0);
    let reporter = Reporter {
        server,
        newest: reports,
        told: teller,
        known: None,
        doubtful: false,
        pauses: Pauses::from(FIRST_PAUSE),
        durations,
    };
    (Reports { count: 0, newest, told }, reporter)
}

/// Who is told.
#[async_trait]
pub(super) trait Server: Send + Sync {
    /// Changes the status of the object and returns it.
    async fn patch(&self, report: &Report, patch: &Value) -> client::Result<Value>;
    /// The object, if it is there.
    async fn get(&self, report: &Report) -> client::Result<Option<Value>>;
}

#[async_trait]
impl Server for Client {
    async fn patch(&self, report: &Report, patch: &Value) -> client::Result<Value> {
        let path = (report.namespace.as_str(), report.name.as_str(), "status");
        Client::patch(self, &PODS, path, Patch::Strategic, patch).await
    }

    async fn get(&self, report: &Report) -> client::Result<Option<Value>> {
        self.get_opt(&PODS, &report.namespace, &report.name).await
    }
}

impl Reports {
    /// Has a status told of an object.
    fn tell(&mut self, target: &Value, status: Value) {
        let waits = self.newest().filter(|newest| newest.number > *self.told.borrow());
        self.count += 1;
        let report = Report {
            number: self.count,
            namespace: target.namespace().to_owned(),
            name: target.name().to_owned(),
            uid: target.uid().to_owned(),
            seen: target.get("status").clone(),
            status,
            since: waits.map_or_else(Instant::now, |waiting| waiting.since),
        };
        self.newest.send_replace(Some(Arc::new(report)));
    }

    /// What is told or to be told last.
    fn newest(&self) -> Option<Arc<Report>> {
        self.newest.borrow().clone()
    }

    /// Waits until there is nothing left to tell.
    pub(super) async fn told(&mut self) {
        let newest = self.count;
        if self.told.wait_for(|number| *number >= newest).await.is_err() {
            // Nobody tells any more: the process ends.
            std::future::pending::<()>().await;
        }
    }
}

impl<S: Server> Reporter<S> {
    /// Tells what there is to tell, again until it has been told, for as long as it is polled.
    pub(super) async fn run(mut self) {
        while self.newest.changed().await.is_ok() {
            loop {
                let newest = self.newest.borrow_and_update().clone();
                let Some(report) = newest else { break };
                match self.tell(&report).await {
                    Ok(()) => {
                        self.pauses.end();
                        self.told.send_replace(report.number);
                        break;
                    }
                    Err(error) => {
                        let Report { namespace, name, .. } = &*report;
                        tracing::warn!(pod = name, namespace, err = %error, "Cannot report the pod's status");
                        tokio::time::sleep(self.pauses.next()).await;
                    }
                }
            }
        }
        // The actor has ended.
        std::future::pending::<()>().await;
    }

    /// Tells a status, unless there is nobody to tell it to any more.
    async fn tell(&mut self, report: &Report) -> client::Result<()> {
        if self.doubtful {
            let found = self.server.get(report).await?;
            self.doubtful = false;
            let Some(object) = found.filter(|object| object.uid() == report.uid) else { return Ok(()) };
            self.known = Some((report.uid.clone(), object.get("status").clone()));
        }
        let known = self.known.as_ref().filter(|(uid, _)| *uid == report.uid).map(|(_, status)| status);
        let patch = patch(&report.uid, known.unwrap_or(&report.seen), &report.status);
        self.doubtful = true;
        let answer = self.server.patch(report, &patch).await;
        match answer {
            Ok(object) => {
                self.durations.observe(report.since.elapsed().as_secs_f64());
                self.known = Some((report.uid.clone(), object.get("status").clone()));
            }
            Err(error) if error.is_not_found() => {}
            Err(error) if error.is_invalid() => {
                // Asked again it would say the same.
                let Report { namespace, name, .. } = report;
                tracing::error!(pod = name, namespace, err = %error, "The API server refuses the pod's status");
            }
            Err(error) => return Err(error),
        }
        self.doubtful = false;
        Ok(())
    }
}

impl Actor {
    /// Has the pod's status told when it differs from what was told last.
    pub(super) fn report(&mut self, pod: &Arc<Value>, ending: bool) {
        let mirror = self.desired.borrow().mirror.clone();
        // A static pod's history is its mirror's.
        let mut shown = (**pod).clone();
        if let Some(mirror) = &mirror {
            shown.set(&["status"], mirror.get("status").clone());
        }
        // What was reported may not have come back by the watch yet.
        let newest = self.reports.newest();
        if let Some(newest) = &newest {
            carry_over(&mut shown, &newest.status);
        }
        let status = self.status(&shown, ending);
        let target = match (&mirror, spec::is_static(pod)) {
            (Some(mirror), _) => mirror,
            // There is nobody to tell before the mirror exists.
            (None, true) => {
                self.note_phase(&status);
                self.count_ends(&shown, &status);
                return self.kubelet.note(pod.uid(), &status);
            }
            (None, false) => pod,
        };
        self.note_phase(&status);
        self.count_ends(&shown, &status);
        // A mirror that was deleted comes back as another object, which knows nothing yet.
        if newest.is_some_and(|newest| newest.uid == target.uid() && newest.status == status) {
            return;
        }
        self.kubelet.note(pod.uid(), &status);
        self.reports.tell(target, status);
    }

    /// Counts the containers that have ended since the status that is known was made.
    fn count_ends(&self, shown: &Value, status: &Value) {
        let before = self.kubelet.status_of(shown.uid());
        let before = before.as_ref().unwrap_or(shown.get("status"));
        self.kubelet.metrics.outcomes.became(before, status);
    }

    /// Takes notice of the pod's phase: a pod that was seen to be pending has started when it runs.
    fn note_phase(&mut self, status: &Value) {
        let phase = status.str_at(&["phase"]);
        if self.phase == "Pending" && phase == "Running" {
            self.kubelet.metrics.pods.starts.observe(self.came.elapsed().as_secs_f64());
        }
        if self.phase != phase {
            phase.clone_into(&mut self.phase);
        }
    }
}

/// What the API server is known to have, put over what the watch last showed.
fn carry_over(shown: &mut Value, reported: &Value) {
    for field in [
        "phase",
        "startTime",
        "podIP",
        "podIPs",
        "initContainerStatuses",
        "containerStatuses",
        "ephemeralContainerStatuses",
        "reason",
        "message",
    ] {
        if !reported.get(field).is_null() {
            shown.set(&["status", field], reported.get(field).clone());
        }
    }
    for field in ["resources", "allocatedResources"] {
        shown.set(&["status", field], reported.get(field).clone());
    }
    let mut conditions = shown.array_at(&["status", "conditions"]).to_vec();
    for condition in reported.array_at(&["conditions"]) {
        let kind = condition.str_at(&["type"]);
        if !is_own(condition) {
            continue;
        }
        match conditions.iter_mut().find(|old| old.str_at(&["type"]) == kind) {
            Some(old) => *old = condition.clone(),
            None => conditions.push(condition.clone()),
        }
    }
    shown.set(&["status", "conditions"], Value::Array(conditions));
}

pub(super) fn is_own(condition: &Value) -> bool {
    // Whoever ends a pod says so; the kubelet does when the node made it go.
    OWN.contains(&condition.str_at(&["type"])) || condition.str_at(&["reason"]) == "TerminationByKubelet"
}

/// The strategic merge patch from one status to the next. Conditions of others are left alone.
fn patch(uid: &str, old: &Value, new: &Value) -> Value {
    let mut status = new.clone();
    let before = old.array_at(&["conditions"]);
    if let Some(conditions) = status.at_mut(&["conditions"]).and_then(Value::as_array_mut) {
        conditions.retain(is_own);
        for condition in conditions.iter_mut() {
            let kind = condition.str_at(&["type"]).to_owned();
            let old = before.iter().find(|old| old.str_at(&["type"]) == kind);
            // Conditions are merged: what one does not say any more has to be taken out.
            for field in ["reason", "message"] {
                if condition.get(field).is_null() && old.is_some_and(|old| !old.get(field).is_null()) {
                    condition.set(&[field], Value::Null);
                }
            }
        }
        let has = |conditions: &[Value], kind| conditions.iter().any(|c| c.str_at(&["type"]) == kind);
        // These are there only while they are true.
        for kind in Conditions::TYPES {
            if has(before, kind) && !has(conditions, kind) {
                conditions.push(object!({"$patch": "delete", "type": kind}));
            }
        }
    }
    for field in ["podIPs", "hostIPs"] {
        // These lists are merged by default; what is not in the new one must go.
        if let Some(ips) = status.at_mut(&[field]).and_then(Value::as_array_mut)
            && old.get(field).as_array() != Some(ips)
        {
            ips.insert(0, object!({"$patch": "replace"}));
        }
    }
    for field in ["reason", "message"] {
        if status.get(field).is_null() && !old.get(field).is_null() {
            status.set(&[field], Value::Null);
        }
    }
    for field in ["resources", "allocatedResources"] {
        take_out(old.get(field), status.at_mut(&[field]));
    }
    // The class of service is decided when the pod is made.
    status.remove_at(&["qosClass"]);
    object!({"metadata": {"uid": uid}, "status": (status)})
}

/// Writes null for what is not in a merged object any more.
fn take_out(old: &Value, new: Option<&mut Value>) {
    let (Some(old), Some(new)) = (old.as_object(), new) else { return };
    for (key, value) in old.iter() {
        match new.at_mut(&[key]) {
            Some(kept) => take_out(value, Some(kept)),
            None => new.set(&[key], Value::Null),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::HistogramOpts;
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn what_was_there_before_is_taken_out() {
        let old = object!({
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
            "conditions": [{"type": "PodResizePending", "status": "True"}],
        });
        let new = object!({"resources": {"limits": {"cpu": "2"}}, "conditions": []});
        let patch = patch("u", &old, &new);
        let expected = object!({"cpu": "2", "memory": null});
        assert_eq!(patch.at(&["status", "resources", "limits"]), &expected);
        let deleted = object!({"$patch": "delete", "type": "PodResizePending"});
        assert_eq!(patch.array_at(&["status", "conditions"]), [deleted]);
    }

    #[test]
    fn a_condition_that_holds_again_has_no_reason_any_more() {
        let old = object!({"conditions": [
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m"},
        ]});
        let patch = patch("u", &old, &object!({"conditions": [{"type": "Ready", "status": "True"}]}));
        let expected = object!({"type": "Ready", "status": "True", "reason": null, "message": null});
        assert_eq!(patch.array_at(&["status", "conditions"]), [expected]);
    }

    #[test]
    fn a_patch_leaves_the_conditions_of_others_alone() {
        let old = object!({"reason": "Old", "podIPs": [{"ip": "10.42.0.1"}]});
        let new = object!({
            "phase": "Running",
            "podIPs": [{"ip": "10.42.0.2"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "example.com/x", "status": "True"}],
        });
        let patch = patch("u", &old, &new);
        assert_eq!(patch.str_at(&["metadata", "uid"]), "u");
        assert_eq!(patch.array_at(&["status", "conditions"]).len(), 1);
        assert!(patch.at(&["status"]).as_object().unwrap().contains_key("reason"));
        assert_eq!(patch.array_at(&["status", "podIPs"])[0].str_at(&["$patch"]), "replace");
    }

    /// A server that says what it is told to say, one answer for each question.
    struct Fake {
        answers: tokio::sync::Mutex<mpsc::Receiver<client::Result<Value>>>,
        questions: mpsc::Sender<Question>,
    }

    #[derive(Debug, PartialEq)]
    enum Question {
        Get,
        Patch(Value),
    }

    impl Fake {
        async fn answer(&self, question: Question) -> client::Result<Value> {
            self.questions.send(question).await.unwrap();
            self.answers.lock().await.recv().await.unwrap()
        }
    }

    #[async_trait]
    impl Server for Fake {
        async fn patch(&self, _: &Report, patch: &Value) -> client::Result<Value> {
            self.answer(Question::Patch(patch.get("status").clone())).await
        }

        async fn get(&self, _: &Report) -> client::Result<Option<Value>> {
            match self.answer(Question::Get).await {
                Err(error) if error.is_not_found() => Ok(None),
                answer => answer.map(Some),
            }
        }
    }

    struct Conversation {
        reports: Reports,
        answers: mpsc::Sender<client::Result<Value>>,
        questions: mpsc::Receiver<Question>,
        durations: Histogram,
    }

    impl Conversation {
        fn begin() -> Self {
            let ((answers, to_give), (asked, questions)) = (mpsc::channel(9), mpsc::channel(9));
            let server = Fake { answers: tokio::sync::Mutex::new(to_give), questions: asked };
            let durations = Histogram::with_opts(HistogramOpts::new("told", "told")).unwrap();
            let (reports, mut reporter) = channel(server, durations.clone());
            reporter.pauses = Pauses::from(Duration::from_millis(1));
            daemon::Tasks::new().plain("reporter", async move {
                reporter.run().await;
                Ok(())
            });
            Self { reports, answers, questions, durations }
        }

        fn tell(&mut self, status: Value) {
            self.reports.tell(&pod(object!({})), status);
        }

        async fn expect(&mut self, question: Question) {
            assert_eq!(self.questions.recv().await, Some(question));
        }

        async fn answer(&self, answer: client::Result<Value>) {
            self.answers.send(answer).await.unwrap();
        }

        /// Everything has been told, and nothing else was asked.
        async fn end(mut self) {
            self.reports.told().await;
            assert!(self.questions.try_recv().is_err());
        }
    }

    fn pod(status: Value) -> Value {
        object!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "status": (status)})
    }

    fn phase(phase: &str) -> Value {
        object!({"phase": phase})
    }

    fn refusal(error: api::ApiError) -> client::Result<Value> {
        Err(client::Error::Api(error))
    }

    #[tokio::test]
    async fn what_came_meanwhile_is_told_next_and_only_the_newest_of_it() {
        let mut server = Conversation::begin();
        server.tell(phase("Pending"));
        server.expect(Question::Patch(phase("Pending"))).await;
        server.tell(phase("Running"));
        server.tell(phase("Succeeded"));
        let told = futures::poll!(Box::pin(server.reports.told()));
        assert!(told.is_pending(), "there is no answer yet");
        server.answer(Ok(pod(phase("Pending")))).await;
        server.expect(Question::Patch(phase("Succeeded"))).await;
        server.answer(Ok(pod(phase("Succeeded")))).await;
        let durations = server.durations.clone();
        server.end().await;
        assert_eq!(durations.get_sample_count(), 2);
    }

    #[tokio::test]
    async fn after_a_failure_the_newest_is_told_on_top_of_what_the_server_has() {
        let mut server = Conversation::begin();
        server.tell(object!({"podIPs": [{"ip": "10.42.0.1"}], "reason": "Old"}));
        server
            .expect(Question::Patch(
                object!({"podIPs": [{"$patch": "replace"}, {"ip": "10.42.0.1"}], "reason": "Old"}),
            ))
            .await;
        server.tell(phase("Running"));
        server.answer(Err(client::Error::Timeout(1))).await;
        server.expect(Question::Get).await;
        server.answer(Err(client::Error::Timeout(1))).await;
        server.expect(Question::Get).await;
        // It had arrived.
        server.answer(Ok(pod(object!({"reason": "Old"})))).await;
        server.expect(Question::Patch(object!({"phase": "Running", "reason": null}))).await;
        server.answer(Ok(pod(phase("Running")))).await;
        server.end().await;
    }

    #[test]
    fn failures_are_tried_again_less_and_less_often() {
        let mut pauses = Pauses::from(FIRST_PAUSE);
        let millis: Vec<_> = (0..7).map(|_| pauses.next().as_millis()).collect();
        assert_eq!(millis, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        pauses.end();
        assert_eq!(pauses.next(), FIRST_PAUSE);
    }

    #[tokio::test]
    async fn a_pod_that_is_gone_is_told_nothing_more() {
        let not_found = || refusal(api::ApiError::not_found("", "pods", "p"));
        let mut server = Conversation::begin();
        server.tell(phase("Running"));
        server.expect(Question::Patch(phase("Running"))).await;
        server.answer(not_found()).await;
        server.end().await;
        // Another one has its name.
        let mut server = Conversation::begin();
        server.tell(phase("Running"));
        server.expect(Question::Patch(phase("Running"))).await;
        server.answer(refusal(api::ApiError::conflict("", "pods", "p", "another uid"))).await;
        server.expect(Question::Get).await;
        server.answer(Ok(object!({"metadata": {"uid": "other"}}))).await;
        server.end().await;
        let mut server = Conversation::begin();
        server.tell(phase("Running"));
        server.expect(Question::Patch(phase("Running"))).await;
        server.answer(Err(client::Error::Timeout(1))).await;
        server.expect(Question::Get).await;
        server.answer(not_found()).await;
        server.end().await;
    }

    #[tokio::test]
    async fn a_status_that_is_refused_is_not_told_again() {
        let mut server = Conversation::begin();
        server.tell(phase("Bogus"));
        server.expect(Question::Patch(phase("Bogus"))).await;
        server
            .answer(refusal(api::ApiError::new(http::StatusCode::UNPROCESSABLE_ENTITY, "Invalid", "no")))
            .await;
        server.end().await;
    }
}
