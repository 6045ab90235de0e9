//! Containers that share processors are moved when those become others.

use std::collections::HashMap;
use std::sync::Arc;

use api::Value;
use k8s_cri::v1 as cri;

use super::Managers;
use super::cpus::State;
use super::cpuset::CpuSet;
use crate::Kubelet;
use crate::cri::Runtime;
use crate::pods::spec;

/// What containers were told last, by the runtime's ids.
type Told = HashMap<String, CpuSet>;

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Running {
    uid: String,
    name: String,
    id: String,
}

/// The containers of a pod that run, by its status.
fn running(pod: &Value, status: &Value) -> Vec<Running> {
    let lists = ["initContainerStatuses", "containerStatuses"];
    let statuses = lists.iter().flat_map(|list| status.array_at(&[list]));
    let runs = statuses.filter(|status| !status.at(&["state", "running"]).is_null());
    let container = |status: &Value| {
        let name = status.str_at(&["name"]);
        // Ephemeral containers are started with what is shared, and do not live long.
        spec::all_containers(pod).find(|container| container.str_at(&["name"]) == name)?;
        let (_, id) = status.str_at(&["containerID"]).split_once("://")?;
        Some(Running { uid: pod.uid().to_owned(), name: name.to_owned(), id: id.to_owned() })
    };
    runs.filter_map(container).collect()
}

/// The containers that have to move, with where to.
fn plan(state: &State, running: &[Running], told: &Told) -> Vec<(String, CpuSet)> {
    let wanted = |container: &Running| {
        let cpus = state.of(&container.uid, &container.name).unwrap_or(&state.shared);
        let moves = !cpus.is_empty() && told.get(&container.id) != Some(cpus);
        moves.then(|| (container.id.clone(), cpus.clone()))
    };
    running.iter().filter_map(wanted).collect()
}

/// Tells the containers of this node where to run, until the process ends.
pub(crate) async fn run(kubelet: Arc<Kubelet>) {
    let period = kubelet.config.file.managers.cpu_manager_reconcile_period.0;
    let mut told = Told::new();
    loop {
        let running: Vec<_> = {
            let pods = kubelet.pods.lock();
            let of = |known: &crate::Known| match &known.status {
                Value::Null => running(&known.pod, known.pod.get("status")),
                status => running(&known.pod, status),
            };
            pods.values().flat_map(of).collect()
        };
        kubelet.managers.move_all(&kubelet.runtime, &running, &mut told).await;
        tokio::select! {
            () = kubelet.managers.changed.notified() => {}
            () = tokio::time::sleep(period) => {}
        }
    }
}

impl Managers {
    /// Tells those that have to move. Whoever cannot be told is told again the next time.
    async fn move_all(&self, runtime: &Runtime, running: &[Running], told: &mut Told) {
        told.retain(|id, _| running.iter().any(|container| container.id == *id));
        let moves = plan(&self.held.lock().cpus.state, running, told);
        for (id, cpus) in moves {
            let linux = cri::LinuxContainerResources { cpuset_cpus: cpus.to_string(), ..Default::default() };
            match runtime.update_container(&id, linux).await {
                Ok(()) => drop(told.insert(id, cpus)),
                Err(error) => tracing::error!(
                    container = id, cpus = %cpus, err = %error, "Failed to update the processors of a container"
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api::object;
    use async_trait::async_trait;
    use hyper::body::Incoming;
    use parking_lot::Mutex;
    use tonic::Status;

    use super::*;
    use crate::grpc::{self, Answer, Service};
    use crate::managers::tests::{Setup, guaranteed};

    /// A runtime that notes where containers are to run, but cannot move one that is called `stuck`.
    #[derive(Default)]
    struct Fake(Mutex<Vec<String>>);

    #[async_trait]
    impl Service for Fake {
        async fn answer(&self, method: &str, request: http::Request<Incoming>) -> Answer {
            assert_eq!(method, "/runtime.v1.RuntimeService/UpdateContainerResources");
            grpc::unary(request, |question: cri::UpdateContainerResourcesRequest| async move {
                let (id, linux) = (question.container_id, question.linux.unwrap_or_default());
                self.0.lock().push(format!("{id}={}", linux.cpuset_cpus));
                match id.as_str() {
                    "stuck" => Err(Status::internal("it does not move")),
                    _ => Ok(cri::UpdateContainerResourcesResponse {}),
                }
            })
            .await
        }
    }

    #[tokio::test]
    async fn the_runtime_is_told_until_it_has_moved_the_containers() {
        let setup = Setup::new(&[("cpu", "static")]);
        let socket = setup.dir.path().join("cri.sock");
        let (listener, fake) = (grpc::listen(&socket).unwrap(), Arc::new(Fake::default()));
        let (tasks, service) = (daemon::Tasks::new(), fake.clone());
        let stop = tasks.token();
        tasks.plain("runtime", async move {
            grpc::serve(listener, service, stop).await;
            Ok(())
        });
        let runtime = Runtime::new(&socket, &socket, Duration::from_secs(10));
        let managers = setup.load().unwrap();
        setup.admit(&managers, &guaranteed("a", &["2"])).await.unwrap();
        let running =
            |id: &str, uid: &str| Running { uid: uid.to_owned(), name: "m0".to_owned(), id: id.to_owned() };
        let all = [running("own", "a"), running("stuck", "b"), running("shared", "b")];
        let mut told = Told::new();
        managers.move_all(&runtime, &all, &mut told).await;
        assert_eq!(*fake.0.lock(), ["own=1,9", "stuck=0,2-8,10-15", "shared=0,2-8,10-15"]);
        fake.0.lock().clear();
        managers.move_all(&runtime, &all, &mut told).await;
        assert_eq!(*fake.0.lock(), ["stuck=0,2-8,10-15"]);
        managers.forget("a");
        fake.0.lock().clear();
        managers.move_all(&runtime, &all[2..], &mut told).await;
        assert_eq!(*fake.0.lock(), ["shared=0-15"]);
        assert_eq!(told.len(), 1);
    }

    #[test]
    fn containers_move_when_what_they_have_is_another_set() {
        let pod = object!({
            "metadata": {"uid": "u"},
            "spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "own"}, {"name": "shared"}]},
        });
        let status = object!({
            "initContainerStatuses": [{"name": "i", "containerID": "x://0", "state": {"terminated": {}}}],
            "containerStatuses": [
                {"name": "own", "containerID": "x://1", "state": {"running": {}}},
                {"name": "shared", "containerID": "x://2", "state": {"running": {}}},
                {"name": "other", "containerID": "x://3", "state": {"running": {}}},
            ],
        });
        let mut running = running(&pod, &status);
        assert_eq!(running.iter().map(|container| container.id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
        let set = |text: &str| text.parse::<CpuSet>().unwrap();
        let own = [("u".to_owned(), [("own".to_owned(), set("1"))].into())].into();
        let mut state = State { shared: set("0,2-3"), pods: own };
        let moves = plan(&state, &running, &Told::new());
        assert_eq!(moves, [("1".to_owned(), set("1")), ("2".to_owned(), set("0,2-3"))]);
        let told: Told = moves.into_iter().collect();
        assert!(plan(&state, &running, &told).is_empty());
        state.shared = set("0");
        assert_eq!(plan(&state, &running, &told), [("2".to_owned(), set("0"))]);
        // A container that was started over is told again; nobody is told to run nowhere.
        running[1].id = "4".to_owned();
        assert_eq!(plan(&state, &running, &told), [("4".to_owned(), set("0"))]);
        state.shared = CpuSet::new();
        assert!(plan(&state, &running, &told).is_empty());
    }
}
