//! From a container of a pod's spec to the runtime's configuration of it.

use std::collections::HashMap;
use std::path::Path;

use api::Value;
use k8s_cri::v1 as cri;
use linux::hugepages::HugePages;

use super::swap::Swap;
use super::{amounts, resources, security};
use crate::config::Config;
use crate::cri::labels;
use crate::devices::Options;
use crate::env;
use crate::users::Users;

/// Everything that the configuration is made of.
pub(crate) struct Inputs<'a> {
    /// The pod.
    pub pod: &'a Value,
    /// The container.
    pub container: &'a Value,
    /// The kubelet's settings.
    pub config: &'a Config,
    /// How often it was started before.
    pub restarts: u32,
    /// The image as the runtime refers to it.
    pub image: &'a cri::Image,
    /// The environment.
    pub env: &'a [(String, String)],
    /// The mounts.
    pub mounts: Vec<cri::Mount>,
    /// What it needs for its devices.
    pub options: Options,
    /// The node's memory in bytes.
    pub memory: i64,
    /// The container whose processes an ephemeral one wants to see.
    pub target: Option<String>,
    /// Whether the node has control groups of version 2.
    pub cgroup_v2: bool,
    /// The huge pages of the node.
    pub huge_pages: &'a [HugePages],
    /// The swap of the node.
    pub swap: Swap,
    /// The users of the pod's own; none: those of the node.
    pub users: Option<Users>,
}

/// Makes the configuration; an error is a sentence for the container's status.
pub(crate) fn config(inputs: Inputs<'_>) -> Result<cri::ContainerConfig, String> {
    let Inputs { pod, container, .. } = inputs;
    let name = container.str_at(&["name"]);
    let known: HashMap<&str, &str> = inputs.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let words = |field: &str| -> Vec<String> {
        let words = container.array_at(&[field]).iter().filter_map(Value::as_str);
        words.map(|word| env::expand(word, |name| known.get(name).map(|value| (*value).to_owned()))).collect()
    };
    let is = |field: &str| container.get(field).as_bool().unwrap_or_default();
    let linux = cri::LinuxContainerConfig {
        resources: Some(linux_resources(pod, container, &Machine::of(&inputs))),
        security_context: Some(security::of(&inputs)?),
    };
    let Options { envs, mounts, devices, annotations, cdi_devices } = inputs.options;
    // What the container says itself comes after what its devices want.
    let envs = envs.iter().chain(inputs.env);
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: inputs.restarts }),
        image: Some(cri::ImageSpec {
            image: inputs.image.id.clone(),
            user_specified_image: container.str_at(&["image"]).to_owned(),
            ..Default::default()
        }),
        command: words("command"),
        args: words("args"),
        working_dir: container.str_at(&["workingDir"]).to_owned(),
        envs: envs.map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts: mounts.into_iter().chain(inputs.mounts).collect(),
        devices,
        cdi_devices,
        labels: labels::of_container(pod, container),
        annotations: annotations
            .into_iter()
            .chain(labels::annotations(pod, container, inputs.restarts))
            .collect(),
        log_path: Path::new(name).join(format!("{}.log", inputs.restarts)).to_string_lossy().into_owned(),
        stdin: is("stdin"),
        stdin_once: is("stdinOnce"),
        tty: is("tty"),
        linux: Some(linux),
        ..Default::default()
    })
}

/// What of the machine and its settings matters for resources.
pub(crate) struct Machine<'a> {
    /// The kubelet's settings.
    pub config: &'a Config,
    /// The node's memory in bytes.
    pub memory: i64,
    /// Whether the node has control groups of version 2.
    pub cgroup_v2: bool,
    /// The huge pages of the node.
    pub huge_pages: &'a [HugePages],
    /// The swap of the node.
    pub swap: Swap,
}

impl<'a> Machine<'a> {
    fn of(inputs: &Inputs<'a>) -> Self {
        let Inputs { config, memory, cgroup_v2, huge_pages, swap, .. } = *inputs;
        Self { config, memory, cgroup_v2, huge_pages, swap }
    }
}

/// A container's resources in the runtime's terms. Limits that it does not have itself are those of the pod.
pub(crate) fn linux_resources(
    pod: &Value,
    container: &Value,
    machine: &Machine<'_>,
) -> cri::LinuxContainerResources {
    let file = &machine.config.file;
    let period = file.cpu_cfs_quota_period.0.as_micros() as u64;
    let effective = amounts::effective(pod.at(&["spec", "resources"]), container.get("resources"));
    let request = resources::amount(&effective, "requests", "cpu");
    let limit = resources::amount(&effective, "limits", "cpu");
    let mut out = cri::LinuxContainerResources {
        // Without a request the limit stands for it.
        cpu_shares: resources::shares(request.or(limit).unwrap_or_default()) as i64,
        memory_limit_in_bytes: resources::amount(&effective, "limits", "memory").unwrap_or_default(),
        oom_score_adj: resources::oom_score(pod, container, machine.memory),
        hugepage_limits: huge_page_limits(pod, container, machine.huge_pages),
        ..Default::default()
    };
    if let Some(limit) = limit.filter(|limit| *limit > 0 && file.cpu_cfs_quota) {
        out.cpu_period = period as i64;
        out.cpu_quota = resources::quota(limit, period);
    }
    // A process that takes too much memory goes with all others of its container, unless it is to go alone.
    if machine.cgroup_v2 && file.single_process_oom_kill != Some(true) {
        out.unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    machine.swap.apply(pod, container, &mut out);
    out
}

/// How much of each size of huge pages a container may use: nothing, unless it or its pod says otherwise.
fn huge_page_limits(pod: &Value, container: &Value, pages: &[HugePages]) -> Vec<cri::HugepageLimit> {
    let limit = |pages: &HugePages| {
        let resource = format!("hugepages-{}", pages.resource_size());
        let own = resources::of_container(container, "limits", &resource);
        let limit = own.or_else(|| resources::amount(pod.at(&["spec", "resources"]), "limits", &resource));
        cri::HugepageLimit {
            page_size: pages.group_size(),
            limit: limit.and_then(|limit| u64::try_from(limit).ok()).unwrap_or_default(),
        }
    };
    pages.iter().map(limit).collect()
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn huge_pages_are_for_those_who_ask_for_them() {
        let pages = [HugePages { size: 1 << 30, count: 0 }, HugePages { size: 2 << 20, count: 9 }];
        let container = object!({"resources": {"limits": {"hugepages-2Mi": "4Mi"}}});
        let limits = |pod: &Value, container: &Value| -> Vec<(String, u64)> {
            huge_page_limits(pod, container, &pages).into_iter().map(|l| (l.page_size, l.limit)).collect()
        };
        let expected =
            |gigantic: u64, huge: u64| vec![("1GB".to_owned(), gigantic), ("2MB".to_owned(), huge)];
        assert_eq!(limits(&Value::object(), &container), expected(0, 4 << 20));
        assert_eq!(limits(&Value::object(), &Value::object()), expected(0, 0));
        let pod =
            object!({"spec": {"resources": {"limits": {"hugepages-1Gi": "1Gi", "hugepages-2Mi": "2Mi"}}}});
        assert_eq!(limits(&pod, &container), expected(1 << 30, 4 << 20));
    }
}
