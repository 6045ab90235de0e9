//! Showing volumes to pods.

use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::Value;
use tokio::time::Instant;

use super::api::{
    AccessMode, AccessType, Capability, MountVolume, Nothing, PUBLISH, PublishRequest, STAGE, StageRequest,
    Strings, VolumeCapability,
};
use super::driver::{Driver, is_final};
use super::facts::Facts;
use super::files::{Data, attachment, gone, inline_handle};
use super::{Csi, Local};
use crate::volumes::ownership;

/// A driver that wants its volumes shown again and again is asked no more often than this.
const AGAIN: Duration = Duration::from_secs(30);

/// A volume that a pod is to see.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The pod.
    pub pod: &'a Value,
    /// The persistent volume's name, or the name of the volume in the pod's spec.
    pub name: &'a str,
    /// What it is.
    pub source: Source<'a>,
}

/// Where a volume comes from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// A persistent volume.
    Persistent {
        /// The PersistentVolume.
        volume: &'a Value,
        /// The pod's claim to it asks for that.
        read_only: bool,
    },
    /// `csi` of a volume in the pod's spec.
    Inline(&'a Value),
}

/// What went wrong with a volume, and while doing what.
#[derive(Debug)]
pub(crate) struct Failure {
    /// `MountVolume.SetUp`, for instance.
    pub operation: &'static str,
    /// A sentence.
    pub message: String,
}

impl Failure {
    pub(super) fn set_up(why: impl Display) -> Self {
        Self { operation: "MountVolume.SetUp", message: why.to_string() }
    }

    pub(super) fn device(why: impl Display) -> Self {
        Self { operation: "MountVolume.MountDevice", message: why.to_string() }
    }

    pub(super) fn attach(why: impl Display) -> Self {
        Self { operation: "MountVolume.WaitForAttach", message: why.to_string() }
    }
}

impl<'a> Wanted<'a> {
    fn csi(&self) -> &'a Value {
        match self.source {
            Source::Persistent { volume, .. } => volume.at(&["spec", "csi"]),
            Source::Inline(source) => source,
        }
    }

    /// The driver's name.
    pub(super) fn driver(&self) -> &'a str {
        self.csi().str_at(&["driver"])
    }

    /// The driver's name for the volume.
    pub(super) fn handle(&self) -> String {
        match self.source {
            Source::Persistent { .. } => self.csi().str_at(&["volumeHandle"]).to_owned(),
            Source::Inline(_) => inline_handle(self.pod.uid(), self.name),
        }
    }

    fn lifecycle(&self) -> &'static str {
        if matches!(self.source, Source::Inline(_)) { "Ephemeral" } else { "Persistent" }
    }

    fn read_only(&self) -> bool {
        match self.source {
            Source::Persistent { read_only, .. } => read_only,
            Source::Inline(source) => source.get("readOnly").as_bool().unwrap_or_default(),
        }
    }

    pub(super) fn is_block(&self) -> bool {
        match self.source {
            Source::Persistent { volume, .. } => volume.str_at(&["spec", "volumeMode"]) == "Block",
            Source::Inline(_) => false,
        }
    }

    fn access_modes(&self) -> &'a [Value] {
        match self.source {
            Source::Persistent { volume, .. } => volume.array_at(&["spec", "accessModes"]),
            Source::Inline(_) => &[],
        }
    }

    /// How the volume is used, in the driver's terms.
    pub(super) async fn capability(
        &self,
        driver: &Driver,
        group: Option<i64>,
    ) -> crate::grpc::Result<VolumeCapability> {
        let fine = driver.can(Capability::SingleNodeMultiWriter).await?;
        let mode = match (self.access_modes().first().and_then(Value::as_str), fine) {
            (Some("ReadOnlyMany"), _) => 3,
            (Some("ReadWriteMany"), _) => 5,
            (Some("ReadWriteOncePod"), true) => 6,
            (_, true) => 7,
            (_, false) => 1,
        };
        let kind = if self.is_block() {
            AccessType::Block(Nothing {})
        } else {
            let flags = match self.source {
                Source::Persistent { volume, .. } => volume.array_at(&["spec", "mountOptions"]),
                Source::Inline(_) => &[],
            };
            AccessType::Mount(MountVolume {
                fs_type: self.csi().str_at(&["fsType"]).to_owned(),
                flags: flags.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                group: group.map(|group| group.to_string()).unwrap_or_default(),
            })
        };
        Ok(VolumeCapability { kind: Some(kind), mode: Some(AccessMode { mode }) })
    }

    fn data(&self, node: &str) -> Data {
        let handle = self.handle();
        Data {
            name: self.name.to_owned(),
            attachment: attachment(&handle, self.driver(), node),
            handle,
            driver: self.driver().to_owned(),
            node: node.to_owned(),
            lifecycle: self.lifecycle().to_owned(),
            ..Data::default()
        }
    }

    fn group(&self) -> Option<i64> {
        self.pod.at(&["spec", "securityContext", "fsGroup"]).as_i64()
    }

    /// Whether the kubelet has to give the files of the volume to the pod's group.
    fn needs_owner(&self, object: &Value) -> bool {
        let policy = object.str_at(&["spec", "fsGroupPolicy"]);
        if self.group().is_none() || policy == "None" || self.read_only() {
            return false;
        }
        if policy == "File" {
            return true;
        }
        let writers = |mode: &Value| matches!(mode.as_str(), Some("ReadWriteOnce" | "ReadWriteOncePod"));
        let inline = matches!(self.source, Source::Inline(_));
        !self.csi().str_at(&["fsType"]).is_empty() && (inline || self.access_modes().iter().any(writers))
    }

    /// Whether the driver takes volumes of this kind; the error is a sentence.
    fn check(&self, object: &Value) -> Result<(), String> {
        let (mode, driver) = (self.lifecycle(), self.driver());
        let failed = |why: String| {
            Err(format!(
                "kubernetes.io/csi: mounter.SetupAt failed to check volume lifecycle mode: volume mode {mode:?} not supported by driver {driver} ({why})"
            ))
        };
        if object.is_null() {
            return if mode == "Persistent" { Ok(()) } else { failed("no CSIDriver object".to_owned()) };
        }
        let modes = object.array_at(&["spec", "volumeLifecycleModes"]);
        if modes.is_empty() && mode == "Persistent" || modes.iter().any(|known| known.as_str() == Some(mode))
        {
            return Ok(());
        }
        let modes: Vec<_> = modes.iter().filter_map(Value::as_str).collect();
        failed(format!("only supports {modes:?}"))
    }
}

