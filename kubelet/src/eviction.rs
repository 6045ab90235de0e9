//! Eviction: when the node runs short of memory, disk or process numbers, unused things and then pods go; and pods that take
//! more local storage than their own limits allow go at once.
//!
//! `thresholds` reads what must be left, `tracker` remembers what was missed for how long, `rank` says who goes first, all of
//! them without looking at anything; `observe` looks. Mirrors upstream's eviction manager: signals, order, messages.

mod limits;
mod observe;
mod rank;
mod thresholds;
mod tracker;
mod usage;
mod words;

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{Value, object};
use client::events::Kind;
use futures::future::join_all;
use jiff::Timestamp;

use crate::Kubelet;
use crate::events;
use crate::pods::{resources, spec};

pub(crate) use observe::{local_volumes, measure, most_processes, processes};
pub(crate) use thresholds::Pressure;
use thresholds::{Signal, Threshold};
use tracker::{Observations, Tracker};
pub(crate) use usage::{ContainerUsage, Parts, PodUsage};

/// The node is looked at this often.
const PERIOD: Duration = Duration::from_secs(10);
/// How long the next look waits for a pod that was evicted to be gone.
const CLEANUP: u32 = 30;
/// The reason of whoever is evicted or not let in.
pub(crate) const REASON: &str = "Evicted";
/// The seconds that whoever needs the room waits at least for a pod to be gone.
const LEAST_WAIT: i64 = 10;
/// The seconds that a pod has which must go at once.
const AT_ONCE: i64 = 1;

/// An order of the node to a pod to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Eviction {
    /// The reason that its status shows.
    pub reason: &'static str,
    /// Why.
    pub message: String,
    /// The seconds that it has.
    pub grace: i64,
    /// What a condition tells of it, when it is none of the pod's own fault.
    pub disruption: Option<String>,
}

/// Whether the node, pressed as it is, can take the pod; the error is what it is told.
pub(crate) fn admit(kubelet: &Kubelet, pod: &Value) -> Result<(), String> {
    let pressures = kubelet.pressures.read();
    if pressures.is_empty() || resources::is_critical(pod) {
        return Ok(());
    }
    let spared = || {
        let tolerations = pod.array_at(&["spec", "tolerations"]);
        let mut tolerations = tolerations.iter().map(placement::Toleration::of);
        let taint = object!({"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"});
        let taint = placement::Taint::of(&taint);
        spec::qos(pod) != "BestEffort"
            || taint.is_some_and(|taint| tolerations.any(|toleration| toleration.tolerates(&taint)))
    };
    // A shortage of memory alone is no reason against those who say what they need.
    if *pressures == [Pressure::Memory] && spared() {
        return Ok(());
    }
    let names: Vec<_> = pressures.iter().map(|pressure| pressure.name()).collect();
    Err(format!("The node had condition: [{}]. ", names.join(" ")))
}

/// Has a pod go in favour of one that the node cannot do without; false when it goes already.
pub(crate) fn preempt(kubelet: &Kubelet, pod: &Value) -> bool {
    const REASON: &str = "Preempting";
    let message = "Preempted in order to admit critical pod".to_owned();
    let disruption = Some("Pod was preempted by Kubelet to accommodate a critical pod.".to_owned());
    let grace = pod.at(&["spec", "terminationGracePeriodSeconds"]).as_i64().unwrap_or_default();
    tell(kubelet, pod, Eviction { reason: REASON, message, grace, disruption })
}

/// Waits until pods that were told to go are gone, each for half again as long as it has to end by itself.
pub(crate) async fn leave(kubelet: &Kubelet, uids: &[String]) {
    join_all(uids.iter().map(|uid| leaves(kubelet, uid))).await;
}

async fn leaves(kubelet: &Kubelet, uid: &String) {
    let Some((pod, grace)) = kubelet.pods.lock().get(uid).and_then(|known| {
        let grace = known.eviction.borrow().as_ref()?.grace;
        Some((Arc::clone(&known.pod), grace))
    }) else {
        return;
    };
    let limit = Duration::from_secs(grace.saturating_add(grace / 2).max(LEAST_WAIT).unsigned_abs());
    if tokio::time::timeout(limit, kubelet.gone(std::slice::from_ref(uid))).await.is_err() {
        tracing::warn!(pod = %spec::describe(&pod), "A pod that was told to go is still here");
        let message = "Container runtime did not kill the pod within specified grace period.";
        events::of_pod(&kubelet.recorder, &pod, Kind::Warning, "ExceededGracePeriod", message);
    }
}

/// Tells a pod to go; false when it has been told already.
fn tell(kubelet: &Kubelet, pod: &Value, eviction: Eviction) -> bool {
    let pods = kubelet.pods.lock();
    let Some(known) = pods.get(pod.uid()).filter(|known| known.eviction.borrow().is_none()) else {
        return false;
    };
    tracing::info!(pod = %spec::describe(pod), message = eviction.message, "Evicting a pod");
    events::of_pod(&kubelet.recorder, pod, Kind::Warning, eviction.reason, &eviction.message);
    known.eviction.send_replace(Some(eviction));
    true
}

/// Reads the thresholds, so that a wrong configuration is told at the start.
pub(crate) fn check(file: &crate::config::KubeletConfiguration) -> anyhow::Result<()> {
    thresholds::parse(file).map(drop)
}

