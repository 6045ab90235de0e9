//! What is wrong with the rules of a definition: their form, their types, and what they may cost.

use std::sync::Arc;

use api::Value;
use api::field::{FieldError, Problem};

use super::{Compiled, Compiler, KEY, SELF_TYPE, error, field_path, flag};
use crate::decl::{Decl, escape};
use crate::env::Version;

/// The most that one expression may be estimated to cost, for all its occurrences in an object.
const EXPRESSION_LIMIT: u64 = 10_000_000;
/// The most that all expressions of a schema may be estimated to cost.
const SCHEMA_LIMIT: u64 = 100_000_000;
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// How rules are checked.
pub struct Check<'c> {
    /// Where the schema stands, such as `spec.validation.openAPIV3Schema`.
    pub path: &'c str,
    /// Nothing else is wrong with the schema, so that rules can be compiled.
    pub compile: bool,
    /// True for expressions that were accepted before, which may use what only the next version writes.
    pub known: &'c dyn Fn(&str) -> bool,
    /// The schema is as it was: what single expressions cost is not looked at again.
    pub unchanged: bool,
}

/// What a part of a schema is known as on the way down.
#[derive(Clone)]
struct Place {
    path: String,
    /// The declaration, once there are rules here or above.
    decl: Option<Arc<Decl>>,
    /// How often the part occurs in an object, if that is limited.
    cardinality: Option<u64>,
    /// The part above which old values cannot be told from new ones.
    uncorrelatable: Option<String>,
    /// False inside of alternatives, where rules are not compiled.
    compile: bool,
    root: bool,
}

struct Checker<'c> {
    how: &'c Check<'c>,
    form: Vec<FieldError>,
    meaning: Vec<FieldError>,
    total: u64,
    expensive: Vec<(u64, String)>,
}

