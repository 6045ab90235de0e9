//! Admission: what changes or refuses a write after the caller has been found to be allowed it.
//!
//! The plug-ins run in upstream's order. Each is a module with a `mutate`, a `validate`, or both, that looks at the
//! call and returns at once when the write is none of its business.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/>.

mod access;
mod certificates;
mod configuration;
mod defaults;
mod event_rate;
mod expression;
mod external_addresses;
mod image_policy;
mod images;
mod limit_ranger;
mod namespace;
mod node_restriction;
mod owners;
mod placement;
mod plugins;
mod pod_security;
mod policy;
mod priority;
mod quota;
mod rbac;
mod request;
mod rounds;
mod runtime_class;
mod service_account;
mod tolerations;
mod webhook;

pub use configuration::Configuration;
pub use policy::Policies;
pub use webhook::Webhooks;

use std::time::Instant;

use api::error::Result;
use api::{ApiError, Value};

use crate::metrics::Step;
use crate::registry::Call;
use plugins::Plugin;
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

/// Lets the plug-ins, and after them policies and webhooks, change an object that is written. What policies and webhooks
/// change the plug-ins see again, and then those policies and webhooks that want to.
pub async fn mutate(
    call: &Call,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<()> {
    let began = Instant::now();
    let changed = change(call, operation, object, old).await;
    call.server.metrics.admission.step(Step::Admit, operation, began, changed.is_err());
    changed
}

async fn change(call: &Call, operation: Operation, object: &mut Value, old: Option<&Value>) -> Result<()> {
    let runs = |plugin| call.server.config.admission.runs(plugin);
    let mut rounds = (Rounds::default(), Rounds::default());
    for second in [false, true] {
        plug_in(call, operation, object, old).await?;
        let mut changed = false;
        if runs(Plugin::MutatingAdmissionPolicy) {
            rounds.0.begin(second, object);
            changed |= policy::mutate(call, operation, object, old, &mut rounds.0).await?;
        }
        if runs(Plugin::MutatingAdmissionWebhook) {
            rounds.1.begin(second, object);
            changed |= webhook::mutate(call, operation, object, old, &mut rounds.1).await?;
        }
        if !changed {
            break;
        }
    }
    Ok(())
}

/// Lets webhooks and plug-ins refuse a deletion.
pub async fn delete(call: &Call, old: &Value) -> Result<()> {
    if call.server.config.admission.runs(Plugin::MutatingAdmissionWebhook) {
        webhook::before_deletion(call, old).await?;
    }
    validate(call, Operation::Delete, None, Some(old)).await
}

async fn plug_in(call: &Call, operation: Operation, object: &mut Value, old: Option<&Value>) -> Result<()> {
    let runs = |plugin| call.server.config.admission.runs(plugin);
    if runs(Plugin::NamespaceAutoProvision) {
        namespace::provision(call, operation).await?;
    }
    if runs(Plugin::NamespaceLifecycle) {
        namespace::mutate(call, operation).await?;
    }
    if runs(Plugin::LimitRanger) {
        limit_ranger::mutate(call, operation, object)?;
    }
    if runs(Plugin::ServiceAccount) {
        service_account::mutate(call, operation, object).await?;
    }
    if runs(Plugin::TaintNodesByCondition) {
        defaults::taint_new_node(call, operation, object);
    }
    if runs(Plugin::AlwaysPullImages) {
        images::always_pull(call, operation, object, old);
    }
    if runs(Plugin::PodNodeSelector) {
        placement::select_nodes(call, operation, object)?;
    }
    if runs(Plugin::Priority) {
        priority::mutate(call, operation, object, old)?;
    }
    if runs(Plugin::DefaultTolerationSeconds) {
        tolerations::tolerate_lost_nodes(call, object);
    }
    if runs(Plugin::PodTolerationRestriction) {
        tolerations::add(call, operation, object)?;
    }
    if runs(Plugin::ExtendedResourceToleration) {
        tolerations::tolerate_extended_resources(call, object);
    }
    if runs(Plugin::DefaultStorageClass) {
        defaults::default_class(call, operation, object, &defaults::STORAGE);
    }
    if runs(Plugin::StorageObjectInUseProtection) {
        defaults::protect_volumes(call, operation, object);
    }
    if runs(Plugin::RuntimeClass) {
        runtime_class::mutate(call, operation, object).await?;
    }
    if runs(Plugin::DefaultIngressClass) {
        defaults::default_class(call, operation, object, &defaults::INGRESS);
    }
    if runs(Plugin::PodTopologyLabels) {
        placement::label_topology(call, operation, object);
    }
    Ok(())
}

/// Lets the plug-ins refuse a write.
pub async fn validate(
    call: &Call,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<()> {
    let began = Instant::now();
    let checked = check(call, operation, object, old).await;
    call.server.metrics.admission.step(Step::Validate, operation, began, checked.is_err());
    checked
}

async fn check(call: &Call, operation: Operation, object: Option<&Value>, old: Option<&Value>) -> Result<()> {
    let runs = |plugin| call.server.config.admission.runs(plugin);
    if runs(Plugin::NamespaceLifecycle) {
        namespace::validate(call, operation)?;
    }
    if runs(Plugin::NamespaceExists) {
        namespace::check_exists(call, operation).await?;
    }
    if let (Some(object), Operation::Create | Operation::Update) = (object, operation) {
        check_written(call, operation, object, old).await?;
    } else if runs(Plugin::NodeRestriction) {
        node_restriction::validate(call, operation, object, old)?;
    }
    if runs(Plugin::ValidatingAdmissionPolicy) {
        policy::validate(call, operation, object, old).await?;
    }
    if runs(Plugin::ValidatingAdmissionWebhook) {
        webhook::validate(call, operation, object, old).await?;
    }
    if runs(Plugin::ResourceQuota) {
        quota::validate(call, operation, object, old).await?;
    }
    if runs(Plugin::AlwaysDeny) {
        let name = object.or(old).map_or(call.name.as_str(), Value::name);
        return Err(forbid(call, name, "admission control is denying all modifications"));
    }
    Ok(())
}

/// What plug-ins say of an object that is about to be stored.
async fn check_written(call: &Call, operation: Operation, object: &Value, old: Option<&Value>) -> Result<()> {
    let runs = |plugin| call.server.config.admission.runs(plugin);
    if runs(Plugin::LimitPodHardAntiAffinityTopology) {
        placement::check_affinity(call, object)?;
    }
    if runs(Plugin::LimitRanger) {
        limit_ranger::validate(call, operation, Some(object))?;
    }
    if runs(Plugin::NodeRestriction) {
        node_restriction::validate(call, operation, Some(object), old)?;
    }
    if runs(Plugin::AlwaysPullImages) {
        images::check_pulled(call, operation, object, old)?;
    }
    if runs(Plugin::ImagePolicyWebhook)
        && let Some(policy) = &call.server.config.admission.image_policy
    {
        policy.validate(call, operation, object).await?;
    }
    if runs(Plugin::PodSecurity) {
        pod_security::validate(call, object, old)?;
    }
    if runs(Plugin::PodNodeSelector) {
        placement::check_selector(call, operation, object)?;
    }
    if runs(Plugin::Priority) {
        priority::validate(call, object)?;
    }
    if runs(Plugin::PodTolerationRestriction) {
        tolerations::validate(call, object)?;
    }
    if runs(Plugin::EventRateLimit) {
        event_rate::validate(call, object)?;
    }
    if runs(Plugin::OwnerReferencesPermissionEnforcement) {
        owners::validate(call, operation, object, old).await?;
    }
    if runs(Plugin::PersistentVolumeClaimResize) {
        defaults::check_resize(call, operation, Some(object), old)?;
    }
    if runs(Plugin::RuntimeClass) {
        runtime_class::validate(call, operation, object).await?;
    }
    certificates::validate(call, operation, Some(object), old)?;
    rbac::validate(call, operation, Some(object), old)?;
    if runs(Plugin::DenyServiceExternalIPs) {
        external_addresses::validate(call, object, old)?;
    }
    if runs(Plugin::PodResizeValidator) {
        placement::check_resize(call, operation, object, old)?;
    }
    Ok(())
}

/// A failure that has no name in the API.
fn plain(why: impl Into<String>) -> ApiError {
    ApiError::new(http::StatusCode::INTERNAL_SERVER_ERROR, "", why)
}

/// A refusal in the words of admission.
fn forbid(call: &Call, name: &str, why: impl AsRef<str>) -> ApiError {
    ApiError::forbidden(call.row.group, call.row.plural, name, why.as_ref())
}

/// Why an object cannot be asked for by a name, in the words of upstream's clients.
fn unusable_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("resource name may not be empty".to_owned());
    }
    let found = api::names::path_segment(name);
    let quoted = api::field::go_quote(name);
    (!found.is_empty()).then(|| format!("invalid resource name {quoted}: [{}]", found.join(" ")))
}

/// What an object is called in messages: by its name, or what that will begin with.
fn name_of(object: &Value) -> &str {
    let names = [object.name(), object.str_at(&["metadata", "generateName"]), "Unknown"];
    names.into_iter().find(|name| !name.is_empty()).unwrap_or_default()
}

/// True when the call changes the resources of a running pod.
fn is_resize(call: &Call, operation: Operation) -> bool {
    operation == Operation::Update
        && call.row.group.is_empty()
        && call.row.plural == "pods"
        && call.subresource == "resize"
}

/// True when the call writes the object itself, of that group and plural.
fn is(call: &Call, group: &str, plural: &str) -> bool {
    call.row.group == group && call.row.plural == plural && call.subresource.is_empty()
}
