//! What a CronJob does next.

use std::sync::Arc;
use std::time::Duration;

use api::{Value, object, time};
use client::events::Kind;
use client::resource::{CRON_JOBS, JOBS};
use client::{DeleteOptions, Propagation};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::schedule::Schedule;
use crate::act::{Action, Note, head};
use crate::objects::{condition, condition_true, created, int, owner_reference, time_at};

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// As many missed times are looked at one by one; more are too many.
const MISSED_MAX: i64 = 100;
/// What is said of a schedule whose days never come.
const NEVER: &str = "time difference between two schedules is less than 1 second";

pub(super) fn plan(cron: &Value, jobs: &[Arc<Value>], now: Timestamp) -> Vec<Action> {
    let mut actions = history(cron, jobs);
    let mut status = cron.get("status").clone();
    note_ends(cron, jobs, &mut status, &mut actions);
    let begun = begin(cron, jobs, &mut status, &mut actions, now);
    if &status != cron.get("status") {
        let mut updated = cron.clone();
        if let Value::Object(map) = &mut status {
            map.retain(|_, v| !v.is_empty());
        }
        updated.set(&["status"], status);
        actions.push(Action::UpdateStatus(CRON_JOBS, updated));
    }
    actions.extend(begun);
    actions
}

fn is_finished(job: &Value) -> bool {
    condition_true(job, "Complete") || condition_true(job, "Failed")
}

/// Deletes finished Jobs beyond the limits, the oldest first.
fn history(cron: &Value, jobs: &[Arc<Value>]) -> Vec<Action> {
    let mut actions = Vec::new();
    for (kind, field, default) in
        [("Complete", "successfulJobsHistoryLimit", 3), ("Failed", "failedJobsHistoryLimit", 1)]
    {
        let limit = usize::try_from(int(cron, &["spec", field], default)).unwrap_or(0);
        let mut done: Vec<_> =
            jobs.iter().filter(|j| condition_true(j, kind) && !j.is_terminating()).collect();
        done.sort_by_key(|j| (time_at(j, &["status", "startTime"]), j.name().to_owned()));
        let surplus = done.len().saturating_sub(limit);
        actions.extend(done.into_iter().take(surplus).map(|j| delete(cron, j)));
    }
    actions
}

fn delete(cron: &Value, job: &Value) -> Action {
    let options =
        DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::uid(job.uid()) };
    let note = Note {
        about: head(cron),
        done: ("SuccessfulDelete", "Deleted job {}".to_owned()),
        failed: ("FailedDelete", "Deleted job: ".to_owned()),
    };
    Action::Delete(JOBS, head(job), options, Some(note))
}

/// Keeps `status.active` to the Jobs that run, and notes the last success.
fn note_ends(cron: &Value, jobs: &[Arc<Value>], status: &mut Value, actions: &mut Vec<Action>) {
    let was_active =
        |job: &Value| cron.array_at(&["status", "active"]).iter().any(|r| r.str_at(&["uid"]) == job.uid());
    for job in jobs.iter().filter(|j| is_finished(j)) {
        if was_active(job) {
            let how = if condition_true(job, "Complete") { "Complete" } else { "Failed" };
            let text = format!("Saw completed job: {}, condition: {how}", job.name());
            actions.push(Action::Event(head(cron), Kind::Normal, "SawCompletedJob", text));
        }
        let end = job.str_at(&["status", "completionTime"]);
        let last = status.str_at(&["lastSuccessfulTime"]);
        if !end.is_empty() && time::parse(end) > time::parse(last) {
            let end = end.to_owned();
            status.set(&["lastSuccessfulTime"], end);
        }
    }
    let running = jobs.iter().filter(|j| !is_finished(j) && !j.is_terminating());
    let mut active: Vec<Value> = running.map(|j| reference(j)).collect();
    active.sort_by(|a, b| a.str_at(&["name"]).cmp(b.str_at(&["name"])));
    let known = |r: &Value| r.str_at(&["uid"]).to_owned();
    let mut before: Vec<String> = cron.array_at(&["status", "active"]).iter().map(known).collect();
    let mut after: Vec<String> = active.iter().map(known).collect();
    before.sort();
    after.sort();
    if before != after {
        status.set(&["active"], active);
    }
}

fn reference(job: &Value) -> Value {
    object!({
        "kind": "Job", "namespace": (job.namespace()), "name": (job.name()), "uid": (job.uid()),
        "apiVersion": "batch/v1", "resourceVersion": (job.resource_version()),
    })
}

