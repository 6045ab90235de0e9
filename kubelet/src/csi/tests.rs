//! Volumes with a driver that is a server of its own: it makes folders ready, and binds them into place.

use std::path::Path;
use std::sync::Arc;

use ::api::{Value, object};
use async_trait::async_trait;
use hyper::body::Incoming;
use parking_lot::Mutex;
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::api::*;
use super::driver::Driver;
use super::facts::Facts;
use super::mount::{Source, Wanted};
use super::{Local, unique};
use crate::grpc::{self, Answer, Service};
use crate::metrics::{Metrics, Storage};

const D: &str = "hostpath.csi.example.com";

#[derive(Default)]
struct Fake {
    calls: Mutex<Vec<(String, Vec<u8>)>>,
    /// Fails the next call of this method.
    fails: Mutex<Option<(&'static str, tonic::Code)>>,
}

impl Fake {
    fn note(&self, method: &str, message: &impl Message) -> Result<(), Status> {
        self.calls.lock().push((method.to_owned(), message.encode_to_vec()));
        let code = self.fails.lock().take_if(|(failing, _)| *failing == method);
        code.map_or(Ok(()), |(_, code)| Err(Status::new(code, "no")))
    }

    /// The names of the calls since the last time.
    fn taken(&self) -> Vec<String> {
        let short = |name: String| name.rsplit("/Node").next().unwrap_or_default().to_owned();
        self.calls
            .lock()
            .drain(..)
            .map(|(name, _)| short(name))
            .filter(|name| name != "GetCapabilities")
            .collect()
    }

    fn last<M: Message + Default>(&self, method: &str) -> M {
        let calls = self.calls.lock();
        let call = calls.iter().rev().find(|(name, _)| name == method).unwrap();
        M::decode(call.1.as_slice()).unwrap()
    }
}

fn bind(from: &str, to: &str) -> Result<(), Status> {
    let bound = std::fs::create_dir_all(to).and_then(|()| linux::mount::bind(Path::new(from), Path::new(to)));
    bound.map_err(|error| Status::internal(error.to_string()))
}

#[async_trait]
impl Service for Fake {
    async fn answer(&self, method: &str, request: http::Request<Incoming>) -> Answer {
        match method {
            CAPABILITIES => {
                let kinds = [Capability::Stage, Capability::Stats, Capability::Expand];
                let of = |kind: Capability| ServiceCapability { rpc: Some(Rpc { kind: kind as i32 }) };
                let answer = CapabilitiesResponse { capabilities: kinds.map(of).into() };
                grpc::unary(request, |_: Nothing| async { Ok(answer) }).await
            }
            STAGE => {
                grpc::unary(request, |question: StageRequest| async move {
                    self.note(STAGE, &question)?;
                    let made =
                        std::fs::write(Path::new(&question.staging_path).join("file"), &question.volume_id);
                    made.map(|()| Nothing {}).map_err(|error| Status::internal(error.to_string()))
                })
                .await
            }
            PUBLISH => {
                grpc::unary(request, |question: PublishRequest| async move {
                    self.note(PUBLISH, &question)?;
                    if question.staging_path.is_empty() {
                        std::fs::create_dir_all(&question.target_path)
                            .map_err(|e| Status::internal(e.to_string()))?;
                        return Ok(Nothing {});
                    }
                    bind(&question.staging_path, &question.target_path).map(|()| Nothing {})
                })
                .await
            }
            UNPUBLISH => {
                grpc::unary(request, |question: Place| async move {
                    self.note(UNPUBLISH, &question)?;
                    let path = Path::new(&question.path);
                    linux::mount::unmount(path).map_err(|error| Status::internal(error.to_string()))?;
                    Ok(Nothing {})
                })
                .await
            }
            UNSTAGE => {
                grpc::unary(request, |question: Place| async move {
                    self.note(UNSTAGE, &question)?;
                    let removed = std::fs::remove_file(Path::new(&question.path).join("file"));
                    removed.map(|()| Nothing {}).map_err(|error| Status::internal(error.to_string()))
                })
                .await
            }
            other => grpc::unimplemented(other),
        }
    }
}

fn metrics() -> Arc<Storage> {
    Metrics::new("n", true, daemon::features::FeatureGates::default()).storage.clone()
}

struct Setup {
    dir: tempfile::TempDir,
    local: Local,
    fake: Arc<Fake>,
    driver: Arc<Driver>,
    _stop: tokio_util::sync::DropGuard,
}

impl Setup {
    /// None where nothing can be mounted.
    fn start() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root can mount");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (fake, stop) = (Arc::new(Fake::default()), CancellationToken::new());
        let socket = dir.path().join("csi.sock");
        let listener = grpc::listen(&socket).unwrap();
        let tasks = daemon::Tasks::new();
        let (service, until) = (fake.clone(), stop.clone());
        tasks.plain("driver", async move {
            grpc::serve(listener, service, until).await;
            Ok(())
        });
        let driver = Arc::new(Driver::new(D, &socket, "1.0.0".parse().unwrap(), metrics()));
        let local = Local::new(dir.path(), "n").unwrap();
        local.drivers.lock().insert(D.to_owned(), driver.clone());
        Some(Self { dir, local, fake, driver, _stop: stop.drop_guard() })
    }

