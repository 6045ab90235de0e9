//! Expressions of admission: validating and mutating policies, and the match conditions of webhooks and policies.
//!
//! A [`Compiler`] knows the variables that they have in common, and the variables that a policy declares itself; an
//! [`Inputs`] has the values for one request. Variables of a policy are evaluated when they are first asked for, once.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#validation-expression>.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use api::Value;

use crate::decl::{Decl, DeclTypes};
use crate::env::{Env, Version};
use crate::eval::{Activation, Limits, Program};
use crate::library::authz::{Attributes, Authorizer, Authz};
use crate::source::Issues;
use crate::types::{Declarations, Type};
use crate::value::map::Entries;
use crate::value::{EvalError, Map, Outcome, Val};

mod declarations;
mod patch;

use declarations::{namespace, request};

const VARIABLES_TYPE: &str = "kubernetes.variables";
static DYN: Decl = Decl::DYN;

/// What expressions have besides the objects, the request and the namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope {
    /// `params`
    pub params: bool,
    /// `authorizer` and `authorizer.requestResource`
    pub authorizer: bool,
    /// `variables`
    pub variables: bool,
    /// `Object{..}` and `JSONPatch{..}`, which mutations are made of
    pub patches: bool,
}

/// Object types of expressions of admission.
struct Types {
    declared: DeclTypes,
    variables: Vec<(String, Type)>,
    scope: Scope,
}

impl Declarations for Types {
    fn has_type(&self, name: &str) -> bool {
        self.declared.has_type(name)
            || (self.scope.variables && name == VARIABLES_TYPE)
            || (self.scope.patches && patch::has_type(name))
    }

    fn field(&self, object: &str, field: &str) -> Option<Type> {
        if object == VARIABLES_TYPE {
            return self.variables.iter().find(|(name, _)| name == field).map(|(_, t)| t.clone());
        }
        if self.scope.patches
            && let Some(t) = patch::field(object, field)
        {
            return Some(t);
        }
        self.declared.field(object, field)
    }
}

/// A variable of a policy.
#[derive(Debug)]
struct Variable {
    name: String,
    t: Type,
    program: Result<Program, String>,
}

/// Compiles the expressions of one policy or webhook.
#[derive(Debug)]
pub struct Compiler {
    scope: Scope,
    version: Version,
    request: Arc<Decl>,
    namespace: Arc<Decl>,
    /// What the objects and the parameters are, where that is known.
    object: Option<Arc<Decl>>,
    params: Option<Arc<Decl>>,
    variables: Vec<Variable>,
}

impl Compiler {
    /// Compiles expressions that may use what `version` has.
    pub fn new(scope: Scope, version: Version) -> Self {
        let (request, namespace) = (Arc::new(request()), Arc::new(namespace()));
        Self { scope, version, request, namespace, object: None, params: None, variables: Vec::new() }
    }

    /// Knows what the objects and the parameters are; otherwise they may be anything.
    pub fn typed(mut self, object: Option<Arc<Decl>>, params: Option<Arc<Decl>>) -> Self {
        (self.object, self.params) = (object, params);
        self
    }

    /// Sets what the expressions that are compiled from now on may use.
    pub fn set(&mut self, scope: Scope, version: Version) -> &mut Self {
        (self.scope, self.version) = (scope, version);
        self
    }

    fn env(&self) -> Env {
        let known = [Some(&self.request), Some(&self.namespace), self.object.as_ref(), self.params.as_ref()];
        let of = |decl: &Option<Arc<Decl>>| decl.as_ref().map_or(Type::Dyn, |d| d.cel_type());
        let types = Types {
            declared: DeclTypes::new(known.into_iter().flatten().cloned()),
            variables: self.variables.iter().map(|v| (v.name.clone(), v.t.clone())).collect(),
            scope: self.scope,
        };
        let mut env = Env::new(self.version)
            .variable("object", of(&self.object))
            .variable("oldObject", of(&self.object))
            .variable("request", self.request.cel_type())
            .variable("namespaceObject", self.namespace.cel_type())
            .declarations(Arc::new(types));
        if self.scope.params {
            env = env.variable("params", of(&self.params));
        }
        if self.scope.authorizer {
            env = env
                .variable("authorizer", Authz::authorizer_type())
                .variable("authorizer.requestResource", Authz::request_resource_type());
        }
        if self.scope.variables {
            env = env.variable("variables", Type::object(VARIABLES_TYPE));
        }
        if self.scope.patches { env.with_json_patch() } else { env }
    }

    /// Compiles an expression whose value is of one of the types `returns`, or of any if there are none.
    ///
    /// # Errors
    /// What is wrong with it, in the words of upstream.
    pub fn compile(&self, expression: &str, returns: &[Type]) -> Result<Program, String> {
        self.checked(expression, returns).map(|(program, _)| program)
    }

    /// Says what is wrong with an expression, whatever the type of its value.
    ///
    /// # Errors
    /// All that is wrong, each with its place.
    pub fn check(&self, expression: &str) -> Result<(), Issues> {
        self.env().compile(expression).map(|_| ())
    }

    fn checked(&self, expression: &str, returns: &[Type]) -> Result<(Program, Type), String> {
        let checked =
            self.env().compile(expression).map_err(|issues| format!("compilation failed: {issues}"))?;
        let got = checked.output_type();
        if !returns.is_empty() && !returns.contains(got) {
            let names: Vec<String> = returns.iter().map(declared_name).collect();
            let one = match names.as_slice() {
                [one] => one.clone(),
                several => format!("one of [{}]", several.join(" ")),
            };
            return Err(format!("must evaluate to {one} but got {}", declared_name(got)));
        }
        let program = checked.program().map_err(|e| format!("program instantiation failed: {e}"))?;
        Ok((program, got.clone()))
    }

