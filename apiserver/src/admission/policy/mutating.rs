//! Policies that change what is written.

use api::error::Result;
use api::{ApiError, Value};
use cel::admission::{Compiler, Evaluator, Inputs, Scope};
use cel::{Limits, Type, Version};
use schema::decode::Mode;

use super::compiled::Rules;
use super::select::{Binding, Invocation};
use super::{is_exempt, refusal, said, shown_namespace};
use crate::admission::Operation;
use crate::admission::access::Access;
use crate::admission::expression::{BUDGET, Expression, evaluate};
use crate::admission::request::Request;
use crate::admission::rounds::Rounds;
use crate::registry::Call;

/// What a mutating policy says.
pub(super) struct Mutations {
    mutations: Vec<Mutation>,
    /// True when it wants to be asked again.
    reinvokes: bool,
}

struct Mutation {
    expression: Expression,
    form: Form,
}

/// What the value of the expression is.
#[derive(Clone, Copy)]
enum Form {
    /// An `Object` that is laid over what is written.
    Configuration,
    /// A list of `JSONPatch`.
    JsonPatch,
}

impl Rules for Mutations {
    const POLICIES: &'static str = "mutatingadmissionpolicies";
    const BINDINGS: &'static str = "mutatingadmissionpolicybindings";

    fn new(spec: &Value, compiler: &mut Compiler, scope: Scope) -> Self {
        compiler.set(Scope { patches: true, ..scope }, Version::STORED);
        let mutations = spec.array_at(&["mutations"]).iter().map(|mutation| {
            let (form, member, returns) = match mutation.str_at(&["patchType"]) {
                "JSONPatch" => (Form::JsonPatch, "jsonPatch", Type::list(Type::object("JSONPatch"))),
                _ => (Form::Configuration, "applyConfiguration", Type::object("Object")),
            };
            let expression = Expression::new(compiler, mutation.get(member), "expression", &[returns]);
            Mutation { expression, form }
        });
        Self { mutations: mutations.collect(), reinvokes: spec.str_at(&["reinvocationPolicy"]) == "IfNeeded" }
    }
}

/// Why a mutation has not been made.
enum Failure {
    /// The policy is at fault, and may say that this is ignored.
    Policy(String),
    /// What it made fits no object.
    Object(ApiError),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Failure::Policy(why)
    }
}

/// Lets the policies change an object that is written; true when one did.
pub(in crate::admission) async fn mutate(
    call: &Call,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
    rounds: &mut Rounds,
) -> Result<bool> {
    let hooks = call.server.policies.mutating.current(&call.server.storage);
    if hooks.is_empty() || is_exempt(call) {
        return Ok(false);
    }
    // Who is asked depends on the object as it was before any policy changed it.
    let selected = hooks.select(&Request::new(call, operation, Some(object), old).await?).await;
    let (mut refusals, mut failures, mut any) = (Vec::new(), Vec::new(), false);
    for selected in selected {
        let invocation = match selected {
            Ok(invocation) => invocation,
            Err(wrong) => {
                refusals.extend(refuse(wrong.policy.ignores, &wrong.policy.name, wrong.binding, &wrong.why));
                continue;
            }
        };
        let policy = invocation.policy;
        let mut fail = |why: String| {
            failures.extend(refuse(policy.ignores, &policy.name, Some(invocation.binding), &why));
        };
        match applies(&invocation, &Request::new(call, operation, Some(object), old).await?).await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(why) => {
                fail(why);
                continue;
            }
        }
        let id = invocation.id();
        if !rounds.asks(&id) {
            continue;
        }
        let mut changed = false;
        for mutation in &policy.rules.mutations {
            let request = Request::new(call, operation, Some(object), old).await?;
            match mutation.make(&invocation, &request, object).await {
                Ok(Some(new)) if new != *object => {
                    *object = new;
                    changed = true;
                }
                Ok(_) => {}
                Err(Failure::Policy(why)) => fail(why),
                Err(Failure::Object(error)) => return Err(error),
            }
        }
        if changed {
            any = true;
            rounds.changed();
        }
        if policy.rules.reinvokes {
            rounds.asked(id);
        }
    }
    if any {
        // What the policies of a round did is a change to all of them that were asked.
        rounds.changed();
    }
    rounds.end(object);
    // The first tells the reason too: of what is wrong with a configuration that is another.
    let reason = if refusals.is_empty() { "Invalid" } else { "Forbidden" };
    refusals.append(&mut failures);
    let Some(first) = refusals.first().cloned() else { return Ok(any) };
    let mut error = refusal(&Request::new(call, operation, Some(object), old).await?, refusals);
    let status = error.status_mut();
    (status.message, status.reason) = (first, reason.to_owned());
    Err(error)
}