    /// Another kubelet after this one.
    fn restart(&mut self) {
        self.local = Local::new(self.dir.path(), "n").unwrap();
        self.local.drivers.lock().insert(D.to_owned(), self.driver.clone());
    }

    async fn mount(&self, pod: &Value, volume: &Value) -> Result<std::path::PathBuf, super::mount::Failure> {
        let source = Source::Persistent { volume, read_only: false };
        let wanted = Wanted { pod, name: volume.name(), source };
        let facts = Facts {
            publish_context: [("device".to_owned(), "/dev/x".to_owned())].into(),
            attributes: [("csi.storage.k8s.io/pod.name".to_owned(), pod.name().to_owned())].into(),
            ..Facts::default()
        };
        self.local.mount(&wanted, &self.driver, &facts).await?;
        Ok(self.local.layout.target(pod.uid(), volume.name()))
    }
}

fn pod(uid: &str) -> Value {
    let group = i64::from(nix::unistd::getegid().as_raw());
    object!({
        "metadata": {"name": "p", "namespace": "d", "uid": uid},
        "spec": {"securityContext": {"fsGroup": group}, "serviceAccountName": "default"},
    })
}

fn volume() -> Value {
    object!({"metadata": {"name": "pv"}, "spec": {
        "accessModes": ["ReadWriteOnce"],
        "mountOptions": ["noatime"],
        "csi": {"driver": D, "volumeHandle": "h", "fsType": "ext4", "volumeAttributes": {"a": "b"}},
    }})
}

#[tokio::test]
async fn a_volume_is_made_ready_once_shown_to_each_pod_and_given_back_after_the_last() {
    let Some(mut setup) = Setup::start() else { return };
    let path = setup.mount(&pod("u1"), &volume()).await.unwrap();
    let second = setup.mount(&pod("u2"), &volume()).await.unwrap();
    assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "h");
    let staged: StageRequest = setup.fake.last(STAGE);
    assert_eq!(
        (staged.publish_context["device"].as_str(), staged.volume_context["a"].as_str()),
        ("/dev/x", "b")
    );
    let published: PublishRequest = setup.fake.last(PUBLISH);
    assert_eq!(published.staging_path, staged.staging_path);
    assert_eq!(published.volume_context["csi.storage.k8s.io/pod.name"], "p");
    let Some(AccessType::Mount(kind)) = published.capability.unwrap().kind else { panic!("no mount") };
    assert_eq!((kind.fs_type.as_str(), kind.flags), ("ext4", vec!["noatime".to_owned()]));
    // The pod's group may write: the driver does not see to that itself.
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path.join("file")).unwrap().permissions());
    assert_eq!(mode & 0o060, 0o060);
    assert_eq!(setup.fake.taken(), ["StageVolume", "PublishVolume", "PublishVolume"]);
    setup.local.unmount("u1").await.unwrap();
    assert_eq!(setup.fake.taken(), ["UnpublishVolume"]);
    assert!(!path.parent().unwrap().exists() && second.join("file").exists());
    // What is left is taken down by the next kubelet.
    setup.restart();
    assert!(setup.local.in_use.lock().contains_key(&unique(D, "h")));
    setup.local.unmount("u2").await.unwrap();
    assert_eq!(setup.fake.taken(), ["UnpublishVolume", "UnstageVolume"]);
    assert!(!Path::new(&staged.staging_path).parent().unwrap().exists());
    assert!(setup.local.in_use.lock().is_empty());
    setup.local.unmount("u2").await.unwrap();
    assert!(setup.fake.taken().is_empty());
}

