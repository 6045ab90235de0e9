//! Delegated authentication and authorization: a daemon asks the API server who is calling and what they may do.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::{Map, Value, object};
use async_trait::async_trait;
use clap::Args;
use http::request::Parts;
use parking_lot::Mutex;
use serve::authn::{
    Attributes, Authenticator, Authorizer, CertificateAuthenticator, Guard, Union, User, bearer_token,
};
use serve::x509::ClientCa;
use serve::{BoxError, PeerCertificates};
use tokio::time::Instant;

use crate::connect::{Connection, connect};
use crate::error::{Error, Result};
use crate::resource::{CONFIG_MAPS, SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS};
use crate::rest::Client;

/// How long an answer of the API server counts.
const REMEMBER: Duration = Duration::from_secs(10);
/// Answers remembered at most.
const REMEMBERED: usize = 1024;

/// The flags of upstream's delegating daemons.
#[derive(Args, Clone, Debug)]
pub struct DelegationFlags {
    /// Kubeconfig file pointing at the server that may create token reviews; empty for none.
    #[arg(long, default_value = "")]
    pub authentication_kubeconfig: String,
    /// If true, no missing authentication configuration is looked up in the cluster.
    #[arg(long)]
    pub authentication_skip_lookup: bool,
    /// If true, failures to look up missing authentication configuration are not fatal.
    #[arg(long, default_value_t = true)]
    pub authentication_tolerate_lookup_failure: bool,
    /// Kubeconfig file pointing at the server that may create subject access reviews; empty for none.
    #[arg(long, default_value = "")]
    pub authorization_kubeconfig: String,
    /// Paths that need no authorization.
    #[arg(long, value_delimiter = ',', default_values_t = ["/healthz", "/readyz", "/livez"].map(String::from))]
    pub authorization_always_allow_paths: Vec<String>,
    /// Authorities whose client certificates are accepted.
    #[arg(long, default_value = "")]
    pub client_ca_file: String,
    /// Authorities of front proxies that may name the caller in headers.
    #[arg(long, default_value = "")]
    pub requestheader_client_ca_file: String,
    /// Names of such proxies; all their authorities sign when empty.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers with the user's name.
    #[arg(long, value_delimiter = ',', default_value = "x-remote-user")]
    pub requestheader_username_headers: Vec<String>,
    /// Headers with the user's groups.
    #[arg(long, value_delimiter = ',', default_value = "x-remote-group")]
    pub requestheader_group_headers: Vec<String>,
    /// Prefixes of headers with more about the user.
    #[arg(long, value_delimiter = ',', default_value = "x-remote-extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
}

impl DelegationFlags {
    /// The guard these flags ask for. Without an authentication kubeconfig no token is known, without an authorization one
    /// only `system:masters` may do anything but the always-allowed paths.
    pub async fn guard(&self, user_agent: &str) -> Result<Guard> {
        let client = async |path: &str| match path {
            "" => Ok(None),
            path => connect(&Connection::from_path(path, user_agent)).await.map(Some),
        };
        let reviews = client(&self.authentication_kubeconfig).await?;
        let access = client(&self.authorization_kubeconfig).await?;
        let mut known: Vec<Arc<dyn Authenticator>> = Vec::new();
        let bad = |e: &dyn std::fmt::Display| Error::Config(e.to_string());
        if !self.requestheader_client_ca_file.is_empty() {
            let ca =
                ClientCa::from_file(Path::new(&self.requestheader_client_ca_file)).map_err(|e| bad(&e))?;
            known.push(Arc::new(FrontProxy { ca, flags: self.clone() }));
        }
        if !self.client_ca_file.is_empty() {
            let ca = ClientCa::from_file(Path::new(&self.client_ca_file)).map_err(|e| bad(&e))?;
            known.push(Arc::new(CertificateAuthenticator(ca)));
        } else if let (Some(client), false) = (&reviews, self.authentication_skip_lookup) {
            known.push(Arc::new(LookedUp { client: client.clone(), found: Mutex::default() }));
        }
        if let Some(client) = reviews {
            known.push(Arc::new(TokenReviews { client, remembered: Memory::default() }));
        }
        Ok(Guard {
            authenticator: Arc::new(Union(known)),
            authorizer: Arc::new(AccessReviews { client: access, remembered: Memory::default() }),
            always_allow: self.authorization_always_allow_paths.clone(),
            anonymous: true,
        })
    }
}

