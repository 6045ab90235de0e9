//! Claims with drivers that are servers of their own, found in the watched folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::api::{Value, object};
use async_trait::async_trait;
use daemon::Tasks;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::api::*;
use super::{Claims, Registry, Server};
use crate::grpc::{self, Answer, Service};
use crate::plugins;

const D: &str = "gpu.example.com";
const LIMIT: Duration = Duration::from_secs(20);

/// An API server that holds a few claims.
struct FakeServer {
    claims: BTreeMap<&'static str, Value>,
    /// The drivers whose slices were deleted.
    wiped: watch::Sender<Vec<Option<String>>>,
}

#[async_trait]
impl Server for FakeServer {
    async fn claim(&self, _: &str, name: &str) -> Result<Value, String> {
        let missing = || format!("resourceclaims.resource.k8s.io \"{name}\" not found");
        self.claims.get(name).cloned().ok_or_else(missing)
    }

    async fn wipe(&self, driver: Option<&str>) -> Result<(), String> {
        self.wiped.send_modify(|wiped| wiped.push(driver.map(str::to_owned)));
        Ok(())
    }
}

fn claim(name: &str, uid: &str, users: &[&str]) -> Value {
    let users = users.iter().map(|uid| object!({"resource": "pods", "name": "p", "uid": (*uid)})).collect();
    object!({
        "metadata": {"name": name, "namespace": "n", "uid": uid},
        "status": {
            "allocation": {"devices": {"results": [{"driver": D, "pool": "pool", "device": name, "request": "r"}]}},
            "reservedFor": (Value::Array(users)),
        },
    })
}

fn server() -> Arc<FakeServer> {
    let claims = [
        ("shared", claim("shared", "1", &["u1", "u2"])),
        ("other", claim("other", "2", &["u1"])),
        (
            "pending",
            object!({"metadata": {"name": "pending", "namespace": "n"}, "status": {"reservedFor": [{"uid": "u1"}]}}),
        ),
    ];
    Arc::new(FakeServer { claims: claims.into(), wiped: watch::Sender::default() })
}

/// A driver of one version, which may have an opinion about the health of its devices.
struct FakeDriver {
    name: &'static str,
    version: Version,
    calls: Mutex<Vec<String>>,
    /// What it says against the next claim.
    complaint: Mutex<String>,
    health: Option<watch::Receiver<Vec<DeviceHealth>>>,
}

impl FakeDriver {
    fn new(version: Version, health: Option<watch::Receiver<Vec<DeviceHealth>>>) -> Arc<Self> {
        let (calls, complaint) = (Mutex::default(), Mutex::default());
        Arc::new(Self { name: D, version, calls, complaint, health })
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock())
    }

    fn note(&self, verb: &str, question: &super::api::Claims) -> String {
        self.calls.lock().extend(question.claims.iter().map(|claim| format!("{verb} {}", claim.name)));
        std::mem::take(&mut *self.complaint.lock())
    }
}

