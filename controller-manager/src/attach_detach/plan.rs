//! What is to be attached to a node, and what detached: a pure function.

use std::sync::Arc;
use std::time::Duration;

use api::{Value, object};
use client::Patch;
use client::resource::{NODES, VOLUME_ATTACHMENTS};
use sha2::{Digest, Sha256};

use crate::act::{Action, head};
use crate::objects::is_ready;

/// A node that is not well keeps volumes that it may use for this long.
const MAX_WAIT: Duration = Duration::from_secs(360);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// On nodes whose volumes are attached from here.
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// A volume that pods on the node want.
#[derive(Clone)]
pub(super) struct Volume {
    /// The PersistentVolume.
    pub(super) volume: Arc<Value>,
    /// The pods.
    pub(super) pods: Vec<Arc<Value>>,
    /// Other nodes that it is attached to.
    pub(super) elsewhere: Vec<String>,
}

impl Volume {
    /// Whether only one node can have it at a time.
    fn is_exclusive(&self) -> bool {
        let modes = self.volume.array_at(&["spec", "accessModes"]);
        let shared = |mode: &Value| matches!(mode.as_str(), Some("ReadWriteMany" | "ReadOnlyMany"));
        !modes.is_empty() && !modes.iter().any(shared)
    }
}

/// What there is of a node.
#[derive(Clone)]
pub(super) struct View<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// The node, unless it is gone.
    pub(super) node: Option<&'a Value>,
    /// What its pods want.
    pub(super) wanted: Vec<Volume>,
    /// The attachments to it, each with its PersistentVolume.
    pub(super) here: Vec<(Arc<Value>, Arc<Value>)>,
}

impl View<'_> {
    fn is_attached(&self, volume: &Volume) -> bool {
        self.here.iter().any(|(_, attached)| attached.name() == volume.volume.name())
    }

    fn is_wanted(&self, volume: &Value) -> bool {
        self.wanted.iter().any(|wanted| wanted.volume.name() == volume.name())
    }

    fn is_managed(&self) -> bool {
        self.node.is_some_and(|node| node.annotation(MANAGED) == Some("true"))
    }
}

/// The name of a volume in a node's status.
fn unique(volume: &Value) -> String {
    let csi = volume.at(&["spec", "csi"]);
    format!("kubernetes.io/csi/{}^{}", csi.str_at(&["driver"]), csi.str_at(&["volumeHandle"]))
}

/// Volumes that cannot be attached because other nodes have them.
pub(super) fn refused<'v>(view: &'v View<'_>) -> Vec<&'v Volume> {
    let taken =
        |volume: &&Volume| volume.is_exclusive() && !volume.elsewhere.is_empty() && !view.is_attached(volume);
    view.wanted.iter().filter(taken).collect()
}

/// The steps. `waited` tells how long an attachment that nobody needs has not been needed.
pub(super) fn plan(view: &View<'_>, waited: impl Fn(&str) -> Duration) -> Vec<Action> {
    let (mut shown, mut detach, mut later) = (Vec::new(), Vec::new(), None);
    let node = view.node.unwrap_or(&Value::Null);
    let in_use = node.array_at(&["status", "volumesInUse"]);
    let taints = node.array_at(&["spec", "taints"]).iter();
    let abandoned = taints.clone().any(|taint| taint.str_at(&["key"]) == OUT_OF_SERVICE);
    for (attachment, volume) in &view.here {
        let name = unique(volume);
        if attachment.is_terminating() {
            continue;
        }
        if !view.is_wanted(volume) {
            let used = in_use.iter().any(|used| used.as_str() == Some(name.as_str()));
            let waited = waited(attachment.name());
            let forced = !is_ready(node) && waited > MAX_WAIT;
            if !used || forced || abandoned {
                detach.push(Action::delete(VOLUME_ATTACHMENTS, attachment));
                continue;
            }
            let rest = MAX_WAIT.saturating_sub(waited) + Duration::from_secs(1);
            later = Some(later.map_or(rest, |later: Duration| later.min(rest)));
        }
        if attachment.at(&["status", "attached"]).as_bool() == Some(true) {
            shown.push(name);
        }
    }
    shown.sort_unstable();
    let mut actions = Vec::new();
    actions.extend(view.node.and_then(|node| report(node, &shown)));
    actions.extend(detach);
    if view.is_managed() {
        let missing = view.wanted.iter().filter(|volume| !view.is_attached(volume));
        let free = missing.filter(|volume| !volume.is_exclusive() || volume.elsewhere.is_empty());
        actions.extend(
            free.map(|volume| Action::Create(VOLUME_ATTACHMENTS, attachment(volume, view.name), None)),
        );
    }
    actions.extend(later.map(Action::Later));
    actions
}

