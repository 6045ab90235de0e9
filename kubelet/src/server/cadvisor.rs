//! `/metrics/cadvisor`: what control groups use, with the names and labels of upstream's metrics.

mod disks;
mod families;
mod processes;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use api::Value;
use http::{Response, StatusCode};
use jiff::Timestamp;
use linux::cgroup::{Limits, Pressure, Usage};
use serve::Body;

use disks::Disk;
use families::{FAMILIES, Family, NETWORK};
use processes::Open;

use crate::Kubelet;
use crate::cri::labels;
use crate::managers::machine::{Level, Machine, SYS};

/// A control group with what is known of it.
#[derive(Debug, Default, Clone, PartialEq)]
struct Group {
    id: String,
    name: String,
    image: String,
    pod: String,
    namespace: String,
    container: String,
    usage: Usage,
    limits: Limits,
    /// Zero is no limit.
    swap_limit: u64,
    reservation: Option<u64>,
    /// Of processors, memory and disks.
    pressures: [Option<Pressure>; 3],
    disks: Vec<Disk>,
    processes: usize,
    /// What the processes of a container hold open.
    open: Option<Open>,
    /// Nanoseconds since the epoch.
    started: i64,
    interfaces: Vec<Interface>,
}

/// The counters of a network interface: bytes, packets, errors and drops, received and sent.
#[derive(Debug, Default, Clone, PartialEq)]
struct Interface {
    name: String,
    received: [u64; 4],
    sent: [u64; 4],
}

/// Reads `/proc/PID/net/dev`.
fn interfaces(text: &str) -> Vec<Interface> {
    let parse = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let four = |from: usize| counters.get(from..from + 4)?.try_into().ok();
        Some(Interface { name: name.trim().to_owned(), received: four(0)?, sent: four(8)? })
    };
    text.lines().skip(2).filter_map(parse).filter(|interface| interface.name != "lo").collect()
}

async fn groups(kubelet: &Kubelet) -> crate::cri::Result<Vec<Group>> {
    let read = |id: String| {
        let group = id.trim_start_matches('/').to_owned();
        Group {
            usage: kubelet.cgroups.usage(&group),
            limits: kubelet.cgroups.limits(&group),
            swap_limit: match group.as_str() {
                "" => kubelet.facts.swap,
                group => kubelet.cgroups.swap_limit(group).unwrap_or_default(),
            },
            reservation: kubelet.cgroups.memory_reservation(&group),
            pressures: ["cpu", "memory", "io"].map(|resource| kubelet.cgroups.pressure(&group, resource)),
            disks: disks::of_group(Path::new("/sys"), &kubelet.cgroups.disks(&group)),
            processes: kubelet.cgroups.processes(&group).len(),
            id,
            ..Group::default()
        }
    };
    let names = &kubelet.config.groups;
    let shared = [
        "/".to_owned(),
        format!("/{}", names.kubepods()),
        format!("/{}", names.class("burstable")),
        format!("/{}", names.class("besteffort")),
    ];
    let mut out: Vec<_> = shared.into_iter().map(read).collect();
    if let Some(machine) = out.first_mut() {
        let diskstats = fs::read_to_string("/proc/diskstats").unwrap_or_default();
        let mounts = linux::mount::mounts().unwrap_or_default();
        machine.disks.extend(disks::of_machine(&mounts, &diskstats));
    }
    let pods: HashMap<String, Arc<Value>> =
        kubelet.pods.lock().iter().map(|(uid, known)| (uid.clone(), known.pod.clone())).collect();
    let group_of = |uid: &str| Some(format!("/{}", names.pod(pods.get(uid)?)));
    for pod in pods.values() {
        let id = format!("/{}", names.pod(pod));
        if kubelet.cgroups.exists(&id) {
            out.push(Group { pod: pod.name().to_owned(), namespace: pod.namespace().to_owned(), ..read(id) });
        }
    }
    let of = |labels: &HashMap<String, String>, id: String, image: String, started: i64| {
        let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
        let parent = group_of(&label(labels::POD_UID))?;
        let group = names.container(&parent, &id);
        let processes = kubelet.cgroups.processes(&group);
        Some(Group {
            pod: label(labels::POD_NAME),
            namespace: label(labels::POD_NAMESPACE),
            container: label(labels::CONTAINER_NAME),
            image,
            started,
            name: id,
            open: Some(processes::look(Path::new("/proc"), &processes)),
            ..read(group)
        })
    };
    for sandbox in kubelet.runtime.sandboxes(None).await?.into_iter().filter(|sandbox| sandbox.state == 0) {
        let Some(mut group) = of(&sandbox.labels, sandbox.id, String::new(), sandbox.created_at) else {
            continue;
        };
        // The network is the sandbox's.
        let process = kubelet.cgroups.processes(group.id.trim_start_matches('/')).first().copied();
        let text = process.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/net/dev")).ok());
        group.interfaces = interfaces(&text.unwrap_or_default());
        out.push(group);
    }
    let images = kubelet.runtime.images().await?.into_iter().map(|image| (image.id.clone(), image));
    let images: HashMap<_, _> = images.collect();
    for container in
        kubelet.runtime.containers(None).await?.into_iter().filter(|container| container.state == 1)
    {
        // The runtime's list shows images by their ids.
        let known = images.get(&container.image_ref);
        let tag = known.and_then(|image| image.repo_tags.first().or(image.repo_digests.first()));
        let image = tag.cloned().unwrap_or(container.image_ref);
        out.extend(of(&container.labels, container.id, image, container.created_at));
    }
    Ok(out)
}

