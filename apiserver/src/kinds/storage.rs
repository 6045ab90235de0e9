//! Storage classes, CSI objects and attachments.

use api::Value;
use api::field::{FieldError, Path};

use super::{Entry, Errors, Strategy, default_to, immutable, one_of};

const GROUP: &str = "storage.k8s.io";

pub(super) const STRATEGIES: &[Entry] = &[
    (GROUP, "storageclasses", &CLASS),
    (GROUP, "csidrivers", &DRIVER),
    (GROUP, "volumeattachments", &ATTACHMENT),
];

static CLASS: Strategy = Strategy {
    default: |c| {
        default_to(c, "reclaimPolicy", "Delete");
        default_to(c, "volumeBindingMode", "Immediate");
    },
    validate: |c, errors| {
        if c.str_at(&["provisioner"]).is_empty() {
            errors.push(FieldError::required(&Path::new("provisioner"), ""));
        }
        one_of(&Path::new("reclaimPolicy"), c.get("reclaimPolicy"), &["Delete", "Retain"], errors);
        let modes = ["Immediate", "WaitForFirstConsumer"];
        one_of(&Path::new("volumeBindingMode"), c.get("volumeBindingMode"), &modes, errors);
    },
    validate_update: |new, old, errors| {
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            if new.get(field) != old.get(field) {
                let why = format!("updates to {field} are forbidden.");
                errors.push(FieldError::forbidden(&Path::new(field), why));
            }
        }
    },
    ..Strategy::NEUTRAL
};

static DRIVER: Strategy = Strategy {
    default: |d| {
        let spec = d.make_object().entry("spec");
        default_to(spec, "attachRequired", true);
        default_to(spec, "podInfoOnMount", false);
        default_to(spec, "storageCapacity", false);
        default_to(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if spec.array_at(&["volumeLifecycleModes"]).is_empty() {
            spec.set(&["volumeLifecycleModes"], vec!["Persistent"]);
        }
        default_to(spec, "requiresRepublish", false);
        default_to(spec, "seLinuxMount", false);
    },
    generation: true,
    ..Strategy::NEUTRAL
};

static ATTACHMENT: Strategy = Strategy {
    validate: validate_attachment,
    validate_update: |new, old, errors| {
        immutable(&Path::new("spec"), new.get("spec"), old.get("spec"), errors)
    },
    ..Strategy::NEUTRAL
};

fn validate_attachment(a: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    for field in ["attacher", "nodeName"] {
        if a.str_at(&["spec", field]).is_empty() {
            errors.push(FieldError::required(&path.child(field), ""));
        }
    }
    if a.at(&["spec", "source", "persistentVolumeName"]).is_null()
        && a.at(&["spec", "source", "inlineVolumeSpec"]).is_null()
    {
        let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        errors.push(FieldError::required(&path.child("source"), why));
    }
}
