//! What the runtime has of a pod.

use api::Value;
use k8s_cri::v1 as cri;

use super::spec;
use crate::cri::{Result, Runtime, labels};

/// The state of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime lost track of it.
    Unknown,
}

/// One container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Container {
    /// The runtime's id.
    pub id: String,
    /// The sandbox that it was made in.
    pub sandbox: String,
    /// The name in the pod's spec.
    pub name: String,
    /// The state.
    pub state: State,
    /// Nanoseconds since the epoch; zero when it has not happened.
    pub created: i64,
    /// When it was started.
    pub started: i64,
    /// When it ended.
    pub finished: i64,
    /// The exit code.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled` and so on.
    pub reason: String,
    /// The termination message, or the runtime's own.
    pub message: String,
    /// The image as the spec names it.
    pub image: String,
    /// The image that it really is.
    pub image_ref: String,
    /// How often it was started before.
    pub restarts: u32,
    /// The hash of the spec it was made from.
    pub hash: String,
    /// The log file.
    pub log: String,
    /// Annotations.
    pub annotations: std::collections::HashMap<String, String>,
    /// The host's files that are mounted into it: path inside, path outside.
    pub mounts: Vec<(String, String)>,
    /// The user it runs as.
    pub user: Option<cri::LinuxContainerUser>,
    /// The resources that it runs with, as far as the runtime says.
    pub resources: Given,
}

/// The resources of a running container, as the runtime has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// Thousandths of a core.
    pub cpu_request: Option<i64>,
    /// Thousandths of a core.
    pub cpu_limit: Option<i64>,
    /// Bytes.
    pub memory_limit: Option<i64>,
    /// Bytes; the runtime does not know of these, only the kubelet does.
    pub memory_request: Option<i64>,
}

impl Given {
    fn of(linux: &cri::LinuxContainerResources) -> Self {
        let positive = |n: i64| Some(n).filter(|n| *n > 0);
        Self {
            cpu_request: positive(linux.cpu_shares).map(super::resources::millis_of_shares),
            cpu_limit: super::resources::millis_of_quota(linux.cpu_quota, linux.cpu_period),
            memory_limit: positive(linux.memory_limit_in_bytes),
            memory_request: None,
        }
    }
}

#[cfg(test)]
impl Container {
    /// One that has only a name, for tests.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            id: format!("id-{name}"),
            sandbox: String::new(),
            name: name.to_owned(),
            state: State::Created,
            created: 1,
            started: 1,
            finished: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_ref: String::new(),
            restarts: 0,
            hash: String::new(),
            log: String::new(),
            annotations: std::collections::HashMap::new(),
            mounts: Vec::new(),
            user: None,
            resources: Given::default(),
        }
    }
}

/// One sandbox.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// Whether it runs.
    pub ready: bool,
    /// The number of sandboxes before it.
    pub attempt: u32,
    /// Nanoseconds since the epoch.
    pub created: i64,
    /// Its addresses.
    pub ips: Vec<String>,
    /// Whether it shares the host's network.
    pub host_network: bool,
}

/// Everything the runtime has of a pod, the newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Observed {
    /// The sandboxes.
    pub sandboxes: Vec<Sandbox>,
    /// The containers, ended ones included.
    pub containers: Vec<Container>,
}

impl Observed {
    /// Whether a container has ended in a way that has all of the pod's containers started over.
    pub(crate) fn restarts_all(&self, pod: &Value) -> bool {
        spec::all_containers(pod).any(|container| {
            let newest = self.newest(container.str_at(&["name"]));
            newest.is_some_and(|last| {
                last.state == State::Exited && spec::restarts_all(container, last.exit_code)
            })
        })
    }

    /// Asks the runtime.
    pub(crate) async fn of_pod(runtime: &Runtime, uid: &str) -> Result<Self> {
        let mut observed = Self::default();
        for item in runtime.sandboxes(Some(uid)).await? {
            match runtime.sandbox_status(&item.id).await {
                Ok(status) => observed.sandboxes.extend(status.map(sandbox)),
                Err(error) if error.is_about_the_request() => {
                    tracing::warn!(err = %error, sandbox = item.id, "The runtime cannot describe a sandbox");
                    observed.sandboxes.push(undescribed(item));
                }
                Err(error) => return Err(error),
            }
        }
        for item in runtime.containers(Some(uid)).await? {
            if let Some(status) = runtime.container_status(&item.id).await? {
                observed.containers.push(container(item.pod_sandbox_id, status));
            }
        }
        observed.sort_sandboxes();
        observed
            .containers
            .sort_by_key(|container| std::cmp::Reverse((container.created, container.restarts)));
        Ok(observed)
    }

