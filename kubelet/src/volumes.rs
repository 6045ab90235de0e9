//! The volumes of a pod on the host: made before its containers, kept up to date, taken down after them.
//!
//! All of a pod's volumes live in its own folder, laid out as upstream does, except that local persistent volumes are
//! handed to the container by their own path.

mod atomic;
mod host_path;
pub(crate) mod ownership;
mod plugin;
mod projected;
mod subpath;
mod token;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use api::quantity::Quantity;
use api::{Value, object};
use client::Client;
use client::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES};
use parking_lot::Mutex;

use crate::csi::{Csi, Source, Wanted};
use crate::downward;
use crate::metrics::Storage;
use crate::objects::Objects;

pub(crate) use subpath::prepare as prepare_subpath;
pub(crate) use token::Tokens;

/// Why a volume cannot be used yet.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed for volume {volume:?} : {message}")]
pub(crate) struct Error {
    /// What was done.
    pub operation: &'static str,
    /// The volume's name in the pod's spec, or the persistent volume's own.
    pub volume: String,
    /// What stands in the way.
    pub message: String,
}

/// The host's path of every volume, by the volume's name.
pub(crate) type Mounted = HashMap<String, PathBuf>;

/// Makes volumes.
pub(crate) struct Volumes {
    client: Client,
    objects: Arc<Objects>,
    tokens: Arc<Tokens>,
    csi: Arc<Csi>,
    /// Persistent volumes of drivers as pods call them: by the pod's uid and the volume, its name in the spec and its claim.
    names: Mutex<HashMap<(String, String), (String, String)>>,
    /// Who made the volumes of pods that are there, by the pod's uid and the volume's name in the spec.
    made: Mutex<HashMap<String, BTreeMap<String, String>>>,
    metrics: Arc<Storage>,
}

/// What a single volume is made from.
struct Context<'a> {
    pod: &'a Value,
    volume: &'a Value,
    dir: &'a Path,
    facts: &'a downward::Facts<'a>,
}

impl Context<'_> {
    fn name(&self) -> &str {
        self.volume.str_at(&["name"])
    }

    fn failed(&self, operation: &'static str, volume: &str, message: String) -> Error {
        Error { operation, volume: volume.to_owned(), message }
    }

    /// The folder of the volume below the pod's, by upstream's name of the plug-in.
    fn path(&self, plugin: &str) -> PathBuf {
        self.dir.join("volumes").join(format!("kubernetes.io~{plugin}")).join(self.name())
    }
}

/// The result of making one volume; the error is a sentence.
type Made = Result<PathBuf, String>;

/// What cannot be said of a volume that nobody has made yet.
const UNKNOWN: &str = "N/A";

impl Volumes {
    /// Reads what volumes show through `objects`.
    pub(crate) fn new(
        (client, objects): (Client, Arc<Objects>),
        tokens: Arc<Tokens>,
        csi: Arc<Csi>,
        metrics: Arc<Storage>,
    ) -> Self {
        let (names, made) = (Mutex::default(), Mutex::default());
        Self { client, objects, tokens, csi, names, made, metrics }
    }

