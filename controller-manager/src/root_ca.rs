//! Every namespace has a ConfigMap `kube-root-ca.crt` with the authority that vouches for the API server.

use api::{Value, object};
use client::resource::CONFIG_MAPS;
use client::{Informer, Key, Next, Queue};

use crate::act::Action;
use crate::context::Context;

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

pub(crate) fn start(cx: &Context) {
    if cx.config.root_ca.is_none() {
        tracing::info!("No --root-ca-file: not publishing it");
        return;
    }
    let queue = Queue::new();
    let namespaces = cx.informers.namespaces();
    Context::follow(namespaces, &queue);
    // Only these ConfigMaps: all others would be a waste.
    let maps = Informer::of_values(CONFIG_MAPS, |_| {}).fields(&format!("metadata.name={NAME}")).build();
    let changed = queue.clone();
    maps.on_change(move |change| changed.add(Key::new("", change.object().namespace())));
    cx.feed(&maps);
    let cache = maps.clone();
    cx.work(queue, 1, &[namespaces, &maps], move |cx, key| reconcile(cx, cache.clone(), key));
}

async fn reconcile(cx: Context, maps: Informer<Value>, key: Key) -> anyhow::Result<Next> {
    let Some(namespace) = cx.informers.namespaces().store().get(&key) else { return Ok(Next::Done) };
    let Some(root_ca) = &cx.config.root_ca else { return Ok(Next::Done) };
    if namespace.is_terminating() || namespace.str_at(&["status", "phase"]) == "Terminating" {
        return Ok(Next::Done);
    }
    let found = maps.store().find(key.name(), NAME);
    cx.apply(plan(found.as_deref(), key.name(), root_ca)).await
}

fn plan(found: Option<&Value>, namespace: &str, root_ca: &str) -> Vec<Action> {
    let mut wanted = object!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": NAME, "namespace": namespace,
            "annotations": {"kubernetes.io/description": DESCRIPTION},
        },
        "data": {"ca.crt": root_ca},
    });
    match found {
        None => vec![Action::Create(CONFIG_MAPS, wanted, None)],
        Some(map)
            if map.get("data") == wanted.get("data")
                && map.annotation("kubernetes.io/description").is_some() =>
        {
            Vec::new()
        }
        Some(map) => {
            wanted.set(&["metadata", "resourceVersion"], map.resource_version());
            vec![Action::Update(CONFIG_MAPS, wanted)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_kept_as_given() {
        assert!(matches!(plan(None, "a", "pem")[..], [Action::Create(..)]));
        let [Action::Create(_, map, _)] = &plan(None, "a", "pem")[..] else { panic!() };
        assert!(plan(Some(map), "a", "pem").is_empty());
        assert!(matches!(plan(Some(map), "a", "other")[..], [Action::Update(..)]));
    }
}
