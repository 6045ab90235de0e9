//! One webhook: whether it is asked, and what comes of its answer.

use std::time::{Duration, Instant};

use api::error::Result;
use api::field::go_quote;
use api::{ApiError, Value, names, object};
use cel::admission::{Compiler, Inputs, Scope};
use cel::{Type, Version};
use http::StatusCode;

use super::review;
use crate::admission::access::Access;
use crate::admission::expression::{Expression, hold};
use crate::admission::request::{Criteria, Request};
use crate::metrics::Step;
use crate::resources::Row;
use crate::webhook::Webhook;

/// Answers hold a patch at most.
const ANSWER_LIMIT: usize = 16 << 20;

/// One webhook.
pub(super) struct Hook {
    /// Configuration and place in it.
    pub id: String,
    /// True when it wants to be asked again.
    pub reinvokes: bool,
    pub name: String,
    client: Webhook,
    criteria: std::result::Result<Criteria, String>,
    timeout: Duration,
    ignores: bool,
    dry: bool,
    version: Option<&'static str>,
    compiler: Compiler,
    conditions: Vec<Expression>,
}

/// Why there is no consent.
pub(super) enum Failure {
    /// It could not be asked, or said nothing that could be understood.
    Call(String),
    /// It refused.
    Refusal(ApiError),
}

impl Hook {
    pub(super) fn new(id: String, hook: &Value) -> Self {
        let scope = Scope { authorizer: true, ..Scope::default() };
        let compiler = Compiler::new(scope, Version::STORED);
        let conditions = hook.array_at(&["matchConditions"]).iter();
        let conditions =
            conditions.map(|c| Expression::new(&compiler, c, "expression", &[Type::Bool])).collect();
        let seconds = hook.get("timeoutSeconds").as_i64().and_then(|s| u64::try_from(s).ok()).unwrap_or(10);
        let known = |v: &Value| match v.as_str() {
            Some("v1") => Some("v1"),
            Some("v1beta1") => Some("v1beta1"),
            _ => None,
        };
        Self {
            id,
            reinvokes: hook.str_at(&["reinvocationPolicy"]) == "IfNeeded",
            name: hook.str_at(&["name"]).to_owned(),
            client: Webhook::new(hook.get("clientConfig"), ANSWER_LIMIT),
            criteria: Criteria::of_webhook(hook),
            timeout: Duration::from_secs(seconds),
            ignores: hook.str_at(&["failurePolicy"]) == "Ignore",
            dry: matches!(hook.str_at(&["sideEffects"]), "None" | "NoneOnDryRun"),
            version: hook.array_at(&["admissionReviewVersions"]).iter().find_map(known),
            compiler,
            conditions,
        }
    }

    /// The resource by which it is asked about a request, if it is.
    pub(super) async fn wants(&self, request: &Request<'_>) -> Result<Option<Row>> {
        let criteria = self.criteria.as_ref().map_err(ApiError::internal)?;
        let Some(row) = criteria.matches(request)? else { return Ok(None) };
        if self.conditions.is_empty() {
            return Ok(Some(row));
        }
        let (object, old) = request.seen_as(&row).await?;
        let call = request.call;
        let described = request.describe(&call.row);
        let access = Access { server: &call.server, user: &call.user };
        let inputs = Inputs {
            object: object.as_deref(),
            old_object: old.as_deref(),
            request: Some(&described),
            authorizer: Some((&access, request.attributes())),
            ..Inputs::default()
        };
        let holds = hold(&self.compiler, &self.conditions, self.ignores, inputs);
        let refuse = |why: String| ApiError::forbidden(call.row.group, call.row.plural, request.name(), &why);
        Ok(holds.map_err(refuse)?.then_some(row))
    }

