//! PATCH: four kinds of patches, of objects and of their subresources.

use api::error::Result;
use api::field::{FieldError, Path};
use api::{ApiError, Value};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response, StatusCode};
use schema::Ty;
use schema::decode::Mode;
use schema::patch;
use serve::Body;

use crate::http::Exchange;
use crate::negotiate;
use crate::registry::Call;
use crate::render;
use crate::resources::{Row, TABLE};

/// The kind of a patch, by the body's media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Merge,
    Strategic,
    Apply,
}

const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

impl Kind {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self> {
        let given = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let given = given.unwrap_or_default();
        match given.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Kind::Json),
            "application/merge-patch+json" => Ok(Kind::Merge),
            "application/strategic-merge-patch+json" => Ok(Kind::Strategic),
            "application/apply-patch+yaml" => Ok(Kind::Apply),
            // Several types find the route of patches, but are none.
            several if several.split(',').any(|one| PATCHES.contains(&one.trim())) => {
                Err(ApiError::unsupported_media_type(&PATCHES))
            }
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
    pub(super) fn suits(self, row: &Row) -> Result<Self> {
        match self {
            Kind::Strategic if row.custom.is_some() => Err(no_patch_of_custom()),
            kind => Ok(kind),
        }
    }
}

/// The refusal of what custom resources are not patched with.
fn no_patch_of_custom() -> ApiError {
    ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
    )
}

/// A patch that was read.
pub(super) struct Patch {
    kind: Kind,
    value: Value,
    findings: Vec<String>,
}

impl Patch {
    /// The configuration that is applied, if this is none of the other patches.
    pub(super) fn configuration(&self) -> Option<&Value> {
        (self.kind == Kind::Apply).then_some(&self.value)
    }

    pub(super) fn read(kind: Kind, body: &Bytes, mode: Mode) -> Result<Self> {
        let decoded = match kind {
            Kind::Apply => read_configuration(body)?,
            _ => api::json::decode(body).map_err(|e| {
                let why = negotiate::go_syntax_error(body, &e);
                ApiError::bad_request(match kind {
                    Kind::Strategic => why,
                    Kind::Merge if mode == Mode::Ignore => "Invalid JSON Patch".to_owned(),
                    _ => format!("error decoding patch: {why}"),
                })
            })?,
        };
        if kind == Kind::Strategic && !matches!(decoded.value, Value::Object(_) | Value::Null) {
            let what = decoded.value.kind_name();
            let why =
                format!("json: cannot unmarshal {what} into Go value of type map[string]interface {{}}");
            return Err(ApiError::bad_request(why));
        }
        let prefix = if kind == Kind::Json { "json patch " } else { "" };
        let duplicates = decoded.duplicates.iter().map(|d| format!("{prefix}duplicate field \"{d}\""));
        let findings = decoded.complaint.into_iter().chain(duplicates).collect();
        let value = match decoded.value {
            // A patch of nothing changes nothing.
            Value::Null if kind == Kind::Strategic => Value::object(),
            value => value,
        };
        Ok(Self { kind, value, findings })
    }

    /// A patched object is still what it was.
    fn check_type(call: &Call, patched: &Value, shown: &str) -> Result<()> {
        let (version, kind) = (patched.get("apiVersion"), patched.get("kind"));
        let given = |v: &Value, is: &str| v.as_str().is_some_and(|text| !text.is_empty() && text != is);
        let (was, is) = match call.subresource.as_str() {
            "scale" => ("autoscaling/v1".to_owned(), "Scale"),
            _ => (call.row.api_version(), call.row.kind),
        };
        if !given(version, &was) && !given(kind, is) {
            return Ok(());
        }
        let (version, kind) = (version.as_str().unwrap_or(&was), kind.as_str().unwrap_or(is));
        if call.row.custom.is_some() {
            let (group, _) = version.split_once('/').unwrap_or(("", version));
            let (field, value, want) = match kind == is {
                true => ("apiVersion", version, was.as_str()),
                false => ("kind", kind, is),
            };
            let error = FieldError::invalid(&Path::new(field), value, format!("must be {want}"));
            return Err(ApiError::invalid(group, kind, patched.name(), &[error]));
        }
        if let Some(other) = TABLE.rows.iter().find(|r| r.api_version() == version && r.kind == kind) {
            // Upstream reads it as the other kind, and goes on with what fits.
            let ty = crate::registry::schema_of(other);
            let read = patch::decode(patched.clone(), &|| shown.to_owned(), ty, Mode::Ignore, Vec::new());
            return read.map(|_| ());
        }
        let scheme = match call.row.group {
            "apiextensions.k8s.io" => "k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver.go:55",
            "apiregistration.k8s.io" => "k8s.io/kube-aggregator/pkg/apiserver/scheme/scheme.go:28",
            _ => "pkg/api/legacyscheme/scheme.go:30",
        };
        let (kind, version) = (api::field::go_quote(kind), api::field::go_quote(version));
        let why = format!("no kind {kind} is registered for version {version} in scheme {scheme:?}");
        Err(ApiError::invalid("", "", "", &[FieldError::invalid(&Path::new("patch"), shown, why)]))
    }

