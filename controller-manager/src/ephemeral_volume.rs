//! Pods with ephemeral volumes get the claims these describe, owned by the pod.

use api::{Value, object};
use client::resource::PERSISTENT_VOLUME_CLAIMS;
use client::{Key, Next, Queue};

use crate::act::{Action, Note, head};
use crate::context::Context;
use crate::objects::{controlled_by, is_finished, owner_reference};

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let (pods, claims) = (cx.informers.pods(), cx.informers.persistent_volume_claims());
    let changed = queue.clone();
    pods.on_change(move |change| {
        let pod = change.object();
        if pod.array_at(&["spec", "volumes"]).iter().any(|v| !v.get("ephemeral").is_null()) {
            changed.add(Key::of(pod));
        }
    });
    Context::follow_owned(claims, "Pod", &queue);
    cx.work(queue, 5, &[pods, claims], |cx, key| async move {
        let Some(pod) = cx.informers.pods().store().get(&key) else { return Ok(Next::Done) };
        let claims = cx.informers.persistent_volume_claims().store();
        let find = |name: &str| claims.find(key.namespace(), name);
        let actions = plan(&pod, |name| find(name).map(|c| controlled_by(&c, pod.uid())));
        cx.apply(actions).await
    });
}

/// `owned` tells of a claim that is there whether it is the pod's.
fn plan(pod: &Value, owned: impl Fn(&str) -> Option<bool>) -> Vec<Action> {
    if pod.is_terminating() || is_finished(pod) {
        return Vec::new();
    }
    let mut actions = Vec::new();
    for volume in pod.array_at(&["spec", "volumes"]) {
        let template = volume.at(&["ephemeral", "volumeClaimTemplate"]);
        let name = format!("{}-{}", pod.name(), volume.str_at(&["name"]));
        if template.is_null() {
            continue;
        }
        match owned(&name) {
            Some(true) => {}
            Some(false) => {
                let text = format!(
                    "PVC {}/{name} was not created for pod {}/{} (pod is not owner)",
                    pod.namespace(),
                    pod.namespace(),
                    pod.name()
                );
                let kind = client::events::Kind::Warning;
                actions.push(Action::Event(head(pod), kind, "EphemeralVolumeConflict", text));
            }
            None => actions.push(create(pod, &name, template)),
        }
    }
    actions
}

fn create(pod: &Value, name: &str, template: &Value) -> Action {
    let mut owner = head(pod);
    owner.set(&["apiVersion"], "v1");
    owner.set(&["kind"], "Pod");
    let claim = object!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name, "namespace": (pod.namespace()),
            "labels": (template.at(&["metadata", "labels"])),
            "annotations": (template.at(&["metadata", "annotations"])),
            "ownerReferences": [(owner_reference(&owner))],
        },
        "spec": (template.get("spec")),
    });
    let note = Note {
        about: head(pod),
        done: ("SuccessfulCreate", "Created PVC {}".to_owned()),
        failed: ("FailedCreate", "ephemeral volume: create PVC: ".to_owned()),
    };
    Action::Create(PERSISTENT_VOLUME_CLAIMS, claim, Some(note))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ephemeral_volume_gets_its_claim() {
        let pod = object!({
            "metadata": {"namespace": "d", "name": "p", "uid": "u"},
            "spec": {"volumes": [
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": "l"}}}},
                {"name": "other", "emptyDir": {}},
            ]},
        });
        let [Action::Create(_, claim, _)] = &plan(&pod, |_| None)[..] else { panic!() };
        assert_eq!(claim.name(), "p-scratch");
        assert!(controlled_by(claim, "u"));
        assert!(plan(&pod, |_| Some(true)).is_empty());
        assert!(matches!(plan(&pod, |_| Some(false))[..], [Action::Event(..)]));
    }
}
