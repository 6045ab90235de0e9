//! Aggregation: groups of the API that other servers serve, registered by APIServices.
//!
//! A request below `/apis/GROUP/VERSION` of an APIService with a Service goes to the endpoints of that Service, with the
//! sender's name in headers and this server's client certificate as their proof. [`Aggregation`] is what is registered;
//! [`availability`] says of each APIService whether it can be reached; [`discovery`] reads what the others serve, for the
//! documents of discovery; [`openapi`] merges their schemas.
//!
//! Invariants: what a client claims about itself in the headers of a front proxy never reaches another server; an
//! answer of another server is bounded wherever it is read as a whole; a request passes this server once only.
//!
//! Mirrors kube-aggregator. Source: <https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/>.

pub mod availability;
pub mod discovery;
mod identity;
pub mod openapi;
mod openapi_convert;
mod openapi_merge;
mod priorities;
mod proxy;
mod resolve;
mod service;
mod transport;

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

pub use identity::Identity;
pub use priorities::{CUSTOM_GROUP, CUSTOM_VERSION, built_in_priority};
pub use proxy::forward;
pub use service::{Backend, Remote};

use crate::resources::TABLE;
use crate::storage::{Snapshot, Storage};
use discovery::Found;
use service::Services;

/// How requests reach other servers.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Certificate and key that prove this server (`--proxy-client-cert-file`, `--proxy-client-key-file`).
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Dial the endpoints of a Service rather than its cluster address (`--enable-aggregator-routing`).
    pub endpoints: bool,
    /// Answer 502 instead of handing redirects on (`--aggregator-reject-forwarding-redirect`).
    pub reject_redirects: bool,
}

/// What is registered, and what is known of those who serve it.
pub struct Aggregation {
    services: ArcSwapOption<Services>,
    /// The client certificate.
    pub identity: Identity,
    /// What others serve.
    pub found: Found,
    /// Documents of OpenAPI of others.
    pub documents: openapi::Documents,
    options: Options,
    /// Names this server in `Via` headers, by which a request that comes back is known.
    via: String,
}

impl Aggregation {
    /// Reads the client certificate.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        Ok(Self {
            services: ArcSwapOption::empty(),
            identity: Identity::read(options.identity.clone())?,
            found: Found::default(),
            documents: openapi::Documents::default(),
            options,
            via: format!("ferrite-{}", api::names::new_uid()),
        })
    }

    /// The APIServices that other servers stand behind.
    pub fn remotes(&self, storage: &Storage) -> Arc<Services> {
        let snapshot = snapshot(storage);
        let known = self.services.load_full();
        if let Some(known) = &known
            && Arc::ptr_eq(&known.snapshot, &snapshot)
        {
            return known.clone();
        }
        let services = Arc::new(Services::new(snapshot, known.as_deref()));
        self.services.store(Some(services.clone()));
        services
    }

    /// The server behind a path, unless it is this one.
    pub fn find(&self, storage: &Storage, path: &str) -> Option<Arc<Remote>> {
        let rest = path.strip_prefix("/api")?;
        let services = self.remotes(storage);
        if services.remotes.is_empty() {
            return None;
        }
        let mut segments = rest.split('/');
        match segments.next()? {
            // The core group has no name, and its server all that is below `/api`.
            "" => services.remotes.get("v1.").cloned(),
            "s" => {
                let (group, version) = (segments.next()?, segments.next()?);
                services.remotes.get(&format!("{version}.{group}")).filter(|r| !r.group.is_empty()).cloned()
            }
            _ => None,
        }
    }
}

fn snapshot(storage: &Storage) -> Arc<Snapshot> {
    storage.cache(TABLE.store("apiregistration.k8s.io", "apiservices")).snapshot()
}
