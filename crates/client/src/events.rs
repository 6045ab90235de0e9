//! Events for people: recorded without waiting, counted when they repeat, and held back when one object makes too many.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use api::{Value, object, time};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::error::Result;
use crate::rate::Bucket;
use crate::resource::EVENTS;
use crate::rest::{Client, Patch};

/// Events waiting to be sent; when full, further ones are dropped: they are a courtesy.
const WAITING: usize = 1000;
/// Events remembered for counting.
const REMEMBERED: usize = 1000;
/// Events of one object at once, and the time after which it may make one more.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

/// Whether an event is cause for concern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Things take their course.
    Normal,
    /// Something does not.
    Warning,
}

/// An event to record.
#[derive(Clone, Debug)]
pub struct Event {
    /// The object it is about: `ObjectReference`.
    pub regarding: Value,
    /// Normal or warning.
    pub kind: Kind,
    /// Machine-readable word.
    pub reason: String,
    /// Sentence for people.
    pub message: String,
    /// What was being done, for events of the newer style (`Binding`); empty for the older one.
    pub action: &'static str,
}

/// Records events of one component; clones share the way out.
#[derive(Clone)]
pub struct Recorder(mpsc::Sender<Event>);

/// Sends what recorders record.
pub struct Pump {
    client: Client,
    component: String,
    host: String,
    events: mpsc::Receiver<Event>,
    known: HashMap<Identity, Known>,
    order: VecDeque<Identity>,
    budgets: HashMap<String, (f64, Instant)>,
    /// What all requests together may be.
    rate: Option<Bucket>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Identity {
    about: String,
    kind: Kind,
    reason: String,
    message: String,
}

struct Known {
    namespace: String,
    name: String,
    count: u32,
}

/// A reference to an object value.
pub fn reference(object: &Value) -> Value {
    object!({
        "kind": (object.kind()),
        "namespace": (object.namespace()),
        "name": (object.name()),
        "uid": (object.uid()),
        "apiVersion": (object.api_version()),
        "resourceVersion": (object.resource_version()),
    })
}

impl Recorder {
    /// A recorder for `component` on `host` (empty for none), and the pump to run.
    pub fn new(client: Client, component: &str, host: &str) -> (Self, Pump) {
        let (sender, events) = mpsc::channel(WAITING);
        let pump = Pump {
            client,
            component: component.to_owned(),
            host: host.to_owned(),
            events,
            known: HashMap::new(),
            order: VecDeque::new(),
            budgets: HashMap::new(),
            rate: None,
        };
        (Self(sender), pump)
    }

    /// Records an event of the older style.
    pub fn event(&self, object: &Value, kind: Kind, reason: &str, message: impl Into<String>) {
        self.record(Event {
            regarding: reference(object),
            kind,
            reason: reason.to_owned(),
            message: message.into(),
            action: "",
        });
    }

    /// Records a normal event.
    pub fn normal(&self, object: &Value, reason: &str, message: impl Into<String>) {
        self.event(object, Kind::Normal, reason, message);
    }

    /// Records a warning.
    pub fn warning(&self, object: &Value, reason: &str, message: impl Into<String>) {
        self.event(object, Kind::Warning, reason, message);
    }

    /// Records any event.
    pub fn record(&self, event: Event) {
        if self.0.try_send(event).is_err() {
            debug!("Dropped an event: too many are waiting");
        }
    }
}

impl Pump {
    /// Sends no more than this; others wait.
    pub fn limited(self, rate: Option<Bucket>) -> Self {
        Self { rate, ..self }
    }

    /// Waits for the rate to allow another request; no longer than until `stop`.
    async fn wait(&mut self, stop: &CancellationToken) {
        if let Some(rate) = &mut self.rate {
            tokio::select! {
                () = tokio::time::sleep(rate.promise()) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Sends events until `stop`, and then what still waits.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let event = tokio::select! {
                biased;
                event = self.events.recv() => event,
                () = stop.cancelled() => return,
            };
            let Some(event) = event else { return };
            if let Err(e) = self.send(event, &stop).await {
                debug!(err = %e, "Cannot record an event");
            }
        }
    }

    async fn send(&mut self, event: Event, stop: &CancellationToken) -> Result<()> {
        let about =
            format!("{}/{}", event.regarding.str_at(&["uid"]), event.regarding.str_at(&["fieldPath"]));
        if !self.spend(&about) {
            return Ok(());
        }
        let identity = Identity {
            about,
            kind: event.kind,
            reason: event.reason.clone(),
            message: event.message.clone(),
        };
        if let Some(known) = self.known.get_mut(&identity) {
            known.count += 1;
            let patch = object!({
                "count": (known.count),
                "lastTimestamp": (time::format(Timestamp::now())),
            });
            let (namespace, name) = (known.namespace.clone(), known.name.clone());
            self.wait(stop).await;
            match self.client.patch(&EVENTS, (&namespace, &name, ""), Patch::Merge, &patch).await {
                // Events expire: then it is a new one.
                Err(e) if e.is_not_found() => {}
                other => return other.map(drop),
            }
        }
        let body = self.body(&event);
        let (namespace, name) = (body.namespace().to_owned(), body.name().to_owned());
        self.wait(stop).await;
        self.client.create(&EVENTS, &namespace, &body).await?;
        self.remember(identity, Known { namespace, name, count: 1 });
        Ok(())
    }

    fn remember(&mut self, identity: Identity, known: Known) {
        if self.known.insert(identity.clone(), known).is_none() {
            self.order.push_back(identity);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Takes one from the budget of an object; false when it is spent.
    fn spend(&mut self, about: &str) -> bool {
        let now = Instant::now();
        if self.budgets.len() > REMEMBERED {
            self.budgets.retain(|_, (_, at)| now - *at < REFILL);
        }
        let (left, at) = self.budgets.entry(about.to_owned()).or_insert((BURST, now));
        *left = (*left + (now - *at).as_secs_f64() / REFILL.as_secs_f64()).min(BURST);
        *at = now;
        let enough = *left >= 1.0;
        if enough {
            *left -= 1.0;
        }
        enough
    }

    fn body(&self, event: &Event) -> Value {
        let now = Timestamp::now();
        let about = &event.regarding;
        // Events about objects of the cluster live in the default namespace.
        let namespace = match about.str_at(&["namespace"]) {
            "" => "default",
            namespace => namespace,
        };
        let name = format!("{}.{:x}", about.str_at(&["name"]), now.as_nanosecond());
        let mut body = object!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": about,
            "reason": (&event.reason),
            "message": (&event.message),
            "type": (format!("{:?}", event.kind)),
            "reportingComponent": (&self.component),
        });
        if event.action.is_empty() {
            let time = time::format(now);
            body.set(&["source", "component"], self.component.as_str());
            if !self.host.is_empty() {
                body.set(&["source", "host"], self.host.as_str());
            }
            body.set(&["firstTimestamp"], time.as_str());
            body.set(&["lastTimestamp"], time.as_str());
            body.set(&["count"], 1);
            body.set(&["reportingInstance"], self.host.as_str());
        } else {
            body.set(&["eventTime"], time::format_micro(now));
            body.set(&["action"], event.action);
            body.set(&["reportingInstance"], format!("{}-{}", self.component, self.host));
        }
        body
    }
}
