//! `/metrics/cadvisor`: what control groups use, with the names and labels of upstream's metrics.

mod families;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use api::Value;
use http::{Response, StatusCode};
use jiff::Timestamp;
use linux::cgroup::{Limits, Usage};
use serve::Body;

use families::{FAMILIES, Family, NETWORK};

use crate::Kubelet;
use crate::cri::labels;

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
    processes: usize,
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
        Some(Group {
            pod: label(labels::POD_NAME),
            namespace: label(labels::POD_NAMESPACE),
            container: label(labels::CONTAINER_NAME),
            image,
            started,
            ..Group { name: id.clone(), ..read(names.container(&parent, &id)) }
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

/// The answer to a scrape.
pub(super) async fn respond(kubelet: &Kubelet) -> Response<Body> {
    let (groups, failed) = match groups(kubelet).await {
        Ok(groups) => (groups, 0),
        Err(_) => (Vec::new(), 1),
    };
    let mut out = render(&groups, Timestamp::now().as_millisecond());
    for (name, help, value) in [
        ("machine_cpu_cores", "Number of logical CPU cores.", kubelet.facts.cpus as u64),
        ("machine_memory_bytes", "Amount of memory installed on the machine.", kubelet.facts.memory),
        ("machine_swap_bytes", "Amount of swap memory available on the machine.", kubelet.facts.swap),
    ] {
        let facts = &kubelet.facts;
        let labels = format!(
            "boot_id=\"{}\",machine_id=\"{}\",system_uuid=\"{}\"",
            facts.boot_id, facts.machine_id, facts.system_uuid
        );
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{{{labels}}} {value}");
    }
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
    use super::*;

    const DEV: &str = "Inter-|   Receive                    |  Transmit\n \
        face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\n    \
        lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0\n";

    #[test]
    fn groups_are_shown_with_upstreams_labels() {
        let group = Group {
            id: "/kubepods/podu/c".to_owned(),
            name: "c".to_owned(),
            image: "busybox".to_owned(),
            pod: "p".to_owned(),
            namespace: "n".to_owned(),
            container: "main".to_owned(),
            usage: Usage { cpu_nanoseconds: 1_500_000_000, working_set: 42, ..Usage::default() },
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
            format!("container_network_receive_bytes_total{{{labels},interface=\"eth0\"}} 100 7"),
            format!("container_network_transmit_packets_dropped_total{{{labels},interface=\"eth0\"}} 8 7"),
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(!text.contains("container_spec_cpu_quota{") && !text.contains("interface=\"lo\""));
    }
}
