//! The metrics of priority and fairness, by upstream's names.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::demand::Stats;

const DURATIONS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const LENGTHS: [f64; 8] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const SEATS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
/// What upstream promises to keep for a while.
const BETA: [&str; 7] = [
    "current_executing_requests",
    "current_executing_seats",
    "current_inqueue_requests",
    "dispatched_requests_total",
    "nominal_limit_seats",
    "rejected_requests_total",
    "request_wait_duration_seconds",
];
const LEVEL: &str = "priority_level";
const SCHEMA: &str = "flow_schema";

/// All families.
pub(super) struct Metrics {
    rejected: IntCounterVec,
    dispatched: IntCounterVec,
    waiting: IntGaugeVec,
    seats_waiting: IntGaugeVec,
    executing: IntGaugeVec,
    seats_executing: IntGaugeVec,
    queue_length: HistogramVec,
    wait: HistogramVec,
    execution: HistogramVec,
    estimated: HistogramVec,
    nominal: IntGaugeVec,
    lower: IntGaugeVec,
    upper: IntGaugeVec,
    current: IntGaugeVec,
    high_watermark: GaugeVec,
    average: GaugeVec,
    deviation: GaugeVec,
    smoothed: GaugeVec,
    target: GaugeVec,
    fair_fraction: Gauge,
}

/// Those of the requests of one schema.
pub(super) struct Counted {
    rejected: IntCounterVec,
    labels: [String; 2],
    pub(super) dispatched: IntCounter,
    pub(super) waiting: IntGauge,
    pub(super) seats_waiting: IntGauge,
    pub(super) executing: IntGauge,
    pub(super) seats_executing: IntGauge,
    pub(super) queue_length: Histogram,
    pub(super) waited: Histogram,
    pub(super) waited_in_vain: Histogram,
    pub(super) execution: Histogram,
    pub(super) watch_execution: Histogram,
    pub(super) estimated: Histogram,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| {
            let level = if BETA.contains(&name) { "BETA" } else { "ALPHA" };
            Opts::new(format!("apiserver_flowcontrol_{name}"), format!("[{level}] {help}"))
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntGaugeVec> {
            let made = IntGaugeVec::new(opts(name, help), labels)?;
            serve::metrics::register(registry, made.clone());
            Ok(made)
        };
        let floats = |name: &str, help: &str| -> prometheus::Result<GaugeVec> {
            let made = GaugeVec::new(opts(name, help), &[LEVEL])?;
            serve::metrics::register(registry, made.clone());
            Ok(made)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let made = IntCounterVec::new(opts(name, help), labels)?;
            serve::metrics::register(registry, made.clone());
            Ok(made)
        };
        let histograms =
            |name: &str, help: &str, labels: &[&str], buckets: &[f64]| -> prometheus::Result<HistogramVec> {
                let opts = prometheus::HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
                let made = HistogramVec::new(opts, labels)?;
                serve::metrics::register(registry, made.clone());
                Ok(made)
            };
        let flow = &[LEVEL, SCHEMA];
        let fair_fraction = Gauge::with_opts(opts(
            "seat_fair_frac",
            "Fair fraction of server's concurrency to allocate to each priority level that can use it",
        ))?;
        serve::metrics::register(registry, fair_fraction.clone());
        Ok(Self {
            rejected: counters(
                "rejected_requests_total",
                "Number of requests rejected by API Priority and Fairness subsystem",
                &[LEVEL, SCHEMA, "reason"],
            )?,
            dispatched: counters(
                "dispatched_requests_total",
                "Number of requests executed by API Priority and Fairness subsystem",
                flow,
            )?,
            waiting: gauges(
                "current_inqueue_requests",
                "Number of requests currently pending in queues of the API Priority and Fairness subsystem",
                flow,
            )?,
            seats_waiting: gauges(
                "current_inqueue_seats",
                "Number of seats currently pending in queues of the API Priority and Fairness subsystem",
                flow,
            )?,
            executing: gauges(
                "current_executing_requests",
                "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
                flow,
            )?,
            seats_executing: gauges(
                "current_executing_seats",
                "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
                flow,
            )?,
            queue_length: histograms(
                "request_queue_length_after_enqueue",
                "Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued",
                flow,
                &LENGTHS,
            )?,
            wait: histograms(
                "request_wait_duration_seconds",
                "Length of time a request spent waiting in its queue",
                &[LEVEL, SCHEMA, "execute"],
                &DURATIONS,
            )?,
            execution: histograms(
                "request_execution_seconds",
                "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem",
                &[LEVEL, SCHEMA, "type"],
                &DURATIONS,
            )?,
            estimated: histograms(
                "work_estimated_seats",
                "Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness",
                flow,
                &SEATS,
            )?,
            nominal: gauges(
                "nominal_limit_seats",
                "Nominal number of execution seats configured for each priority level",
                &[LEVEL],
            )?,
            lower: gauges(
                "lower_limit_seats",
                "Configured lower bound on number of execution seats available to each priority level",
                &[LEVEL],
            )?,
            upper: gauges(
                "upper_limit_seats",
                "Configured upper bound on number of execution seats available to each priority level",
                &[LEVEL],
            )?,
            current: gauges(
                "current_limit_seats",
                "current derived number of execution seats available to each priority level",
                &[LEVEL],
            )?,
            high_watermark: floats(
                "demand_seats_high_watermark",
                "High watermark, over last adjustment period, of demand_seats",
            )?,
            average: floats(
                "demand_seats_average",
                "Time-weighted average, over last adjustment period, of demand_seats",
            )?,
            deviation: floats(
                "demand_seats_stdev",
                "Time-weighted standard deviation, over last adjustment period, of demand_seats",
            )?,
            smoothed: floats("demand_seats_smoothed", "Smoothed seat demands")?,
            target: floats("target_seats", "Seat allocation targets")?,
            fair_fraction,
        })
    }

