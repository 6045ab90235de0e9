//! A policy made ready.

use std::sync::Arc;

use api::Value;
use cel::admission::{Compiler, Inputs, Scope};
use cel::{Type, Version};

use super::params::ParamKind;
use crate::admission::expression::{Expression, hold};
use crate::admission::request::Criteria;
use crate::storage::Stored;

/// What policies of one sort say.
pub(super) trait Rules: Sized + Send + Sync + 'static {
    /// Plural of the policies.
    const POLICIES: &'static str;
    /// Plural of their bindings.
    const BINDINGS: &'static str;

    /// Compiles the expressions of a policy; `scope` is what all may use.
    fn new(spec: &Value, compiler: &mut Compiler, scope: Scope) -> Self;
}

/// A policy made ready.
pub(super) struct Policy<R> {
    /// What it was made of.
    pub stored: Arc<Stored>,
    pub name: String,
    /// True when what cannot be decided is allowed.
    pub ignores: bool,
    pub criteria: Result<Criteria, String>,
    pub param_kind: Option<ParamKind>,
    pub compiler: Compiler,
    pub rules: R,
    conditions: Vec<Expression>,
}

impl<R: Rules> Policy<R> {
    /// Compiles the expressions of a policy.
    pub(super) fn new(stored: Arc<Stored>) -> Self {
        let object = stored.object();
        let spec = object.get("spec");
        let param_kind = ParamKind::new(spec.get("paramKind"));
        let scope = Scope { params: param_kind.is_some(), authorizer: true, variables: true, patches: false };
        let mut compiler = Compiler::new(scope, Version::STORED);
        for variable in spec.array_at(&["variables"]) {
            // Using one that does not compile is what fails.
            let _ = compiler.declare(variable.str_at(&["name"]), variable.str_at(&["expression"]));
        }
        let conditions = spec.array_at(&["matchConditions"]).iter();
        let conditions =
            conditions.map(|c| Expression::new(&compiler, c, "expression", &[Type::Bool])).collect();
        let rules = R::new(spec, &mut compiler, scope);
        Self {
            name: object.name().to_owned(),
            ignores: spec.str_at(&["failurePolicy"]) == "Ignore",
            criteria: Criteria::new(spec.get("matchConstraints")),
            param_kind,
            stored,
            compiler,
            rules,
            conditions,
        }
    }

    /// True when the conditions of the policy hold.
    ///
    /// # Errors
    /// What goes wrong with them.
    pub(super) fn applies(&self, inputs: Inputs<'_>) -> Result<bool, String> {
        hold(&self.compiler, &self.conditions, self.ignores, inputs)
    }
}
