//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: expressions that refuse writes, warn of them or change what is
//! written, where bindings say so.
//!
//! Policies are compiled when they or their bindings have changed, by the first write that finds them so.
//!
//! Sources: <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/>,
//! <https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/>.

mod compiled;
mod mutating;
mod params;
mod select;
mod validating;

pub(super) use mutating::mutate;
pub(super) use validating::validate;

use api::error::Cause;
use api::{ApiError, Value};

use super::request::Request;
use crate::registry::Call;
use mutating::Mutations;
use select::Kept;
use validating::Validations;

const GROUP: &str = "admissionregistration.k8s.io";

/// The policies that are in force.
#[derive(Default)]
pub struct Policies {
    validating: Kept<Validations>,
    mutating: Kept<Mutations>,
}

fn said(error: ApiError) -> String {
    error.status().message.clone()
}

/// Reviews are asked by the server itself, and a policy about policies or webhooks could not be mended.
fn is_exempt(call: &Call) -> bool {
    call.row.group == GROUP
        || (!call.row.is_stored()
            && matches!(call.row.group, "authentication.k8s.io" | "authorization.k8s.io"))
}

/// The refusal of a request by policies: `causes` say why, the first of them above all.
fn refusal(request: &Request<'_>, causes: Vec<String>) -> ApiError {
    let row = &request.call.row;
    let name = match (request.name(), request.object.as_deref()) {
        ("", Some(object)) => object.str_at(&["metadata", "generateName"]),
        (name, _) => name,
    };
    let name = if name.is_empty() { "Unknown" } else { name };
    let first = causes.first().map(String::as_str).unwrap_or_default();
    let mut error = ApiError::forbidden(row.group, row.plural, name, first);
    let causes = causes.into_iter().map(|message| Cause { message, ..Cause::default() });
    error.status_mut().details.causes.extend(causes);
    error
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
