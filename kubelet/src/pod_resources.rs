//! The pod resources service: which devices the containers of this node have, by themselves or by claims, for those who
//! watch over devices.

mod api;

use std::sync::Arc;

use ::api::Value;
use async_trait::async_trait;
use hyper::body::Incoming;
use prometheus::{IntCounterVec, Opts, Registry};
use tonic::Status;

use crate::Kubelet;
use crate::claims::Claims;
use crate::devices::Devices;
use crate::grpc::{self, Answer, Service};
use crate::managers::Managers;
use crate::pods::spec;
use api::{
    ALLOCATABLE, AllocatableResponse, GET, GetRequest, GetResponse, LIST, ListResponse, Nothing, PodResources,
};
pub(crate) use api::{CdiDevice, ClaimResource, ContainerDevices, ContainerMemory, DynamicResource};

/// How often the service was asked.
#[derive(Clone)]
pub(crate) struct Metrics {
    all: IntCounterVec,
    lists: IntCounterVec,
    allocatable: IntCounterVec,
    gets: IntCounterVec,
    failed_gets: IntCounterVec,
}

impl Metrics {
    /// Nothing asked yet.
    pub(crate) fn new() -> Self {
        let counter = |name: &str, of: &str| {
            let help = format!("[ALPHA] {of}. Broken down by server api version.");
            let options = Opts::new(format!("kubelet_pod_resources_endpoint_{name}"), help);
            IntCounterVec::new(options, &["server_api_version"]).expect("the names are valid")
        };
        Self {
            all: counter("requests_total", "Cumulative number of requests to the PodResource endpoint"),
            lists: counter("requests_list", "Number of requests to the PodResource List endpoint"),
            allocatable: counter(
                "requests_get_allocatable",
                "Number of requests to the PodResource GetAllocatableResources endpoint",
            ),
            gets: counter("requests_get", "Number of requests to the PodResource Get endpoint"),
            failed_gets: counter(
                "errors_get",
                "Number of requests to the PodResource Get endpoint which returned error",
            ),
        }
    }

    /// Shows them at an endpoint.
    pub(crate) fn register(&self, registry: &Registry) {
        for counter in [&self.all, &self.lists, &self.allocatable, &self.gets, &self.failed_gets] {
            serve::metrics::register(registry, counter.clone());
        }
    }
}

/// The pods that run or will run.
type Pods = Arc<dyn Fn() -> Vec<Arc<Value>> + Send + Sync>;

struct Lister {
    pods: Pods,
    devices: Arc<Devices>,
    managers: Arc<Managers>,
    claims: Arc<Claims>,
    metrics: Metrics,
}

/// Opens the socket `pod-resources/kubelet.sock` in the kubelet's folder, and answers at it until the process ends.
pub(crate) fn start(kubelet: &Arc<Kubelet>) -> std::io::Result<()> {
    let dir = kubelet.config.root.join("pod-resources");
    std::fs::create_dir_all(&dir)?;
    let listener = grpc::listen(&dir.join("kubelet.sock"))?;
    let this = kubelet.clone();
    let lister = Lister {
        pods: Arc::new(move || this.admitted("")),
        devices: kubelet.devices.clone(),
        managers: kubelet.managers.clone(),
        claims: kubelet.claims.clone(),
        metrics: kubelet.pod_resources.clone(),
    };
    let stop = kubelet.tasks.token();
    kubelet.tasks.critical("pod-resources", async move {
        grpc::serve(listener, Arc::new(lister), stop).await;
        Ok(())
    });
    Ok(())
}

#[async_trait]
impl Service for Lister {
    async fn answer(&self, method: &str, request: http::Request<Incoming>) -> Answer {
        let count = |counter: &IntCounterVec| {
            self.metrics.all.with_label_values(&["v1"]).inc();
            counter.with_label_values(&["v1"]).inc();
        };
        match method {
            LIST => {
                count(&self.metrics.lists);
                let pods = (self.pods)().iter().map(|pod| self.of(pod)).collect();
                grpc::unary(request, |_: Nothing| async { Ok(ListResponse { pods }) }).await
            }
            ALLOCATABLE => {
                count(&self.metrics.allocatable);
                let answer = AllocatableResponse {
                    devices: self.devices.healthy(),
                    cpu_ids: self.managers.allocatable_cpu_ids(),
                    memory: self.managers.allocatable_memory(),
                };
                grpc::unary(request, |_: Nothing| async { Ok(answer) }).await
            }
            GET => {
                count(&self.metrics.gets);
                grpc::unary(request, |question| async move { self.get(&question) }).await
            }
            other => grpc::unimplemented(other),
        }
    }
}

