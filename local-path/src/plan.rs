//! What is to be done about a claim or a volume: decided here, done elsewhere.

use std::path::Path;

use api::{Value, object};

use crate::args::Args;

const PROVISIONER: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// What a claim needs.
#[derive(Debug, PartialEq)]
pub(crate) enum Claim {
    /// Nothing from us, or nothing yet.
    NotOurs,
    /// It cannot be served; the sentence says why.
    Refused(String),
    /// A folder, then a volume.
    Provision {
        /// Name of the folder below the base folder.
        folder: String,
        /// The PersistentVolume.
        volume: Value,
    },
}

/// What a volume needs.
#[derive(Debug, PartialEq)]
pub(crate) enum Release {
    /// Nothing from us.
    Nothing,
    /// Its folder cannot be removed; the sentence says why.
    Refused(String),
    /// Its folder goes, then it.
    Remove {
        /// Name of the folder below the base folder.
        folder: String,
    },
}

pub(crate) fn claim(claim: &Value, class: Option<&Value>, args: &Args) -> Claim {
    let ours = PROVISIONER.iter().any(|a| claim.annotation(a) == Some(args.provisioner_name.as_str()));
    let waits =
        claim.str_at(&["status", "phase"]) == "Pending" && claim.str_at(&["spec", "volumeName"]).is_empty();
    let (Some(class), true, false) = (class, ours && waits, claim.is_terminating()) else {
        return Claim::NotOurs;
    };
    let Some(node) = claim.annotation(SELECTED_NODE) else { return Claim::NotOurs };
    if class.str_at(&["provisioner"]) != args.provisioner_name {
        return Claim::NotOurs;
    }
    if node != args.node_name {
        return Claim::Refused(format!(
            "node {node} is served by no provisioner: this one runs on {}",
            args.node_name
        ));
    }
    if claim.str_at(&["spec", "volumeMode"]) == "Block" {
        return Claim::Refused("block volumes are not supported: ask for volumeMode Filesystem".to_owned());
    }
    if !claim.at(&["spec", "selector"]).is_null() {
        return Claim::Refused("claim.spec.selector is not supported".to_owned());
    }
    let shared = ["ReadWriteMany", "ReadOnlyMany"];
    if claim
        .array_at(&["spec", "accessModes"])
        .iter()
        .any(|m| m.as_str().is_some_and(|m| shared.contains(&m)))
    {
        return Claim::Refused(
            "only access modes ReadWriteOnce and ReadWriteOncePod are supported".to_owned(),
        );
    }
    let folder = format!("pvc-{}_{}_{}", claim.uid(), claim.namespace(), claim.name());
    let volume = volume(claim, class, node, &folder, args);
    Claim::Provision { folder, volume }
}

fn volume(claim: &Value, class: &Value, node: &str, folder: &str, args: &Args) -> Value {
    let path = args.base_path.join(folder).to_string_lossy().into_owned();
    let policy = match class.str_at(&["reclaimPolicy"]) {
        "" => "Delete",
        policy => policy,
    };
    object!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": (format!("pvc-{}", claim.uid())),
            "annotations": {"pv.kubernetes.io/provisioned-by": (args.provisioner_name.as_str())},
        },
        "spec": {
            "capacity": {"storage": (claim.at(&["spec", "resources", "requests", "storage"]))},
            "accessModes": (claim.at(&["spec", "accessModes"])),
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": (claim.at(&["spec", "storageClassName"])),
            "volumeMode": "Filesystem",
            "hostPath": {"path": path, "type": "DirectoryOrCreate"},
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": (claim.namespace()),
                "name": (claim.name()), "uid": (claim.uid()),
            },
            "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]},
            ]}},
        },
    })
}

pub(crate) fn release(volume: &Value, args: &Args) -> Release {
    let ours = volume.annotation(PROVISIONED_BY) == Some(args.provisioner_name.as_str());
    let released = volume.str_at(&["status", "phase"]) == "Released"
        && volume.str_at(&["spec", "persistentVolumeReclaimPolicy"]) == "Delete";
    if !ours || !released || !is_on(volume, &args.node_name) {
        return Release::Nothing;
    }
    let path = Path::new(volume.str_at(&["spec", "hostPath", "path"]));
    let name = path.file_name().and_then(|n| n.to_str());
    match name {
        Some(name) if path.parent() == Some(args.base_path.as_path()) => {
            Release::Remove { folder: name.to_owned() }
        }
        _ => {
            Release::Refused(format!("{} is not directly below {}", path.display(), args.base_path.display()))
        }
    }
}

fn is_on(volume: &Value, node: &str) -> bool {
    volume.array_at(&["spec", "nodeAffinity", "required", "nodeSelectorTerms"]).iter().any(|term| {
        term.array_at(&["matchExpressions"]).iter().any(|e| {
            e.str_at(&["key"]) == "kubernetes.io/hostname"
                && e.array_at(&["values"]).iter().any(|v| v.as_str() == Some(node))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn args() -> Args {
        Args::parse_from(["x", "--node-name=n", "--base-path=/base"])
    }

    fn pending() -> Value {
        object!({
            "metadata": {"name": "c", "namespace": "ns", "uid": "u", "annotations": {
                "volume.kubernetes.io/storage-provisioner": "rancher.io/local-path",
                "volume.kubernetes.io/selected-node": "n",
            }},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local-path", "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": "Pending"},
        })
    }

    #[test]
    fn claims_are_served_once_their_node_is_chosen() {
        let class = object!({"provisioner": "rancher.io/local-path", "reclaimPolicy": "Delete"});
        let check = |change: &dyn Fn(&mut Value), want: &str| {
            let mut c = pending();
            change(&mut c);
            let got = match claim(&c, Some(&class), &args()) {
                Claim::NotOurs => "not ours",
                Claim::Refused(_) => "refused",
                Claim::Provision { .. } => "provision",
            };
            assert_eq!(got, want, "{c}");
        };
        check(&|_| {}, "provision");
        check(&|c| _ = c.remove_at(&["metadata", "annotations", SELECTED_NODE]), "not ours");
        check(&|c| c.set(&["spec", "volumeName"], "v"), "not ours");
        check(&|c| c.set(&["metadata", "annotations", SELECTED_NODE], "other"), "refused");
        check(&|c| c.set(&["spec", "volumeMode"], "Block"), "refused");
        check(&|c| c.set(&["spec", "accessModes"], vec!["ReadWriteMany"]), "refused");
    }

    #[test]
    fn released_volumes_go_and_others_stay() {
        let class = object!({"provisioner": "rancher.io/local-path"});
        let Claim::Provision { folder, mut volume } = claim(&pending(), Some(&class), &args()) else {
            panic!()
        };
        assert_eq!(release(&volume, &args()), Release::Nothing);
        volume.set(&["status", "phase"], "Released");
        assert_eq!(release(&volume, &args()), Release::Remove { folder });
        volume.set(&["spec", "hostPath", "path"], "/base/../etc");
        assert!(matches!(release(&volume, &args()), Release::Refused(_)));
    }
}