/// Everything that is wrong with the rules of a schema.
pub fn check(schema: &Value, how: &Check<'_>) -> Vec<FieldError> {
    let mut checker = Checker { how, form: Vec::new(), meaning: Vec::new(), total: 0, expensive: Vec::new() };
    let place = Place {
        path: how.path.to_owned(),
        decl: None,
        cardinality: Some(1),
        uncorrelatable: None,
        compile: how.compile,
        root: true,
    };
    checker.visit(schema, place);
    let Checker { mut form, meaning, total, mut expensive, .. } = checker;
    form.extend(meaning);
    if total > SCHEMA_LIMIT {
        expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, path) in expensive.into_iter().take(4) {
            let why =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            form.push(error(path, Problem::Forbidden, why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        form.push(error(how.path.to_owned(), Problem::Forbidden, too_expensive(what, total, SCHEMA_LIMIT)));
    }
    form
}

fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

/// How many there are of what is below a schema for each of it.
fn elements(schema: &Value) -> Option<u64> {
    let limit = |key: &str| schema.get(key).as_i64().map(|n| u64::try_from(n).unwrap_or(0));
    match schema.str_at(&["type"]) {
        "object" if !schema.get("additionalProperties").is_null() => limit("maxProperties"),
        "array" => limit("maxItems"),
        _ => Some(1),
    }
}

/// A rule as upstream prints it in errors.
fn printed(rule: &Value) -> Value {
    let text = |key: &str| Value::from(rule.str_at(&[key]));
    [
        ("Rule", text("rule")),
        ("Message", text("message")),
        ("MessageExpression", text("messageExpression")),
        ("Reason", rule.get("reason").clone()),
        ("FieldPath", text("fieldPath")),
        ("OptionalOldSelf", rule.get("optionalOldSelf").clone()),
    ]
    .into_iter()
    .collect::<api::Map>()
    .into()
}

fn breaks(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

impl Checker<'_> {
    fn visit(&mut self, schema: &Value, mut place: Place) {
        if schema.as_object().is_none() {
            return;
        }
        let rules = schema.array_at(&[KEY]);
        if place.decl.is_none() && !rules.is_empty() {
            let whole = place.root || flag(schema, "x-kubernetes-embedded-resource");
            place.decl = Decl::from_schema(schema, SELF_TYPE, whole).map(Arc::new);
        }
        let before = self.form.len();
        self.below(schema, &place);
        for (i, rule) in rules.iter().enumerate() {
            self.form_of(rule, schema, &format!("{}.{KEY}[{i}]", place.path));
        }
        if rules.is_empty() || !place.compile || self.form.len() > before {
            return;
        }
        let Some(decl) = &place.decl else {
            let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable \
                       to convert structural schema to CEL declarations";
            self.meaning.push(error(format!("{}.{KEY}", place.path), Problem::Internal, why));
            return;
        };
        let compiler = Compiler::new(decl);
        for (i, rule) in rules.iter().enumerate() {
            let known = self.how.known;
            let version = |text: &str| if known(text) { Version::STORED } else { Version::NEW };
            let compiled = compiler.compile(rule, &version);
            self.meaning_of(rule, compiled, decl, &place, &format!("{}.{KEY}[{i}]", place.path));
        }
    }

    fn below(&mut self, schema: &Value, place: &Place) {
        let cardinality = place.cardinality.zip(elements(schema)).map(|(a, b)| a.saturating_mul(b));
        let child = |path: String, step: &str, correlated: bool| Place {
            decl: place.decl.as_ref().and_then(|d| d.step(step)),
            cardinality,
            uncorrelatable: if correlated { place.uncorrelatable.clone() } else { Some(place.path.clone()) },
            compile: place.compile,
            root: false,
            path,
        };
        let granular = matches!(schema.str_at(&["x-kubernetes-map-type"]), "" | "granular" | "atomic");
        let path = format!("{}.additionalProperties", place.path);
        self.visit(schema.get("additionalProperties"), child(path, "@values", granular));
        for (name, property) in schema.get("properties").as_object().into_iter().flat_map(api::Map::iter) {
            let path = format!("{}.properties[{name}]", place.path);
            let step = escape::escape(name).unwrap_or_default();
            self.visit(property, child(path, &step, granular));
        }
        let alone = |path: String| Place { decl: None, compile: false, ..child(path, "", true) };
        self.visit(schema.get("not"), alone(format!("{}.not", place.path)));
        for key in ["allOf", "oneOf", "anyOf"] {
            for (i, alternative) in schema.array_at(&[key]).iter().enumerate() {
                self.visit(alternative, alone(format!("{}.{key}[{i}]", place.path)));
            }
        }
        let keyed = schema.str_at(&["x-kubernetes-list-type"]) == "map";
        self.visit(schema.get("items"), child(format!("{}.items", place.path), "@items", keyed));
    }

    /// The form of a rule: what is there, and what is not.
    fn form_of(&mut self, rule: &Value, schema: &Value, path: &str) {
        let text = |key: &str| rule.str_at(&[key]);
        let (message, field) = (text("message"), text("fieldPath"));
        let mut push = |key: &str, problem: Problem, detail: &str| {
            self.form.push(error(format!("{path}.{key}"), problem, detail));
        };
        let invalid = |value: &str| Problem::Invalid(value.into());
        const EMPTY: &str = "must be non-empty if specified";
        const BREAKS: &str = "must not contain line breaks";
        if text("rule").trim().is_empty() {
            push("rule", Problem::Required, "rule is not specified");
        } else if !message.is_empty() && message.trim().is_empty() {
            push("message", invalid(message), EMPTY);
        } else if breaks(message.trim()) {
            push("message", invalid(message), BREAKS);
        } else if breaks(text("rule").trim()) && message.trim().is_empty() {
            push("message", Problem::Required, "message must be specified if rule contains line breaks");
        }
        let expression = text("messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            push("messageExpression", Problem::Required, "messageExpression must be non-empty if specified");
        }
        if let Some(reason) = rule.get("reason").as_str().filter(|r| !REASONS.contains(r)) {
            let list: Vec<String> = REASONS.iter().map(|r| format!("{r:?}")).collect();
            let detail = format!("supported values: {}", list.join(", "));
            push("reason", Problem::NotSupported(reason.into()), &detail);
        }
        if !field.is_empty() && field.trim().is_empty() {
            push("fieldPath", invalid(field), EMPTY);
        }
        if breaks(field) {
            push("fieldPath", invalid(field), BREAKS);
        }
        if !field.is_empty() && field_path::parse(field, schema).is_err() {
            push("fieldPath", invalid(field), "must be a valid path");
        }
    }

    fn observe(&mut self, path: String, cost: u64) {
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_LIMIT / 100 {
            self.expensive.push((cost, path));
        }
    }

    fn limit(&mut self, what: &str, path: &str, cost: u64) {
        if !self.how.unchanged && cost > EXPRESSION_LIMIT {
            let detail = too_expensive(what, cost, EXPRESSION_LIMIT);
            self.meaning.push(error(path.to_owned(), Problem::Forbidden, detail));
        }
    }

    /// What a rule means: its types, its cost, its use of the old value.
    fn meaning_of(&mut self, rule: &Value, compiled: Compiled, decl: &Decl, place: &Place, path: &str) {
        let occurrences = place.cardinality.unwrap_or_else(|| decl.max_cardinality());
        let cost = compiled.max_cost.saturating_mul(occurrences);
        let at = |key: &str| format!("{path}.{key}");
        self.limit("estimated rule cost", &at("rule"), cost);
        self.observe(at("rule"), cost);
        if let Some(detail) = compiled.error {
            self.meaning.push(error(at("rule"), Problem::Invalid(printed(rule)), detail));
        }
        if let Some(detail) = compiled.message_error {
            self.meaning.push(error(at("messageExpression"), Problem::Invalid(printed(rule)), detail));
        } else if compiled.message.is_some() {
            self.limit("estimated messageExpression cost", &at("messageExpression"), compiled.message_cost);
            self.observe(at("messageExpression"), compiled.message_cost);
        }
        if compiled.uses_old_self {
            if let Some(where_) = &place.uncorrelatable {
                let detail = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {where_}"
                );
                let value = Problem::Invalid(rule.str_at(&["rule"]).into());
                self.meaning.push(error(at("rule"), value, detail));
            }
        } else if let Some(set) = rule.get("optionalOldSelf").as_bool() {
            let detail = "may not be set if oldSelf is not used in rule";
            self.meaning.push(error(at("optionalOldSelf"), Problem::Invalid(set.into()), detail));
        }
    }
}
