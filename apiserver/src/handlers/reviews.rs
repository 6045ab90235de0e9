//! Questions to the server that store nothing: reviews of tokens and of access, and bindings by their own path.

mod selectors;

use std::borrow::Cow;

use api::error::Result;
use api::field::{FieldError, Path};
use api::{ApiError, Map, Value, object};
use http::{Response, StatusCode};
use serve::Body;

use super::method_not_allowed;
use crate::admission::{self, Operation};
use crate::authn::UserInfo;
use crate::authn::service_account::{Examined, TokenError};
use crate::authz::{Attributes, Decision, Rule};
use crate::http::Exchange;
use crate::kinds::check::view;
use crate::registry::Call;
use crate::render;
use crate::resources::Row;

pub(super) async fn handle(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let form = exchange.form_of_action()?;
    let mut call = exchange.write_call(row, "CreateOptions")?;
    let mut review = exchange.own_object(&call).await?;
    call.drop_repeated_owners(&mut review, "");
    call.check_namespace(&mut review)?;
    call.forget_system_fields(&mut review);
    call.track_review(&mut review)?;
    call.name = review.name().to_owned();
    admission::mutate(&call, Operation::Create, &mut review, None).await?;
    if row.plural == "bindings" {
        return bind(exchange, &call, review).await;
    }
    check(&call, &review)?;
    admission::validate(&call, Operation::Create, Some(&review), None).await?;
    let answer = match row.plural {
        "tokenreviews" => token_review(&exchange, review).await?,
        "selfsubjectreviews" => self_review(&exchange, review),
        "subjectaccessreviews" | "localsubjectaccessreviews" => access_review(&exchange, review).await,
        "selfsubjectaccessreviews" => {
            decide(&exchange, &exchange.user, &mut review).await;
            review
        }
        "selfsubjectrulesreviews" => rules_review(&exchange, &review),
        _ => return Err(method_not_allowed()),
    };
    render::one(&call, StatusCode::CREATED, &answer, form)
}

/// `bindings` is the older way to write `pods/binding`.
async fn bind(mut exchange: Exchange, asked: &Call, binding: Value) -> Result<Response<Body>> {
    exchange.info.resource = "pods".to_owned();
    exchange.info.subresource = "binding".to_owned();
    exchange.info.name = binding.name().to_owned();
    let form = exchange.form_of_action()?;
    let pods = crate::resources::TABLE.find("", "v1", "pods").expect("a built-in resource");
    let mut call = exchange.write_call(pods, "CreateOptions")?;
    call.name = binding.name().to_owned();
    super::subresources::bind_pod(asked, &call, &binding).await?;
    let done =
        object!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(render::value(StatusCode::CREATED, &done, form))
}

pub(crate) fn user_value(user: &UserInfo) -> Value {
    let mut out = Map::new();
    out.push("username", user.name.as_str().into());
    if !user.uid.is_empty() {
        out.push("uid", user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        out.push("groups", Value::from(user.groups.clone()));
    }
    if !user.extra.is_empty() {
        let mut extra: Map = user.extra.iter().map(|(k, v)| (k.as_str(), Value::from(v.clone()))).collect();
        extra.sort_keys();
        out.push("extra", Value::Object(extra));
    }
    Value::Object(out)
}

async fn token_review(exchange: &Exchange, mut review: Value) -> Result<Value> {
    let token = review.str_at(&["spec", "token"]).to_owned();
    let audiences: Vec<String> = review
        .array_at(&["spec", "audiences"])
        .iter()
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let server = &exchange.server;
    let Examined { found: reviewed, used } =
        server.authenticator.review(&server.storage, &token, &audiences).await;
    if let Some(used) = used {
        used.note(server, &exchange.trail, &exchange.warnings).await;
    }
    let status = match reviewed {
        Ok(reviewed) => {
            let mut user = reviewed.user;
            user.groups.push("system:authenticated".to_owned());
            let mut status = object!({"authenticated": true, "user": (user_value(&user))});
            if !audiences.is_empty() {
                status.set(&["audiences"], reviewed.audiences);
            }
            status
        }
        Err(failures) => {
            // Who finds a token to be none of its own says nothing.
            let told =
                failures.iter().filter(|e| !matches!(e, TokenError::Malformed)).map(ToString::to_string);
            let told: Vec<String> = told.collect();
            match told.as_slice() {
                [] => object!({"user": {}, "error": (TokenError::Malformed.to_string())}),
                told => {
                    object!({"user": {}, "error": (format!("[invalid bearer token, {}]", told.join(", ")))})
                }
            }
        }
    };
    review.set(&["status"], status);
    Ok(review)
}

fn self_review(exchange: &Exchange, mut review: Value) -> Value {
    review.set(&["metadata"], object!({"creationTimestamp": (api::time::format(jiff::Timestamp::now()))}));
    review.set(&["status", "userInfo"], user_value(&exchange.user));
    review
}

/// The attributes that a review asks about, and what of its selectors could not be understood.
fn asked(review: &Value) -> (Attributes<'_>, Vec<&'static str>) {
    let spec = review.get("spec");
    let resource = spec.get("resourceAttributes");
    if resource.is_null() {
        let what = Attributes {
            verb: spec.str_at(&["nonResourceAttributes", "verb"]),
            path: spec.str_at(&["nonResourceAttributes", "path"]),
            ..Attributes::default()
        };
        return (what, Vec::new());
    }
    let (selectors, ignored) = selectors::read(resource);
    let what = Attributes {
        verb: resource.str_at(&["verb"]),
        group: resource.str_at(&["group"]),
        resource: resource.str_at(&["resource"]),
        subresource: resource.str_at(&["subresource"]),
        namespace: resource.str_at(&["namespace"]),
        name: resource.str_at(&["name"]),
        version: Some(resource.str_at(&["version"])).filter(|v| !v.is_empty()).unwrap_or("*"),
        path: "",
        selectors: Cow::Owned(selectors),
    };
    (what, ignored)
}

/// What reviews must say.
fn check(call: &Call, review: &Value) -> Result<()> {
    match call.row.plural {
        "tokenreviews" if review.str_at(&["spec", "token"]).is_empty() => {
            Err(ApiError::bad_request("token is required for TokenReview in authentication"))
        }
        "selfsubjectrulesreviews" if review.str_at(&["spec", "namespace"]).is_empty() => {
            Err(ApiError::bad_request("no namespace on request"))
        }
        "selfsubjectaccessreviews" => check_review(call, review, false),
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            check_review(call, review, true)?;
            let given = review.str_at(&["spec", "resourceAttributes", "namespace"]);
            if !call.row.namespaced || given == call.namespace {
                return Ok(());
            }
            let path = Path::new("spec.resourceAttributes.namespace");
            let error = FieldError::invalid(&path, given, "must match metadata.namespace");
            call.refuse_review(&[error])
        }
        _ => Ok(()),
    }
}