#[async_trait]
impl Service for FakeDriver {
    async fn answer(&self, method: &str, request: http::Request<Incoming>) -> Answer {
        if method == plugins::api::INFO {
            let info = plugins::api::Info {
                kind: "DRAPlugin".to_owned(),
                name: self.name.to_owned(),
                endpoint: String::new(),
                versions: vec![self.version.name.to_owned()],
            };
            return grpc::unary(request, |_: Nothing| async { Ok(info) }).await;
        }
        if method == plugins::api::NOTIFY {
            return grpc::unary(request, |_: plugins::api::Registered| async { Ok(Nothing {}) }).await;
        }
        if method == self.version.prepare {
            return grpc::unary(request, |question: super::api::Claims| async move {
                let error = self.note("prepare", &question);
                let prepared = |claim: Claim| {
                    let device = Device {
                        request_names: vec!["r".to_owned()],
                        pool_name: "pool".to_owned(),
                        cdi_device_ids: vec![format!("example.com/gpu={}", claim.name)],
                        device_name: claim.name,
                        share_id: None,
                    };
                    (claim.uid, Prepared { devices: vec![device], error: error.clone() })
                };
                Ok(PrepareResponse { claims: question.claims.into_iter().map(prepared).collect() })
            })
            .await;
        }
        if method == self.version.unprepare {
            return grpc::unary(request, |question: super::api::Claims| async move {
                let error = self.note("unprepare", &question);
                let done = |claim: Claim| (claim.uid, Unprepared { error: error.clone() });
                Ok(UnprepareResponse { claims: question.claims.into_iter().map(done).collect() })
            })
            .await;
        }
        match &self.health {
            Some(health) if method == WATCH => {
                let answers = WatchStream::new(health.clone()).map(|devices| Ok(WatchResponse { devices }));
                let service = Streaming(Mutex::new(Some(Box::pin(answers))));
                let codec = tonic_prost::ProstCodec::<WatchResponse, Nothing>::default();
                tonic::server::Grpc::new(codec).server_streaming(service, request).await
            }
            _ => grpc::unimplemented(method),
        }
    }
}

type Answers = std::pin::Pin<Box<dyn futures::Stream<Item = Result<WatchResponse, Status>> + Send>>;

/// Answers once, with a stream.
struct Streaming(Mutex<Option<Answers>>);

impl tonic::server::ServerStreamingService<Nothing> for Streaming {
    type Response = WatchResponse;
    type ResponseStream = Answers;
    type Future = std::future::Ready<Result<tonic::Response<Answers>, Status>>;

    fn call(&mut self, _: tonic::Request<Nothing>) -> Self::Future {
        let answers = self.0.get_mut().take().ok_or_else(|| Status::internal("asked twice"));
        std::future::ready(answers.map(tonic::Response::new))
    }
}

fn pod(uid: &str, claims: &[&str]) -> Value {
    let entry = |name: &&str| object!({"name": (*name), "resourceClaimName": (*name)});
    let used = |name: &&str| object!({"name": (*name), "request": "r"});
    let (entries, used) = (claims.iter().map(entry).collect(), claims.iter().map(used).collect());
    object!({
        "metadata": {"name": "p", "namespace": "n", "uid": uid},
        "spec": {
            "resourceClaims": (Value::Array(entries)),
            "containers": [{"name": "c", "resources": {"claims": (Value::Array(used))}}],
        },
    })
}

fn container(pod: &Value) -> &Value {
    &pod.array_at(&["spec", "containers"])[0]
}

/// A kubelet's part that follows a folder of plug-ins.
struct Setup {
    dir: tempfile::TempDir,
    claims: Arc<Claims>,
    server: Arc<FakeServer>,
    woken: mpsc::UnboundedReceiver<String>,
    tasks: Tasks,
}

impl Setup {
    fn start(dir: tempfile::TempDir, server: Arc<FakeServer>, wiping_delay: Duration) -> Self {
        let claims = Arc::new(Claims::load(dir.path(), server.clone()).unwrap());
        let (wake, woken) = mpsc::unbounded_channel();
        let tasks = Tasks::new();
        let wake = Arc::new(move |uid: &str| drop(wake.send(uid.to_owned())));
        let registry = Registry { wiping_delay, ..Registry::new(claims.clone(), tasks.clone(), wake) };
        registry.start();
        let folder = dir.path().join("plugins_registry");
        std::fs::create_dir_all(&folder).unwrap();
        let handler: Arc<dyn plugins::Handler> = Arc::new(registry);
        let stop = tasks.token();
        tasks.plain("plug-ins", async move {
            tokio::select! {
                ended = plugins::run(&folder, [("DRAPlugin", handler)].into()) => Ok(ended?),
                () = stop.cancelled() => Ok(()),
            }
        });
        Self { dir, claims, server, woken, tasks }
    }