impl Csi {
    /// Shows a volume to a pod, or again where the driver wants that. Returns where it is on the host.
    pub(crate) async fn mount(&self, wanted: &Wanted<'_>) -> Result<PathBuf, Failure> {
        let key = (wanted.pod.uid().to_owned(), wanted.name.to_owned());
        let since = self.local.published.lock().get(&key).copied();
        let path = self.local.path(wanted);
        if let Some(since) = since {
            let asked = since.elapsed() < AGAIN;
            let again = !asked
                && self.object(wanted.driver()).await?.at(&["spec", "requiresRepublish"]).as_bool()
                    == Some(true);
            if !again {
                return Ok(path);
            }
        }
        let driver = self.local.driver(wanted.driver()).map_err(|why| {
            Failure::set_up(format!("kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: {why}"))
        })?;
        let facts = self.facts(wanted, &driver).await?;
        self.local.mount(wanted, &driver, &facts).await?;
        self.local.published.lock().insert(key, Instant::now());
        Ok(path)
    }
}

fn make(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)
}

impl Local {
    /// Where the containers' mounts or devices come from.
    fn path(&self, wanted: &Wanted<'_>) -> PathBuf {
        let uid = wanted.pod.uid();
        match wanted.is_block() {
            true => self.layout.devices(uid).join(wanted.name),
            false => self.layout.target(uid, wanted.name),
        }
    }

    pub(super) fn staging(&self, wanted: &Wanted<'_>) -> PathBuf {
        match wanted.is_block() {
            true => self.layout.block_staging(wanted.name),
            false => self.layout.staging(wanted.driver(), &wanted.handle()),
        }
    }