/// Tells the node what is attached to it.
fn report(node: &Value, shown: &[String]) -> Option<Action> {
    let before = node.array_at(&["status", "volumesAttached"]).iter();
    if before.map(|volume| volume.str_at(&["name"])).eq(shown.iter().map(String::as_str)) {
        return None;
    }
    let volumes = shown.iter().map(|name| object!({"name": (name.as_str()), "devicePath": ""})).collect();
    let patch = object!({"status": {"volumesAttached": (Value::Array(volumes))}});
    Some(Action::Patch(NODES, head(node), "status", Patch::Merge, patch))
}

/// The object that asks a driver to attach a volume to a node.
fn attachment(volume: &Volume, node: &str) -> Value {
    let csi = volume.volume.at(&["spec", "csi"]);
    let (driver, handle) = (csi.str_at(&["driver"]), csi.str_at(&["volumeHandle"]));
    let digest = Sha256::digest(format!("{handle}{driver}{node}"));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    object!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttachment",
        "metadata": {"name": (format!("csi-{digest}"))},
        "spec": {
            "attacher": driver,
            "nodeName": node,
            "source": {"persistentVolumeName": (volume.volume.name())},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "kubernetes.io/csi/x.io^h";

    fn volume(mode: &str) -> Arc<Value> {
        Arc::new(object!({"metadata": {"name": "pv"}, "spec": {
            "accessModes": [mode],
            "csi": {"driver": "x.io", "volumeHandle": "h"},
        }}))
    }

    fn node(ready: bool, in_use: &[&str]) -> Value {
        let in_use = in_use.iter().map(|name| Value::from(*name)).collect();
        object!({
            "metadata": {
                "name": "n",
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "status": {
                "conditions": [{"type": "Ready", "status": (if ready { "True" } else { "False" })}],
                "volumesInUse": (Value::Array(in_use)),
                "volumesAttached": [{"name": NAME, "devicePath": ""}],
            },
        })
    }

    fn attached(here: bool) -> Vec<(Arc<Value>, Arc<Value>)> {
        let attachment = object!({"metadata": {"name": "csi-1", "uid": "u"}, "status": {"attached": true}});
        if here { vec![(Arc::new(attachment), volume("ReadWriteOnce"))] } else { Vec::new() }
    }

    fn wanted(mode: &str, elsewhere: &[&str]) -> Vec<Volume> {
        let elsewhere = elsewhere.iter().map(|name| (*name).to_owned()).collect();
        vec![Volume { volume: volume(mode), pods: Vec::new(), elsewhere }]
    }

    fn names(actions: &[Action]) -> Vec<&'static str> {
        let name = |action: &Action| match action {
            Action::Create(..) => "attach",
            Action::Delete(..) => "detach",
            Action::Patch(..) => "report",
            Action::Later(_) => "later",
            _ => "other",
        };
        actions.iter().map(name).collect()
    }

    #[test]
    fn what_pods_want_is_attached_unless_another_node_has_it() {
        let node = node(true, &[]);
        for (mode, elsewhere, expected) in [
            ("ReadWriteOnce", &[][..], &["report", "attach"][..]),
            ("ReadWriteOnce", &["m"], &["report"]),
            ("ReadWriteMany", &["m"], &["report", "attach"]),
        ] {
            let view =
                View { name: "n", node: Some(&node), wanted: wanted(mode, elsewhere), here: Vec::new() };
            assert_eq!(names(&plan(&view, |_| Duration::ZERO)), expected, "{mode} {elsewhere:?}");
            assert_eq!(refused(&view).is_empty(), expected.len() == 2);
        }
        let view =
            View { name: "n", node: Some(&node), wanted: wanted("ReadWriteOnce", &[]), here: attached(true) };
        assert!(plan(&view, |_| Duration::ZERO).is_empty());
        let made = attachment(&view.wanted[0], "n");
        let digest: String = Sha256::digest("hx.ion").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(made.name(), format!("csi-{digest}"));
    }

    #[test]
    fn what_nobody_wants_is_detached_when_the_node_has_let_go_of_it() {
        let long = MAX_WAIT + Duration::from_secs(1);
        for (ready, in_use, waited, expected) in [
            (true, &[][..], Duration::ZERO, &["report", "detach"][..]),
            (true, &[NAME], long, &["later"]),
            (false, &[NAME], Duration::ZERO, &["later"]),
            (false, &[NAME], long, &["report", "detach"]),
        ] {
            let node = node(ready, in_use);
            let view = View { name: "n", node: Some(&node), wanted: Vec::new(), here: attached(true) };
            assert_eq!(names(&plan(&view, |_| waited)), expected, "{ready} {in_use:?} {waited:?}");
        }
        let mut gone = node(false, &[NAME]);
        gone.set(
            &["spec", "taints"],
            object!([{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]),
        );
        let view = View { name: "n", node: Some(&gone), wanted: Vec::new(), here: attached(true) };
        assert_eq!(names(&plan(&view, |_| Duration::ZERO)), ["report", "detach"]);
        let view = View { name: "n", node: None, wanted: Vec::new(), here: attached(true) };
        assert_eq!(names(&plan(&view, |_| Duration::ZERO)), ["detach"]);
    }
}
