//! NodeRestriction: a kubelet changes its own node and the pods bound to it, and nothing else.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>.

mod labels;
mod pods;
mod tokens;

use api::error::Result;
use api::{ApiError, Value};

use super::{Operation, forbid};
use crate::kinds::requested_name;
use crate::registry::Call;
use crate::resources::TABLE;

/// Fields of a claim's status that are a kubelet's to write, after it has made a volume larger.
const CLAIM_STATUS: [&str; 4] = ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"];
/// Signers of the certificates of kubelets.
const SIGNERS: [&str; 2] = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

/// A write by the kubelet of a node.
struct Write<'w> {
    call: &'w Call,
    node: &'w str,
    operation: Operation,
    object: &'w Value,
    old: &'w Value,
}

/// Refuses what is none of a kubelet's business.
pub(super) async fn check(
    call: &Call,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<()> {
    let Some(node) = call.user.node_name().map(str::to_owned) else { return Ok(()) };
    let (object, old) = (object.unwrap_or(&Value::Null), old.unwrap_or(&Value::Null));
    let write = Write { call, node: &node, operation, object, old };
    match (call.row.group, call.row.plural, call.subresource.as_str()) {
        ("", "pods", _) => pods::check(&write),
        ("", "nodes", _) => write.node(),
        ("", "persistentvolumeclaims", "status") => write.claim(),
        ("", "persistentvolumeclaims", _) => write.refuse("may only update PVC status"),
        ("", "serviceaccounts", "token") => tokens::check(&write).await,
        ("coordination.k8s.io", "leases", _) => write.lease(),
        ("storage.k8s.io", "csinodes", _) => write.named("CSINode"),
        ("resource.k8s.io", "resourceslices", _) => write.slice(),
        ("certificates.k8s.io", "certificatesigningrequests", _) => write.certificate(),
        _ => Ok(()),
    }
}

impl Write<'_> {
    /// The name of what is written.
    fn name(&self) -> &str {
        if self.call.name.is_empty() { self.object.name() } else { &self.call.name }
    }

    fn refuse(&self, why: impl AsRef<str>) -> Result<()> {
        Err(forbid(self.call, self.name(), why))
    }

    fn quoted(&self) -> String {
        api::field::go_quote(self.node)
    }

    /// An object of the core group that the server holds.
    fn find(&self, plural: &str, name: &str) -> Result<Value> {
        let row = TABLE.find_any_version("", plural).expect("a built-in resource");
        let cache = self.call.server.storage.cache(TABLE.store("", plural));
        let found = cache.get(&row.key(&self.call.namespace, name));
        // Upstream asks a cache of its own, which says of what kind nothing was found.
        found.map(|s| s.object()).ok_or_else(|| ApiError::not_found("", &row.kind.to_lowercase(), name))
    }

    fn named(&self, what: &str) -> Result<()> {
        if self.name() == self.node {
            return Ok(());
        }
        self.refuse(format!("can only access {what} with the same name as the requesting node"))
    }

    fn lease(&self) -> Result<()> {
        const NAMESPACE: &str = "kube-node-lease";
        if self.call.namespace != NAMESPACE {
            return self.refuse(format!("can only access leases in the {NAMESPACE:?} system namespace"));
        }
        self.named("node lease")
    }

    fn slice(&self) -> Result<()> {
        let (slice, verb) = match self.operation {
            Operation::Create => (self.object, "create"),
            Operation::Delete => (self.old, "delete"),
            _ => return Ok(()),
        };
        if slice.str_at(&["spec", "nodeName"]) == self.node {
            return Ok(());
        }
        self.refuse(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
    }

    /// Certificates for kubelets bear the name of the node that asks for them.
    fn certificate(&self) -> Result<()> {
        if self.operation != Operation::Create
            || !SIGNERS.contains(&self.object.str_at(&["spec", "signerName"]))
        {
            return Ok(());
        }
        let wanted = format!("system:node:{}", self.node);
        match requested_name(self.object.str_at(&["spec", "request"])) {
            Ok(name) if name == wanted => Ok(()),
            Ok(_) => self.refuse(format!("can only create a node CSR with CN={wanted}")),
            Err(why) => self.refuse(format!("unable to parse csr: {why}")),
        }
    }

    fn claim(&self) -> Result<()> {
        let rest = |claim: &Value| {
            let mut rest = claim.clone();
            for field in ["resourceVersion", "managedFields"] {
                rest.remove_at(&["metadata", field]);
            }
            for field in CLAIM_STATUS {
                rest.remove_at(&["status", field]);
            }
            rest
        };
        if self.operation != Operation::Update {
            return self.refuse(format!("unexpected operation {:?}", self.operation.name()));
        }
        if rest(self.object) == rest(self.old) {
            return Ok(());
        }
        let node = self.quoted();
        self.refuse(format!(
            "node {node} is not allowed to update fields other than status.quantity and status.conditions"
        ))
    }

    fn node(&self) -> Result<()> {
        let node = self.quoted();
        if self.name() != self.node {
            let other = api::field::go_quote(self.name());
            return self.refuse(format!("node {node} is not allowed to modify node {other}"));
        }
        let config = self.object.at(&["spec", "configSource"]);
        match self.operation {
            Operation::Create if !config.is_null() => {
                self.refuse(format!("node {node} is not allowed to create pods with a non-nil configSource"))
            }
            Operation::Create => match labels::forbidden(self.object, &Value::Null) {
                labels if labels.is_empty() => Ok(()),
                labels => self.refuse(format!(
                    "node {node} is not allowed to set the following labels: {}",
                    labels.join(", ")
                )),
            },
            Operation::Update => self.node_change(&node, config),
            _ => Ok(()),
        }
    }

    fn node_change(&self, node: &str, config: &Value) -> Result<()> {
        if !config.is_null() && config != self.old.at(&["spec", "configSource"]) {
            let why = "is not allowed to update configSource to a new non-nil configSource";
            return self.refuse(format!("node {node} {why}"));
        }
        for (path, what) in
            [(["spec", "taints"], "taints"), (["metadata", "ownerReferences"], "ownerReferences")]
        {
            if self.object.array_at(&path) != self.old.array_at(&path) {
                return self.refuse(format!("node {node} is not allowed to modify {what}"));
            }
        }
        match labels::forbidden(self.object, self.old) {
            labels if labels.is_empty() => Ok(()),
            labels => self.refuse(format!("is not allowed to modify labels: {}", labels.join(", "))),
        }
    }
}
