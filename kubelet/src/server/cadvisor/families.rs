//! The metrics, with the names and words of upstream's.

use jiff::Timestamp;
use linux::cgroup::{Pressure, Waited};

use super::Group;
use super::processes::Open;

/// A metric of every group.
pub(super) struct Family {
    pub name: &'static str,
    pub kind: &'static str,
    pub help: &'static str,
    /// Further labels.
    pub more: &'static str,
    pub value: fn(&Group) -> Option<f64>,
}

const fn family(
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&Group) -> Option<f64>,
) -> Family {
    Family { name, kind, help, more: "", value }
}

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";

fn seconds(nanoseconds: u64) -> Option<f64> {
    Some(nanoseconds as f64 / 1e9)
}

fn count(n: u64) -> Option<f64> {
    Some(n as f64)
}

/// A limit of processor time is there only where there is one.
fn limited(group: &Group, n: u64) -> Option<f64> {
    group.limits.cpu_quota_us.filter(|quota| *quota > 0).map(|_| n as f64)
}

/// What of one resource some processes of a group have waited for, or all of them at once.
fn waited(group: &Group, resource: usize, which: fn(&Pressure) -> Waited) -> Option<f64> {
    group.pressures[resource].as_ref().map(|pressure| which(pressure).total as f64 / 1e6)
}

fn open(group: &Group, value: fn(&Open) -> u64) -> Option<f64> {
    group.open.as_ref().map(|open| value(open) as f64)
}