/// Answers by question, for a while.
struct Memory<Q, A>(Mutex<HashMap<Q, (A, Instant)>>);

impl<Q, A> Default for Memory<Q, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Q: Hash + Eq, A: Clone> Memory<Q, A> {
    fn recall(&self, question: &Q) -> Option<A> {
        let memory = self.0.lock();
        memory.get(question).filter(|(_, at)| at.elapsed() < REMEMBER).map(|(a, _)| a.clone())
    }

    fn keep(&self, question: Q, answer: A) {
        let mut memory = self.0.lock();
        if memory.len() >= REMEMBERED {
            memory.retain(|_, (_, at)| at.elapsed() < REMEMBER);
        }
        if memory.len() < REMEMBERED {
            memory.insert(question, (answer, Instant::now()));
        }
    }
}

/// Bearer tokens, by TokenReview.
pub struct TokenReviews {
    client: Client,
    remembered: Memory<String, Option<User>>,
}

impl TokenReviews {
    /// Asks through this client.
    pub fn new(client: Client) -> Self {
        Self { client, remembered: Memory::default() }
    }
}

#[async_trait]
impl Authenticator for TokenReviews {
    async fn authenticate(&self, request: &Parts) -> std::result::Result<Option<User>, BoxError> {
        let Some(token) = bearer_token(request) else { return Ok(None) };
        let user = match self.remembered.recall(&token.to_owned()) {
            Some(user) => user,
            None => {
                let review = object!({
                    "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token},
                });
                let review = self.client.create(&TOKEN_REVIEWS, "", &review).await?;
                let user = reviewed(&review);
                self.remembered.keep(token.to_owned(), user.clone());
                user
            }
        };
        user.map(Some).ok_or_else(|| "invalid bearer token".into())
    }
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn reviewed(review: &Value) -> Option<User> {
    if review.at(&["status", "authenticated"]).as_bool() != Some(true) {
        return None;
    }
    let user = review.at(&["status", "user"]);
    let extra = user.get("extra").as_object().into_iter().flat_map(Map::iter);
    Some(User {
        name: user.str_at(&["username"]).to_owned(),
        uid: user.str_at(&["uid"]).to_owned(),
        groups: strings(user.get("groups")),
        extra: extra.map(|(k, v)| (k.to_owned(), strings(v))).collect(),
    })
}

/// What callers may do, by SubjectAccessReview.
pub struct AccessReviews {
    client: Option<Client>,
    remembered: Memory<(String, Vec<String>, Attributes), bool>,
}

impl AccessReviews {
    /// Asks through this client.
    pub fn new(client: Client) -> Self {
        Self { client: Some(client), remembered: Memory::default() }
    }
}

#[async_trait]
impl Authorizer for AccessReviews {
    async fn allowed(&self, user: &User, attributes: &Attributes) -> std::result::Result<bool, BoxError> {
        if user.groups.iter().any(|g| g == "system:masters") {
            return Ok(true);
        }
        let Some(client) = &self.client else { return Ok(false) };
        let question = (user.name.clone(), user.groups.clone(), attributes.clone());
        if let Some(allowed) = self.remembered.recall(&question) {
            return Ok(allowed);
        }
        let review = client.create(&SUBJECT_ACCESS_REVIEWS, "", &access_review(user, attributes)).await?;
        let allowed = review.at(&["status", "allowed"]).as_bool() == Some(true);
        self.remembered.keep(question, allowed);
        Ok(allowed)
    }
}

fn access_review(user: &User, a: &Attributes) -> Value {
    let extra: Map = user.extra.iter().map(|(k, v)| (k.as_str(), Value::from(v.clone()))).collect();
    let mut review = object!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": (&user.name), "uid": (&user.uid), "groups": (user.groups.clone()), "extra": extra,
        },
    });
    if a.resource.is_empty() {
        review.set(&["spec", "nonResourceAttributes"], object!({"path": (&a.path), "verb": (&a.verb)}));
    } else {
        let resource = object!({
            "namespace": (&a.namespace), "verb": (&a.verb), "group": (&a.group), "version": "v1",
            "resource": (&a.resource), "subresource": (&a.subresource), "name": (&a.name),
        });
        review.set(&["spec", "resourceAttributes"], resource);
    }
    review
}