    /// The kubelet is killed and started again.
    async fn restart(self) -> Self {
        self.tasks.cancel();
        self.tasks.ended().await;
        Self::start(self.dir, self.server, Duration::from_secs(3600))
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join("plugins_registry").join(name)
    }

    /// Serves a driver, and waits until it is known.
    async fn serve(&self, socket: &str, driver: &Arc<FakeDriver>) -> Running {
        let before = self.claims.drivers.lock().count();
        let socket = self.socket(socket);
        let (listener, stop) = (grpc::listen(&socket).unwrap(), CancellationToken::new());
        let (driver, until) = (driver.clone(), stop.clone());
        self.tasks.plain("driver", async move {
            grpc::serve(listener, driver, until).await;
            Ok(())
        });
        let arrived = async {
            loop {
                let arrived = self.claims.arrived.notified();
                if self.claims.drivers.lock().has_newer(before) {
                    return;
                }
                arrived.await;
            }
        };
        tokio::time::timeout(LIMIT, arrived).await.expect("the driver is known in time");
        Running { socket, stop }
    }

    async fn until_wiped(&self, expected: &[Option<&str>]) {
        let mut wiped = self.server.wiped.subscribe();
        let same =
            |wiped: &Vec<Option<String>>| wiped.iter().map(Option::as_deref).eq(expected.iter().copied());
        tokio::time::timeout(LIMIT, wiped.wait_for(same)).await.expect("the slices go in time").unwrap();
    }
}

struct Running {
    socket: PathBuf,
    stop: CancellationToken,
}

impl Running {
    /// The driver is uninstalled.
    fn end(self) {
        self.stop.cancel();
        std::fs::remove_file(&self.socket).unwrap();
    }
}

#[tokio::test]
async fn two_pods_share_a_claim_and_the_last_one_gives_it_back() {
    let setup = Setup::start(tempfile::tempdir().unwrap(), server(), Duration::from_secs(3600));
    let (one, two) = (pod("u1", &["shared"]), pod("u2", &["shared"]));
    let early = setup.claims.prepare(&one).await.unwrap_err();
    assert_eq!(early, "prepare dynamic resources: DRA driver gpu.example.com is not registered");
    assert!(setup.claims.known.lock().is_empty());
    let driver = FakeDriver::new(VERSIONS[0], None);
    let _running = setup.serve("gpu.sock", &driver).await;
    let (first, second) = tokio::join!(setup.claims.prepare(&one), setup.claims.prepare(&two));
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(driver.taken(), ["prepare shared"]);
    assert_eq!(setup.claims.cdi_ids(&two, container(&two)).unwrap(), ["example.com/gpu=shared"]);
    let given = setup.claims.given(&one, container(&one));
    assert_eq!(
        (given[0].claim_name.as_str(), given[0].claim_resources[0].driver_name.as_str()),
        ("shared", D)
    );
    assert_eq!(setup.claims.in_use(), [("<any>".to_owned(), 1), (D.to_owned(), 1)].into());
    setup.claims.unprepare("u1").await.unwrap();
    assert!(driver.taken().is_empty());
    // The driver cannot do it at first.
    "busy".clone_into(&mut driver.complaint.lock());
    let failed = setup.claims.unprepare("u2").await.unwrap_err();
    assert_eq!(
        failed,
        "unprepare dynamic resources: NodeUnprepareResources failed for ResourceClaim shared: busy"
    );
    setup.claims.unprepare("u2").await.unwrap();
    assert_eq!(driver.taken(), ["unprepare shared", "unprepare shared"]);
    assert!(setup.claims.cdi_ids(&two, container(&two)).is_err());
    setup.claims.unprepare("u2").await.unwrap();
    assert!(driver.taken().is_empty());
    assert_eq!(setup.claims.metrics.count("UnprepareResources", "true"), 1);
    assert_eq!(setup.claims.metrics.count("PrepareResources", "false"), 2);
}

