//! AlwaysPullImages: images are pulled anew, so that who may use them is asked each time.

use api::error::Result;
use api::field::{FieldError, Path};
use api::{ApiError, Value};

use super::{Operation, forbid, is, name_of};
use crate::registry::Call;

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// True for pods that are new or have new images.
fn is_concerned(call: &Call, operation: Operation, pod: &Value, old: Option<&Value>) -> bool {
    let images = |pod: &Value| -> Vec<String> {
        let containers = LISTS.iter().flat_map(|list| pod.array_at(&["spec", list]));
        containers.map(|c| c.str_at(&["image"]).to_owned()).collect()
    };
    if !is(call, "", "pods") {
        return false;
    }
    match (operation, old) {
        (Operation::Create, _) => true,
        (Operation::Update, Some(old)) => {
            let before = images(old);
            images(pod).iter().any(|image| !before.contains(image))
        }
        _ => false,
    }
}

pub(super) fn always_pull(call: &Call, operation: Operation, pod: &mut Value, old: Option<&Value>) {
    if !is_concerned(call, operation, pod, old) {
        return;
    }
    for list in LISTS {
        for container in pod.at_mut(&["spec", list]).and_then(Value::as_array_mut).into_iter().flatten() {
            container.set(&["imagePullPolicy"], "Always");
        }
    }
    for volume in pod.at_mut(&["spec", "volumes"]).and_then(Value::as_array_mut).into_iter().flatten() {
        if !volume.get("image").is_null() {
            volume.set(&["image", "pullPolicy"], "Always");
        }
    }
}

pub(super) fn check_pulled(
    call: &Call,
    operation: Operation,
    pod: &Value,
    old: Option<&Value>,
) -> Result<()> {
    if !is_concerned(call, operation, pod, old) {
        return Ok(());
    }
    let mut found: Vec<ApiError> = Vec::new();
    let mut check = |path: &Path, policy: &str| {
        if policy != "Always" {
            let why = FieldError::not_supported(path, policy, &["Always"]).to_string();
            found.push(forbid(call, name_of(pod), why));
        }
    };
    let spec = Path::new("spec");
    for list in LISTS {
        for (i, container) in pod.array_at(&["spec", list]).iter().enumerate() {
            let policy = container.str_at(&["imagePullPolicy"]);
            check(&spec.child(list).index(i).child("imagePullPolicy"), policy);
        }
    }
    for (i, volume) in pod.array_at(&["spec", "volumes"]).iter().enumerate() {
        if !volume.get("image").is_null() {
            let policy = volume.str_at(&["image", "pullPolicy"]);
            check(&spec.child("volumes").index(i).child("image").child("pullPolicy"), policy);
        }
    }
    let messages: Vec<String> = found.iter().map(|e| e.status().message.clone()).collect();
    match messages.as_slice() {
        [] => Ok(()),
        [one] => Err(super::plain(one.clone())),
        several => Err(super::plain(format!("[{}]", several.join(", ")))),
    }
}
