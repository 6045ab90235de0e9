//! Volumes of CSI drivers are attached to the nodes that have pods for them, and detached when no pod there needs them and
//! the node has let go of them.
//!
//! Attaching and detaching is the drivers' work: here VolumeAttachments are made and deleted. A node whose pods, volumes or
//! attachments change is looked at as a whole.

mod plan;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Value;
use client::events::Kind;
use client::resource::NODES;
use client::{Change, Key, Next, Queue};
use parking_lot::Mutex;

use crate::act::{Action, head};
use crate::context::Context;
use crate::informers::{BY_CLAIM, BY_NODE};
use crate::objects::{claims, is_finished};
use plan::{View, Volume};

/// What is remembered from one look to the next.
#[derive(Default)]
struct Memory {
    /// Attachments that were made here and are not attached yet, with the last error.
    attaching: Mutex<HashMap<String, String>>,
    /// Since when attachments are not needed any more.
    unneeded: Mutex<HashMap<String, Instant>>,
    /// Volumes that cannot be had on a node because another has them.
    refused: Mutex<HashSet<(String, String)>>,
}

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let all = &cx.informers;
    let (pods, nodes, attachments) = (all.pods(), all.nodes(), all.volume_attachments());
    let (volumes, volume_claims) = (all.persistent_volumes(), all.persistent_volume_claims());
    let changed = queue.clone();
    pods.on_change(move |change| {
        for pod in change.old().into_iter().chain([change.object()]) {
            let node = pod.str_at(&["spec", "nodeName"]);
            if !node.is_empty() && claims(pod).next().is_some() {
                changed.add(Key::new("", node));
            }
        }
    });
    Context::follow(nodes, &queue);
    let memory = Arc::new(Memory::default());
    let (changed, known, noted) = (queue.clone(), cx.informers.clone(), memory.clone());
    attachments.on_change(move |change| {
        let attachment = change.object();
        changed.add(Key::new("", attachment.str_at(&["spec", "nodeName"])));
        if matches!(change, Change::Deleted(_)) {
            noted.attaching.lock().remove(attachment.name());
            noted.unneeded.lock().remove(attachment.name());
            // Others may have waited for it.
            let name = attachment.str_at(&["spec", "source", "persistentVolumeName"]);
            if let Some(volume) = known.persistent_volumes().store().find("", name) {
                let claim = volume.at(&["spec", "claimRef"]);
                users(&known, claim.str_at(&["namespace"]), claim.str_at(&["name"]), &changed);
            }
        }
    });
    let (changed, known) = (queue.clone(), cx.informers.clone());
    volumes.on_change(move |change| {
        let claim = change.object().at(&["spec", "claimRef"]);
        users(&known, claim.str_at(&["namespace"]), claim.str_at(&["name"]), &changed);
    });
    let (changed, known) = (queue.clone(), cx.informers.clone());
    volume_claims.on_change(move |change| {
        users(&known, change.object().namespace(), change.object().name(), &changed);
    });
    let (changed, store) = (queue.clone(), nodes.clone());
    all.csi_drivers().on_change(move |_| store.store().keys().into_iter().for_each(|key| changed.add(key)));
    let caches = [pods, nodes, attachments, volumes, volume_claims, all.csi_drivers()];
    cx.work(queue, 5, &caches, move |cx, key| {
        let memory = memory.clone();
        async move { reconcile(cx, key, &memory).await }
    });
}

/// Has the nodes looked at on which pods use a claim.
fn users(known: &crate::informers::Informers, namespace: &str, claim: &str, queue: &Queue<Key>) {
    for pod in known.pods().store().by_index(BY_CLAIM, &format!("{namespace}/{claim}")) {
        let node = pod.str_at(&["spec", "nodeName"]);
        if !node.is_empty() {
            queue.add(Key::new("", node));
        }
    }
}

async fn reconcile(cx: Context, key: Key, memory: &Memory) -> anyhow::Result<Next> {
    let node = cx.informers.nodes().store().get(&key);
    let view = view(&cx, key.name(), node.as_deref());
    let mut actions = plan::plan(&view, |name| waited(memory, name));
    if actions.iter().any(|action| matches!(action, Action::Delete(..))) && node.is_some() {
        // What the cache shows of the node may be older than its use of a volume.
        let fresh = cx.client.get_opt(&NODES, "", key.name()).await?;
        actions = plan::plan(&View { node: fresh.as_ref(), ..view.clone() }, |name| waited(memory, name));
    }
    let mut events = announce(&view, memory);
    for action in &actions {
        if let Action::Create(_, attachment, _) = action {
            memory.attaching.lock().insert(attachment.name().to_owned(), String::new());
        }
    }
    let refused = plan::refused(&view);
    events.extend(refuse(&view, refused, memory));
    actions.extend(events);
    cx.apply(actions).await
}

