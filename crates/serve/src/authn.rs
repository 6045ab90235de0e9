//! Who is calling, and may they? Each daemon brings its own answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use http::request::Parts;
use http::{Method, Response, StatusCode, header};
use rustls::DistinguishedName;

use crate::accept::PeerCertificates;
use crate::body::{Body, BoxError, json, text};
use crate::x509::ClientCa;

/// A caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User name.
    pub name: String,
    /// Id, unique over time; may be empty.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Whatever else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The caller that showed no credentials.
    pub fn anonymous() -> Self {
        let groups = vec!["system:unauthenticated".to_owned()];
        Self { name: "system:anonymous".to_owned(), groups, ..Self::default() }
    }
}

/// Finds out who is calling.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// The caller; none when the request carries no credentials of the kind looked at; an error when it carries wrong ones.
    async fn authenticate(&self, request: &Parts) -> Result<Option<User>, BoxError>;

    /// Those whose certificates it takes, for clients that have several to choose from.
    fn authorities(&self) -> Vec<DistinguishedName> {
        Vec::new()
    }
}

/// What a caller wants to do, in the words of RBAC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// Verb: that of the resource request, or the lower-case HTTP method.
    pub verb: String,
    /// The path, for requests about no resource.
    pub path: String,
    /// The resource, for requests about one (such as `nodes`); empty otherwise.
    pub resource: String,
    /// API group of the resource.
    pub group: String,
    /// Subresource (such as `proxy`).
    pub subresource: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

impl Attributes {
    /// A request about no resource.
    pub fn path(method: &Method, path: &str) -> Self {
        Self { verb: method.as_str().to_ascii_lowercase(), path: path.to_owned(), ..Self::default() }
    }
}

/// Decides what callers may do.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// True when `user` may. `Err` when nobody could be asked.
    async fn allowed(&self, user: &User, attributes: &Attributes) -> Result<bool, BoxError>;
}

/// Callers by client certificate.
pub struct CertificateAuthenticator(pub ClientCa);

#[async_trait]
impl Authenticator for CertificateAuthenticator {
    async fn authenticate(&self, request: &Parts) -> Result<Option<User>, BoxError> {
        let Some(PeerCertificates(chain)) = request.extensions.get() else { return Ok(None) };
        if chain.is_empty() {
            return Ok(None);
        }
        let subject = self.0.verify(chain)?;
        let mut groups = subject.organizations;
        groups.push("system:authenticated".to_owned());
        Ok(Some(User { name: subject.common_name, uid: subject.uid, groups, ..User::default() }))
    }

    fn authorities(&self) -> Vec<DistinguishedName> {
        self.0.names()
    }
}

/// Tries authenticators in turn; errors only count when none knows the caller.
pub struct Union(pub Vec<Arc<dyn Authenticator>>);

#[async_trait]
impl Authenticator for Union {
    async fn authenticate(&self, request: &Parts) -> Result<Option<User>, BoxError> {
        let mut failure = None;
        for one in &self.0 {
            match one.authenticate(request).await {
                Ok(Some(user)) => return Ok(Some(user)),
                Ok(None) => {}
                Err(e) => failure = Some(e),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    fn authorities(&self) -> Vec<DistinguishedName> {
        self.0.iter().flat_map(|one| one.authorities()).collect()
    }
}

/// The bearer token of a request.
pub fn bearer_token(request: &Parts) -> Option<&str> {
    let value = request.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Authentication and authorization of a daemon's own endpoints.
#[derive(Clone)]
pub struct Guard {
    /// Who is calling.
    pub authenticator: Arc<dyn Authenticator>,
    /// What they may do.
    pub authorizer: Arc<dyn Authorizer>,
    /// Paths open to everyone; a trailing `*` stands for any rest.
    pub always_allow: Vec<String>,
    /// Whether callers without credentials are `system:anonymous`, or refused.
    pub anonymous: bool,
}

impl Guard {
    /// The caller when they may go on; otherwise the answer to give.
    pub async fn check(&self, request: &Parts, attributes: &Attributes) -> Result<User, Response<Body>> {
        let path = request.uri.path();
        if self.always_allow.iter().any(|p| match p.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => p == path,
        }) {
            return Ok(User::anonymous());
        }
        let user = match self.authenticator.authenticate(request).await {
            Ok(Some(user)) => user,
            Ok(None) if self.anonymous => User::anonymous(),
            Ok(None) => return Err(text(StatusCode::UNAUTHORIZED, "Unauthorized")),
            Err(e) => {
                tracing::warn!(err = %e, "Unable to authenticate the request");
                return Err(text(StatusCode::UNAUTHORIZED, "Unauthorized"));
            }
        };
        match self.authorizer.allowed(&user, attributes).await {
            Ok(true) => Ok(user),
            Ok(false) => Err(forbidden(&user, attributes)),
            Err(e) => {
                tracing::error!(err = %e, "Cannot authorize the request");
                let what = format!("Authorization error (user={}, verb={})", user.name, attributes.verb);
                Err(text(StatusCode::INTERNAL_SERVER_ERROR, what))
            }
        }
    }
}

fn forbidden(user: &User, attributes: &Attributes) -> Response<Body> {
    let what = if attributes.resource.is_empty() {
        format!("path {:?}", attributes.path)
    } else {
        format!("resource {:?}", attributes.resource)
    };
    let message = format!("forbidden: User {:?} cannot {} {what}", user.name, attributes.verb);
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "Forbidden", "details": {}, "code": 403,
    });
    json(StatusCode::FORBIDDEN, status.to_string())
}
