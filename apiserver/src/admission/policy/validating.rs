//! Policies that refuse requests or warn of them.

mod judge;
mod notes;

use api::error::Result;
use api::{ApiError, Value};
use cel::admission::{Compiler, Inputs, Scope};
use cel::{Type, Version};

use super::compiled::Rules;
use super::select::{Binding, Invocation};
use super::{is_exempt, refusal, said, shown_namespace};
use crate::admission::Operation;
use crate::admission::access::Access;
use crate::admission::expression::Expression;
use crate::admission::request::Request;
use crate::registry::Call;
use judge::Denial;
use notes::Notes;

/// What a validating policy says.
pub(super) struct Validations {
    validations: Vec<Validation>,
    /// Annotations of audit events, by their keys.
    annotations: Vec<(String, Expression)>,
}

struct Validation {
    check: Expression,
    computed: Option<Expression>,
    message: String,
    reason: String,
}

impl Rules for Validations {
    const POLICIES: &'static str = "validatingadmissionpolicies";
    const BINDINGS: &'static str = "validatingadmissionpolicybindings";

    fn new(spec: &Value, compiler: &mut Compiler, scope: Scope) -> Self {
        let each = |list: &str| spec.array_at(&[list]).iter();
        let annotations = each("auditAnnotations")
            .map(|a| {
                let value = Expression::new(compiler, a, "valueExpression", &[Type::String, Type::Null]);
                (a.str_at(&["key"]).to_owned(), value)
            })
            .collect();
        let mut validations: Vec<Validation> = each("validations")
            .map(|v| Validation {
                check: Expression::new(compiler, v, "expression", &[Type::Bool]),
                computed: None,
                message: v.str_at(&["message"]).trim().to_owned(),
                reason: v.get("reason").as_str().unwrap_or("Invalid").to_owned(),
            })
            .collect();
        compiler.set(Scope { authorizer: false, ..scope }, Version::STORED);
        for (validation, given) in validations.iter_mut().zip(each("validations")) {
            if !given.str_at(&["messageExpression"]).is_empty() {
                validation.computed =
                    Some(Expression::new(compiler, given, "messageExpression", &[Type::String]));
            }
        }
        Self { validations, annotations }
    }
}

/// Lets the policies refuse a write.
pub(in crate::admission) async fn validate(
    call: &Call,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<()> {
    let hooks = call.server.policies.validating.current(&call.server.storage);
    if hooks.is_empty() || is_exempt(call) {
        return Ok(());
    }
    let request = Request::new(call, operation, object, old).await?;
    // The first refusal is told, but all warnings are.
    let (mut first, mut notes) = (None, Notes::default());
    for selected in hooks.select(&request).await {
        let refused = match selected {
            Ok(invocation) => ask(&invocation, &request, &mut notes).await,
            Err(wrong) if wrong.policy.ignores => None,
            Err(wrong) => Some(refuse(&request, &wrong.policy.name, wrong.binding, Denial::of(wrong.why))),
        };
        first = first.or(refused);
    }
    notes.write(call);
    first.map_or(Ok(()), Err)
}

/// The first refusal by a policy; what else it says is told to the client.
async fn ask(
    invocation: &Invocation<'_, Validations>,
    request: &Request<'_>,
    notes: &mut Notes,
) -> Option<ApiError> {
    let Invocation { policy, binding, row, params } = invocation;
    let call = request.call;
    let (object, old) = match request.seen_as(row).await {
        Ok(seen) => seen,
        Err(_) if policy.ignores => return None,
        Err(e) => {
            let why = format!("failed to configure binding: failed to convert object version: {}", said(e));
            return Some(refuse(request, &policy.name, Some(binding), Denial::of(why)));
        }
    };
    let (plain, matched) = (request.describe(&call.row), request.describe(row));
    let namespace = request.home.as_ref().map(|home| shown_namespace(&home.object()));
    let access = Access { server: &call.server, user: &call.user };
    let inputs = Inputs {
        object: object.as_deref(),
        old_object: old.as_deref(),
        request: Some(&plain),
        namespace: namespace.as_ref(),
        params: params.as_ref(),
        authorizer: Some((&access, request.attributes())),
    };
    let verdict = policy.judge(inputs, &matched);
    let mut first = None;
    for (key, value) in verdict.annotations {
        notes.add(format!("{}/{key}", policy.name), value);
    }
    for denial in verdict.denials {
        if binding.actions.iter().any(|a| a == "Audit") {
            notes::failed(call, &policy.name, binding, &denial);
        }
        if binding.actions.iter().any(|a| a == "Warn") {
            call.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                policy.name, binding.name, denial.message
            ));
        }
        if binding.actions.iter().any(|a| a == "Deny") && first.is_none() {
            first = Some(refuse(request, &policy.name, Some(binding), denial));
        }
    }
    let failure = verdict.failures.into_iter().next();
    first.or_else(|| failure.map(|f| refuse(request, &policy.name, Some(binding), f)))
}

fn refuse(request: &Request<'_>, policy: &str, binding: Option<&Binding>, denial: Denial) -> ApiError {
    let with = binding.map(|b| format!(" with binding '{}'", b.name)).unwrap_or_default();
    let message = format!("ValidatingAdmissionPolicy '{policy}'{with} denied request: {}", denial.message);
    let mut error = refusal(request, vec![message]);
    let status = error.status_mut();
    let reason = if denial.reason.is_empty() { "Invalid" } else { denial.reason.as_str() };
    status.code = match reason {
        "Forbidden" => 403,
        "Unauthorized" => 401,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    status.reason = reason.to_owned();
    error
}