/// What is told of a failure, unless it is ignored.
fn refuse(ignores: bool, policy: &str, binding: Option<&Binding>, why: &str) -> Option<String> {
    let told = match binding {
        Some(binding) => format!("policy '{policy}' with binding '{}' denied request: {why}", binding.name),
        None => format!("policy {} denied request: {why}", api::field::go_quote(policy)),
    };
    (!ignores).then_some(told)
}

impl Invocation<'_, Mutations> {
    fn id(&self) -> String {
        let params = self.params.as_ref().map(|p| format!("{}/{}", p.namespace(), p.name()));
        format!("{}/{}/{}", self.policy.name, self.binding.name, params.unwrap_or_default())
    }
}

async fn applies(
    invocation: &Invocation<'_, Mutations>,
    request: &Request<'_>,
) -> std::result::Result<bool, String> {
    let call = request.call;
    let (object, old) = request.seen_as(&invocation.row).await.map_err(said)?;
    let described = request.describe(&call.row);
    let access = Access { server: &call.server, user: &call.user };
    invocation.policy.applies(Inputs {
        object: object.as_deref(),
        old_object: old.as_deref(),
        request: Some(&described),
        namespace: None,
        params: invocation.params.as_ref(),
        authorizer: Some((&access, request.attributes())),
    })
}

impl Mutation {
    /// What becomes of `whole`, the object that is written; none when it stays as it is.
    async fn make(
        &self,
        invocation: &Invocation<'_, Mutations>,
        request: &Request<'_>,
        whole: &Value,
    ) -> std::result::Result<Option<Value>, Failure> {
        let (row, call) = (&invocation.row, request.call);
        let (object, old) = request.seen_as(row).await.map_err(Failure::Object)?;
        let Some(object) = object else { return Ok(None) };
        let made = {
            let described = request.describe(row);
            let namespace = request.home.as_ref().map(|home| shown_namespace(&home.object()));
            let access = Access { server: &call.server, user: &call.user };
            let inputs = Inputs {
                object: Some(&object),
                old_object: old.as_deref(),
                request: Some(&described),
                namespace: namespace.as_ref(),
                params: invocation.params.as_ref(),
                authorizer: Some((&access, request.attributes())),
            };
            self.evaluate(&invocation.policy.compiler, inputs)?
        };
        let (changed, mode) = match self.form {
            Form::JsonPatch => {
                let patched = schema::patch::json(object.into_owned(), &made, Mode::Ignore);
                match patched {
                    Ok((patched, _)) => (patched, Mode::Strict),
                    Err(schema::patch::Error::TestFailed(_)) => return Ok(None),
                    Err(why) => return Err(Failure::Policy(format!("JSON Patch: {why}"))),
                }
            }
            Form::Configuration => {
                let mut configuration = made;
                for member in ["kind", "apiVersion"] {
                    configuration.set(&[member], object.get(member));
                }
                let laid = schema::apply::overlay(&object, &configuration, request.ty(row));
                (laid.map_err(|why| format!("error applying patch: {why}"))?, Mode::Ignore)
            }
        };
        request.taken(whole, row, changed, mode).await.map(Some).map_err(Failure::Object)
    }

    /// The value of the expression: a configuration or a patch.
    fn evaluate(&self, compiler: &Compiler, inputs: Inputs<'_>) -> std::result::Result<Value, String> {
        if let Some(mistake) = self.expression.mistake() {
            return Err(mistake.to_owned());
        }
        let evaluator = Evaluator::new(compiler, inputs, Limits::default());
        let mut budget = BUDGET;
        let value = evaluate(&evaluator, &self.expression, &mut budget)??;
        match self.form {
            Form::Configuration => value.to_configuration(),
            Form::JsonPatch => value.to_json_patch(),
        }
    }
}