/// Callers named in headers by a front proxy that shows its certificate.
struct FrontProxy {
    ca: ClientCa,
    flags: DelegationFlags,
}

#[async_trait]
impl Authenticator for FrontProxy {
    async fn authenticate(&self, request: &Parts) -> std::result::Result<Option<User>, BoxError> {
        let all = |names: &[String]| -> Vec<String> {
            let values = names.iter().flat_map(|n| request.headers.get_all(n.as_str()));
            values.filter_map(|v| v.to_str().ok().map(str::to_owned)).collect()
        };
        let Some(name) = all(&self.flags.requestheader_username_headers).into_iter().next() else {
            return Ok(None);
        };
        let Some(PeerCertificates(chain)) = request.extensions.get() else { return Ok(None) };
        // A certificate of other authorities is for the next authenticator, which ignores the headers.
        let Ok(proxy) = self.ca.verify(chain) else { return Ok(None) };
        let allowed = &self.flags.requestheader_allowed_names;
        if !allowed.is_empty() && !allowed.contains(&proxy.common_name) {
            return Ok(None);
        }
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for prefix in &self.flags.requestheader_extra_headers_prefix {
            let prefix = prefix.to_ascii_lowercase();
            for (header, value) in &request.headers {
                if let (Some(key), Ok(value)) = (header.as_str().strip_prefix(&prefix), value.to_str()) {
                    extra.entry(key.to_owned()).or_default().push(value.to_owned());
                }
            }
        }
        let mut groups = all(&self.flags.requestheader_group_headers);
        if !groups.iter().any(|g| g == "system:authenticated" || g == "system:unauthenticated") {
            groups.push("system:authenticated".to_owned());
        }
        Ok(Some(User { name, groups, extra, ..User::default() }))
    }
}

/// Client certificates by the authorities that the API server publishes in `kube-system/extension-apiserver-authentication`.
struct LookedUp {
    client: Client,
    found: Mutex<Option<(Arc<CertificateAuthenticator>, Instant)>>,
}

/// How long published authorities count before they are looked up again.
const LOOK_UP_EVERY: Duration = Duration::from_secs(60);

impl LookedUp {
    async fn current(&self) -> std::result::Result<Option<Arc<CertificateAuthenticator>>, BoxError> {
        if let Some((found, at)) = self.found.lock().as_ref()
            && at.elapsed() < LOOK_UP_EVERY
        {
            return Ok(Some(Arc::clone(found)));
        }
        let name = "extension-apiserver-authentication";
        let Some(map) = self.client.get_opt(&CONFIG_MAPS, "kube-system", name).await? else {
            return Ok(None);
        };
        let pem = map.str_at(&["data", "client-ca-file"]);
        let fresh = Arc::new(CertificateAuthenticator(ClientCa::from_pem(pem.as_bytes())?));
        *self.found.lock() = Some((Arc::clone(&fresh), Instant::now()));
        Ok(Some(fresh))
    }
}

#[async_trait]
impl Authenticator for LookedUp {
    async fn authenticate(&self, request: &Parts) -> std::result::Result<Option<User>, BoxError> {
        if request.extensions.get::<PeerCertificates>().is_none_or(|p| p.0.is_empty()) {
            return Ok(None);
        }
        match self.current().await? {
            Some(authenticator) => authenticator.authenticate(request).await,
            None => Ok(None),
        }
    }
}