#[tokio::test]
async fn what_was_prepared_is_known_after_a_restart_and_given_back_when_the_pod_is_gone() {
    let setup = Setup::start(tempfile::tempdir().unwrap(), server(), Duration::from_secs(3600));
    let driver = FakeDriver::new(VERSIONS[1], None);
    let running = setup.serve("gpu.sock", &driver).await;
    let pod = pod("u1", &["shared", "other"]);
    setup.claims.prepare(&pod).await.unwrap();
    assert_eq!(driver.taken(), ["prepare shared", "prepare other"]);
    running.end();
    let setup = setup.restart().await;
    // Containers can be started again without the driver.
    let ids = ["example.com/gpu=other", "example.com/gpu=shared"];
    assert_eq!(setup.claims.cdi_ids(&pod, container(&pod)).unwrap(), ids);
    assert_eq!(setup.claims.in_use()["<any>"], 0);
    let running = setup.serve("gpu.sock", &driver).await;
    // A new sandbox has everything prepared again; nothing is there twice.
    setup.claims.prepare(&pod).await.unwrap();
    assert_eq!(driver.taken(), ["prepare shared", "prepare other"]);
    assert_eq!(setup.claims.given(&pod, container(&pod))[0].claim_resources.len(), 1);
    running.end();
    let setup = setup.restart().await;
    setup.claims.clean_up(|uid| uid == "u1").await;
    assert_eq!(setup.claims.known.lock().len(), 2);
    // The pod went meanwhile, and its driver comes late.
    let claims = setup.claims.clone();
    let clean_up = claims.clean_up(|_| false);
    let (running, ()) = tokio::join!(setup.serve("gpu.sock", &driver), clean_up);
    let mut taken = driver.taken();
    taken.sort();
    assert_eq!(taken, ["unprepare other", "unprepare shared"]);
    running.end();
    let setup = setup.restart().await;
    assert!(setup.claims.known.lock().is_empty());
}

#[tokio::test]
async fn claims_that_cannot_be_had_are_told_apart() {
    let setup = Setup::start(tempfile::tempdir().unwrap(), server(), Duration::from_secs(3600));
    let driver = FakeDriver::new(VERSIONS[0], None);
    let _running = setup.serve("gpu.sock", &driver).await;
    for (uid, name, message) in [
        (
            "u1",
            "missing",
            "fetch ResourceClaim missing: resourceclaims.resource.k8s.io \"missing\" not found",
        ),
        ("u1", "pending", "ResourceClaim pending: not allocated"),
        ("u3", "shared", "pod p (u3) is not allowed to use ResourceClaim shared (1)"),
    ] {
        let failed = setup.claims.prepare(&pod(uid, &[name])).await.unwrap_err();
        assert_eq!(failed, format!("prepare dynamic resources: {message}"));
    }
    "no such device".clone_into(&mut driver.complaint.lock());
    let failed = setup.claims.prepare(&pod("u1", &["other"])).await.unwrap_err();
    let message =
        "prepare dynamic resources: NodePrepareResources failed for ResourceClaim other: no such device";
    assert_eq!(failed, message);
    // Another claim of that name, while the driver has not been told that the first one is gone.
    setup.claims.known.lock().values_mut().for_each(|info| "0".clone_into(&mut info.uid));
    let failed = setup.claims.prepare(&pod("u1", &["other"])).await.unwrap_err();
    let message = "old ResourceClaim with same name other and different UID 0 still exists (previous pod force-deleted?!)";
    assert_eq!(failed, format!("prepare dynamic resources: {message}"));
    assert_eq!(setup.claims.prepare(&Value::object()).await, Ok(()));
}

