//! The volumes of a pod on the host: made before its containers, kept up to date, taken down after them.
//!
//! All of a pod's volumes live in its own folder, laid out as upstream does, except that local persistent volumes are
//! handed to the container by their own path.

mod atomic;
mod host_path;
mod ownership;
mod projected;
mod subpath;
mod token;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::Value;
use api::quantity::Quantity;
use client::Client;
use client::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES};

use crate::downward;
use crate::objects::Objects;

pub(crate) use subpath::prepare as prepare_subpath;

/// Why a volume cannot be used yet.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {message}")]
pub(crate) struct Error {
    /// The volume's name in the pod's spec.
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
    tokens: token::Tokens,
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

    /// The folder of the volume below the pod's, by upstream's name of the plug-in.
    fn path(&self, plugin: &str) -> PathBuf {
        self.dir.join("volumes").join(format!("kubernetes.io~{plugin}")).join(self.name())
    }
}

/// The result of making one volume; the error is a sentence.
type Made = Result<PathBuf, String>;

impl Volumes {
    /// Reads what volumes show through `objects`.
    pub(crate) fn new(client: Client, objects: Arc<Objects>) -> Self {
        Self { tokens: token::Tokens::new(client.clone()), client, objects }
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
            match self.one(&context).await {
                Ok(path) => drop(mounted.insert(context.name().to_owned(), path)),
                Err(message) => errors.push(Error { volume: context.name().to_owned(), message }),
            }
        }
        if errors.is_empty() { Ok(mounted) } else { Err(errors) }
    }

    async fn one(&self, context: &Context<'_>) -> Made {
        let volume = context.volume;
        let kind = volume.as_object().into_iter().flat_map(|map| map.keys()).find(|key| *key != "name");
        match kind {
            None | Some("emptyDir") => empty_dir(context).map_err(|error| error.to_string()),
            Some("hostPath") => host_path::check(volume.get("hostPath")),
            Some("persistentVolumeClaim") => {
                self.claim(context, volume.str_at(&["persistentVolumeClaim", "claimName"])).await
            }
            Some("ephemeral") => {
                self.claim(context, &format!("{}-{}", context.pod.name(), context.name())).await
            }
            Some(kind @ ("configMap" | "secret" | "projected" | "downwardAPI")) => {
                self.shown(context, kind).await
            }
            Some(other) => Err(format!("volumes of type {other} are not supported")),
        }
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

    /// A persistent volume that is a path on this node.
    async fn claim(&self, context: &Context<'_>, name: &str) -> Made {
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
        let path = match (volume.at(&["spec", "local"]), volume.at(&["spec", "hostPath"])) {
            (Value::Null, Value::Null) => {
                return Err(format!(
                    "persistent volume {:?} is neither local nor a host path",
                    volume.name()
                ));
            }
            (Value::Null, host_path) => host_path::check(host_path)?,
            (local, _) => {
                let path = PathBuf::from(local.str_at(&["path"]));
                if !path.is_dir() {
                    return Err(format!("path {:?} does not exist", path.display()));
                }
                path
            }
        };
        if !volume.at(&["spec", "local"]).is_null() {
            ownership::apply(context.pod, &path, false).map_err(|error| error.to_string())?;
        }
        Ok(path)
    }

    /// Forgets what was kept for a pod, and takes its mounts down. Its folder can be removed then.
    pub(crate) fn unmount(&self, uid: &str, dir: &Path) -> io::Result<()> {
        self.tokens.forget(uid);
        linux::mount::unmount_below(dir)
    }
}

fn empty_dir(context: &Context<'_>) -> io::Result<PathBuf> {
    let path = context.path("empty-dir");
    let fresh = !path.exists();
    make_dir(&path, 0o777)?;
    let settings = context.volume.get("emptyDir");
    if settings.str_at(&["medium"]) == "Memory" && !linux::mount::is_mount_point(&path)? {
        let limit = settings.str_at(&["sizeLimit"]).parse::<Quantity>().ok().map(|size| size.units());
        linux::mount::tmpfs(&path, limit.filter(|size| *size > 0).map(i64::unsigned_abs))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        ownership::apply(context.pod, &path, false)?;
    } else if fresh {
        ownership::apply(context.pod, &path, false)?;
    }
    Ok(path)
}

/// Makes a folder with its parents; the folder itself gets exactly this mode.
fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