/// Begins the Job that is due, if its time has come and it may run; and comes back for the next.
fn begin(
    cron: &Value,
    jobs: &[Arc<Value>],
    status: &mut Value,
    actions: &mut Vec<Action>,
    now: Timestamp,
) -> Vec<Action> {
    if cron.is_terminating() || cron.at(&["spec", "suspend"]).as_bool() == Some(true) {
        return Vec::new();
    }
    let warn = |reason, text: String| Action::Event(head(cron), Kind::Warning, reason, text);
    let text = cron.str_at(&["spec", "schedule"]);
    let schedule = match Schedule::parse(text) {
        Ok(schedule) => schedule,
        Err(e) => {
            actions.push(warn("UnparseableSchedule", format!("unparseable schedule {text:?} : {e}")));
            return Vec::new();
        }
    };
    let zone = match cron.str_at(&["spec", "timeZone"]) {
        "" => Ok(TimeZone::UTC),
        name => TimeZone::get(name),
    };
    let Ok(zone) = zone else {
        let name = cron.str_at(&["spec", "timeZone"]);
        actions.push(warn("UnknownTimeZone", format!("invalid timeZone: {name:?}")));
        return Vec::new();
    };
    let mut later = Vec::new();
    if let Some(next) = schedule.next(now, &zone) {
        let wait = next.duration_since(now);
        later.push(Action::Later(Duration::try_from(wait).unwrap_or_default() + Duration::from_millis(100)));
    }
    let due = match last_due(cron, &schedule, &zone, now) {
        Ok(Some(due)) => due,
        Ok(None) => return later,
        Err(why) => {
            actions.push(warn("InvalidSchedule", format!("invalid schedule: {text} : {why}")));
            return later;
        }
    };
    if due.many_missed {
        let text =
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        actions.push(warn("TooManyMissedTimes", text.to_owned()));
    }
    let due = due.time;
    let deadline = cron.at(&["spec", "startingDeadlineSeconds"]).as_i64();
    if deadline.is_some_and(|d| due.as_second() + d < now.as_second()) {
        let text =
            format!("Missed scheduled time to start a job: {}", due.strftime("%a, %d %b %Y %H:%M:%S +0000"));
        actions.push(warn("MissSchedule", text));
        return later;
    }
    let running: Vec<_> = jobs.iter().filter(|j| !is_finished(j) && !j.is_terminating()).collect();
    match cron.str_at(&["spec", "concurrencyPolicy"]) {
        "Forbid" if !running.is_empty() => {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            actions.push(Action::Event(head(cron), Kind::Normal, "JobAlreadyActive", text.to_owned()));
            return later;
        }
        "Replace" => actions.extend(running.into_iter().map(|j| delete(cron, j))),
        _ => {}
    }
    let note = Note {
        about: head(cron),
        done: ("SuccessfulCreate", "Created job {}".to_owned()),
        failed: ("FailedCreate", "Error creating job: ".to_owned()),
    };
    actions.push(Action::Create(JOBS, job(cron, due, &zone), Some(note)));
    status.set(&["lastScheduleTime"], time::format(due));
    later
}

/// So many seconds before a time.
fn before(time: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_second(time.as_second().saturating_sub(seconds)).unwrap_or(Timestamp::MIN)
}

/// A time that has come and has not had its Job.
#[derive(Clone, Copy)]
struct Due {
    time: Timestamp,
    /// So many others have come before it that something must be wrong.
    many_missed: bool,
}

/// The latest time that has come and has not had its Job.
///
/// # Errors
/// The schedule names a day that never comes, such as the 31st of February.
fn last_due(
    cron: &Value,
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
) -> Result<Option<Due>, &'static str> {
    let mut from = time_at(cron, &["status", "lastScheduleTime"]).unwrap_or_else(|| created(cron));
    if let Some(deadline) = cron.at(&["spec", "startingDeadlineSeconds"]).as_i64() {
        from = from.max(before(now, deadline));
    }
    let first = schedule.next(from, zone).ok_or(NEVER)?;
    let come = |after| schedule.next(after, zone).filter(|next| *next <= now);
    let mut latest = None;
    for _ in 0..MISSED_MAX {
        match come(from) {
            Some(next) => (latest, from) = (Some(next), next),
            None => return Ok(latest.map(|time| Due { time, many_missed: false })),
        }
    }
    let Some(next) = come(from) else { return Ok(latest.map(|time| Due { time, many_missed: false })) };
    // Not all are looked at: only those of a span before now that is long enough to have one.
    let mut time = next;
    let mut span = (next.as_second() - first.as_second()) / MISSED_MAX + 1;
    let mut from = before(now, span);
    while from > time && come(from).is_none() {
        span *= 2;
        from = before(now, span);
    }
    from = from.max(time);
    while let Some(next) = come(from) {
        (time, from) = (next, next);
    }
    Ok(Some(Due { time, many_missed: true }))
}

