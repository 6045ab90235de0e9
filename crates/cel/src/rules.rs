//! Rules of custom resources: `x-kubernetes-validations` in the schema of a CustomResourceDefinition.
//!
//! [`check`] says what is wrong with the rules of a definition; [`Rules`] holds the compiled rules of a schema against
//! objects. Both speak in the words of apiextensions-apiserver.
//!
//! Source: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules>.

use std::collections::HashMap;
use std::sync::Arc;

use api::Value;
use api::field::{FieldError, Problem};

use crate::decl::{Decl, DeclTypes};
use crate::env::{Env, Version};
use crate::eval::Program;
use crate::types::Type;

mod definition;
mod evaluate;
mod field_path;

pub use definition::{Check, check};

/// A path of names after dots, as errors show it, and the schema of what it leads to.
///
/// # Errors
/// Why it leads nowhere.
pub fn member_path<'s>(path: &str, schema: &'s Value) -> Result<(String, &'s Value), String> {
    field_path::follow(path, schema, false)
}

/// The cost that all rules together may have for one object.
const OBJECT_BUDGET: u64 = 10_000_000;
const KEY: &str = "x-kubernetes-validations";
/// What the type that a rule is about is called in messages.
const SELF_TYPE: &str = "selfType";

/// A rule, compiled, or why it could not be.
#[derive(Debug, Default)]
struct Compiled {
    program: Option<Program>,
    error: Option<String>,
    uses_old_self: bool,
    max_cost: u64,
    message: Option<Program>,
    message_error: Option<String>,
    message_cost: u64,
}

/// Environments of the rules of one schema.
struct Compiler {
    decl: Arc<Decl>,
    types: Arc<DeclTypes>,
}

impl Compiler {
    fn new(decl: &Arc<Decl>) -> Self {
        Self { decl: decl.clone(), types: Arc::new(DeclTypes::new([decl.clone()])) }
    }

    fn env(&self, rule: &Value, version: Version) -> Env {
        let t = self.decl.cel_type();
        let optional = rule.get("optionalOldSelf").as_bool() == Some(true);
        let old = if optional { Type::optional(t.clone()) } else { t.clone() };
        Env::new(version).variable("self", t).variable("oldSelf", old).declarations(self.types.clone())
    }

    /// Compiles a rule; `version` says what an expression may use.
    fn compile(&self, rule: &Value, version: &dyn Fn(&str) -> Version) -> Compiled {
        let mut compiled = Compiled::default();
        let text = rule.str_at(&["rule"]);
        if text.trim().is_empty() {
            return compiled;
        }
        let checked = match self.env(rule, version(text)).compile(text) {
            Ok(checked) => checked,
            Err(issues) => {
                return Compiled { error: Some(format!("compilation failed: {issues}")), ..compiled };
            }
        };
        if *checked.output_type() != Type::Bool {
            return Compiled { error: Some("cel expression must evaluate to a bool".into()), ..compiled };
        }
        compiled.uses_old_self = checked.uses("oldSelf");
        match checked.program() {
            Ok(program) => compiled.program = Some(program),
            Err(e) => {
                return Compiled { error: Some(format!("program instantiation failed: {e}")), ..compiled };
            }
        }
        compiled.max_cost = checked.estimate_cost(self.decl.as_ref()).max;
        let message = rule.str_at(&["messageExpression"]);
        if !message.is_empty() {
            match self.message(rule, message, version(message)) {
                Ok((program, cost)) => (compiled.message, compiled.message_cost) = (Some(program), cost),
                Err(e) => compiled.message_error = Some(e),
            }
        }
        compiled
    }

    fn message(&self, rule: &Value, text: &str, version: Version) -> Result<(Program, u64), String> {
        let checked = self.env(rule, version).compile(text);
        let checked = checked.map_err(|issues| format!("messageExpression compilation failed: {issues}"))?;
        if *checked.output_type() != Type::String {
            return Err("messageExpression must evaluate to a string".into());
        }
        let program =
            checked.program().map_err(|e| format!("messageExpression instantiation failed: {e}"))?;
        Ok((program, checked.estimate_cost(self.decl.as_ref()).max))
    }
}

/// The compiled rules of a schema.
#[derive(Debug)]
pub struct Rules(Node);

/// The rules of one part of a schema.
#[derive(Debug)]
struct Node {
    decl: Option<Arc<Decl>>,
    /// `type` in the schema.
    kind: String,
    rules: Vec<Rule>,
    items: Option<Box<Node>>,
    properties: HashMap<String, Node>,
    additional: Option<Box<Node>>,
    all_of: Vec<Node>,
    /// Members that became others can be told from those that were.
    granular: bool,
    /// What identifies the items of a list, if anything does.
    list_keys: Option<Vec<String>>,
}

