//! Certificate signing requests: those of kubelets are approved when they may ask, approved ones are signed, old ones are deleted.

mod authority;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use api::{Value, object};
use client::resource::{CERTIFICATE_SIGNING_REQUESTS, SUBJECT_ACCESS_REVIEWS};
use client::{Key, Next, Queue};

use crate::act::Action;
use crate::context::Context;
use crate::objects::Condition;
use authority::Authority;

/// How often old requests are looked for.
const CLEAN_EVERY: Duration = Duration::from_secs(3600);

pub(crate) fn start_approving(cx: &Context) {
    let queue = Queue::new();
    let requests = cx.informers.csrs();
    Context::follow(requests, &queue);
    cx.work(queue, 2, &[requests], approve);
}

async fn approve(cx: Context, key: Key) -> anyhow::Result<Next> {
    let Some(request) = cx.informers.csrs().store().get(&key) else { return Ok(Next::Done) };
    if plan::is_decided(&request) || !plan::certificate(&request).is_empty() {
        return Ok(Next::Done);
    }
    let Some(csr) = plan::Csr::of(&request) else { return Ok(Next::Done) };
    if !csr.is_node_client(&request) {
        return Ok(Next::Done);
    }
    let own = csr.subject.common_name == request.str_at(&["spec", "username"]);
    let ways: &[(&str, &str)] = &[
        ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."),
        ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
    ];
    for (subresource, message) in ways.iter().filter(|(s, _)| own || *s != "selfnodeclient") {
        if may(&cx, &request, subresource).await? {
            let wanted = Condition { kind: "Approved", status: "True", reason: "AutoApproved", message };
            let approved = plan::with_condition(&request, &wanted, cx.now());
            cx.client.update_part(&CERTIFICATE_SIGNING_REQUESTS, "approval", &approved).await?;
            return Ok(Next::Done);
        }
    }
    Ok(Next::Done)
}

/// Whether who made the request may have it approved by itself.
async fn may(cx: &Context, request: &Value, subresource: &str) -> anyhow::Result<bool> {
    let spec = request.get("spec");
    let review = object!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": (spec.get("username")), "uid": (spec.get("uid")), "groups": (spec.get("groups")),
            "extra": (spec.get("extra")),
            "resourceAttributes": {
                "group": "certificates.k8s.io", "resource": "certificatesigningrequests", "verb": "create",
                "subresource": subresource, "version": "*",
            },
        },
    });
    let review = cx.client.create(&SUBJECT_ACCESS_REVIEWS, "", &review).await?;
    Ok(review.at(&["status", "allowed"]).as_bool() == Some(true))
}

pub(crate) fn start_signing(cx: &Context) {
    let Some((cert, key)) = &cx.config.signing else {
        tracing::info!("Certificates are not signed without --cluster-signing-cert-file");
        return;
    };
    let authority = match Authority::load(cert, key) {
        Ok(authority) => Arc::new(authority),
        Err(e) => {
            cx.tasks.critical(cx.name, async move { Err(e) });
            return;
        }
    };
    let queue = Queue::new();
    let requests = cx.informers.csrs();
    Context::follow(requests, &queue);
    cx.work(queue, 2, &[requests], move |cx, key| sign(cx, Arc::clone(&authority), key));
}

async fn sign(cx: Context, authority: Arc<Authority>, key: Key) -> anyhow::Result<Next> {
    let Some(request) = cx.informers.csrs().store().get(&key) else { return Ok(Next::Done) };
    if !plan::awaits_signature(&request) {
        return Ok(Next::Done);
    }
    let longest = cx.config.signing_duration;
    let updated = match plan::Csr::of(&request).ok_or("the request cannot be read".to_owned()) {
        Ok(csr) => match csr.refusal(&request) {
            None => authority.sign(&csr.der, plan::lifetime(&request, longest), plan::usages(&request)),
            Some(why) => Err(why),
        },
        Err(why) => Err(why),
    };
    let updated = match updated {
        Ok(pem) => plan::with_certificate(&request, &pem),
        Err(why) => {
            let reason = "SignerValidationFailure";
            let failed = Condition { kind: "Failed", status: "True", reason, message: &why };
            plan::with_condition(&request, &failed, cx.now())
        }
    };
    cx.apply(vec![Action::UpdateStatus(CERTIFICATE_SIGNING_REQUESTS, updated)]).await
}

pub(crate) fn start_cleaning(cx: &Context) {
    let queue = Queue::new();
    let requests = cx.informers.csrs();
    let looked = queue.clone();
    requests.on_change(move |change| looked.add(Key::of(change.object())));
    cx.work(queue, 1, &[requests], |cx, key| async move {
        let Some(request) = cx.informers.csrs().store().get(&key) else { return Ok(Next::Done) };
        if plan::is_old(&request, cx.now()) {
            return cx.apply(vec![Action::delete(CERTIFICATE_SIGNING_REQUESTS, &request)]).await;
        }
        Ok(Next::After(CLEAN_EVERY))
    });
}
