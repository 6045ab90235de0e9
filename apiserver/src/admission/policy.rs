//! ValidatingAdmissionPolicy: expressions that refuse writes, or warn of them, where bindings say so.
//!
//! Policies are compiled when they or their bindings have changed, by the first write that finds them so.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/>.

mod compiled;
mod params;

use std::collections::HashMap;
use std::sync::Arc;

use api::error::{Cause, Result};
use api::{ApiError, Value};
use arc_swap::ArcSwapOption;
use cel::admission::Inputs;

use super::Operation;
use super::access::Access;
use super::request::{Criteria, Request};
use crate::registry::Call;
use crate::resources::TABLE;
use crate::storage::{Snapshot, Storage, Stored};
use compiled::{Denial, Policy};

const GROUP: &str = "admissionregistration.k8s.io";

// DIVERGES: upstream looks for changes once a second, and takes policies in no order; here they are in order of name.
/// The policies that are in force.
#[derive(Default)]
pub struct Policies(ArcSwapOption<Hooks>);

/// Policies with their bindings, as of two snapshots.
struct Hooks {
    policies: Arc<Snapshot>,
    bindings: Arc<Snapshot>,
    hooks: Vec<Hook>,
}

struct Hook {
    policy: Arc<Policy>,
    bindings: Vec<Binding>,
}

struct Binding {
    name: String,
    /// Absent when it narrows nothing.
    criteria: Option<std::result::Result<Criteria, String>>,
    reference: Value,
    actions: Vec<String>,
}

impl Policies {
    /// The policies that are in force now.
    fn current(&self, storage: &Storage) -> Arc<Hooks> {
        let snapshot = |plural| storage.cache(TABLE.store(GROUP, plural)).snapshot();
        let policies = snapshot("validatingadmissionpolicies");
        let bindings = snapshot("validatingadmissionpolicybindings");
        let known = self.0.load_full();
        if let Some(known) = &known
            && Arc::ptr_eq(&known.policies, &policies)
            && Arc::ptr_eq(&known.bindings, &bindings)
        {
            return known.clone();
        }
        let hooks = Arc::new(Hooks::new(policies, bindings, known.as_deref()));
        self.0.store(Some(hooks.clone()));
        hooks
    }
}

impl Hooks {
    fn new(policies: Arc<Snapshot>, bindings: Arc<Snapshot>, known: Option<&Self>) -> Self {
        let mut bound: HashMap<String, Vec<Binding>> = HashMap::new();
        for stored in bindings.objects.values() {
            let object = stored.object();
            bound
                .entry(object.str_at(&["spec", "policyName"]).to_owned())
                .or_default()
                .push(Binding::new(&object));
        }
        let same = |stored: &Arc<Stored>| {
            let hooks = known.map_or(&[][..], |k| k.hooks.as_slice());
            hooks.iter().find(|h| Arc::ptr_eq(&h.policy.stored, stored)).map(|h| h.policy.clone())
        };
        let hooks = policies.objects.iter().filter_map(|(name, stored)| {
            let bindings = bound.remove(&**name)?;
            let policy = same(stored).unwrap_or_else(|| Arc::new(Policy::new(stored.clone())));
            Some(Hook { policy, bindings })
        });
        Self { hooks: hooks.collect(), policies: policies.clone(), bindings }
    }
}

impl Binding {
    fn new(object: &Value) -> Self {
        let spec = object.get("spec");
        let resources = spec.get("matchResources");
        let actions = spec.array_at(&["validationActions"]).iter();
        Self {
            name: object.name().to_owned(),
            criteria: (!resources.is_null()).then(|| Criteria::new(resources)),
            reference: spec.get("paramRef").clone(),
            actions: actions.filter_map(|a| a.as_str().map(str::to_owned)).collect(),
        }
    }

    fn matches(&self, request: &Request<'_>) -> std::result::Result<bool, String> {
        match &self.criteria {
            None => Ok(true),
            Some(Err(why)) => Err(why.clone()),
            Some(Ok(criteria)) => criteria.matches(request).map(|m| m.is_some()).map_err(said),
        }
    }
}

fn said(error: ApiError) -> String {
    error.status().message.clone()
}

/// Reviews are asked by the server itself, and a policy about policies could not be mended.
fn is_exempt(call: &Call) -> bool {
    let policies = call.row.group == GROUP && call.row.plural.contains("admissionpolic");
    policies
        || (!call.row.is_stored()
            && matches!(call.row.group, "authentication.k8s.io" | "authorization.k8s.io"))
}

