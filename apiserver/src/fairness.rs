//! Priority and fairness: which requests run when more come than the server can answer at a time.
//!
//! A request belongs to the first FlowSchema whose rules match it, and so to a priority level. Levels have seats;
//! [`queues`] says who gets them and who waits, [`estimate`] how many a request takes, [`demand`] how levels lend seats
//! to each other. [`config`] is what the objects say, [`objects`] keeps those that every cluster has.
//!
//! Invariants: what runs holds a [`Permit`], and gives its seats back when that is dropped, however it ends; nobody is
//! queued for longer than a quarter of the time that a request may take; without a queue in the way a request takes one
//! lock when it comes and one when it goes.
//!
//! Source: KEP-1040, <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>.

mod config;
pub mod control;
mod debug;
mod demand;
mod dropped;
mod estimate;
mod inflight;
mod level;
mod metrics;
pub mod objects;
mod queues;
mod rules;

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Value;
use arc_swap::ArcSwap;
use http::header::{HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use prometheus::Registry;
use serve::Body;
use tokio_util::task::TaskTracker;

use crate::authn::UserInfo;
use crate::request::{Query, RequestInfo};
use crate::storage::Storage;
use config::{Config, Schema};
use estimate::{Watchers, Watching};
use inflight::Limit;
use level::Shared;
use metrics::Metrics;
use queues::{Queuing, Slot};

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// The limits on requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests that change nothing (`--max-requests-inflight`).
    pub reading: u32,
    /// Requests that change something (`--max-mutating-requests-inflight`).
    pub writing: u32,
    /// Whether they are summed up and divided among priority levels (`--enable-priority-and-fairness`).
    pub fair: bool,
    /// How long a request may take altogether.
    pub time: Duration,
}

/// Decides which requests run.
pub struct Gate {
    reading: Limit,
    writing: Limit,
    fair: Option<Fairness>,
}

/// Priority levels, and what they are made of.
pub(crate) struct Fairness {
    config: ArcSwap<Config>,
    /// Configurations are made one after the other.
    making: Mutex<()>,
    watchers: Watchers,
    total: u32,
    wait: Duration,
    metrics: Metrics,
    tasks: TaskTracker,
}

/// Which schema and level a request belongs to, for those who sent it.
#[derive(Clone, Debug, Default)]
pub struct Flow(Option<(HeaderValue, HeaderValue)>);

impl Flow {
    /// Adds the headers that tell.
    pub fn write(&self, headers: &mut HeaderMap) {
        if let Some((schema, level)) = &self.0 {
            headers.insert(SCHEMA_UID, schema.clone());
            headers.insert(LEVEL_UID, level.clone());
        }
    }
}

/// The leave to run. It is given back when this is dropped.
#[must_use]
pub struct Permit {
    gate: Arc<Gate>,
    /// None for a request that is not counted.
    writes: Option<bool>,
    entry: Option<Entry>,
    watching: Option<Watching>,
}

/// A request in its level.
struct Entry {
    config: Arc<Config>,
    schema: usize,
    slot: Slot,
    watch: bool,
}

impl Gate {
    /// A gate with these limits, through which only what is mandatory leads until the objects are known.
    ///
    /// # Errors
    /// The metrics cannot be made.
    pub fn new(limits: Limits, registry: &Registry) -> anyhow::Result<Arc<Self>> {
        let gauge = prometheus::IntGaugeVec::new(
            prometheus::opts!(
                "apiserver_current_inflight_requests",
                "[STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind in last second."
            ),
            &["request_kind"],
        )?;
        serve::metrics::register(registry, gauge.clone());
        let most = |n: u32| if limits.fair { 0 } else { n };
        Ok(Arc::new(Self {
            reading: Limit::new(most(limits.reading), gauge.with_label_values(&["readOnly"])),
            writing: Limit::new(most(limits.writing), gauge.with_label_values(&["mutating"])),
            fair: limits.fair.then(|| Fairness::new(limits, registry)).transpose()?,
        }))
    }

    /// The priority levels, unless the limit is a plain one.
    pub(crate) fn fair(&self) -> Option<&Fairness> {
        self.fair.as_ref()
    }

    /// The answer, if the path is one of the tables of what the queues hold.
    pub fn respond(&self, path: &str) -> Option<Response<Body>> {
        debug::respond(&self.fair.as_ref()?.config.load(), path)
    }