    /// Asks about a request; what it allows it may patch, if it `mutates`.
    pub(super) async fn ask(
        &self,
        request: &Request<'_>,
        row: &Row,
        mutates: bool,
    ) -> std::result::Result<Option<Value>, Failure> {
        let began = Instant::now();
        let answer = self.question(request, row, mutates).await;
        let metrics = &request.call.server.metrics.admission;
        let step = if mutates { Step::Admit } else { Step::Validate };
        let ignored = answer.as_ref().is_err_and(|failure| self.ignores(failure));
        let refusal = match &answer {
            Err(Failure::Refusal(error)) => Some((error.code(), true)),
            Err(Failure::Call(_)) if !ignored => Some((StatusCode::INTERNAL_SERVER_ERROR, false)),
            _ => None,
        };
        metrics.webhook((&self.name, step, request.operation), began, refusal);
        if ignored {
            metrics.failed_open(&self.name, step);
        }
        answer
    }

    async fn question(
        &self,
        request: &Request<'_>,
        row: &Row,
        mutates: bool,
    ) -> std::result::Result<Option<Value>, Failure> {
        let call = request.call;
        if call.write.dry_run && !self.dry {
            let why = format!("admission webhook {} does not support dry run", go_quote(&self.name));
            return Err(Failure::Refusal(ApiError::bad_request(why)));
        }
        let Some(version) = self.version else {
            let why = "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
            return Err(Failure::Call(why.to_owned()));
        };
        let seen = request.seen_as(row).await;
        let (object, old) =
            seen.map_err(|e| Failure::Refusal(ApiError::internal(e.status().message.as_str())))?;
        let uid = names::new_uid();
        let mut described = request.describe(row);
        described.set(&["uid"], uid.as_str());
        described.set(&["object"], object.as_deref().unwrap_or(&Value::Null));
        described.set(&["oldObject"], old.as_deref().unwrap_or(&Value::Null));
        let question = object!({
            "kind": "AdmissionReview", "apiVersion": (format!("admission.k8s.io/{version}")), "request": described,
        });
        let answer = self.client.call(&call.server.storage, &question, self.timeout).await;
        let answer = answer.map_err(|e| Failure::Call(format!("failed to call webhook: {e}")))?;
        let read = review::read(&answer, &uid, version, mutates);
        let read = read.map_err(|why| Failure::Call(format!("received invalid webhook response: {why}")))?;
        read.warnings.into_iter().for_each(|w| call.warn(w));
        for (key, value) in read.annotations {
            call.trail.annotate(format!("{}/{key}", self.name), value);
        }
        if !read.allowed {
            return Err(Failure::Refusal(review::refusal(&self.name, &read.result)));
        }
        if read.patch.is_empty() {
            return Ok(None);
        }
        let patch = review::operations(&read.patch);
        let patch = patch
            .map_err(|e| Failure::Call(format!("received undecodable patch in webhook response: {e}")))?;
        if patch.is_empty() {
            return Ok(None);
        }
        if read.patch_type != "JSONPatch" {
            let quoted = go_quote(&read.patch_type);
            return Err(Failure::Call(format!("unsupported patch type {quoted}")));
        }
        if object.is_none() {
            let why = format!(
                "admission webhook {} attempted to modify the object, which is not supported for this operation",
                go_quote(&self.name)
            );
            return Err(Failure::Refusal(ApiError::internal(why)));
        }
        Ok(Some(patch))
    }

    /// True for a failure that the request survives.
    pub(super) fn ignores(&self, failure: &Failure) -> bool {
        self.ignores && matches!(failure, Failure::Call(_))
    }

    /// What a failure comes to: those of the call may be ignored.
    pub(super) fn settle(&self, failure: Failure) -> Result<()> {
        match failure {
            Failure::Refusal(error) => Err(error),
            Failure::Call(why) => {
                let why = format!("failed calling webhook {}: {why}", go_quote(&self.name));
                if self.ignores {
                    tracing::warn!(webhook = self.name, "{why}; the request goes on without its consent");
                    return Ok(());
                }
                Err(ApiError::internal(why))
            }
        }
    }
}