/// Lets the policies refuse a write.
pub(super) async fn validate(
    call: &Call,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<()> {
    let hooks = call.server.policies.current(&call.server.storage);
    if hooks.hooks.is_empty() || is_exempt(call) {
        return Ok(());
    }
    let request = Request::new(call, operation, object, old).await?;
    // The first refusal is told, but all warnings are.
    let mut first = None;
    for hook in &hooks.hooks {
        let refusal = hook.ask(&request).await?;
        first = first.or(refusal);
    }
    first.map_or(Ok(()), Err)
}

impl Hook {
    /// The first refusal of the policy, by whatever binding.
    async fn ask(&self, request: &Request<'_>) -> Result<Option<ApiError>> {
        let policy = &self.policy;
        let storage = &request.call.server.storage;
        let broken = |why: String| {
            let message = format!("failed to configure policy: {why}");
            (!policy.ignores).then(|| self.refusal(request, None, Denial { message, reason: String::new() }))
        };
        let matched = match &policy.criteria {
            Ok(criteria) => criteria.matches(request).map_err(said),
            Err(why) => Err(why.clone()),
        };
        let row = match matched {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(None),
            Err(why) => return Ok(broken(why)),
        };
        let param_row = match policy.param_kind.as_ref().map(|kind| kind.resource(storage)).transpose() {
            Ok(row) => row,
            Err(why) => return Ok(broken(why)),
        };
        let mut first = None;
        for binding in &self.bindings {
            let judged = self.ask_for(binding, request, &row, param_row.as_ref()).await;
            let refusal = judged.unwrap_or_else(|why| {
                let message = format!("failed to configure binding: {why}");
                let denial = Denial { message, reason: String::new() };
                (!policy.ignores).then(|| self.refusal(request, Some(binding), denial))
            });
            first = first.or(refusal);
        }
        Ok(first)
    }

    /// The first refusal by a binding.
    ///
    /// # Errors
    /// What is wrong with the binding.
    async fn ask_for(
        &self,
        binding: &Binding,
        request: &Request<'_>,
        row: &crate::resources::Row,
        param_row: Option<&crate::resources::Row>,
    ) -> std::result::Result<Option<ApiError>, String> {
        if !binding.matches(request)? {
            return Ok(None);
        }
        let call = request.call;
        let params = match param_row {
            Some(param_row) if !binding.reference.is_null() => {
                let found =
                    params::collect(&call.server.storage, param_row, &binding.reference, request.namespace());
                found.await?.into_iter().map(Some).collect()
            }
            _ => vec![None],
        };
        if params.is_empty() {
            return Ok(None);
        }
        let seen = request.seen_as(row).await;
        let (object, old) =
            seen.map_err(|e| format!("failed to convert object version: {}", e.status().message))?;
        let (plain, matched) = (request.describe(&call.row), request.describe(row));
        let namespace = request.home.as_ref().map(|home| shown_namespace(&home.object()));
        let access = Access { server: &call.server, user: &call.user };
        let mut first = None;
        for params in &params {
            let inputs = Inputs {
                object: object.as_deref(),
                old_object: old.as_deref(),
                request: Some(&plain),
                namespace: namespace.as_ref(),
                params: params.as_ref(),
                authorizer: Some((&access, request.attributes())),
            };
            let verdict = self.policy.judge(inputs, &matched);
            for denial in verdict.denials {
                if binding.actions.iter().any(|a| a == "Warn") {
                    call.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        self.policy.name, binding.name, denial.message
                    ));
                }
                if binding.actions.iter().any(|a| a == "Deny") && first.is_none() {
                    first = Some(self.refusal(request, Some(binding), denial));
                }
            }
            let failure = verdict.failures.into_iter().next();
            first = first.or_else(|| failure.map(|f| self.refusal(request, Some(binding), f)));
        }
        Ok(first)
    }

    fn refusal(&self, request: &Request<'_>, binding: Option<&Binding>, denial: Denial) -> ApiError {
        let with = binding.map(|b| format!(" with binding '{}'", b.name)).unwrap_or_default();
        let message = format!(
            "ValidatingAdmissionPolicy '{}'{with} denied request: {}",
            self.policy.name, denial.message
        );
        let row = &request.call.row;
        let name = match (request.name(), request.object.as_deref()) {
            ("", Some(object)) => Some(object.str_at(&["metadata", "generateName"])),
            ("", None) => None,
            (name, _) => Some(name),
        };
        let name = name.filter(|n| !n.is_empty()).unwrap_or("Unknown");
        let mut error = ApiError::forbidden(row.group, row.plural, name, &message);
        let status = error.status_mut();
        let reason = if denial.reason.is_empty() { "Invalid" } else { denial.reason.as_str() };
        status.code = match reason {
            "Forbidden" => 403,
            "Unauthorized" => 401,
            "RequestEntityTooLarge" => 413,
            _ => 422,
        };
        status.reason = reason.to_owned();
        status.details.causes.push(Cause { message, ..Cause::default() });
        error
    }
}

/// What expressions see of a namespace.
fn shown_namespace(namespace: &Value) -> Value {
    let mut shown = Value::object();
    let metadata = namespace.get("metadata").as_object();
    for (field, value) in metadata.into_iter().flat_map(|m| m.iter()) {
        if !matches!(field, "managedFields" | "ownerReferences" | "selfLink") {
            shown.set(&["metadata", field], value);
        }
    }
    for part in ["spec", "status"] {
        shown.set(&[part], namespace.get(part));
    }
    shown
}
