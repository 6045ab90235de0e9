//! PATCH: four kinds of patches, of objects and of their subresources.

use api::error::Result;
use api::field::{FieldError, Path};
use api::{ApiError, Value};
use bytes::Bytes;
use http::{Response, StatusCode};
use schema::Ty;
use schema::decode::Mode;
use schema::patch;
use serve::Body;

use crate::http::Exchange;
use crate::negotiate;
use crate::registry::Call;
use crate::render;
use crate::resources::Row;

/// The kind of a patch, by the body's media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl Kind {
    pub(super) fn of(exchange: &Exchange) -> Result<Self> {
        match negotiate::content_type(exchange.headers()) {
            "application/json-patch+json" => Ok(Kind::Json),
            "application/merge-patch+json" => Ok(Kind::Merge),
            "application/strategic-merge-patch+json" => Ok(Kind::Strategic),
            "application/apply-patch+yaml" => Ok(Kind::Apply),
            _ => {
                let mut error = ApiError::new(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "UnsupportedMediaType",
                    "415: Unsupported Media Type",
                );
                error.status_mut().explicit_details = true;
                Err(error)
            }
        }
    }
}

impl Kind {
    /// Custom resources have no strategic merge.
    fn suits(self, row: &Row) -> Result<Self> {
        match self {
            Kind::Strategic if row.custom.is_some() => Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )),
            kind => Ok(kind),
        }
    }
}

/// A patch that was read.
pub(super) struct Patch {
    kind: Kind,
    value: Value,
    findings: Vec<String>,
}

impl Patch {
    pub(super) fn read(kind: Kind, body: &Bytes) -> Result<Self> {
        let decoded = match kind {
            Kind::Apply => negotiate::yaml(body)?,
            _ => api::json::decode(body).map_err(|e| {
                ApiError::bad_request(format!(
                    "error decoding patch: {}",
                    negotiate::go_syntax_error(body, &e)
                ))
            })?,
        };
        let duplicates = decoded.duplicates.iter().map(|d| format!("duplicate field \"{d}\""));
        let findings = decoded.complaint.into_iter().chain(duplicates).collect();
        Ok(Self { kind, value: decoded.value, findings })
    }

    /// An applied configuration has every key once.
    fn check_configuration(&self, call: &Call) -> Result<()> {
        if self.kind != Kind::Apply || call.write.validation == Mode::Ignore {
            return Ok(());
        }
        match self.findings.first() {
            Some(finding) if call.write.validation == Mode::Strict => {
                Err(ApiError::bad_request(format!("error strict decoding YAML: {finding}")))
            }
            Some(finding) => {
                call.warn(finding.clone());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The patched object, decoded as `ty`.
    pub(super) fn apply_to(&self, call: &Call, old: &Value, ty: Ty<'_>) -> Result<Value> {
        let mode = call.write.validation;
        let (patched, shown, findings) = match self.kind {
            Kind::Json => {
                let (patched, more) = patch::json(old.clone(), &self.value, mode)?;
                let mut findings = self.findings.clone();
                findings.extend(more);
                let shown = patched.clone();
                (patched, shown.to_string(), findings)
            }
            Kind::Merge => {
                let patched = patch::merge(old.clone(), self.value.clone(), mode)?;
                let shown = patched.to_string();
                (patched, shown, self.findings.clone())
            }
            Kind::Strategic => {
                let patched = patch::strategic(old.clone(), self.value.clone(), ty)?;
                (patched, patch::go_map(&self.value), self.findings.clone())
            }
            Kind::Apply => return call.apply_patch(Some(old), &self.value),
        };
        let (object, warnings) = patch::decode(patched, &|| shown.clone(), ty, mode, findings)?;
        for warning in warnings {
            call.warn(warning);
        }
        Ok(object)
    }
}

/// Answers a PATCH of an object or of a part of it that has the object's type.
pub(super) async fn handle(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let form = exchange.form()?;
    let kind = Kind::of(&exchange).and_then(|kind| kind.suits(row))?;
    let mut call = exchange.write_call(row, "PatchOptions")?;
    check_options(&exchange, &call, kind)?;
    call.write.applying = kind == Kind::Apply;
    let body = exchange.body().await?;
    let patch = Patch::read(kind, &body)?;
    patch.check_configuration(&call)?;
    exchange.trail.request_patch(|| patch.value.to_json());
    let updated = call.update(|old| patch.apply_to(&call, old, call.ty())).await;
    match updated {
        Ok(object) => Ok(render::one(&call, StatusCode::OK, &object, form)),
        Err(e) if e.is_not_found() && kind == Kind::Apply && call.subresource.is_empty() => {
            let object = call.apply_patch(None, &patch.value)?;
            check_applied_name(&call, &object)?;
            let created = call.create(object).await?;
            Ok(render::one(&call, StatusCode::CREATED, &created, form))
        }
        Err(e) => Err(e),
    }
}

fn check_applied_name(call: &Call, object: &Value) -> Result<()> {
    if object.name() == call.name {
        return Ok(());
    }
    let why = format!(
        "the name of the object ({}) does not match the name on the URL ({})",
        object.name(),
        call.name
    );
    Err(ApiError::bad_request(why))
}

/// An apply names its manager; nothing else forces.
pub(super) fn check_options(exchange: &Exchange, call: &Call, kind: Kind) -> Result<()> {
    let error = if kind == Kind::Apply && !call.write.manager_given {
        FieldError::required(&Path::new("fieldManager"), "is required for apply patch")
    } else if kind != Kind::Apply && exchange.query.has("force") {
        FieldError::forbidden(&Path::new("force"), "may not be specified for non-apply patch")
    } else {
        return Ok(());
    };
    Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[error]))
}