fn check_review(call: &Call, review: &Value, needs_subject: bool) -> Result<()> {
    let path = Path::new("spec");
    let spec = review.get("spec");
    let mut errors = Vec::new();
    let (resource, other) =
        (!spec.get("resourceAttributes").is_null(), !spec.get("nonResourceAttributes").is_null());
    if resource && other {
        let why = "cannot be specified in combination with resourceAttributes";
        let shown = view(spec.get("nonResourceAttributes"), "authorization/v1.NonResourceAttributes");
        errors.push(FieldError::invalid(&path.child("nonResourceAttributes"), shown, why));
    }
    if !resource && !other {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(FieldError::invalid(&path.child("resourceAttributes"), Value::Null, why));
    }
    if needs_subject && spec.str_at(&["user"]).is_empty() && spec.array_at(&["groups"]).is_empty() {
        errors.push(FieldError::invalid(
            &path.child("user"),
            "",
            "at least one of user or group must be specified",
        ));
    }
    selectors::validate(review, &mut errors);
    call.refuse_review(&errors)
}

async fn decide(exchange: &Exchange, user: &UserInfo, review: &mut Value) {
    let server = &exchange.server;
    let (what, ignored) = asked(review);
    let decision = server.authorizer.authorize(&server.storage, user, &what).await;
    let (allowed, denied, reason, error) = match decision {
        Decision::Allow(reason) => (true, false, reason, String::new()),
        Decision::Deny(reason) => (false, true, reason, String::new()),
        Decision::NoOpinion(reason) => (false, false, reason, String::new()),
        Decision::Failed { denied, why } => (false, denied, String::new(), why),
    };
    let errors = Some(error.as_str()).filter(|e| !e.is_empty()).into_iter().chain(ignored);
    let error = errors.collect::<Vec<_>>().join("; ");
    let mut status = object!({"allowed": allowed});
    if denied {
        status.set(&["denied"], true);
    }
    for (field, text) in [("reason", reason), ("evaluationError", error)] {
        if !text.is_empty() {
            status.set(&[field], text);
        }
    }
    review.set(&["status"], status);
}

async fn access_review(exchange: &Exchange, mut review: Value) -> Value {
    let spec = review.get("spec");
    let list = |v: &Value| {
        v.as_array().into_iter().flatten().filter_map(|g| g.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let user = UserInfo {
        name: spec.str_at(&["user"]).to_owned(),
        uid: spec.str_at(&["uid"]).to_owned(),
        groups: list(spec.get("groups")),
        extra: spec
            .get("extra")
            .as_object()
            .into_iter()
            .flat_map(Map::iter)
            .map(|(k, v)| (k.to_owned(), list(v)))
            .collect(),
    };
    decide(exchange, &user, &mut review).await;
    review
}

fn rules_review(exchange: &Exchange, review: &Value) -> Value {
    let namespace = review.str_at(&["spec", "namespace"]);
    let server = &exchange.server;
    let mut rules = server.authorizer.rbac.rules(&server.storage, &exchange.user, namespace);
    if server.authorizer.allows_all() {
        let all = || vec!["*".to_owned()];
        rules.push(Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() });
        rules.push(Rule { verbs: all(), paths: all(), ..Rule::default() });
    }
    let (mut resources, mut others) = (Vec::new(), Vec::new());
    for rule in rules {
        if !rule.paths.is_empty() {
            others.push(object!({"verbs": (rule.verbs.clone()), "nonResourceURLs": (rule.paths.clone())}));
        }
        if !rule.resources.is_empty() {
            let mut entry =
                object!({"verbs": (rule.verbs), "apiGroups": (rule.groups), "resources": (rule.resources)});
            if !rule.names.is_empty() {
                entry.set(&["resourceNames"], rule.names);
            }
            resources.push(entry);
        }
    }
    // The answer is a review of its own.
    let mut answer = object!({
        "kind": "SelfSubjectRulesReview",
        "apiVersion": (review.api_version()),
        "metadata": {},
        "spec": {},
        "status": {"resourceRules": resources, "nonResourceRules": others, "incomplete": false},
    });
    if let Some(why) = server.authorizer.untold() {
        answer.set(&["status", "incomplete"], true);
        answer.set(&["status", "evaluationError"], why);
    }
    answer
}
