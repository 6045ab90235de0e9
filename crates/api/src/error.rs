//! The one error of the API: a `Status` object, the same on both ends of the wire.
//!
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/>.

use std::fmt;

use http::StatusCode;

use crate::field::FieldError;
use crate::object;
use crate::value::{Map, Value};

/// A failed request, as the client is told. Boxed: results stay one word wide.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError(Box<Status>);

/// The content of a failure `Status`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable word, such as `NotFound`; empty when unknown.
    pub reason: String,
    /// Sentence for people.
    pub message: String,
    /// What the failure is about.
    pub details: Details,
    /// True when the details are written even if there are none.
    pub explicit_details: bool,
    /// Token with which a list that failed can go on; empty when it cannot.
    pub continue_token: String,
}

/// What a failure is about. Empty fields are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// Name of the object, or what stands in for it.
    pub name: String,
    /// API group.
    pub group: String,
    /// Resource (or, for invalid objects, the kind).
    pub kind: String,
    /// UID of the object.
    pub uid: String,
    /// Single findings.
    pub causes: Vec<Cause>,
    /// Seconds after which a retry may succeed; zero for none.
    pub retry_after_seconds: u32,
}

/// One finding of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cause {
    /// Machine-readable word, such as `FieldValueInvalid`.
    pub reason: String,
    /// Sentence for people.
    pub message: String,
    /// Path of the field it concerns.
    pub field: String,
}

/// The result of anything that ends in an answer of the API.
pub type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    /// An error with code, reason and message, and nothing more.
    pub fn new(code: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Status {
            code: code.as_u16(),
            reason: reason.to_owned(),
            message: message.into(),
            details: Details::default(),
            explicit_details: false,
            continue_token: String::new(),
        }))
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let d = &mut self.0.details;
        (d.group, d.kind, d.name) = (group.to_owned(), kind.to_owned(), name.to_owned());
        self.0.explicit_details = true;
        self
    }

    /// 404: the object is not there.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {} not found", qualified(group, resource), crate::field::go_quote(name));
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(group, resource, name)
    }

    /// 404 for a path that nothing serves.
    pub fn path_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
            .about("", "", "")
    }

    /// 409: an object of that name is there already.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message =
            format!("{} {} already exists", qualified(group, resource), crate::field::go_quote(name));
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(group, resource, name)
    }

    /// 409: the write does not fit the object's present state.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {}: {why}",
            qualified(group, resource),
            crate::field::go_quote(name)
        );
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(group, resource, name)
    }

    /// 409: the object was changed since it was read.
    pub fn stale(group: &str, resource: &str, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, resource, name, why)
    }

    /// 422: the object did not pass validation. Panics without errors in debug builds.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        debug_assert!(!errors.is_empty(), "an invalid object has something wrong");
        let list = crate::field::aggregate(errors);
        let message =
            format!("{} {} is invalid: {list}", qualified_kind(group, kind), crate::field::go_quote(name));
        let mut error =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(group, kind, name);
        error.0.details.causes = errors
            .iter()
            .map(|e| Cause {
                reason: e.problem.reason().to_owned(),
                message: e.body(),
                field: e.field.clone(),
            })
            .collect();
        error
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401: the caller is not who they must be.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403: the caller may not do this. `why` follows the resource and name.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let about = if resource.is_empty() {
            format!("forbidden: {why}")
        } else if name.is_empty() {
            format!("{} is forbidden: {why}", qualified(group, resource))
        } else {
            format!("{} {} is forbidden: {why}", qualified(group, resource), crate::field::go_quote(name))
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", about).about(group, resource, name)
    }

    /// 405: the resource does not do that.
    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).about("", "", "")
    }

    /// 406: none of the accepted media types can be served.
    pub fn not_acceptable(supported: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", supported.join(", "));
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// 406: the path has no answer in any of the accepted media types.
    pub fn no_representation(available: &[&str]) -> Self {
        let message = format!("406: Not Acceptable\n\nAvailable representations: {}", available.join(", "));
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message).about("", "", "")
    }

    /// 406: what is asked for cannot take the accepted shape.
    pub fn no_such_shape(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// 405: the resource does not have the verb.
    pub fn not_supported(group: &str, resource: &str, verb: &str) -> Self {
        let kind = crate::field::go_quote(&qualified(group, resource));
        let message = format!("{verb} is not supported on resources of kind {kind}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).about(group, resource, "")
    }

    /// 500: an error that has no reason to tell.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    /// 415: the body's media type cannot be read.
    pub fn unsupported_media_type(supported: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            supported.join(", ")
        );
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// 413: the body is larger than the server reads.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// 410: the revision asked for is gone from history.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 504: the server could not answer in time; retry after `seconds`.
    pub fn timeout(message: impl Into<String>, seconds: u32) -> Self {
        let mut error = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
        error.0.details.retry_after_seconds = seconds;
        error
    }

    /// 429: too much is going on; retry after `seconds`.
    pub fn too_many_requests(message: impl Into<String>, seconds: u32) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        error.0.details.retry_after_seconds = seconds;
        error
    }

    /// 503: a part the request needs is not available.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// 500: the server failed; `why` is told to the client and must hold no secret.
    pub fn internal(why: impl fmt::Display) -> Self {
        let mut error = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: {why}"),
        );
        error.0.details.causes = vec![Cause { message: why.to_string(), ..Cause::default() }];
        error
    }

    /// HTTP status code of the answer.
    pub fn code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The machine-readable word.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// True when the reason is `NotFound`.
    pub fn is_not_found(&self) -> bool {
        self.0.reason == "NotFound"
    }

    /// The content, to read.
    pub fn status(&self) -> &Status {
        &self.0
    }

    /// The content, to add to.
    pub fn status_mut(&mut self) -> &mut Status {
        &mut self.0
    }

    /// The `Status` object that goes over the wire.
    pub fn to_value(&self) -> Value {
        let s = &*self.0;
        let mut status = object!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": (&s.message),
        });
        if !s.continue_token.is_empty() {
            status.set(&["metadata", "continue"], s.continue_token.as_str());
        }
        let out = status.make_object();
        if !s.reason.is_empty() {
            out.push("reason", (&s.reason).into());
        }
        let details = s.details.to_map();
        if s.explicit_details || !details.is_empty() {
            out.push("details", Value::Object(details));
        }
        out.push("code", Value::from(s.code));
        status
    }

    /// Reads a `Status` object that a server answered with `code`.
    pub fn from_value(code: StatusCode, body: &Value) -> Self {
        let text = |path: &[&str]| body.str_at(path).to_owned();
        let causes = body.array_at(&["details", "causes"]).iter().map(|c| Cause {
            reason: c.str_at(&["reason"]).to_owned(),
            message: c.str_at(&["message"]).to_owned(),
            field: c.str_at(&["field"]).to_owned(),
        });
        Self(Box::new(Status {
            code: code.as_u16(),
            reason: text(&["reason"]),
            message: text(&["message"]),
            details: Details {
                name: text(&["details", "name"]),
                group: text(&["details", "group"]),
                kind: text(&["details", "kind"]),
                uid: text(&["details", "uid"]),
                causes: causes.collect(),
                retry_after_seconds: body
                    .at(&["details", "retryAfterSeconds"])
                    .as_i64()
                    .and_then(|n| u32::try_from(n).ok())
                    .unwrap_or(0),
            },
            explicit_details: !body.get("details").is_null(),
            continue_token: text(&["metadata", "continue"]),
        }))
    }
}