#[tokio::test]
async fn the_slices_of_a_driver_go_with_it_unless_it_comes_back() {
    let setup = Setup::start(tempfile::tempdir().unwrap(), server(), Duration::from_millis(1));
    setup.until_wiped(&[None]).await;
    let driver = FakeDriver::new(VERSIONS[0], None);
    let running = setup.serve("gpu.sock", &driver).await;
    let before = setup.server.wiped.borrow().len();
    running.end();
    // That it was not reached yet when it came may count as well.
    let gone = vec![Some(D); before];
    setup.until_wiped(&[&[None][..], &gone].concat()).await;
    let _running = setup.serve("gpu.sock", &driver).await;
    assert!(setup.claims.is_usable(D));
    let patient = Setup::start(tempfile::tempdir().unwrap(), server(), Duration::from_secs(3600));
    let first = patient.serve("one.sock", &driver).await;
    assert!(patient.claims.drivers.lock().waits().is_empty());
    // The process dies and leaves its socket; then it is started again at the same place.
    first.stop.cancel();
    let again = patient.serve("one.sock", &driver).await;
    assert!(patient.claims.drivers.lock().waits().is_empty());
    assert!(again.socket.exists() && patient.claims.is_usable(D));
}

#[tokio::test]
async fn of_several_plugins_of_a_driver_the_newest_is_asked() {
    let setup = Setup::start(tempfile::tempdir().unwrap(), server(), Duration::from_millis(1));
    let (old, new) = (FakeDriver::new(VERSIONS[1], None), FakeDriver::new(VERSIONS[0], None));
    let _old = setup.serve("old.sock", &old).await;
    let running = setup.serve("new.sock", &new).await;
    setup.claims.prepare(&pod("u1", &["other"])).await.unwrap();
    assert_eq!((old.taken().len(), new.taken().len()), (0, 1));
    running.stop.cancel();
    // While nobody answers at the newest, the other one is asked.
    let asked = async {
        while setup.claims.drivers.lock().connected(D) != 1 {
            tokio::task::yield_now().await;
        }
        setup.claims.prepare(&pod("u2", &["shared"])).await.unwrap();
    };
    tokio::time::timeout(LIMIT, asked).await.unwrap();
    assert_eq!((old.taken().len(), new.taken().len()), (1, 0));
}

#[tokio::test]
async fn the_health_of_devices_shows_in_the_pods_that_have_them() {
    let told = |health: i32| {
        let device = DeviceId { pool_name: "pool".to_owned(), device_name: "shared".to_owned() };
        let message = if health == HEALTHY { "" } else { "too hot" };
        vec![DeviceHealth {
            device: Some(device),
            health,
            last_updated_time: 0,
            health_check_timeout_seconds: 3600,
            message: message.to_owned(),
        }]
    };
    let (sender, receiver) = watch::channel(Vec::new());
    let mut setup = Setup::start(tempfile::tempdir().unwrap(), server(), Duration::from_secs(3600));
    let driver = FakeDriver::new(VERSIONS[0], Some(receiver));
    let running = setup.serve("gpu.sock", &driver).await;
    let pod = pod("u1", &["shared"]);
    assert!(setup.claims.health(&pod, "c").is_empty());
    setup.claims.prepare(&pod).await.unwrap();
    let shown =
        |health: Value| vec![object!({"name": "claim:shared/r", "resources": (Value::Array(vec![health]))})];
    let unknown = object!({"resourceID": "example.com/gpu=shared", "health": "Unknown"});
    assert_eq!(setup.claims.health(&pod, "c"), shown(unknown.clone()));
    for (health, expected) in [
        (HEALTHY, object!({"resourceID": "example.com/gpu=shared", "health": "Healthy"})),
        (
            UNHEALTHY,
            object!({"resourceID": "example.com/gpu=shared", "health": "Unhealthy", "message": "too hot"}),
        ),
    ] {
        sender.send_replace(told(health));
        assert_eq!(setup.woken.recv().await.as_deref(), Some("u1"));
        assert_eq!(setup.claims.health(&pod, "c"), shown(expected));
    }
    running.end();
    let silent = async {
        while setup.claims.health(&pod, "c") != shown(unknown.clone()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, silent).await.expect("a driver that is gone says nothing");
}