    /// An applied configuration has every key once.
    pub(super) fn check_configuration(&self, call: &Call) -> Result<()> {
        match self.findings.first() {
            Some(finding) if self.kind == Kind::Apply && call.write.validation == Mode::Strict => {
                let why = "error strict decoding YAML: error converting YAML to JSON";
                Err(ApiError::bad_request(format!("{why}: {finding}")))
            }
            _ => Ok(()),
        }
    }

    /// Tells of the keys that an applied configuration has twice.
    pub(super) fn advise(&self, call: &Call) {
        if self.kind != Kind::Apply || call.write.validation != Mode::Warn {
            return;
        }
        let lines = self.findings.iter().take(1).flat_map(|finding| finding.lines());
        for line in lines.filter(|line| !line.starts_with("yaml: ")) {
            call.warn(line.trim());
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
                let shown = patched.to_string();
                (patched, shown, findings)
            }
            Kind::Merge => {
                let patched = patch::merge(old.clone(), self.value.clone(), mode)?;
                let shown = patched.to_string();
                (patched, shown, self.findings.clone())
            }
            Kind::Strategic => {
                let patched = patch::strategic(old.clone(), self.value.clone(), ty)?;
                let findings = self.findings.clone();
                let (object, warnings) = patch::decode_strategic(patched, &self.value, ty, mode, findings)?;
                warnings.into_iter().for_each(|warning| call.warn(warning));
                return Ok(object);
            }
            Kind::Apply => return call.apply_patch(Some(old), &self.value),
        };
        Self::check_type(call, &patched, &shown)?;
        let (object, warnings) = patch::decode(patched, &|| shown.clone(), ty, mode, findings)?;
        for warning in warnings {
            call.warn(warning);
        }
        Ok(object)
    }
}

/// An applied configuration, which is a YAML document that holds an object.
fn read_configuration(body: &Bytes) -> Result<api::json::Decoded> {
    let refuse = |why: &str| ApiError::bad_request(format!("error decoding YAML: {why}"));
    let decoded = negotiate::yaml(body).map_err(|e| refuse(&e.status().message))?;
    match &decoded.value {
        Value::Object(_) | Value::Null => Ok(decoded),
        other => Err(refuse(&format!(
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            other.kind_name()
        ))),
    }
}

impl Exchange {
    /// The call of a patch; only applying can force.
    pub(super) fn patch_call(&self, row: &Row, kind: Kind) -> Result<Call> {
        let mut call = self.call(row);
        let kind = if kind == Kind::Apply { "ApplyOptions" } else { "PatchOptions" };
        call.write = crate::registry::WriteOptions::parse(&self.query, self.user_agent(), kind)?;
        Ok(call)
    }
}

/// Answers a PATCH of an object or of a part of it that has the object's type.
pub(super) async fn handle(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let form = exchange.form()?;
    let kind = Kind::of(exchange.headers()).and_then(|kind| kind.suits(row))?;
    let mut call = exchange.patch_call(row, kind)?;
    call.write.applying = kind == Kind::Apply;
    let body = exchange.body().await?;
    let patch = Patch::read(kind, &body, call.write.validation)?;
    patch.check_configuration(&call)?;
    exchange.trail.request_patch(|| patch.value.to_json());
    let updated = call.update(|old| patch.apply_to(&call, old, call.ty())).await;
    match updated {
        Ok(object) => {
            patch.advise(&call);
            render::one(&call, StatusCode::OK, &object, form)
        }
        Err(e) if e.is_not_found() && kind == Kind::Apply && call.subresource.is_empty() => {
            let object = call.apply_patch(None, &patch.value)?;
            check_applied_name(&call, &object)?;
            let created = call.create(object).await?;
            patch.advise(&call);
            render::one(&call, StatusCode::CREATED, &created, form)
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