/// The metrics, those of one name one after the other.
pub(super) const FAMILIES: [Family; 40] = [
    Family {
        more: ",cpu=\"total\"",
        ..family(
            "container_cpu_usage_seconds_total",
            COUNTER,
            "Cumulative cpu time consumed in seconds.",
            |g| seconds(g.usage.cpu_nanoseconds),
        )
    },
    family(
        "container_cpu_user_seconds_total",
        COUNTER,
        "Cumulative user cpu time consumed in seconds.",
        |g| seconds(g.usage.user_nanoseconds),
    ),
    family(
        "container_cpu_system_seconds_total",
        COUNTER,
        "Cumulative system cpu time consumed in seconds.",
        |g| seconds(g.usage.system_nanoseconds),
    ),
    family(
        "container_cpu_cfs_periods_total",
        COUNTER,
        "Number of elapsed enforcement period intervals.",
        |g| limited(g, g.usage.periods),
    ),
    family(
        "container_cpu_cfs_throttled_periods_total",
        COUNTER,
        "Number of throttled period intervals.",
        |g| limited(g, g.usage.throttled_periods),
    ),
    family(
        "container_cpu_cfs_throttled_seconds_total",
        COUNTER,
        "Total time duration the container has been throttled.",
        |g| limited(g, g.usage.throttled_nanoseconds).map(|n| n / 1e9),
    ),
    family(
        "container_memory_usage_bytes",
        GAUGE,
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |g| count(g.usage.memory),
    ),
    family("container_memory_max_usage_bytes", GAUGE, "Maximum memory usage recorded in bytes", |g| {
        count(g.usage.most_memory)
    }),
    family("container_memory_working_set_bytes", GAUGE, "Current working set in bytes.", |g| {
        count(g.usage.working_set)
    }),
    family("container_memory_rss", GAUGE, "Size of RSS in bytes.", |g| count(g.usage.rss)),
    family("container_memory_cache", GAUGE, "Number of bytes of page cache memory.", |g| {
        count(g.usage.cache)
    }),
    family("container_memory_kernel_usage", GAUGE, "Size of kernel memory allocated in bytes.", |g| {
        g.usage.kernel.map(|n| n as f64)
    }),
    family("container_memory_total_active_file_bytes", GAUGE, "Current total active file in bytes.", |g| {
        count(g.usage.active_file)
    }),
    family(
        "container_memory_total_inactive_file_bytes",
        GAUGE,
        "Current total inactive file in bytes.",
        |g| count(g.usage.inactive_file),
    ),
    family("container_memory_mapped_file", GAUGE, "Size of memory mapped files in bytes.", |g| {
        count(g.usage.mapped_files)
    }),
    family("container_memory_swap", GAUGE, "Container swap usage in bytes.", |g| count(g.usage.swap)),
    family("container_memory_failcnt", COUNTER, "Number of memory usage hits limits", |g| {
        count(g.usage.memory_failures)
    }),
    Family {
        more: ",failure_type=\"pgfault\",scope=\"hierarchy\"",
        ..family(
            "container_memory_failures_total",
            COUNTER,
            "Cumulative count of memory allocation failures.",
            |g| count(g.usage.page_faults),
        )
    },
    Family {
        more: ",failure_type=\"pgmajfault\",scope=\"hierarchy\"",
        ..family("container_memory_failures_total", COUNTER, "", |g| count(g.usage.major_page_faults))
    },
    family("container_processes", GAUGE, "Number of processes running inside the container.", |g| {
        Some(g.processes as f64)
    }),
    family("container_file_descriptors", GAUGE, "Number of open file descriptors for the container.", |g| {
        open(g, |open| open.files)
    }),
    family("container_sockets", GAUGE, "Number of open sockets for the container.", |g| {
        open(g, |open| open.sockets)
    }),
    Family {
        more: ",ulimit=\"max_open_files\"",
        ..family(
            "container_ulimits_soft",
            GAUGE,
            "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice",
            |g| g.open.and_then(|open| open.limit),
        )
    },
    family(
        "container_threads_max",
        GAUGE,
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        |g| g.limits.pids.map(|most| most.max(0) as f64),
    ),
    family(
        "container_oom_events_total",
        COUNTER,
        "Count of out of memory events observed for the container",
        |g| g.usage.oom_kills.map(|n| n as f64),
    ),
    family(
        "container_pressure_cpu_stalled_seconds_total",
        COUNTER,
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
        |g| waited(g, 0, |pressure| pressure.full),
    ),
    family(
        "container_pressure_cpu_waiting_seconds_total",
        COUNTER,
        "Total time duration tasks in the container have waited due to CPU congestion.",
        |g| waited(g, 0, |pressure| pressure.some),
    ),
    family(
        "container_pressure_memory_stalled_seconds_total",
        COUNTER,
        "Total time duration no tasks in the container could make progress due to memory congestion.",
        |g| waited(g, 1, |pressure| pressure.full),
    ),
    family(
        "container_pressure_memory_waiting_seconds_total",
        COUNTER,
        "Total time duration tasks in the container have waited due to memory congestion.",
        |g| waited(g, 1, |pressure| pressure.some),
    ),
    family(
        "container_pressure_io_stalled_seconds_total",
        COUNTER,
        "Total time duration no tasks in the container could make progress due to IO congestion.",
        |g| waited(g, 2, |pressure| pressure.full),
    ),
    family(
        "container_pressure_io_waiting_seconds_total",
        COUNTER,
        "Total time duration tasks in the container have waited due to IO congestion.",
        |g| waited(g, 2, |pressure| pressure.some),
    ),
    family("container_threads", GAUGE, "Number of threads running inside the container", |g| {
        count(g.usage.pids)
    }),
    family(
        "container_start_time_seconds",
        GAUGE,
        "Start time of the container since unix epoch in seconds.",
        |g| Some(g.started).filter(|started| *started > 0).map(|started| (started / 1_000_000_000) as f64),
    ),
    family("container_spec_cpu_period", GAUGE, "CPU period of the container.", |g| {
        g.limits.cpu_period_us.map(|n| n as f64)
    }),
    family("container_spec_cpu_quota", GAUGE, "CPU quota of the container.", |g| {
        g.limits.cpu_quota_us.filter(|quota| *quota > 0).map(|n| n as f64)
    }),
    family("container_spec_cpu_shares", GAUGE, "CPU share of the container.", |g| {
        g.limits.cpu_shares.map(|n| n as f64)
    }),
    family("container_spec_memory_limit_bytes", GAUGE, "Memory limit for the container.", |g| {
        // No limit is zero.
        g.limits.memory.map(|n| n.max(0) as f64)
    }),
    family(
        "container_spec_memory_reservation_limit_bytes",
        GAUGE,
        "Memory reservation limit for the container.",
        |g| g.reservation.map(|n| n as f64),
    ),
    family("container_spec_memory_swap_limit_bytes", GAUGE, "Memory swap limit for the container.", |g| {
        count(g.swap_limit)
    }),
    family("container_last_seen", GAUGE, "Last time a container was seen by the exporter", |_| {
        Some(Timestamp::now().as_second() as f64)
    }),
];

/// A metric of every interface: which of the four counters, and whether of what was received.
pub(super) const NETWORK: [(&str, &str, usize, bool); 8] = [
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", 0, true),
    ("container_network_receive_packets_total", "Cumulative count of packets received", 1, true),
    (
        "container_network_receive_errors_total",
        "Cumulative count of errors encountered while receiving",
        2,
        true,
    ),
    (
        "container_network_receive_packets_dropped_total",
        "Cumulative count of packets dropped while receiving",
        3,
        true,
    ),
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", 0, false),
    ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", 1, false),
    (
        "container_network_transmit_errors_total",
        "Cumulative count of errors encountered while transmitting",
        2,
        false,
    ),
    (
        "container_network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting",
        3,
        false,
    ),
];