fn job(cron: &Value, due: Timestamp, zone: &TimeZone) -> Value {
    let template = cron.at(&["spec", "jobTemplate"]);
    let local = due.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    let stamp = if *zone == TimeZone::UTC { time::format(due) } else { local };
    let mut job = object!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": (format!("{}-{}", cron.name(), due.as_second() / 60)),
            "namespace": (cron.namespace()),
            "labels": (template.at(&["metadata", "labels"])),
            "annotations": (template.at(&["metadata", "annotations"])),
            "ownerReferences": [(owner_reference(cron))],
        },
        "spec": (template.get("spec")),
    });
    job.set(&["metadata", "annotations", SCHEDULED], stamp);
    debug_assert!(condition(&job, "Complete").is_null());
    job
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(policy: &str) -> Value {
        object!({
            "apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"namespace": "d", "name": "c", "uid": "u", "creationTimestamp": "2026-01-01T00:00:30Z"},
            "spec": {
                "schedule": "*/5 * * * *", "concurrencyPolicy": policy,
                "successfulJobsHistoryLimit": 1, "jobTemplate": {"spec": {}},
            },
            "status": {},
        })
    }

    fn a_job(name: &str, state: Option<&str>) -> Arc<Value> {
        let mut job = object!({"metadata": {"namespace": "d", "name": name, "uid": name}});
        if let Some(state) = state {
            job.set(&["status", "conditions"], object!([{"type": state, "status": "True"}]));
            job.set(&["status", "startTime"], format!("2026-01-01T00:0{}:00Z", name.len()));
        }
        Arc::new(job)
    }

    fn run(cron: &Value, jobs: &[Arc<Value>], now: &str) -> Vec<String> {
        let describe = |a: &Action| match a {
            Action::Create(_, j, _) => format!("+{}", j.name()),
            Action::Delete(_, j, ..) => format!("-{}", j.name()),
            Action::UpdateStatus(_, c) => format!("last {}", c.str_at(&["status", "lastScheduleTime"])),
            Action::Event(_, _, reason, _) => (*reason).to_owned(),
            Action::Later(d) => format!("{}s", d.as_secs()),
            other => format!("{other:?}"),
        };
        plan(cron, jobs, now.parse().unwrap()).iter().map(describe).collect()
    }

    #[test]
    fn a_job_begins_when_its_time_has_come() {
        assert_eq!(run(&cron("Allow"), &[], "2026-01-01T00:04:00Z"), ["60s"]);
        let want = ["+c-29453765", "last 2026-01-01T00:05:00Z", "299s"];
        assert_eq!(run(&cron("Allow"), &[], "2026-01-01T00:05:01Z"), want);
        let mut done = cron("Allow");
        done.set(&["status", "lastScheduleTime"], "2026-01-01T00:05:00Z");
        assert_eq!(run(&done, &[], "2026-01-01T00:05:01Z"), ["299s"]);
    }

    #[test]
    fn a_day_that_never_comes_is_told() {
        let mut never = cron("Allow");
        never.set(&["spec", "schedule"], "59 23 31 2 *");
        assert_eq!(run(&never, &[], "2026-01-01T00:04:00Z"), ["InvalidSchedule"]);
    }

    #[test]
    fn of_many_missed_times_the_latest_counts() {
        let check = |schedule: &str, now: &str, want: &str, told: bool| {
            let mut cron = cron("Allow");
            cron.set(&["spec", "schedule"], schedule);
            let did = run(&cron, &[], now);
            assert!(did.contains(&format!("last {want}")), "{schedule}: {did:?}");
            assert_eq!(did[0] == "TooManyMissedTimes", told, "{schedule}: {did:?}");
        };
        check("0 * * * *", "2026-01-05T04:30:00Z", "2026-01-05T04:00:00Z", false);
        check("0 * * * *", "2026-01-05T05:30:00Z", "2026-01-05T05:00:00Z", true);
        check("0 5 * * *", "2027-03-01T04:59:59Z", "2027-02-28T05:00:00Z", true);
        check("* * 1 2 *", "2026-07-01T00:00:00Z", "2026-02-01T23:59:00Z", true);
    }

    #[test]
    fn policies_decide_about_running_jobs() {
        let running = [a_job("x", None)];
        let at = "2026-01-01T00:05:01Z";
        assert_eq!(run(&cron("Forbid"), &running, at)[0], "JobAlreadyActive");
        assert_eq!(run(&cron("Replace"), &running, at)[..2], ["-x".to_owned(), "+c-29453765".to_owned()]);
    }

    #[test]
    fn only_so_many_finished_jobs_are_kept() {
        let jobs = [a_job("a", Some("Complete")), a_job("bb", Some("Complete"))];
        assert_eq!(run(&cron("Allow"), &jobs, "2026-01-01T00:04:00Z")[0], "-a");
    }
}
