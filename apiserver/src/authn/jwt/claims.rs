//! From the claims of a token to a user, by names of claims or by expressions.

use api::Value;
use cel::access::Expression;
use cel::{Outcome, Val};

use crate::authn::UserInfo;
use crate::handlers::user_value;

/// The key of the identifier of a token in the extra of its user.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Where a part of the user comes from.
pub(super) enum Part {
    /// It has none.
    Nothing,
    /// A claim, with a prefix.
    Claim(String, String),
    Expression(Expression, String),
}

/// A condition.
pub(super) struct Rule {
    pub expression: Expression,
    pub text: String,
    pub message: String,
}

/// What makes a user of claims.
pub(super) struct Mapping {
    pub username: Part,
    pub groups: Part,
    pub uid: Part,
    /// Keys, with the expressions of their values.
    pub extra: Vec<(String, Expression, String)>,
    /// Claims and the values that they must have.
    pub required: Vec<(String, String)>,
    pub claim_rules: Vec<Rule>,
    pub user_rules: Vec<Rule>,
}

impl Mapping {
    /// The user, or why there is none.
    pub(super) fn user(&self, claims: &Value) -> Result<UserInfo, String> {
        let claims = &with_doubles(claims);
        let mut user = UserInfo { name: self.name(claims)?, ..UserInfo::default() };
        user.groups = self.groups(claims)?;
        user.uid = self.uid(claims)?;
        if let Some(id) = claims.get("jti").as_str().filter(|id| !id.is_empty()) {
            user.extra.push((CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]));
        }
        for (key, expression, text) in &self.extra {
            let failed = |e: String| format!("oidc: error evaluating extra claim expression: {text}: {e}");
            let values = strings(expression.evaluate(claims)).map_err(failed)?;
            if !values.is_empty() {
                user.extra.push((key.clone(), values));
            }
        }
        self.check_required(claims)?;
        let failed = |e| format!("oidc: error evaluating claim validation expression: {e}");
        hold(&self.claim_rules, claims).map_err(failed)?;
        if !self.user_rules.is_empty() {
            let failed = |e| format!("oidc: error evaluating user info validation rule: {e}");
            hold(&self.user_rules, &whole(&user)).map_err(failed)?;
        }
        Ok(user)
    }

    fn name(&self, claims: &Value) -> Result<String, String> {
        match &self.username {
            Part::Nothing => Err("oidc: there is no username".to_owned()),
            Part::Claim(claim, prefix) => {
                let name =
                    text(claims, claim).map_err(|e| format!("oidc: parse username claims {claim:?}: {e}"))?;
                if claim == "email" {
                    match claims.get("email_verified") {
                        Value::Null | Value::Bool(true) => {}
                        Value::Bool(false) => return Err("oidc: email not verified".to_owned()),
                        _ => {
                            return Err(
                                "oidc: parse 'email_verified' claim: it is neither true nor false".to_owned()
                            );
                        }
                    }
                }
                Ok(format!("{prefix}{name}"))
            }
            Part::Expression(expression, _) => {
                let failed = |e: String| format!("oidc: error evaluating username claim expression: {e}");
                match expression.evaluate(claims).map_err(|e| failed(e.to_string()))?.as_str() {
                    None => Err(failed("username claim expression must return a string".to_owned())),
                    Some("") => Err("oidc: empty username via CEL expression is not allowed".to_owned()),
                    Some(name) => Ok(name.to_owned()),
                }
            }
        }
    }

    fn groups(&self, claims: &Value) -> Result<Vec<String>, String> {
        match &self.groups {
            Part::Nothing => Ok(Vec::new()),
            Part::Claim(claim, prefix) => {
                let groups: Option<Vec<&str>> = match claims.get(claim) {
                    Value::Null => return Ok(Vec::new()),
                    Value::Array(list) => list.iter().map(Value::as_str).collect(),
                    one => one.as_str().map(|one| vec![one]),
                };
                let groups = groups.ok_or_else(|| {
                    format!("oidc: parse groups claim {claim:?}: it is neither text nor a list of texts")
                })?;
                Ok(groups.into_iter().map(|g| format!("{prefix}{g}")).collect())
            }
            Part::Expression(expression, _) => strings(expression.evaluate(claims))
                .map_err(|e| format!("oidc: error evaluating group claim expression: {e}")),
        }
    }

    fn uid(&self, claims: &Value) -> Result<String, String> {
        match &self.uid {
            Part::Nothing => Ok(String::new()),
            Part::Claim(claim, _) => text(claims, claim)
                .map(str::to_owned)
                .map_err(|e| format!("oidc: parse uid claim {claim:?}: {e}")),
            Part::Expression(expression, _) => {
                let failed = |e: String| format!("oidc: error evaluating uid claim expression: {e}");
                let value = expression.evaluate(claims).map_err(|e| failed(e.to_string()))?;
                let uid = value.as_str().map(str::to_owned);
                uid.ok_or_else(|| failed("uid claim expression must return a string".to_owned()))
            }
        }
    }

    fn check_required(&self, claims: &Value) -> Result<(), String> {
        for (claim, want) in &self.required {
            if claims.as_object().is_none_or(|c| !c.contains_key(claim)) {
                return Err(format!("oidc: required claim {claim} not present in ID token"));
            }
            let got = text(claims, claim).map_err(|e| format!("oidc: parse claim {claim}: {e}"))?;
            if got != want {
                return Err(format!(
                    "oidc: required claim {claim} value does not match. Got = {got}, want = {want}"
                ));
            }
        }
        Ok(())
    }
}