    /// Declares a variable of the policy, which expressions after it can use as `variables.name`; also when it does not
    /// compile, in which case using it fails.
    ///
    /// # Errors
    /// What is wrong with its expression.
    pub fn declare(&mut self, name: &str, expression: &str) -> Result<(), String> {
        let (t, program) = match self.checked(expression, &[]) {
            Ok((program, t)) => (visible(&t), Ok(program)),
            Err(e) => (Type::Dyn, Err(e)),
        };
        let outcome = program.as_ref().map(|_| ()).map_err(Clone::clone);
        self.variables.retain(|v| v.name != name);
        self.variables.push(Variable { name: name.to_owned(), t, program });
        outcome
    }
}

/// Types as messages about results name them.
fn declared_name(t: &Type) -> String {
    match t {
        Type::Null | Type::Timestamp | Type::Duration => t.name().to_owned(),
        _ => t.to_string(),
    }
}

/// The type that a variable is known by: objects are whatever they are.
fn visible(t: &Type) -> Type {
    match t {
        Type::Struct(_) | Type::Opaque(..) | Type::Type(_) | Type::Error => Type::Dyn,
        Type::List(e) => Type::list(visible(e)),
        Type::Map(k, v) => Type::map(visible(k), visible(v)),
        simple => simple.clone(),
    }
}

/// The values for one request.
#[derive(Clone, Default)]
pub struct Inputs<'a> {
    /// The object, unless it is deleted.
    pub object: Option<&'a Value>,
    /// The object before, unless it is created.
    pub old_object: Option<&'a Value>,
    /// The `AdmissionRequest`, without the objects.
    pub request: Option<&'a Value>,
    /// The namespace of the object.
    pub namespace: Option<&'a Value>,
    /// The parameters of the policy.
    pub params: Option<&'a Value>,
    /// Whom to ask about access, and the resource of the request.
    pub authorizer: Option<(&'a dyn Authorizer, Attributes)>,
}

/// Evaluates the expressions of one compiler for one request.
pub struct Evaluator<'c, 'a> {
    compiler: &'c Compiler,
    inputs: Inputs<'a>,
    limits: Limits,
    known: RefCell<HashMap<String, Outcome<'a>>>,
    variables_cost: Cell<u64>,
}

impl<'c, 'a> Evaluator<'c, 'a> {
    /// Evaluates for a request; `limits` hold for each expression and each variable.
    pub fn new(compiler: &'c Compiler, inputs: Inputs<'a>, limits: Limits) -> Self {
        let (known, variables_cost) = (RefCell::default(), Cell::new(0));
        Self { compiler, inputs, limits, known, variables_cost }
    }

    /// The value of an expression, and what it and the variables that it was the first to use cost.
    pub fn evaluate(&self, program: &Program) -> (Outcome<'a>, u64) {
        let (outcome, cost) = program.evaluate(self, self.limits);
        (outcome, cost.saturating_add(self.variables_cost.replace(0)))
    }

    fn compute(&self, name: &str) -> Option<Outcome<'a>> {
        if let Some(known) = self.known.borrow().get(name) {
            return Some(known.clone());
        }
        let variable = self.compiler.variables.iter().find(|v| v.name == name)?;
        let quoted = api::field::go_quote(name);
        let outcome = match &variable.program {
            Err(e) => Err(EvalError::new(format!("composited variable {quoted} fails to compile: {e}"))),
            Ok(program) => {
                let (outcome, cost) = program.evaluate(self, self.limits);
                self.variables_cost.set(self.variables_cost.get().saturating_add(cost));
                outcome.map_err(|e| {
                    EvalError::new(format!("composited variable {quoted} fails to evaluate: {e}"))
                })
            }
        };
        self.known.borrow_mut().insert(name.to_owned(), outcome.clone());
        Some(outcome)
    }
}

impl<'a> Activation<'a> for Evaluator<'_, 'a> {
    fn variable(&self, name: &str) -> Option<Outcome<'a>> {
        let data = |value: Option<&'a Value>| Some(value.map_or(Ok(Val::Null), |v| Val::from_data(v, &DYN)));
        match name {
            "object" => data(self.inputs.object),
            "oldObject" => data(self.inputs.old_object),
            "request" => data(self.inputs.request),
            "namespaceObject" => data(self.inputs.namespace),
            "params" => data(self.inputs.params),
            "authorizer" => self.inputs.authorizer.as_ref().map(|(a, _)| Ok(Val::Authz(Authz::new(*a)))),
            "authorizer.requestResource" => {
                let (authorizer, attributes) = self.inputs.authorizer.as_ref()?;
                Some(Ok(Val::Authz(Authz::request_resource(*authorizer, attributes.clone()))))
            }
            // Where only presence is asked for.
            "variables" => {
                let mut entries = Entries::default();
                for variable in &self.compiler.variables {
                    if let Err(e) = entries.insert(Val::string(variable.name.as_str()), Val::Null) {
                        return Some(Err(e));
                    }
                }
                Some(Ok(Val::Map(Map::new(entries))))
            }
            _ => None,
        }
    }

    fn computed_field(&self, name: &str, field: &str) -> Option<Outcome<'a>> {
        if name == "variables" { self.compute(field) } else { None }
    }
}

#[cfg(test)]
mod tests;
