//! Devices with a plug-in that is a server of its own.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::api::{Value, object};
use async_trait::async_trait;
use daemon::Tasks;
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

use super::api::*;
use super::{Devices, Registry};
use crate::grpc::{self, Answer, Plugin, Service};

const R: &str = "example.com/x";
const LIMIT: Duration = Duration::from_secs(10);

/// A plug-in that prefers the last of its devices.
struct Fake {
    devices: watch::Receiver<Vec<Device>>,
    pre_started: Arc<AtomicUsize>,
}

#[async_trait]
impl Service for Fake {
    async fn answer(&self, method: &str, request: http::Request<Incoming>) -> Answer {
        match method {
            OPTIONS => {
                let options = Options { pre_start_required: true, get_preferred_allocation_available: true };
                grpc::unary(request, |_: Empty| async move { Ok(options) }).await
            }
            LIST_AND_WATCH => {
                use futures::StreamExt;
                let devices = self.devices.clone();
                let service = tower::service_fn(move |_: tonic::Request<Empty>| {
                    let answers = WatchStream::new(devices.clone());
                    let answers =
                        answers.map(|devices| Ok::<_, tonic::Status>(ListAndWatchResponse { devices }));
                    std::future::ready(Ok::<_, tonic::Status>(tonic::Response::new(answers)))
                });
                let codec = tonic_prost::ProstCodec::<ListAndWatchResponse, Empty>::default();
                tonic::server::Grpc::new(codec).server_streaming(Streaming(service), request).await
            }
            PREFERRED => {
                grpc::unary(request, |question: PreferredRequest| async move {
                    let question = &question.containers[0];
                    let size = usize::try_from(question.size).unwrap();
                    let ids = question.available.iter().rev().take(size).cloned().collect();
                    Ok(PreferredResponse { containers: vec![DeviceIds { ids }] })
                })
                .await
            }
            ALLOCATE => {
                grpc::unary(request, |question: AllocateRequest| async move {
                    let ids = question.containers[0].ids.join(",");
                    let allocated =
                        Allocated { envs: [("IDS".to_owned(), ids)].into(), ..Allocated::default() };
                    Ok(AllocateResponse { containers: vec![allocated] })
                })
                .await
            }
            PRE_START => {
                self.pre_started.fetch_add(1, Ordering::Relaxed);
                grpc::unary(request, |_: DeviceIds| async { Ok(Empty {}) }).await
            }
            other => grpc::unimplemented(other),
        }
    }
}

/// A service function whose answers are streams.
struct Streaming<S>(S);

impl<S, A, T> tonic::server::ServerStreamingService<Empty> for Streaming<S>
where
    S: tower::Service<tonic::Request<Empty>, Response = tonic::Response<A>, Error = tonic::Status>,
    A: futures::Stream<Item = Result<T, tonic::Status>>,
{
    type Response = T;
    type ResponseStream = A;
    type Future = S::Future;

    fn call(&mut self, request: tonic::Request<Empty>) -> Self::Future {
        self.0.call(request)
    }
}

fn device(id: &str, health: &str) -> Device {
    Device { id: id.to_owned(), health: health.to_owned(), topology: None }
}

fn pod(uid: &str, count: &str) -> Value {
    let resources = object!({"limits": {"example.com/x": count, "cpu": "1"}});
    object!({"metadata": {"uid": uid}, "spec": {
        "initContainers": [{"name": "i", "resources": (resources.clone())}],
        "containers": [{"name": "c", "resources": (resources)}],
    }})
}

struct Setup {
    dir: tempfile::TempDir,
    devices: Arc<Devices>,
    woken: tokio::sync::mpsc::UnboundedReceiver<String>,
    tasks: Tasks,
}

impl Setup {
    fn start(dir: tempfile::TempDir) -> Self {
        let devices = Arc::new(Devices::load(dir.path(), LIMIT).unwrap());
        let (wake, woken) = tokio::sync::mpsc::unbounded_channel();
        let tasks = Tasks::new();
        let wake = Arc::new(move |uid: &str| drop(wake.send(uid.to_owned())));
        Registry::new(devices.clone(), tasks.clone(), wake).start().unwrap();
        Self { dir, devices, woken, tasks }
    }