/// Looks after the node until the process ends.
pub(crate) async fn run(kubelet: Arc<Kubelet>) {
    let file = &kubelet.config.file;
    let transition = file.eviction_pressure_transition_period.0.as_nanos() as i64;
    // It was read at the start already.
    let thresholds = thresholds::parse(file).unwrap_or_default();
    let mut manager = Manager { kubelet: kubelet.clone(), tracker: Tracker::new(thresholds, transition) };
    loop {
        let evicted = manager.look().await;
        match evicted.is_empty() {
            true => tokio::time::sleep(PERIOD).await,
            false => manager.wait_for(&evicted).await,
        }
    }
}

struct Manager {
    kubelet: Arc<Kubelet>,
    tracker: Tracker,
}

impl Manager {
    /// One look; returns who was told to go.
    async fn look(&mut self) -> Vec<String> {
        let isolation = self.kubelet.config.file.local_storage_capacity_isolation;
        if self.tracker.is_idle() && !isolation {
            return Vec::new();
        }
        let began = Instant::now();
        let (observations, dedicated) = observe::node(&self.kubelet).await;
        let now = Timestamp::now().as_nanosecond() as i64;
        let step = self.tracker.step(&observations, now);
        self.tell_node(step.pressures);
        if isolation {
            let evicted = self.limit(dedicated).await;
            if !evicted.is_empty() {
                return evicted;
            }
        }
        match step.met.first() {
            Some(first) => self.reclaim(*first, &step.met, (&observations, began), dedicated).await,
            None => Vec::new(),
        }
    }

    fn tell_node(&self, pressures: Vec<Pressure>) {
        let before = std::mem::replace(&mut *self.kubelet.pressures.write(), pressures.clone());
        if before == pressures {
            return;
        }
        self.kubelet.node_changed.notify_one();
        for (pressure, bad, good) in [
            (Pressure::Memory, "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
            (Pressure::Disk, "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
            (Pressure::Pid, "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ] {
            let reason = if pressures.contains(&pressure) { bad } else { good };
            if before.contains(&pressure) != pressures.contains(&pressure) {
                let message = format!("Node {} status is now: {reason}", self.kubelet.config.node_name);
                self.kubelet.recorder.normal(&self.kubelet.node_reference(), reason, message);
            }
        }
    }

    /// Pods that exceed limits of their own.
    async fn limit(&self, dedicated: bool) -> Vec<String> {
        let mut pods = self.kubelet.admitted("");
        pods.retain(|pod| limits::any(pod));
        if pods.is_empty() {
            return Vec::new();
        }
        let usage = observe::pods(&self.kubelet, &pods, true).await;
        let mut evicted = Vec::new();
        for pod in &pods {
            let exceeded = usage.get(pod.uid()).and_then(|usage| limits::exceeded(pod, usage, dedicated));
            let Some((signal, message)) = exceeded else { continue };
            let eviction = Eviction { reason: REASON, message, grace: AT_ONCE, disruption: None };
            if self.evict(pod, signal, eviction) {
                evicted.push(pod.uid().to_owned());
            }
        }
        evicted
    }

    /// Makes room: first by what nobody uses, then by the pod that has to go first.
    async fn reclaim(
        &self,
        first: Threshold,
        met: &[Threshold],
        (observations, observed): (&Observations, Instant),
        dedicated: bool,
    ) -> Vec<String> {
        let resource = first.signal.resource();
        tracing::info!(resource, "Attempting to reclaim");
        let message = format!("Attempting to reclaim {resource}");
        self.kubelet.recorder.warning(&self.kubelet.node_reference(), "EvictionThresholdMet", message);
        let images = matches!(first.signal, Signal::ImageDisk | Signal::ImageInodes);
        let on_disk = matches!(resource, "ephemeral-storage" | "inodes");
        if on_disk && (images || !dedicated) {
            self.kubelet.delete_unused().await;
            let (after, _) = observe::node(&self.kubelet).await;
            if self.tracker.is_resolved(&after) {
                return Vec::new();
            }
        }
        let mut pods = self.kubelet.admitted("");
        let usage = observe::pods(&self.kubelet, &pods, on_disk).await;
        rank::sort(&mut pods, &usage, first.signal, dedicated);
        for threshold in met.iter().filter(|_| !pods.is_empty()) {
            self.kubelet.metrics.chosen(threshold.signal.name(), observed.elapsed());
        }
        for pod in &pods {
            let grace = match first.grace.is_zero() {
                true => AT_ONCE,
                false => {
                    let most = self.kubelet.config.file.eviction_max_pod_grace_period;
                    let own = pod.at(&["spec", "terminationGracePeriodSeconds"]).as_i64();
                    own.map_or(most, |own| own.min(most))
                }
            };
            let message = words::message(first.signal, pod, usage.get(pod.uid()), met, observations);
            let disruption = Some(message.clone());
            let eviction = Eviction { reason: REASON, message, grace, disruption };
            if self.evict(pod, first.signal.name(), eviction) {
                return vec![pod.uid().to_owned()];
            }
        }
        tracing::info!("There is no pod that could be evicted");
        Vec::new()
    }

    fn evict(&self, pod: &Value, signal: &str, eviction: Eviction) -> bool {
        let told = !resources::is_critical(pod) && tell(&self.kubelet, pod, eviction);
        if told {
            self.kubelet.metrics.evicted(signal);
        }
        told
    }

    /// Waits until those who were told to go are gone, for a while.
    async fn wait_for(&self, evicted: &[String]) {
        for _ in 0..CLEANUP {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let pods = self.kubelet.pods.lock();
            let gone =
                |uid: &String| pods.get(uid).is_none_or(|known| known.status.str_at(&["phase"]) == "Failed");
            if evicted.iter().all(gone) {
                return;
            }
        }
    }
}
