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
pub use plugins::Plugin;
pub use policy::Policies;
pub use webhook::Webhooks;

use std::time::Instant;

use api::error::Result;
use api::{ApiError, Value};

use crate::metrics::Step;
use crate::registry::Call;
use rounds::Rounds;

/// Runs a plug-in that is switched on, and notes how long it took and whether it refused. One that `does` something cannot
/// refuse.
macro_rules! run {
    ($at:ident, $plugin:ident, does $does:expr) => {
        run!($at, $plugin, {
            $does;
            Ok(())
        })
    };
    ($at:ident, $plugin:ident, $runs:expr) => {
        let (call, step, operation): (&Call, Step, Operation) = $at;
        if call.server.config.admission.runs(Plugin::$plugin) {
            let began = Instant::now();
            let outcome: Result<()> = $runs;
            let metrics = &call.server.metrics.admission;
            metrics.plugin(Plugin::$plugin, (step, operation), began, outcome.is_err());
            outcome?;
        }
    };
}

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
    let at = (call, Step::Admit, operation);
    run!(at, NamespaceAutoProvision, namespace::provision(call, operation).await);
    run!(at, NamespaceLifecycle, namespace::mutate(call, operation).await);
    run!(at, LimitRanger, limit_ranger::mutate(call, operation, object));
    run!(at, ServiceAccount, service_account::mutate(call, operation, object).await);
    run!(at, NodeRestriction, node_restriction::check(call, operation, Some(object), old).await);
    run!(at, TaintNodesByCondition, does defaults::taint_new_node(call, operation, object));
    run!(at, AlwaysPullImages, does images::always_pull(call, operation, object, old));
    run!(at, PodNodeSelector, placement::select_nodes(call, operation, object));
    run!(at, Priority, priority::mutate(call, operation, object, old));
    run!(at, DefaultTolerationSeconds, does tolerations::tolerate_lost_nodes(call, object));
    run!(at, PodTolerationRestriction, tolerations::add(call, operation, object));
    run!(at, ExtendedResourceToleration, does tolerations::tolerate_extended_resources(call, object));
    run!(at, DefaultStorageClass, does defaults::default_class(call, operation, object, &defaults::STORAGE));
    run!(at, StorageObjectInUseProtection, does defaults::protect_volumes(call, operation, object));
    run!(at, RuntimeClass, runtime_class::mutate(call, operation, object).await);
    run!(at, DefaultIngressClass, does defaults::default_class(call, operation, object, &defaults::INGRESS));
    run!(at, PodTopologyLabels, does placement::label_topology(call, operation, object));
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
    let at = (call, Step::Validate, operation);
    run!(at, NamespaceLifecycle, namespace::validate(call, operation));
    run!(at, NamespaceExists, namespace::check_exists(call, operation).await);
    if let (Some(object), Operation::Create | Operation::Update) = (object, operation) {
        check_written(call, operation, object, old).await?;
    } else {
        run!(at, NodeRestriction, node_restriction::check(call, operation, object, old).await);
    }
    run!(at, ValidatingAdmissionPolicy, policy::validate(call, operation, object, old).await);
    run!(at, ValidatingAdmissionWebhook, webhook::validate(call, operation, object, old).await);
    run!(at, ResourceQuota, quota::validate(call, operation, object, old).await);
    run!(at, AlwaysDeny, deny(call, object.or(old)));
    Ok(())
}

fn deny(call: &Call, object: Option<&Value>) -> Result<()> {
    let name = object.map_or(call.name.as_str(), Value::name);
    Err(forbid(call, name, "admission control is denying all modifications"))
}

/// What plug-ins say of an object that is about to be stored.
async fn check_written(call: &Call, operation: Operation, object: &Value, old: Option<&Value>) -> Result<()> {
    let at = (call, Step::Validate, operation);
    run!(at, LimitPodHardAntiAffinityTopology, placement::check_affinity(call, object));
    run!(at, LimitRanger, limit_ranger::validate(call, operation, Some(object)));
    run!(at, ServiceAccount, service_account::validate(call, operation, object).await);
    run!(at, AlwaysPullImages, images::check_pulled(call, operation, object, old));
    if let Some(policy) = &call.server.config.admission.image_policy {
        run!(at, ImagePolicyWebhook, policy.validate(call, operation, object).await);
    }
    run!(at, PodSecurity, pod_security::validate(call, object, old));
    run!(at, PodNodeSelector, placement::check_selector(call, operation, object));
    run!(at, Priority, priority::validate(call, object));
    run!(at, PodTolerationRestriction, tolerations::validate(call, object));
    run!(at, EventRateLimit, event_rate::validate(call, object));
    run!(at, OwnerReferencesPermissionEnforcement, owners::validate(call, operation, object, old).await);
    run!(at, PersistentVolumeClaimResize, defaults::check_resize(call, operation, Some(object), old));
    run!(at, RuntimeClass, runtime_class::validate(call, operation, object).await);
    certificates::validate(call, operation, Some(object), old)?;
    rbac::validate(call, operation, Some(object), old)?;
    run!(at, DenyServiceExternalIPs, external_addresses::validate(call, object, old));
    run!(at, PodResizeValidator, placement::check_resize(call, operation, object, old));
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