impl Lister {
    fn get(&self, question: &GetRequest) -> Result<GetResponse, Status> {
        let pods = (self.pods)();
        let mut found =
            pods.iter().filter(|pod| pod.name() == question.name && pod.namespace() == question.namespace);
        let Some(pod) = found.next() else {
            self.metrics.failed_gets.with_label_values(&["v1"]).inc();
            let why = format!("pod {} in namespace {} not found", question.name, question.namespace);
            return Err(Status::unknown(why));
        };
        Ok(GetResponse { pod: Some(self.of(pod)) })
    }

    fn of(&self, pod: &Value) -> PodResources {
        let sidecars = spec::init_containers(pod).iter().filter(|container| spec::is_sidecar(container));
        let containers = sidecars.chain(spec::containers(pod)).map(|container| {
            let name = container.str_at(&["name"]);
            api::ContainerResources {
                name: name.to_owned(),
                devices: self.devices.given(pod.uid(), name),
                cpu_ids: self.managers.cpu_ids(pod.uid(), name),
                memory: self.managers.memory(pod.uid(), name),
                dynamic_resources: self.claims.given(pod, container),
            }
        });
        PodResources {
            name: pod.name().to_owned(),
            namespace: pod.namespace().to_owned(),
            containers: containers.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ::api::object;

    use super::*;

    #[tokio::test]
    async fn pods_are_listed_and_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let devices = Arc::new(Devices::load(dir.path(), Duration::from_secs(1)).unwrap());
        let claims = Arc::new(Claims::load(dir.path(), Arc::new(crate::claims::Nobody)).unwrap());
        devices.pretend("u", "c", "example.com/x", &["a", "b"]);
        let pod = Arc::new(object!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "c"}],
        }}));
        let setup = crate::managers::tests::Setup::new(&[("cpu", "static"), ("memory", "Static")]);
        let managers = Arc::new(setup.load().unwrap());
        let mut owner = crate::managers::tests::guaranteed("u", &["2"]);
        owner.at_mut(&["spec", "containers"]).and_then(Value::as_array_mut).unwrap()[0].set(&["name"], "c");
        setup.admit(&managers, &owner).await.unwrap();
        let pods: Pods = Arc::new(move || vec![pod.clone()]);
        let lister = Arc::new(Lister { pods, devices, managers, claims, metrics: Metrics::new() });
        let socket = dir.path().join("x.sock");
        let listener = grpc::listen(&socket).unwrap();
        let (tasks, metrics) = (daemon::Tasks::new(), lister.metrics.clone());
        let stop = tasks.token();
        tasks.plain("lister", async move {
            grpc::serve(listener, lister, stop).await;
            Ok(())
        });
        let client = grpc::Plugin::new(&socket);
        let limit = Duration::from_secs(10);
        let all: ListResponse = client.call(LIST, Nothing {}, limit).await.unwrap();
        let names: Vec<_> = all.pods[0].containers.iter().map(|container| container.name.as_str()).collect();
        assert_eq!(names, ["s", "c"]);
        let shown = &all.pods[0].containers[1].devices;
        assert_eq!((shown.len(), shown[0].resource.as_str()), (2, "example.com/x"));
        assert_eq!(shown[1].ids, ["b"]);
        let container = &all.pods[0].containers[1];
        assert_eq!((container.cpu_ids.as_slice(), container.memory.len()), ([1, 9].as_slice(), 1));
        let memory = &container.memory[0];
        assert_eq!((memory.kind.as_str(), memory.size), ("memory", 64 << 20));
        assert_eq!(memory.topology.as_ref().map(|topology| topology.nodes[0].id), Some(0));
        assert!(all.pods[0].containers[0].cpu_ids.is_empty());
        let free: AllocatableResponse = client.call(ALLOCATABLE, Nothing {}, limit).await.unwrap();
        assert!(free.devices.iter().flat_map(|devices| &devices.ids).eq(["a", "b"].iter()));
        assert_eq!(free.cpu_ids, [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15]);
        let kinds: Vec<_> = free.memory.iter().map(|memory| memory.kind.as_str()).collect();
        assert_eq!(kinds, ["hugepages-2Mi", "memory", "hugepages-2Mi", "memory"]);
        let ask = |name: &str| GetRequest { name: name.to_owned(), namespace: "n".to_owned() };
        let one: GetResponse = client.call(GET, ask("p"), limit).await.unwrap();
        assert_eq!(one.pod.as_ref(), all.pods.first());
        let missing = client.call::<_, GetResponse>(GET, ask("q"), limit).await.unwrap_err();
        assert_eq!(missing.to_string(), "rpc error: code = Unknown desc = pod q in namespace n not found");
        assert_eq!(metrics.all.with_label_values(&["v1"]).get(), 4);
        assert_eq!(metrics.failed_gets.with_label_values(&["v1"]).get(), 1);
        let unknown = client.call::<_, Nothing>("/v1.PodResourcesLister/Nonsense", Nothing {}, limit).await;
        assert_eq!(unknown.unwrap_err().code, tonic::Code::Unimplemented);
    }
}