    /// Makes a volume ready if that has not been done, and shows it to the pod.
    pub(super) async fn mount(
        &self,
        wanted: &Wanted<'_>,
        driver: &Driver,
        facts: &Facts,
    ) -> Result<(), Failure> {
        wanted.check(&facts.object).map_err(Failure::set_up)?;
        let key = (wanted.driver().to_owned(), wanted.handle());
        let _turn = self.turn(&key).await;
        let uid = wanted.pod.uid();
        let (target, data) = match wanted.is_block() {
            true => (self.layout.block_target(uid, wanted.name), self.layout.block_data(wanted.name)),
            false => {
                let target = self.layout.target(uid, wanted.name);
                let data = target.parent().unwrap_or(Path::new("/")).to_owned();
                (target, data)
            }
        };
        // First it is noted what is about to be done, so that it can be undone.
        let note = || -> io::Result<()> {
            wanted.data(&self.node_name).save(&data)?;
            target.parent().map_or(Ok(()), make)?;
            if wanted.is_block() {
                make(&self.layout.devices(uid))?;
                let link = self.layout.devices(uid).join(wanted.name);
                gone(fs::remove_file(&link))?;
                symlink(&target, &link)?;
            }
            Ok(())
        };
        note().map_err(|error| {
            Failure::set_up(format!(
                "kubernetes.io/csi: mounter.SetUpAt failed to save volume info data: {error}"
            ))
        })?;
        let stages = driver.can(Capability::Stage).await.map_err(Failure::device)?;
        let persistent = matches!(wanted.source, Source::Persistent { .. });
        let delegated = driver.can(Capability::MountGroup).await.map_err(Failure::set_up)?;
        let group = wanted.group().filter(|_| delegated && !wanted.is_block());
        let capability = wanted.capability(driver, group).await.map_err(Failure::set_up)?;
        let staging = if persistent && stages { Some(self.staging(wanted)) } else { None };
        if let Some(staging) = &staging {
            self.stage(wanted, driver, facts, (staging, &capability)).await?;
        }
        let context = strings(wanted.csi().get("volumeAttributes"));
        let request = PublishRequest {
            volume_id: key.1.clone(),
            publish_context: facts.publish_context.clone(),
            staging_path: staging.map(|path| text(&path)).unwrap_or_default(),
            target_path: text(&target),
            capability: Some(capability),
            read_only: wanted.read_only(),
            secrets: facts.publish_secrets.clone(),
            volume_context: context.into_iter().chain(facts.attributes.clone()).collect(),
        };
        driver.call::<_, Nothing>(PUBLISH, request).await.map_err(Failure::set_up)?;
        if !wanted.is_block() && !delegated && wanted.needs_owner(&facts.object) {
            // A big volume takes its time.
            let pod = wanted.pod.clone();
            let applied = tokio::task::spawn_blocking(move || ownership::apply(&pod, &target, false)).await;
            let applied = applied.unwrap_or_else(|error| Err(io::Error::other(error)));
            applied.map_err(|error| {
                Failure::set_up(format!("applyFSGroup failed for vol {}: {error}", key.1))
            })?;
        }
        Ok(())
    }

    async fn stage(
        &self,
        wanted: &Wanted<'_>,
        driver: &Driver,
        facts: &Facts,
        (staging, capability): (&Path, &VolumeCapability),
    ) -> Result<(), Failure> {
        let key = (wanted.driver().to_owned(), wanted.handle());
        if self.staged.lock().contains(&key) {
            return Ok(());
        }
        let note = || -> io::Result<()> {
            make(staging)?;
            let (handle, driver) = (key.1.clone(), key.0.clone());
            match staging.parent().filter(|_| !wanted.is_block()) {
                Some(dir) => Data { handle, driver, ..Data::default() }.save(dir),
                None => Ok(()),
            }
        };
        note().map_err(|error| {
            Failure::device(format!("kubernetes.io/csi: attacher.MountDevice failed to create dir: {error}"))
        })?;
        let request = StageRequest {
            volume_id: key.1.clone(),
            publish_context: facts.publish_context.clone(),
            staging_path: text(staging),
            capability: Some(capability.clone()),
            secrets: facts.stage_secrets.clone(),
            volume_context: strings(wanted.csi().get("volumeAttributes")),
        };
        match driver.call::<_, Nothing>(STAGE, request).await {
            Ok(Nothing {}) => {
                self.staged.lock().insert(key);
                Ok(())
            }
            Err(error) => {
                if is_final(&error)
                    && let Err(error) = Data::remove(staging)
                {
                    tracing::error!(err = %error, path = %staging.display(), "Cannot remove the folder of a volume");
                }
                Err(Failure::device(error))
            }
        }
    }
}

/// A path as drivers are told it.
pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn strings(map: &Value) -> Strings {
    crate::cri::labels::strings(map)
}