#[tokio::test]
async fn what_fails_is_undone_or_tried_again() {
    let Some(setup) = Setup::start() else { return };
    let staging = setup.local.layout.staging(D, "h");
    *setup.fake.fails.lock() = Some((STAGE, tonic::Code::Internal));
    let failure = setup.mount(&pod("u"), &volume()).await.unwrap_err();
    assert_eq!(failure.operation, "MountVolume.MountDevice");
    assert_eq!(failure.message, "rpc error: code = Internal desc = no");
    assert!(!staging.exists());
    // Whoever says that it is busy may go on: nothing is taken away from it.
    *setup.fake.fails.lock() = Some((STAGE, tonic::Code::Aborted));
    setup.mount(&pod("u"), &volume()).await.unwrap_err();
    assert!(staging.exists());
    *setup.fake.fails.lock() = Some((PUBLISH, tonic::Code::Internal));
    let failure = setup.mount(&pod("u"), &volume()).await.unwrap_err();
    assert_eq!(failure.operation, "MountVolume.SetUp");
    setup.fake.taken();
    // A pod that never got to see its volume gives it back all the same.
    *setup.fake.fails.lock() = Some((UNSTAGE, tonic::Code::Internal));
    setup.local.unmount("u").await.unwrap_err();
    setup.local.unmount("u").await.unwrap();
    assert_eq!(setup.fake.taken(), ["UnpublishVolume", "UnstageVolume", "UnpublishVolume", "UnstageVolume"]);
    setup.local.drivers.lock().clear();
    assert!(setup.mount(&pod("v"), &volume()).await.is_ok());
    let error = setup.local.unmount("v").await.unwrap_err();
    assert!(error.contains("driver name hostpath.csi.example.com not found"), "{error}");
}

#[tokio::test]
async fn inline_volumes_are_not_made_ready_and_need_a_driver_that_takes_them() {
    let Some(setup) = Setup::start() else { return };
    let (pod, source) = (pod("u"), object!({"driver": D}));
    let wanted = Wanted { pod: &pod, name: "v", source: Source::Inline(&source) };
    let failure = setup.local.mount(&wanted, &setup.driver, &Facts::default()).await.unwrap_err();
    assert!(failure.message.ends_with(
        "volume mode \"Ephemeral\" not supported by driver hostpath.csi.example.com (no CSIDriver object)"
    ));
    let facts =
        Facts { object: object!({"spec": {"volumeLifecycleModes": ["Ephemeral"]}}), ..Facts::default() };
    setup.local.mount(&wanted, &setup.driver, &facts).await.unwrap();
    assert_eq!(setup.fake.taken(), ["PublishVolume"]);
    setup.local.unmount("u").await.unwrap();
    assert_eq!(setup.fake.taken(), ["UnpublishVolume"]);
    assert!(!setup.local.layout.volumes("u").join("v").exists());
}

#[tokio::test]
async fn a_volume_is_held_before_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let local = Local::new(dir.path(), "n").unwrap();
    let reporter = async {
        local.changed.notified().await;
        let name = unique(D, "h");
        assert_eq!(local.in_use.lock().get(&name), Some(&false));
        local.in_use.lock().insert(name, true);
        local.reported.notify_waiters();
    };
    let (held, ()) = tokio::join!(local.hold(D, "h"), reporter);
    held.unwrap();
    local.let_go(D, "h");
    assert!(local.in_use.lock().is_empty());
}
