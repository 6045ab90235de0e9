//! The APIServices that other servers stand behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::transport::Transports;
use crate::custom::is_true;
use crate::storage::Snapshot;

/// All of them, as of a snapshot.
pub struct Services {
    /// Where they were read.
    pub snapshot: Arc<Snapshot>,
    /// By name.
    pub remotes: BTreeMap<String, Arc<Remote>>,
}

/// A version of a group that another server serves.
pub struct Remote {
    /// Name of the APIService.
    pub name: String,
    /// Revision of the APIService.
    pub revision: i64,
    /// Group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Where the group stands among groups.
    pub group_priority: i64,
    /// Where the version stands among those of its group.
    pub version_priority: i64,
    /// True when the checks of the APIService pass.
    pub available: bool,
    /// Who serves it; shared by successive readings of an APIService, and so are the connections.
    pub backend: Arc<Backend>,
}

/// A Service, and how its certificate is judged.
pub struct Backend {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Port of the Service.
    pub port: i64,
    /// Takes any certificate.
    pub insecure: bool,
    /// PEM bundle that vouches for the server; none for that of the machine.
    pub bundle: Option<Vec<u8>>,
    pub(super) transports: Transports,
}

impl Backend {
    pub(super) fn of(spec: &Value) -> Self {
        let service = spec.get("service");
        let bundle = STANDARD.decode(spec.str_at(&["caBundle"])).ok();
        Self {
            namespace: service.str_at(&["namespace"]).to_owned(),
            service: service.str_at(&["name"]).to_owned(),
            port: service.get("port").as_i64().unwrap_or(443),
            insecure: spec.get("insecureSkipTLSVerify").as_bool().unwrap_or(false),
            bundle: bundle.filter(|b| !b.is_empty()),
            transports: Transports::default(),
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        (&self.namespace, &self.service, self.port, self.insecure, &self.bundle)
            == (&other.namespace, &other.service, other.port, other.insecure, &other.bundle)
    }

    /// The name that the certificate must have.
    pub fn server_name(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }
}

impl Services {
    pub(super) fn new(snapshot: Arc<Snapshot>, known: Option<&Self>) -> Self {
        let mut remotes = BTreeMap::new();
        for (name, stored) in &snapshot.objects {
            let before = known.and_then(|k| k.remotes.get(&**name));
            if let Some(same) = before.filter(|r| r.revision == stored.revision) {
                remotes.insert(name.to_string(), same.clone());
                continue;
            }
            let object = stored.object();
            let spec = object.get("spec");
            if spec.get("service").is_null() {
                continue;
            }
            let backend = Arc::new(Backend::of(spec));
            // Also another version of the same server has connections that can be used.
            let others = known.into_iter().flat_map(|k| k.remotes.values()).chain(remotes.values());
            let same = others.map(|r: &Arc<Remote>| &r.backend).find(|b| b.is_like(&backend)).cloned();
            let remote = Remote {
                name: name.to_string(),
                revision: stored.revision,
                group: spec.str_at(&["group"]).to_owned(),
                version: spec.str_at(&["version"]).to_owned(),
                group_priority: spec.get("groupPriorityMinimum").as_i64().unwrap_or(0),
                version_priority: spec.get("versionPriority").as_i64().unwrap_or(0),
                available: is_true(&object, "Available"),
                backend: same.unwrap_or(backend),
            };
            remotes.insert(name.to_string(), Arc::new(remote));
        }
        Self { snapshot, remotes }
    }

    /// True for a version that another server serves.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        !self.remotes.is_empty() && self.remotes.contains_key(&format!("{version}.{group}"))
    }
}