/// How long an attachment has not been needed by now.
fn waited(memory: &Memory, name: &str) -> Duration {
    memory.unneeded.lock().entry(name.to_owned()).or_insert_with(Instant::now).elapsed()
}

/// Whether nothing of the pod runs any more.
fn has_ended(pod: &Value) -> bool {
    let mut statuses = pod.array_at(&["status", "containerStatuses"]).iter();
    let stopped = |status: &Value| {
        let state = status.get("state");
        !state.get("terminated").is_null()
            || (!state.get("waiting").is_null() && state.get("running").is_null())
    };
    is_finished(pod) || pod.is_terminating() && statuses.all(stopped)
}

/// What there is of a node.
fn view<'a>(cx: &Context, name: &'a str, node: Option<&'a Value>) -> View<'a> {
    let known = &cx.informers;
    let mut wanted = Vec::<Volume>::new();
    for pod in known.pods().store().by_index(BY_NODE, name) {
        if has_ended(&pod) {
            continue;
        }
        for claim in claims(&pod) {
            let Some(claim) = known.persistent_volume_claims().store().find(pod.namespace(), &claim) else {
                continue;
            };
            let found = known.persistent_volumes().store().find("", claim.str_at(&["spec", "volumeName"]));
            let Some(volume) = found.filter(|v| v.str_at(&["spec", "claimRef", "uid"]) == claim.uid()) else {
                continue;
            };
            let driver = volume.str_at(&["spec", "csi", "driver"]);
            let object = known.csi_drivers().store().find("", driver);
            let attaches = object.is_none_or(|o| o.at(&["spec", "attachRequired"]).as_bool() != Some(false));
            if driver.is_empty() || !attaches {
                continue;
            }
            match wanted.iter_mut().find(|known| known.volume.name() == volume.name()) {
                Some(known) => known.pods.push(pod.clone()),
                None => wanted.push(Volume { volume, pods: vec![pod.clone()], elsewhere: Vec::new() }),
            }
        }
    }
    let mut here = Vec::new();
    for attachment in known.volume_attachments().store().list() {
        let source = attachment.str_at(&["spec", "source", "persistentVolumeName"]);
        let on = attachment.str_at(&["spec", "nodeName"]);
        if on != name {
            if let Some(wanted) = wanted.iter_mut().find(|wanted| wanted.volume.name() == source) {
                wanted.elsewhere.push(on.to_owned());
            }
        } else if let Some(volume) = known.persistent_volumes().store().find("", source) {
            here.push((attachment, volume));
        }
    }
    View { name, node, wanted, here }
}

/// Events about attachments that were made here and have come to something.
fn announce(view: &View<'_>, memory: &Memory) -> Vec<Action> {
    let mut events = Vec::new();
    let mut attaching = memory.attaching.lock();
    for (attachment, volume) in &view.here {
        let Some(last) = attaching.get_mut(attachment.name()) else { continue };
        let status = attachment.get("status");
        let error = status.str_at(&["attachError", "message"]);
        let attached = status.get("attached").as_bool() == Some(true);
        let event = if attached {
            let message = format!("AttachVolume.Attach succeeded for volume {:?} ", volume.name());
            (Kind::Normal, "SuccessfulAttachVolume", message)
        } else if !error.is_empty() && error != last {
            error.clone_into(last);
            let message = format!("AttachVolume.Attach failed for volume {:?} : {error}", volume.name());
            (Kind::Warning, "FailedAttachVolume", message)
        } else {
            continue;
        };
        if attached {
            attaching.remove(attachment.name());
        }
        let wanted = view.wanted.iter().filter(|wanted| wanted.volume.name() == volume.name());
        for pod in wanted.flat_map(|wanted| &wanted.pods) {
            events.push(Action::Event(head(pod), event.0, event.1, event.2.clone()));
        }
    }
    events
}

/// Events about volumes that other nodes have, once for each.
fn refuse(view: &View<'_>, refused: Vec<&Volume>, memory: &Memory) -> Vec<Action> {
    let mut known = memory.refused.lock();
    known.retain(|(node, name)| {
        node != view.name || refused.iter().any(|volume| volume.volume.name() == name)
    });
    let mut events = Vec::new();
    for volume in refused {
        if !known.insert((view.name.to_owned(), volume.volume.name().to_owned())) {
            continue;
        }
        let message = format!(
            "Multi-Attach error for volume {:?} Volume is already exclusively attached to one node and can't be attached to another",
            volume.volume.name()
        );
        for pod in &volume.pods {
            events.push(Action::Event(head(pod), Kind::Warning, "FailedAttachVolume", message.clone()));
        }
    }
    events
}
