//! Admission: what changes or refuses a write after the caller has been found to be allowed it.
//!
//! The plug-ins run in upstream's order. Each is a module with a `mutate`, a `validate`, or both, that looks at the
//! call and returns at once when the write is none of its business.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/>.

mod access;
mod certificates;
mod defaults;
mod expression;
mod limit_ranger;
mod namespace;
mod node_restriction;
mod policy;
mod priority;
mod quota;
mod rbac;
mod request;
mod rounds;
mod service_account;
mod webhook;

pub use policy::Policies;
pub use webhook::Webhooks;

use api::error::Result;
use api::{ApiError, Value};

use crate::registry::Call;
use rounds::Rounds;

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change of one.
    Update,
    /// The end of one.
    Delete,
    /// A stream to it.
    Connect,
}

/// Names of the plug-ins, in the order they run.
pub const PLUGINS: [&str; 22] = [
    "NamespaceLifecycle",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "PodSecurity",
    "Priority",
    "DefaultTolerationSeconds",
    "StorageObjectInUseProtection",
    "PersistentVolumeClaimResize",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "ClusterTrustBundleAttest",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "DefaultStorageClass",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    "ResourceQuota",
];

/// Lets the plug-ins, and after them policies and webhooks, change an object that is written. What policies and webhooks
/// change the plug-ins see again, and then those policies and webhooks that want to.
pub async fn mutate(
    call: &Call,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<()> {
    plug_in(call, operation, object).await?;
    let (mut policies, mut webhooks) = (Rounds::default(), Rounds::default());
    let by_policy = policy::mutate(call, operation, object, old, &mut policies).await?;
    let by_webhook = webhook::mutate(call, operation, object, old, &mut webhooks).await?;
    if by_policy || by_webhook {
        plug_in(call, operation, object).await?;
        policies.repeat(object);
        policy::mutate(call, operation, object, old, &mut policies).await?;
        webhooks.repeat(object);
        webhook::mutate(call, operation, object, old, &mut webhooks).await?;
    }
    Ok(())
}

/// Lets webhooks and plug-ins refuse a deletion.
pub async fn delete(call: &Call, old: &Value) -> Result<()> {
    webhook::before_deletion(call, old).await?;
    validate(call, Operation::Delete, None, Some(old)).await
}

async fn plug_in(call: &Call, operation: Operation, object: &mut Value) -> Result<()> {
    namespace::mutate(call, operation).await?;
    limit_ranger::mutate(call, operation, object)?;
    service_account::mutate(call, operation, object).await?;
    defaults::taint_new_node(call, operation, object);
    priority::mutate(call, operation, object)?;
    defaults::tolerate_lost_nodes(call, object);
    defaults::protect_volumes(call, operation, object);
    defaults::default_class(call, operation, object)?;
    defaults::overhead(call, operation, object)?;
    Ok(())
}

/// Lets the plug-ins refuse a write.
pub async fn validate(
    call: &Call,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<()> {
    namespace::validate(call, operation)?;
    limit_ranger::validate(call, operation, object)?;
    node_restriction::validate(call, operation, object, old)?;
    certificates::validate(call, operation, object, old)?;
    rbac::validate(call, operation, object, old)?;
    defaults::check_resize(call, operation, object, old)?;
    policy::validate(call, operation, object, old).await?;
    webhook::validate(call, operation, object, old).await?;
    quota::validate(call, operation, object, old).await
}

/// A refusal in the words of admission.
fn forbid(call: &Call, name: &str, why: impl AsRef<str>) -> ApiError {
    ApiError::forbidden(call.row.group, call.row.plural, name, why.as_ref())
}

/// True when the call writes the object itself, of that group and plural.
fn is(call: &Call, group: &str, plural: &str) -> bool {
    call.row.group == group && call.row.plural == plural && call.subresource.is_empty()
}
