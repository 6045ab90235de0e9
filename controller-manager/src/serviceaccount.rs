//! Every namespace has a service account named `default`.

use api::object;
use client::resource::SERVICE_ACCOUNTS;
use client::{Key, Next, Queue};

use crate::act::Action;
use crate::context::Context;

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let (namespaces, accounts) = (cx.informers.namespaces(), cx.informers.service_accounts());
    Context::follow(namespaces, &queue);
    let gone = queue.clone();
    accounts.on_change(move |change| {
        if change.object().name() == "default" {
            gone.add(Key::new("", change.object().namespace()));
        }
    });
    cx.work(queue, 1, &[namespaces, accounts], reconcile);
}

async fn reconcile(cx: Context, key: Key) -> anyhow::Result<Next> {
    let Some(namespace) = cx.informers.namespaces().store().get(&key) else { return Ok(Next::Done) };
    let there = cx.informers.service_accounts().store().find(key.name(), "default").is_some();
    if there || namespace.str_at(&["status", "phase"]) == "Terminating" || namespace.is_terminating() {
        return Ok(Next::Done);
    }
    let account = object!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": (key.name())},
    });
    cx.apply(vec![Action::Create(SERVICE_ACCOUNTS, account, None)]).await
}
