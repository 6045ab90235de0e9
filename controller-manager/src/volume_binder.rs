//! Claims and volumes find each other: by size and class, by name, or through an external provisioner.

mod plan;

use std::time::Duration;

use client::{Key, Next, Queue};

use crate::context::Context;

/// Claims and volumes whose turn may have come without a change of their own are looked at this often.
const RESYNC: Duration = Duration::from_secs(15);

pub(crate) fn start(cx: &Context) {
    let (for_claims, for_volumes) = (Queue::new(), Queue::new());
    let i = &cx.informers;
    let (claims, volumes, classes) =
        (i.persistent_volume_claims(), i.persistent_volumes(), i.storage_classes());
    Context::follow(claims, &for_claims);
    Context::follow(volumes, &for_volumes);
    // A claim's volume follows the claim.
    let (queue, store) = (for_volumes.clone(), volumes.clone());
    claims.on_change(move |change| {
        let claim = change.object();
        let named = claim.str_at(&["spec", "volumeName"]);
        if !named.is_empty() {
            queue.add(Key::new("", named));
        }
        for volume in store.store().list().iter().filter(|v| plan::is_reserved_for(v, claim)) {
            queue.add(Key::of(volume));
        }
    });
    // A volume may be what claims of its class wait for.
    let (queue, store) = (for_claims.clone(), claims.clone());
    volumes.on_change(move |change| {
        let volume = change.object();
        let reserved = volume.at(&["spec", "claimRef"]);
        if !reserved.is_null() {
            queue.add(Key::new(reserved.str_at(&["namespace"]), reserved.str_at(&["name"])));
            return;
        }
        for claim in store.store().list() {
            if claim.str_at(&["spec", "volumeName"]).is_empty()
                && plan::class_of(&claim) == plan::class_of(volume)
            {
                queue.add(Key::of(&claim));
            }
        }
    });
    let (queue, store) = (for_claims.clone(), claims.clone());
    classes.on_change(move |change| {
        for claim in store.store().list() {
            if claim.str_at(&["spec", "volumeName"]).is_empty()
                && plan::class_of(&claim) == change.object().name()
            {
                queue.add(Key::of(&claim));
            }
        }
    });
    let caches = [claims, volumes, classes];
    // One worker each: no volume may be given to two claims.
    cx.work(for_claims, 1, &caches, sync_claim);
    cx.work(for_volumes, 1, &caches, sync_volume);
}

async fn sync_claim(cx: Context, key: Key) -> anyhow::Result<Next> {
    let i = &cx.informers;
    let Some(claim) = i.persistent_volume_claims().store().get(&key) else { return Ok(Next::Done) };
    let volumes = i.persistent_volumes().store().list();
    let class = i.storage_classes().store().find("", plan::class_of(&claim));
    let provisioning = cx.config.dynamic_provisioning;
    let (actions, waits) = plan::claim(&claim, &volumes, class.as_deref(), provisioning);
    match cx.apply(actions).await? {
        Next::Done if waits => Ok(Next::After(RESYNC)),
        next => Ok(next),
    }
}

async fn sync_volume(cx: Context, key: Key) -> anyhow::Result<Next> {
    let i = &cx.informers;
    let Some(volume) = i.persistent_volumes().store().get(&key) else { return Ok(Next::Done) };
    let reserved = volume.at(&["spec", "claimRef"]);
    let claims = i.persistent_volume_claims().store();
    let mut claim = claims.find(reserved.str_at(&["namespace"]), reserved.str_at(&["name"]));
    if claim.is_none() && !reserved.str_at(&["uid"]).is_empty() {
        // Before a volume is given up the API server itself is asked.
        let resource = client::resource::PERSISTENT_VOLUME_CLAIMS;
        let (namespace, name) = (reserved.str_at(&["namespace"]), reserved.str_at(&["name"]));
        claim = cx.client.get_opt(&resource, namespace, name).await?.map(Into::into);
    }
    cx.apply(plan::volume(&volume, claim.as_deref())).await
}