#[derive(Debug)]
struct Rule {
    source: Value,
    compiled: Compiled,
    /// Where errors are reported, below the value.
    field_path: Option<String>,
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).as_bool() == Some(true)
}

impl Rules {
    /// Compiles the rules of a schema; none when there are none.
    pub fn new(schema: &Value) -> Option<Rules> {
        if !has_rules(schema) {
            return None;
        }
        let decl = Decl::from_schema(schema, SELF_TYPE, true).map(Arc::new);
        Node::new(schema, schema, decl).map(Rules)
    }

    /// Everything about an object that its rules do not let pass. What was wrong before and has not changed is told to
    /// `warn` instead.
    pub fn validate(
        &self,
        object: &Value,
        old: Option<&Value>,
        warn: &mut dyn FnMut(String),
    ) -> Vec<FieldError> {
        evaluate::validate(&self.0, object, old, warn)
    }
}

fn has_rules(schema: &Value) -> bool {
    schema.get(KEY).as_array().is_some_and(|rules| !rules.is_empty())
        || schema.get("items").as_object().is_some() && has_rules(schema.get("items"))
        || schema.get("additionalProperties").as_object().is_some()
            && has_rules(schema.get("additionalProperties"))
        || schema.get("properties").as_object().is_some_and(|p| p.values().any(has_rules))
}

impl Node {
    /// `rules` is where the rules are found, `schema` what the value is declared as; they differ below `allOf`.
    fn new(rules: &Value, schema: &Value, decl: Option<Arc<Decl>>) -> Option<Self> {
        let sources = rules.array_at(&[KEY]);
        let compiler = decl.as_ref().filter(|_| !sources.is_empty()).map(Compiler::new);
        let compile = |source: &Value| {
            let compiled = match &compiler {
                Some(compiler) => compiler.compile(source, &|_| Version::STORED),
                None => Compiled {
                    error: Some("failed to convert to declType for CEL validation rules".into()),
                    ..Compiled::default()
                },
            };
            let path = source.str_at(&["fieldPath"]);
            let field_path = (!path.is_empty()).then(|| field_path::parse(path, schema).ok()).flatten();
            Rule { source: source.clone(), compiled, field_path }
        };
        let below = |key: &str, step: &str| {
            let (rules, schema) = (rules.get(key), schema.get(key));
            if rules.as_object().is_none() || schema.as_object().is_none() {
                return None;
            }
            Node::new(rules, schema, decl.as_ref().and_then(|d| d.step(step))).map(Box::new)
        };
        let mut node = Node {
            kind: schema.str_at(&["type"]).to_owned(),
            rules: sources.iter().map(compile).collect(),
            items: below("items", "@items"),
            properties: HashMap::new(),
            additional: below("additionalProperties", "@values"),
            all_of: Vec::new(),
            granular: matches!(schema.str_at(&["x-kubernetes-map-type"]), "" | "granular" | "atomic"),
            list_keys: list_keys(schema),
            decl,
        };
        for (name, property) in rules.get("properties").as_object().into_iter().flat_map(api::Map::iter) {
            let declared = schema.get("properties").get(name);
            let Some(decl) = node.property_decl(name, declared) else { continue };
            node.properties.extend(Node::new(property, declared, Some(decl)).map(|n| (name.to_owned(), n)));
        }
        for rules in rules.array_at(&["allOf"]) {
            node.all_of.extend(Node::new(rules, schema, node.decl.clone()));
        }
        let something = !node.rules.is_empty()
            || node.items.is_some()
            || node.additional.is_some()
            || !node.properties.is_empty()
            || !node.all_of.is_empty();
        something.then_some(node)
    }

    fn property_decl(&self, name: &str, schema: &Value) -> Option<Arc<Decl>> {
        match crate::decl::escape::escape(name) {
            Some(escaped) => self.decl.as_ref()?.step(&escaped),
            None => {
                let embedded = flag(schema, "x-kubernetes-embedded-resource");
                Decl::from_schema(schema, SELF_TYPE, embedded).map(Arc::new)
            }
        }
    }
}

fn list_keys(schema: &Value) -> Option<Vec<String>> {
    let keys = schema.array_at(&["x-kubernetes-list-map-keys"]);
    let keyed = schema.str_at(&["x-kubernetes-list-type"]) == "map" && !keys.is_empty();
    keyed.then(|| keys.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn error(field: String, problem: Problem, detail: impl Into<String>) -> FieldError {
    FieldError { field, problem, detail: detail.into() }
}

#[cfg(test)]
mod tests;