impl Details {
    fn to_map(&self) -> Map {
        let mut map = Map::new();
        let mut text = |key: &str, v: &str| {
            if !v.is_empty() {
                map.push(key, v.into());
            }
        };
        text("name", &self.name);
        text("group", &self.group);
        text("kind", &self.kind);
        text("uid", &self.uid);
        if !self.causes.is_empty() {
            let causes: Vec<Value> = self.causes.iter().map(Cause::to_value).collect();
            map.push("causes", Value::Array(causes));
        }
        if self.retry_after_seconds > 0 {
            map.push("retryAfterSeconds", Value::from(self.retry_after_seconds));
        }
        map
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let members = [("reason", &self.reason), ("message", &self.message), ("field", &self.field)];
        Value::Object(
            members.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k, Value::from(v))).collect(),
        )
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for ApiError {}

/// `deployments.apps`, or `pods` for the core group.
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

fn qualified_kind(group: &str, kind: &str) -> String {
    qualified(group, kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Path;

    #[test]
    fn status_objects_read_as_upstream() {
        let e = ApiError::not_found("apps", "deployments", "x");
        assert_eq!(
            e.to_value().to_string(),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"deployments.apps \"x\" not found","reason":"NotFound","details":{"name":"x","group":"apps","kind":"deployments"},"code":404}"#
        );
        assert_eq!(ApiError::from_value(e.code(), &e.to_value()), e);
    }

    #[test]
    fn several_field_errors_stand_in_brackets() {
        let spec = Path::new("spec");
        let one = FieldError::required(&spec.child("a"), "");
        let two = FieldError::required(&spec.child("b"), "why");
        let e = ApiError::invalid("", "Pod", "x", std::slice::from_ref(&one));
        assert_eq!(e.to_string(), "Pod \"x\" is invalid: spec.a: Required value");
        let e = ApiError::invalid("", "Pod", "x", &[one, two]);
        assert_eq!(
            e.to_string(),
            "Pod \"x\" is invalid: [spec.a: Required value, spec.b: Required value: why]"
        );
        assert_eq!(e.status().details.causes.len(), 2);
    }
}