fn labels_of(group: &Group) -> String {
    let Group { id, name, image, pod, namespace, container, .. } = group;
    format!(
        "container=\"{container}\",id=\"{id}\",image=\"{image}\",name=\"{name}\",namespace=\"{namespace}\",pod=\"{pod}\""
    )
}

fn render(groups: &[Group], now: i64) -> String {
    let mut out = String::new();
    let labels: Vec<_> = groups.iter().map(labels_of).collect();
    for Family { name, kind, help, more, value } in &FAMILIES {
        if !help.is_empty() {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        for (group, labels) in groups.iter().zip(&labels) {
            if let Some(value) = value(group) {
                let _ = writeln!(out, "{name}{{{labels}{more}}} {value} {now}");
            }
        }
    }
    for family in &disks::FAMILIES {
        let _ = writeln!(out, "# HELP {0} {1}\n# TYPE {0} {2}", family.name, family.help, family.kind);
        for (group, labels) in groups.iter().zip(&labels) {
            for disk in &group.disks {
                if let Some(value) = (family.value)(disk) {
                    let (name, device) = (family.name, &disk.device);
                    let _ = writeln!(out, "{name}{{{labels},device=\"{device}\"}} {value} {now}");
                }
            }
        }
    }
    render_operations(&mut out, groups, &labels, now);
    for (name, help, counter, received) in NETWORK {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
        for (group, labels) in groups.iter().zip(&labels) {
            for interface in &group.interfaces {
                let value = if received { interface.received } else { interface.sent }[counter];
                let _ = writeln!(out, "{name}{{{labels},interface=\"{}\"}} {value} {now}", interface.name);
            }
        }
    }
    out
}

/// Bytes by device and by what was done.
fn render_operations(out: &mut String, groups: &[Group], labels: &[String], now: i64) {
    const NAME: &str = "container_blkio_device_usage_total";
    let _ = writeln!(out, "# HELP {NAME} Blkio Device bytes usage\n# TYPE {NAME} counter");
    for (group, labels) in groups.iter().zip(labels) {
        for (disk, used) in group.disks.iter().filter_map(|disk| Some((disk, disk.used?))) {
            let ((major, minor), device) = (disk.numbers, &disk.device);
            for (operation, bytes) in [("Read", used.read_bytes), ("Write", used.written_bytes)] {
                let _ = writeln!(
                    out,
                    "{NAME}{{{labels},device=\"{device}\",major=\"{major}\",minor=\"{minor}\",operation=\"{operation}\"}} {bytes} {now}"
                );
            }
        }
    }
}

/// What the machine has.
fn render_machine(out: &mut String, kubelet: &Kubelet) {
    let facts = &kubelet.facts;
    let lies = Machine::read(Path::new(SYS), facts.memory);
    let of = |level| lies.as_ref().ok().map(|machine| machine.ids(level).len() as u64);
    let labels = format!(
        "boot_id=\"{}\",machine_id=\"{}\",system_uuid=\"{}\"",
        facts.boot_id, facts.machine_id, facts.system_uuid
    );
    for (name, help, value) in [
        ("machine_cpu_cores", "Number of logical CPU cores.", Some(facts.cpus as u64)),
        ("machine_cpu_physical_cores", "Number of physical CPU cores.", of(Level::Core)),
        ("machine_cpu_sockets", "Number of CPU sockets.", of(Level::Socket)),
        ("machine_memory_bytes", "Amount of memory installed on the machine.", Some(facts.memory)),
        ("machine_swap_bytes", "Amount of swap memory available on the machine.", Some(facts.swap)),
    ] {
        let Some(value) = value else { continue };
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{{{labels}}} {value}");
    }
    let help = "1 if there was an error while getting machine metrics, 0 otherwise.";
    let (name, failed) = ("machine_scrape_error", u8::from(lies.is_err()));
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {failed}");
}

/// The answer to a scrape.
pub(super) async fn respond(kubelet: &Kubelet) -> Response<Body> {
    let (groups, failed) = match groups(kubelet).await {
        Ok(groups) => (groups, 0),
        Err(_) => (Vec::new(), 1),
    };
    let mut out = render(&groups, Timestamp::now().as_millisecond());
    render_machine(&mut out, kubelet);
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    let _ = writeln!(
        out,
        "# HELP container_scrape_error {help}\n# TYPE container_scrape_error gauge\ncontainer_scrape_error {failed}"
    );
    let mut response = serve::text(StatusCode::OK, out);
    super::stats::as_metrics(&mut response);
    response
}

#[cfg(test)]
mod tests {
    use linux::cgroup::{DiskUse, Waited};

    use super::*;

    const DEV: &str = "Inter-|   Receive                    |  Transmit\n \
        face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\n    \
        lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0\n";

    #[test]
    fn groups_are_shown_with_upstreams_labels() {
        let used = DiskUse { read_bytes: 7, writes: 5, ..DiskUse::default() };
        let waited = |total| Waited { total, ..Waited::default() };
        let pressure = Pressure { some: waited(2_500_000), full: waited(1_000_000) };
        let group = Group {
            id: "/kubepods/podu/c".to_owned(),
            name: "c".to_owned(),
            image: "busybox".to_owned(),
            pod: "p".to_owned(),
            namespace: "n".to_owned(),
            container: "main".to_owned(),
            usage: Usage {
                cpu_nanoseconds: 1_500_000_000,
                working_set: 42,
                oom_kills: Some(2),
                ..Usage::default()
            },
            open: Some(Open { files: 9, sockets: 3, limit: Some(1024.0) }),
            pressures: [None, Some(pressure), None],
            disks: disks::of_group(Path::new("/none"), &[((8, 0), used)].into()),
            limits: Limits { pids: Some(-1), ..Limits::default() },
            interfaces: interfaces(DEV),
            swap_limit: 4096,
            ..Group::default()
        };
        let text = render(&[group], 7);
        let labels = "container=\"main\",id=\"/kubepods/podu/c\",image=\"busybox\",name=\"c\",namespace=\"n\",pod=\"p\"";
        for line in [
            format!("container_cpu_usage_seconds_total{{{labels},cpu=\"total\"}} 1.5 7"),
            format!("container_memory_working_set_bytes{{{labels}}} 42 7"),
            format!("container_spec_memory_swap_limit_bytes{{{labels}}} 4096 7"),
            format!("container_oom_events_total{{{labels}}} 2 7"),
            format!("container_sockets{{{labels}}} 3 7"),
            format!("container_file_descriptors{{{labels}}} 9 7"),
            format!("container_threads_max{{{labels}}} 0 7"),
            format!("container_ulimits_soft{{{labels},ulimit=\"max_open_files\"}} 1024 7"),
            format!("container_pressure_memory_waiting_seconds_total{{{labels}}} 2.5 7"),
            format!("container_pressure_memory_stalled_seconds_total{{{labels}}} 1 7"),
            format!("container_fs_reads_bytes_total{{{labels},device=\"8:0\"}} 7 7"),
            format!("container_fs_writes_total{{{labels},device=\"8:0\"}} 5 7"),
            format!(
                "container_blkio_device_usage_total{{{labels},device=\"8:0\",major=\"8\",minor=\"0\",operation=\"Read\"}} 7 7"
            ),
            format!("container_network_receive_bytes_total{{{labels},interface=\"eth0\"}} 100 7"),
            format!("container_network_transmit_packets_dropped_total{{{labels},interface=\"eth0\"}} 8 7"),
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        for absent in [
            "container_spec_cpu_quota{",
            "container_pressure_io",
            "container_memory_kernel_usage{",
            "container_fs_usage_bytes{",
            "interface=\"lo\"",
        ] {
            assert!(!text.lines().any(|line| !line.starts_with('#') && line.contains(absent)), "{absent}");
        }
    }
}