    /// Lets a request run when it is its turn; streams other than watches run as they come.
    ///
    /// # Errors
    /// The answer of a request that is refused.
    pub async fn enter(
        self: &Arc<Self>,
        storage: &Storage,
        (info, query, user): (&RequestInfo, &Query, &UserInfo),
        flow: &mut Flow,
    ) -> Result<Permit, Response<Body>> {
        let mut permit = Permit { gate: self.clone(), writes: None, entry: None, watching: None };
        let watch = info.verb == "watch";
        if info.is_long_running() && !(watch && self.fair.is_some()) {
            return Ok(permit);
        }
        let writes = !matches!(info.verb, "get" | "list" | "watch");
        if let Some(fair) = &self.fair {
            match fair.enter(storage, (info, query, user), flow).await {
                Ok(entry) => permit.entry = Some(entry),
                Err(seconds) => return Err(refusal(seconds)),
            }
            if watch {
                permit.watching = Some(fair.watchers.begin(info, query));
            }
        }
        if !self.limit(writes).enter(user) {
            return Err(refusal(1));
        }
        permit.writes = Some(writes);
        Ok(permit)
    }

    fn limit(&self, writes: bool) -> &Limit {
        if writes { &self.writing } else { &self.reading }
    }
}

fn refusal(seconds: u64) -> Response<Body> {
    let why = "Too many requests, please try again later.\n";
    let mut response = serve::text(StatusCode::TOO_MANY_REQUESTS, why);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

impl Fairness {
    fn new(limits: Limits, registry: &Registry) -> anyhow::Result<Self> {
        let fairness = Self {
            config: ArcSwap::default(),
            making: Mutex::new(()),
            watchers: Watchers::default(),
            total: limits.reading.saturating_add(limits.writing),
            wait: limits.time / 4,
            metrics: Metrics::new(registry)?,
            tasks: TaskTracker::new(),
        };
        fairness.digest(&[], &[]);
        Ok(fairness)
    }

    /// Puts objects in force.
    fn digest(&self, levels: &[Value], schemas: &[Value]) {
        let _making = self.making.lock();
        let mandatory = objects::mandatory();
        let fallback = (&mandatory.0[..], &mandatory.1[..]);
        let with = (self.total, &self.metrics, &self.tasks);
        let config = Config::digest(&self.config.load(), levels, schemas, fallback, with);
        self.config.store(Arc::new(config));
    }

    /// Lets levels lend to each other.
    fn adjust(&self) {
        self.config.load().adjust(&self.metrics, true);
    }

    /// Lets a request into its level.
    ///
    /// # Errors
    /// The seconds after which a request that is refused may be sent again.
    async fn enter(
        &self,
        storage: &Storage,
        (info, query, user): (&RequestInfo, &Query, &UserInfo),
        flow: &mut Flow,
    ) -> Result<Entry, u64> {
        let config = self.config.load_full();
        let matching = config.schemas.iter().position(|s| s.rules.match_request(info, user));
        // The last schema is the one for all that no other matches.
        let at = matching.unwrap_or(config.schemas.len() - 1);
        let schema: &Schema = &config.schemas[at];
        let (counted, level) = (&schema.counted, &schema.level);
        *flow = Flow(Some((schema.uid.clone(), level.uid.clone())));
        let shared: &Arc<Shared> = &level.shared;
        let work = estimate::estimate(storage, &self.watchers, info, query, shared.most());
        counted.estimated.observe(f64::from(work.seats()));
        let came = Instant::now();
        let (name, hash) = match level.settings.queuing {
            Queuing::Queue { queues: 2.., .. } => {
                let name = schema.rules.flow(info, user);
                (name, rules::hash(&schema.name, name))
            }
            _ => ("", 0),
        };
        let entered = shared.enter(counted, (&schema.name, name), (hash, work), self.wait).await;
        let waited = match &entered {
            Ok(_) => &counted.waited,
            Err(_) => &counted.waited_in_vain,
        };
        if level.settings.queuing != Queuing::Exempt {
            waited.observe(came.elapsed().as_secs_f64());
        }
        match entered {
            Ok(slot) => {
                counted.dispatched.inc();
                counted.executing.inc();
                counted.seats_executing.add(i64::from(slot.work.seats()));
                Ok(Entry { config, schema: at, slot, watch: info.verb == "watch" })
            }
            Err(reason) => {
                counted.rejected(reason);
                Err(shared.dropped.note(Instant::now()))
            }
        }
    }
}

impl Permit {
    /// Gives the seats back as the answer of a watch goes out; who watches is counted until the answer ends.
    pub fn started(mut self, response: Response<Body>) -> Response<Body> {
        let Some(watching) = self.watching.take() else { return response };
        response.map(|body| {
            body.map_frame(move |frame| {
                let _for_as_long = &watching;
                frame
            })
            .boxed_unsync()
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(writes) = self.writes {
            self.gate.limit(writes).leave();
        }
        let Some(Entry { config, schema, slot, watch }) = self.entry.take() else { return };
        let schema = &config.schemas[schema];
        let counted = &schema.counted;
        counted.executing.dec();
        counted.seats_executing.sub(i64::from(slot.work.seats()));
        let execution = if watch { &counted.watch_execution } else { &counted.execution };
        execution.observe(slot.started.elapsed().as_secs_f64());
        schema.level.shared.finish(slot);
    }
}