    fn sort_sandboxes(&mut self) {
        self.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.created, sandbox.attempt)));
    }

    /// Takes in a sandbox that has just been made.
    pub(crate) fn add(&mut self, made: cri::PodSandboxStatus) {
        let made = sandbox(made);
        self.sandboxes.retain(|old| old.id != made.id);
        self.sandboxes.push(made);
        self.sort_sandboxes();
    }

    /// The newest container of this name.
    pub(crate) fn newest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The newest sandbox, if it can take containers.
    pub(crate) fn sandbox(&self, pod: &Value) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| {
            let host_network = super::spec::host_network(pod);
            sandbox.ready && sandbox.host_network == host_network && (host_network || !sandbox.ips.is_empty())
        })
    }

    /// The sandboxes before the newest that have stopped and hold no container any more.
    pub(crate) fn old_sandboxes(&self) -> impl Iterator<Item = &str> {
        let holds = |id: &str| self.containers.iter().any(|container| container.sandbox == id);
        let stopped = self.sandboxes.iter().skip(1).filter(|sandbox| !sandbox.ready);
        stopped.map(|sandbox| sandbox.id.as_str()).filter(move |id| !holds(id))
    }

    /// The containers that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| container.state == State::Running)
    }
}

fn sandbox(status: cri::PodSandboxStatus) -> Sandbox {
    let namespaces =
        status.linux.and_then(|linux| linux.namespaces).and_then(|namespaces| namespaces.options);
    let network = status.network.unwrap_or_default();
    let additional = network.additional_ips.into_iter().map(|ip| ip.ip);
    Sandbox {
        ready: status.state == cri::PodSandboxState::SandboxReady as i32,
        attempt: status.metadata.map(|metadata| metadata.attempt).unwrap_or_default(),
        created: status.created_at,
        ips: std::iter::once(network.ip).chain(additional).filter(|ip| !ip.is_empty()).collect(),
        host_network: namespaces.is_some_and(|options| options.network == cri::NamespaceMode::Node as i32),
        id: status.id,
    }
}

/// A sandbox that the runtime has in its list and cannot say more about: of no use, but to be stopped and removed.
fn undescribed(item: cri::PodSandbox) -> Sandbox {
    Sandbox {
        ready: false,
        attempt: item.metadata.map(|metadata| metadata.attempt).unwrap_or_default(),
        created: item.created_at,
        ips: Vec::new(),
        host_network: false,
        id: item.id,
    }
}

fn container(sandbox: String, status: cri::ContainerStatus) -> Container {
    let metadata = status.metadata.unwrap_or_default();
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    Container {
        state: match status.state {
            0 => State::Created,
            1 => State::Running,
            2 => State::Exited,
            _ => State::Unknown,
        },
        name: status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        restarts: annotation(labels::RESTART_COUNT).parse().unwrap_or(metadata.attempt),
        hash: annotation(labels::HASH),
        id: status.id,
        sandbox,
        created: status.created_at,
        started: status.started_at,
        finished: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: status.image.map(|image| image.image).unwrap_or_default(),
        image_ref: status.image_ref,
        log: status.log_path,
        annotations: status.annotations,
        mounts: status.mounts.into_iter().map(|mount| (mount.container_path, mount.host_path)).collect(),
        user: status.user.and_then(|user| user.linux),
        resources: status.resources.and_then(|all| all.linux).as_ref().map(Given::of).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_sandbox_stays_for_the_containers_in_it() {
        let sandbox = |id: &str, ready| Sandbox {
            id: id.to_owned(),
            ready,
            attempt: 0,
            created: 0,
            ips: Vec::new(),
            host_network: false,
        };
        let container = Container { sandbox: "full".to_owned(), ..Container::named("c") };
        let observed = Observed {
            sandboxes: vec![
                sandbox("newest", false),
                sandbox("empty", false),
                sandbox("full", false),
                sandbox("ready", true),
            ],
            containers: vec![container],
        };
        assert_eq!(observed.old_sandboxes().collect::<Vec<_>>(), ["empty"]);
    }
}