    /// How many volumes these pods have, and how many of them are there, by who makes them.
    pub(crate) fn count<'p>(
        &self,
        pods: impl Iterator<Item = &'p Arc<Value>>,
    ) -> (BTreeMap<String, i64>, BTreeMap<String, i64>) {
        let (mut wanted, mut there) = (BTreeMap::new(), BTreeMap::new());
        let made = self.made.lock();
        for pod in pods {
            let made = made.get(pod.uid());
            for volume in pod.array_at(&["spec", "volumes"]) {
                let known = made.and_then(|made| made.get(volume.str_at(&["name"])));
                let plugin = known.cloned().or_else(|| plugin::of_kind(volume));
                *wanted.entry(plugin.unwrap_or_else(|| UNKNOWN.to_owned())).or_default() += 1;
            }
        }
        for plugin in made.values().flat_map(BTreeMap::values) {
            *there.entry(plugin.clone()).or_default() += 1;
        }
        (wanted, there)
    }

    /// Makes all volumes of a pod, or brings those that show objects up to date. `dir` is the pod's folder.
    pub(crate) async fn mount(
        &self,
        pod: &Value,
        dir: &Path,
        facts: &downward::Facts<'_>,
    ) -> Result<Mounted, Vec<Error>> {
        let mut mounted = Mounted::new();
        let mut errors = Vec::new();
        for volume in pod.array_at(&["spec", "volumes"]) {
            let context = Context { pod, volume, dir, facts };
            // Images are mounted by the runtime.
            if !volume.get("image").is_null() {
                continue;
            }
            let began = Instant::now();
            let made = self.one(&context).await;
            self.count_one(&context, made.as_ref().ok().map(|(_, plugin)| plugin), began);
            match made {
                Ok((path, _)) => drop(mounted.insert(context.name().to_owned(), path)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(mounted) } else { Err(errors) }
    }

    /// Counts that a volume was made, which is no news of one that was there, or could not be.
    fn count_one(&self, context: &Context<'_>, plugin: Option<&String>, began: Instant) {
        let mut made = self.made.lock();
        let known = made.get(context.pod.uid()).and_then(|made| made.get(context.name())).cloned();
        if known.is_none() || plugin.is_none() {
            let named = plugin.cloned().or_else(|| known.clone()).or_else(|| plugin::of_kind(context.volume));
            let named = named.as_deref().unwrap_or(UNKNOWN);
            self.metrics.mounted(named, plugin.is_some(), began.elapsed());
        }
        if let Some(plugin) = plugin.filter(|_| known.is_none()) {
            let of_pod = made.entry(context.pod.uid().to_owned()).or_default();
            of_pod.insert(context.name().to_owned(), plugin.clone());
        }
    }

    /// The path of a volume, and who made it.
    async fn one(&self, context: &Context<'_>) -> Result<(PathBuf, String), Error> {
        let volume = context.volume;
        let set_up = |message: String| context.failed("MountVolume.SetUp", context.name(), message);
        let kind = volume.as_object().into_iter().flat_map(|map| map.keys()).find(|key| *key != "name");
        let path = match kind {
            None | Some("emptyDir") => empty_dir(context).map_err(|error| set_up(error.to_string())),
            Some("hostPath") => host_path::check(volume.get("hostPath")).map_err(set_up),
            Some("persistentVolumeClaim") => {
                let source = volume.get("persistentVolumeClaim");
                let read_only = source.get("readOnly").as_bool().unwrap_or_default();
                return self.claimed(context, source.str_at(&["claimName"]), read_only).await;
            }
            Some("ephemeral") => {
                let claim = format!("{}-{}", context.pod.name(), context.name());
                return self.claimed(context, &claim, false).await;
            }
            Some("csi") => {
                let source = Source::Inline(volume.get("csi"));
                let wanted = Wanted { pod: context.pod, name: context.name(), source };
                let mounted = self.csi.mount(&wanted).await;
                mounted.map_err(|failure| context.failed(failure.operation, wanted.name, failure.message))
            }
            Some(kind @ ("configMap" | "secret" | "projected" | "downwardAPI")) => {
                self.shown(context, kind).await.map_err(set_up)
            }
            Some(other) => Err(set_up(format!("volumes of type {other} are not supported"))),
        };
        path.map(|path| (path, plugin::of_kind(volume).unwrap_or_else(|| UNKNOWN.to_owned())))
    }

    /// A volume whose files show objects.
    async fn shown(&self, context: &Context<'_>, kind: &str) -> Made {
        let files = projected::files(self, context, kind).await?;
        let (plugin, in_memory) = match kind {
            "configMap" => ("configmap", false),
            "secret" => ("secret", true),
            "projected" => ("projected", true),
            _ => ("downward-api", true),
        };
        let path = context.path(plugin);
        let write = || -> io::Result<()> {
            make_dir(&path, 0o777)?;
            // What is secret never reaches a disk.
            if in_memory && !linux::mount::is_mount_point(&path)? {
                linux::mount::tmpfs(&path, None)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
            }
            if atomic::write(&path, &files)? {
                ownership::apply(context.pod, &path, true)?;
            }
            Ok(())
        };
        write().map_err(|error| error.to_string())?;
        Ok(path)
    }

    /// A persistent volume by the claim to it.
    async fn claimed(
        &self,
        context: &Context<'_>,
        claim: &str,
        read_only: bool,
    ) -> Result<(PathBuf, String), Error> {
        let set_up = |message: String| context.failed("MountVolume.SetUp", context.name(), message);
        let (claim, volume) = self.bound(context, claim).await.map_err(set_up)?;
        let plugin = plugin::of_persistent(&volume);
        if volume.at(&["spec", "csi"]).is_null() {
            return on_node(context, &volume).map(|path| (path, plugin)).map_err(set_up);
        }
        let source = Source::Persistent { volume: &volume, read_only };
        let wanted = Wanted { pod: context.pod, name: volume.name(), source };
        let mounted = self.csi.mount(&wanted).await;
        let path =
            mounted.map_err(|failure| context.failed(failure.operation, wanted.name, failure.message))?;
        let names = (context.name().to_owned(), claim.name().to_owned());
        self.names.lock().insert((context.pod.uid().to_owned(), volume.name().to_owned()), names);
        self.csi.grow(&wanted, &claim, &path).await;
        Ok((path, plugin))
    }

    /// What a pod calls a persistent volume, and the claim to it.
    pub(crate) fn names(&self, uid: &str, volume: &str) -> Option<(String, String)> {
        self.names.lock().get(&(uid.to_owned(), volume.to_owned())).cloned()
    }

    /// A claim and the volume that it is bound to.
    async fn bound(&self, context: &Context<'_>, name: &str) -> Result<(Value, Value), String> {
        let namespace = context.pod.namespace();
        let claim = self.client.get_opt(&PERSISTENT_VOLUME_CLAIMS, namespace, name).await;
        let claim = claim.map_err(|error| error.to_string())?;
        let claim = claim.ok_or_else(|| format!("persistentvolumeclaim {name:?} not found"))?;
        let volume = claim.str_at(&["spec", "volumeName"]);
        if volume.is_empty() || claim.str_at(&["status", "phase"]) != "Bound" {
            return Err(format!("PVC {namespace}/{name} is not bound"));
        }
        let volume =
            self.client.get(&PERSISTENT_VOLUMES, "", volume).await.map_err(|error| error.to_string())?;
        if volume.str_at(&["spec", "claimRef", "uid"]) != claim.uid() {
            return Err(format!("PVC {namespace}/{name} is bound to a volume that another claim uses"));
        }
        Ok((claim, volume))
    }

    /// Forgets what was kept for a pod, and takes its mounts down, those of drivers by their drivers. Its folder can be
    /// removed then.
    pub(crate) async fn unmount(&self, uid: &str, dir: &Path) -> io::Result<()> {
        self.tokens.forget(uid);
        self.objects.forget(uid);
        // Parts of volumes are mounted from them.
        linux::mount::unmount_below(&dir.join("volume-subpaths"))?;
        self.csi.unmount(uid).await.map_err(io::Error::other)?;
        self.names.lock().retain(|(pod, _), _| pod != uid);
        self.made.lock().remove(uid);
        linux::mount::unmount_below(dir)
    }
}

/// A persistent volume that is a path on this node.
fn on_node(context: &Context<'_>, volume: &Value) -> Made {
    let block = volume.str_at(&["spec", "volumeMode"]) == "Block";
    match (volume.at(&["spec", "local"]), volume.at(&["spec", "hostPath"])) {
        (Value::Null, Value::Null) => Err(format!(
            "persistent volume {:?} is neither local nor a host path nor of a CSI driver",
            volume.name()
        )),
        (Value::Null, host_path) => host_path::check(host_path),
        (local, _) => {
            let path = PathBuf::from(local.str_at(&["path"]));
            if block {
                return host_path::check(
                    &object!({"path": (local.str_at(&["path"])), "type": "BlockDevice"}),
                );
            }
            if !path.is_dir() {
                return Err(format!("path {:?} does not exist", path.display()));
            }
            ownership::apply(context.pod, &path, false).map_err(|error| error.to_string())?;
            Ok(path)
        }
    }
}

fn empty_dir(context: &Context<'_>) -> io::Result<PathBuf> {
    let path = context.path("empty-dir");
    let fresh = !path.exists();
    make_dir(&path, 0o777)?;
    let settings = context.volume.get("emptyDir");
    let medium = settings.str_at(&["medium"]);
    if medium.starts_with(HUGE_PAGES) {
        if !linux::mount::is_mount_point(&path)? {
            linux::mount::hugetlbfs(&path, page_size(context.pod, medium).map_err(io::Error::other)?)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
            ownership::apply(context.pod, &path, false)?;
        }
    } else if medium == "Memory" && !linux::mount::is_mount_point(&path)? {
        let limit = settings.str_at(&["sizeLimit"]).parse::<Quantity>().ok().map(|size| size.units());
        linux::mount::tmpfs(&path, limit.filter(|size| *size > 0).map(i64::unsigned_abs))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        ownership::apply(context.pod, &path, false)?;
    } else if fresh {
        ownership::apply(context.pod, &path, false)?;
    }
    Ok(path)
}

/// The media of folders whose files consist of huge pages: this, or this with a size.
const HUGE_PAGES: &str = "HugePages";

/// The size of the huge pages of a folder; the error is a sentence.
fn page_size(pod: &Value, medium: &str) -> Result<u64, String> {
    let wanted = medium.strip_prefix("HugePages-").map(str::to_owned);
    let containers = crate::pods::spec::all_containers(pod).map(|container| container.get("resources"));
    let requests =
        containers.chain([pod.at(&["spec", "resources"])]).filter_map(|r| r.get("requests").as_object());
    let sizes = requests.flat_map(|map| map.iter()).filter_map(|(name, _)| name.strip_prefix("hugepages-"));
    let mut sizes: Vec<&str> =
        sizes.filter(|size| wanted.as_ref().is_none_or(|wanted| wanted == size)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let size = match sizes.as_slice() {
        [size] => *size,
        [] => {
            return Err(format!(
                "medium {medium}: hugePages storage requested, but there is no resource request for huge pages"
            ));
        }
        _ => {
            return Err(format!(
                "medium: {medium} can't be used if container requests multiple huge page sizes"
            ));
        }
    };
    let size: Quantity = size.parse().map_err(|_| format!("invalid size of huge pages {size:?}"))?;
    u64::try_from(size.units()).map_err(|error| error.to_string())
}

/// Makes a folder with its parents; the folder itself gets exactly this mode.
fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_huge_pages_have_the_size_that_containers_ask_for() {
        let pod =
            |requests: Value| object!({"spec": {"containers": [{"resources": {"requests": (requests)}}]}});
        let one = pod(object!({"hugepages-2Mi": "4Mi", "cpu": "1"}));
        let two = pod(object!({"hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi"}));
        for (pod, medium, expected) in [
            (&one, "HugePages", Ok(2 << 20)),
            (&two, "HugePages-1Gi", Ok(1 << 30)),
            (
                &one,
                "HugePages-1Gi",
                Err(
                    "medium HugePages-1Gi: hugePages storage requested, but there is no resource request for huge pages",
                ),
            ),
            (
                &two,
                "HugePages",
                Err("medium: HugePages can't be used if container requests multiple huge page sizes"),
            ),
        ] {
            assert_eq!(page_size(pod, medium), expected.map_err(str::to_owned), "{medium}");
        }
    }
}