    pub(super) fn of(&self, level: &str, schema: &str) -> Counted {
        let flow = &[level, schema];
        Counted {
            rejected: self.rejected.clone(),
            labels: [level.to_owned(), schema.to_owned()],
            dispatched: self.dispatched.with_label_values(flow),
            waiting: self.waiting.with_label_values(flow),
            seats_waiting: self.seats_waiting.with_label_values(flow),
            executing: self.executing.with_label_values(flow),
            seats_executing: self.seats_executing.with_label_values(flow),
            queue_length: self.queue_length.with_label_values(flow),
            waited: self.wait.with_label_values(&[level, schema, "true"]),
            waited_in_vain: self.wait.with_label_values(&[level, schema, "false"]),
            execution: self.execution.with_label_values(&[level, schema, "regular"]),
            watch_execution: self.execution.with_label_values(&[level, schema, "watch"]),
            estimated: self.estimated.with_label_values(flow),
        }
    }

    pub(super) fn limits(&self, level: &str, nominal: u32, lower: u32, upper: u32) {
        for (gauge, value) in [(&self.nominal, nominal), (&self.lower, lower), (&self.upper, upper)] {
            gauge.with_label_values(&[level]).set(i64::from(value));
        }
    }

    pub(super) fn adjusted(&self, level: &str, stats: &Stats, target: f64, current: u32) {
        for (gauge, value) in [
            (&self.high_watermark, f64::from(stats.most)),
            (&self.average, stats.average),
            (&self.deviation, stats.deviation),
            (&self.smoothed, stats.smoothed),
            (&self.target, target),
        ] {
            gauge.with_label_values(&[level]).set(value);
        }
        self.current.with_label_values(&[level]).set(i64::from(current));
    }

    pub(super) fn fair_fraction(&self, fraction: f64) {
        self.fair_fraction.set(fraction);
    }
}

impl Counted {
    pub(super) fn rejected(&self, reason: &str) {
        let [level, schema] = &self.labels;
        self.rejected.with_label_values(&[level, schema, reason]).inc();
    }
}
