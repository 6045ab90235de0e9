//! Secrets of type `kubernetes.io/service-account-token` get a token for the service account they name.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use api::{Value, object};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use client::resource::SECRETS;
use client::{Informer, Key, Next, Queue};
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use sha2::{Digest, Sha256};

use crate::act::Action;
use crate::context::Context;
use crate::keys::key_pair;

const TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

pub(crate) fn start(cx: &Context) {
    let Some(path) = &cx.config.token_key else {
        tracing::info!("No tokens for Secrets without --service-account-private-key-file");
        return;
    };
    let key = std::fs::read_to_string(path).context("cannot read it").and_then(|pem| Signer::new(&pem));
    let signer = match key.with_context(|| format!("--service-account-private-key-file {path}")) {
        Ok(signer) => Arc::new(signer),
        Err(e) => {
            cx.tasks.critical(cx.name, async move { Err(e) });
            return;
        }
    };
    // As upstream's, this controller acts as the daemon itself: it makes what others act by.
    let cx = Context { client: cx.reader.clone(), ..cx.clone() };
    let queue = Queue::new();
    let accounts = cx.informers.service_accounts();
    let secrets = Informer::of_values(SECRETS, |_| {}).fields(&format!("type={TYPE}")).build();
    Context::follow(&secrets, &queue);
    let (changed, store) = (queue.clone(), secrets.clone());
    accounts.on_change(move |change| {
        let account = change.object();
        for secret in store.store().in_namespace(account.namespace()) {
            if secret.annotation(NAME) == Some(account.name()) {
                changed.add(Key::of(&secret));
            }
        }
    });
    cx.feed(&secrets);
    let store = secrets.clone();
    cx.work(queue, cx.config.workers.token, &[accounts, &secrets], move |cx, key| {
        let (signer, secrets) = (Arc::clone(&signer), store.clone());
        async move {
            let Some(secret) = secrets.store().get(&key) else { return Ok(Next::Done) };
            let named = secret.annotation(NAME).unwrap_or_default();
            let account = cx.informers.service_accounts().store().find(key.namespace(), named);
            let ca = cx.config.root_ca.as_deref();
            let action = plan(&secret, account.as_deref(), ca, &signer)?;
            cx.apply(action.into_iter().collect()).await
        }
    });
}

fn plan(
    secret: &Value,
    account: Option<&Value>,
    ca: Option<&str>,
    signer: &Signer,
) -> anyhow::Result<Option<Action>> {
    if secret.is_terminating() {
        return Ok(None);
    }
    let uid = secret.annotation(UID).unwrap_or_default();
    let Some(account) = account.filter(|a| uid.is_empty() || a.uid() == uid) else {
        // Its account is gone; before it ever had one it may still come.
        return Ok((!uid.is_empty()).then(|| Action::delete(SECRETS, secret)));
    };
    let mut updated = secret.clone();
    updated.set(&["metadata", "annotations", UID], account.uid());
    updated.set(&["data", "namespace"], STANDARD.encode(secret.namespace()));
    if let Some(ca) = ca {
        updated.set(&["data", "ca.crt"], STANDARD.encode(ca));
    }
    if secret.str_at(&["data", "token"]).is_empty() {
        updated.set(&["data", "token"], STANDARD.encode(signer.token(account, secret.name())?));
    }
    Ok((&updated != secret).then_some(Action::Update(SECRETS, updated)))
}

/// Signs tokens as the API server's `--service-account-key-file` verifies them.
struct Signer {
    key: KeyPair,
    id: String,
}

impl Signer {
    fn new(pem: &str) -> anyhow::Result<Self> {
        let key = key_pair(pem)?;
        ensure!(key.is_compatible(&rcgen::PKCS_RSA_SHA256), "only RSA keys are supported");
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(key.subject_public_key_info()));
        Ok(Self { key, id })
    }

    fn token(&self, account: &Value, secret: &str) -> anyhow::Result<String> {
        let claim = |name: &str| format!("kubernetes.io/serviceaccount/{name}");
        let mut claims = object!({"iss": "kubernetes/serviceaccount"});
        for (name, value) in [
            ("namespace", account.namespace()),
            ("secret.name", secret),
            ("service-account.name", account.name()),
            ("service-account.uid", account.uid()),
        ] {
            claims.set(&[&claim(name)], value);
        }
        let subject = format!("system:serviceaccount:{}:{}", account.namespace(), account.name());
        claims.set(&["sub"], subject);
        let head = object!({"alg": "RS256", "kid": (&self.id)});
        let text = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_json())).join(".");
        let signature = self.key.sign(text.as_bytes())?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