/// The value with numbers as expressions see those of JSON.
fn with_doubles(value: &Value) -> Value {
    match value {
        Value::Int(n) => Value::Float(*n as f64),
        Value::Array(items) => Value::Array(items.iter().map(with_doubles).collect()),
        Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k, with_doubles(v))).collect()),
        other => other.clone(),
    }
}

fn text<'c>(claims: &'c Value, claim: &str) -> Result<&'c str, String> {
    match claims.get(claim) {
        Value::Null => Err("claim not present".to_owned()),
        other => other.as_str().ok_or_else(|| format!("it is {} and no text", other.kind_name())),
    }
}

/// A user with all members, also those that are empty.
fn whole(user: &UserInfo) -> Value {
    let mut value = user_value(user);
    for (field, empty) in
        [("uid", Value::from("")), ("groups", Value::Array(Vec::new())), ("extra", Value::object())]
    {
        if value.get(field).is_null() {
            value.set(&[field], empty);
        }
    }
    value
}

/// The texts of a text, of a list of texts, or of nothing; empty ones are left out.
fn strings(outcome: Outcome<'_>) -> Result<Vec<String>, String> {
    let wrong = || "expression must return a string or a list of strings".to_owned();
    let texts = match outcome.map_err(|e| e.to_string())? {
        Val::Null => Vec::new(),
        Val::List(list) => {
            let items = list.iter().map(|item| item.map_err(|e| e.to_string()));
            let items = items.collect::<Result<Vec<_>, _>>()?;
            let texts: Option<Vec<String>> = items.iter().map(|i| i.as_str().map(str::to_owned)).collect();
            texts.ok_or_else(wrong)?
        }
        one => vec![one.as_str().ok_or_else(wrong)?.to_owned()],
    };
    Ok(texts.into_iter().filter(|t| !t.is_empty()).collect())
}

fn hold(rules: &[Rule], over: &Value) -> Result<(), String> {
    for rule in rules {
        match rule.expression.evaluate(over).map_err(|e| e.to_string())?.as_bool() {
            Some(true) => {}
            Some(false) => {
                return Err(format!("validation expression '{}' failed: {}", rule.text, rule.message));
            }
            None => return Err("validation expression must return a boolean".to_owned()),
        }
    }
    Ok(())
}