    fn folder(&self) -> std::path::PathBuf {
        self.dir.path().join("device-plugins")
    }

    /// Serves a plug-in until the token is cancelled.
    fn plug_in(
        &self,
        devices: watch::Receiver<Vec<Device>>,
        pre_started: &Arc<AtomicUsize>,
    ) -> CancellationToken {
        let stop = CancellationToken::new();
        let listener = grpc::listen(&self.folder().join("fake.sock")).unwrap();
        let fake = Arc::new(Fake { devices, pre_started: pre_started.clone() });
        let until = stop.clone();
        self.tasks.plain("fake", async move {
            grpc::serve(listener, fake, until).await;
            Ok(())
        });
        stop
    }

    async fn register(&self, request: RegisterRequest) -> Result<Empty, String> {
        let registry = Plugin::new(&self.folder().join("kubelet.sock"));
        registry.call(REGISTER, request, LIMIT).await.map_err(|error| error.to_string())
    }

    async fn until(&self, capacity: usize, allocatable: usize) {
        let wait = async {
            loop {
                let amounts = self.devices.amounts();
                let shown =
                    |map: &std::collections::BTreeMap<String, usize>| map.get(R).copied().unwrap_or_default();
                if (shown(&amounts.capacity), shown(&amounts.allocatable)) == (capacity, allocatable) {
                    return;
                }
                self.devices.changed.notified().await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.expect("the devices are as expected in time");
    }
}

fn request(endpoint: &str) -> RegisterRequest {
    RegisterRequest {
        version: VERSION.to_owned(),
        endpoint: endpoint.to_owned(),
        resource_name: R.to_owned(),
        options: None,
    }
}

/// Gives all containers of a pod their devices.
async fn give(setup: &Setup, pod: &Value, running: bool) -> Result<(), String> {
    let mut reusable = super::Reusable::default();
    for container in crate::pods::spec::all_containers(pod) {
        setup.devices.allocate(pod, container, running, &mut reusable, None).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_plugin_comes_gives_devices_falls_ill_goes_and_comes_again() {
    let mut setup = Setup::start(tempfile::tempdir().unwrap());
    assert!(setup.devices.is_fresh());
    let (sender, receiver) = watch::channel(vec![device("a", HEALTHY), device("b", HEALTHY)]);
    let pre_started = Arc::new(AtomicUsize::new(0));
    let stop = setup.plug_in(receiver, &pre_started);
    setup.register(request("fake.sock")).await.unwrap();
    setup.until(2, 2).await;
    let (one, two) = (pod("u1", "1"), pod("u2", "2"));
    give(&setup, &one, false).await.unwrap();
    // The main container got what the init container had; which of the two the plug-in chose.
    let ids = |container: &str| -> BTreeSet<String> {
        setup.devices.state.lock().of("u1", container).unwrap()[R].ids()
    };
    assert_eq!((ids("i"), ids("c")), (["b".to_owned()].into(), ["b".to_owned()].into()));
    let refused = give(&setup, &two, false).await.unwrap_err();
    assert_eq!(
        refused,
        "requested number of devices unavailable for example.com/x. Requested: 2, Available: 1"
    );
    let container = one.at(&["spec", "containers"]).as_array().unwrap()[0].clone();
    let options = setup.devices.options(&one, &container).await.unwrap();
    assert_eq!(options.envs, [("IDS".to_owned(), "b".to_owned())]);
    assert_eq!(pre_started.load(Ordering::Relaxed), 1);
    // The health of a device shows in its pod.
    let health =
        |setup: &Setup| setup.devices.health("u1", "c")[0].at(&["resources"]).as_array().unwrap()[0].clone();
    assert_eq!(health(&setup), object!({"resourceID": "b", "health": "Healthy"}));
    sender.send_replace(vec![device("a", HEALTHY), device("b", "Unhealthy")]);
    setup.until(2, 1).await;
    assert_eq!(setup.woken.recv().await.as_deref(), Some("u1"));
    assert_eq!(health(&setup), object!({"resourceID": "b", "health": "Unhealthy"}));
    // The plug-in goes: its devices can be used by nobody, for now.
    stop.cancel();
    setup.until(2, 0).await;
    // The kubelet is started over: what was given away is known, running containers need nothing.
    let Setup { dir, tasks, .. } = setup;
    tasks.token().cancel();
    let setup = Setup::start(dir);
    assert!(!setup.devices.is_fresh() && setup.devices.manages(R));
    assert!(!setup.folder().join("fake.sock").exists());
    give(&setup, &one, true).await.unwrap();
    let refused = give(&setup, &one, false).await.unwrap_err();
    assert_eq!(refused, "no healthy devices present; cannot allocate unhealthy devices example.com/x");
    sender.send_replace(vec![device("a", HEALTHY), device("b", HEALTHY)]);
    let _stop = setup.plug_in(sender.subscribe(), &pre_started);
    setup.register(request("fake.sock")).await.unwrap();
    setup.until(2, 2).await;
    give(&setup, &one, false).await.unwrap();
    assert_eq!(setup.devices.used(R), 1);
    setup.devices.forget("u1");
    give(&setup, &two, false).await.unwrap();
    assert_eq!(setup.devices.used(R), 2);
    assert_eq!(setup.devices.registrations.with_label_values(&[R]).get(), 1);
}

#[tokio::test]
async fn a_pod_gets_processors_near_its_devices_or_is_turned_away() {
    use crate::managers::{Request, tests};
    let setup = Setup::start(tempfile::tempdir().unwrap());
    let managers = tests::Setup::new(&[("cpu", "static"), ("topology", "restricted")]);
    let managers = managers.load().unwrap();
    let topology = Some(TopologyInfo { nodes: vec![NumaNode { id: 1 }] });
    let (_sender, receiver) = watch::channel(vec![Device { topology, ..device("a", HEALTHY) }]);
    let _stop = setup.plug_in(receiver, &Arc::default());
    setup.register(request("fake.sock")).await.unwrap();
    setup.until(1, 1).await;
    let pod = |uid: &str| {
        let mut pod = tests::guaranteed(uid, &["2"]);
        let containers = pod.at_mut(&["spec", "containers"]).and_then(Value::as_array_mut).unwrap();
        containers[0].set(&["resources", "limits", R], "1");
        pod
    };
    let admit = async |pod: &Value| {
        managers.admit(&setup.devices, Request { pod, running: &|_| false, known: false }).await
    };
    admit(&pod("u")).await.unwrap();
    assert_eq!(managers.cpu_ids("u", "m0"), [4, 12]);
    assert_eq!(setup.devices.given("u", "m0")[0].ids, ["a"]);
    // Nothing is left of the device: there is no way to have both from anywhere.
    let refused = admit(&pod("v")).await.unwrap_err();
    assert_eq!(refused.0, "TopologyAffinityError");
    assert!(managers.cpu_ids("v", "m0").is_empty());
}

#[tokio::test]
async fn registrations_that_make_no_sense_are_refused() {
    let setup = Setup::start(tempfile::tempdir().unwrap());
    for (change, message) in [
        (
            RegisterRequest { version: "v9".to_owned(), ..request("x") },
            "rpc error: code = Unknown desc = requested API version \"v9\" is not supported by kubelet. Supported version is [\"v1beta1\"]",
        ),
        (
            RegisterRequest { resource_name: "cpu".to_owned(), ..request("x") },
            "rpc error: code = Unknown desc = the ResourceName \"cpu\" is invalid",
        ),
        (
            request("../../x.sock"),
            "rpc error: code = Unknown desc = the endpoint \"../../x.sock\" is no file of the folder",
        ),
    ] {
        assert_eq!(setup.register(change).await.unwrap_err(), message);
    }
    let gone = setup.register(request("gone.sock")).await.unwrap_err();
    assert!(gone.contains("failed to get device plugin options"), "{gone}");
    assert!(!Path::new(&setup.folder()).join("kubelet_internal_checkpoint").exists());
}
