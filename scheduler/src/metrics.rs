//! `scheduler_pending_pods`, counted at every scrape.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

use crate::schedule::Scheduler;

/// The gauge of waiting pods by queue.
pub(crate) struct Pending {
    scheduler: Arc<Scheduler>,
    gauge: IntGaugeVec,
}

impl Pending {
    pub(crate) fn new(scheduler: Arc<Scheduler>) -> Self {
        let help = "Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of pods in backoffQ; 'unschedulable' means number of pods in unschedulableQ";
        let gauge = IntGaugeVec::new(Opts::new("scheduler_pending_pods", help), &["queue"]);
        Self { scheduler, gauge: gauge.expect("the name and label are valid") }
    }
}

impl Collector for Pending {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (queue, count) in self.scheduler.state.lock().queue.counts() {
            self.gauge.with_label_values(&[queue]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.gauge.collect()
    }
}
