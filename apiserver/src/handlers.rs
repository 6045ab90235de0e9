//! Where a request goes: documents of the server, or a verb on a resource.

mod components;
mod connect;
mod eviction;
mod objects;
mod options;
mod patch;
mod reviews;
mod routes;
mod subresources;
mod token;

pub(crate) use reviews::user_value;
pub(crate) use subresources::scale_of;

use api::error::Result;
use api::{ApiError, Value, object};
use http::header::{CACHE_CONTROL, HeaderValue};
use http::{Method, Response, StatusCode};
use serve::Body;

use crate::http::Exchange;
use crate::negotiate::{self, Form};
use crate::registry::{Call, WriteOptions, parse_revision};
use crate::render;
use crate::resources::{Row, Table};

/// Answers a request that may be answered.
pub async fn dispatch(mut exchange: Exchange) -> Result<Response<Body>> {
    let server = exchange.server.clone();
    if let Some(remote) = server.aggregation.find(&server.storage, &exchange.info.path) {
        return Box::pin(crate::aggregation::forward(exchange, &remote)).await;
    }
    if !exchange.info.is_resource {
        return Box::pin(document(exchange)).await;
    }
    if exchange.info.path.starts_with("//") || exchange.info.path.starts_with("/apis//") {
        return Ok(not_found());
    }
    let info = exchange.info.clone();
    let storage = exchange.server.storage.clone();
    let find = || storage.resource(&info.group, &info.version, &info.resource);
    let mut row = find();
    if row.is_none() && !info.group.is_empty() {
        // The definition may have been established by another server a moment ago.
        storage.catch_up().await?;
        row = find();
    }
    let Some(row) = &row else {
        return unknown_path(storage.served(), &info.group);
    };
    if row.custom.is_none() {
        routes::check(row, &info, &exchange.head.method, exchange.headers())?;
        exchange.warn_of_deprecation();
    }
    if info.to_one {
        check_path_name(&info.name)?;
    }
    if let Some(custom) = &row.custom {
        exchange.custom = info.subresource != "scale";
        let scoped = row.namespaced || info.namespace.is_empty();
        if !scoped || (row.namespaced && info.namespace.is_empty() && !matches!(info.verb, "list" | "watch"))
        {
            return Ok(not_found());
        }
        if let Some(text) = &custom.version().deprecation {
            exchange.warnings.add(text.clone());
        }
    }
    if info.subresource.is_empty() {
        objects::handle(exchange, row).await
    } else {
        Box::pin(subresources::handle(exchange, row)).await
    }
}

/// The answer for paths that nothing serves.
fn not_found() -> Response<Body> {
    serve::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Names in paths are names of one segment.
fn check_path_name(name: &str) -> Result<()> {
    let wrong = match name {
        "." | ".." => vec![format!("may not be '{name}'")],
        _ => ["/", "%"]
            .iter()
            .filter(|c| name.contains(**c))
            .map(|c| format!("may not contain '{c}'"))
            .collect(),
    };
    if wrong.is_empty() {
        return Ok(());
    }
    let name = api::field::go_quote(name);
    Err(ApiError::bad_request(format!("Name parameter invalid: {name}: {}", wrong.join(";"))))
}

/// The answer for paths below a group that nothing serves: built-in groups say so as the API does.
fn unknown_path(served: &Table, group: &str) -> Result<Response<Body>> {
    if served.versions(group).is_empty() { Ok(not_found()) } else { Err(ApiError::path_not_found()) }
}

/// The refusal of a verb that the resource does not have.
fn method_not_allowed() -> ApiError {
    ApiError::method_not_allowed("the server does not allow this method on the requested resource")
}

/// Everything that is not a resource.
async fn document(exchange: Exchange) -> Result<Response<Body>> {
    let server = exchange.server.clone();
    let path = exchange.info.path.clone();
    if let Some(answer) = server.health.respond(&exchange.head.uri).await {
        return Ok(answer);
    }
    let routed = routed_document(server.storage.served(), &path);
    if let Some(produced) = routed {
        if exchange.head.method != Method::GET {
            return Err(method_not_allowed());
        }
        routes::check_accept(negotiate::accept(exchange.headers()), &produced)?;
    }
    match path.as_str() {
        "/metrics/slis" => return Ok(serve::metrics::respond(&server.metrics.slis)),
        "/metrics" => {
            server.storage.etcd().measure_sizes().await;
            return Ok(serve::metrics::respond(&server.metrics.registry));
        }
        "/statusz" => return Ok(server.pages.statusz(exchange.headers())),
        "/flagz" => return Ok(server.pages.flagz(exchange.headers())),
        "/version" | "/version/" => {
            let form = Form { pretty: true, ..Form::default() };
            return Ok(render::value(StatusCode::OK, &crate::server::version(), form));
        }
        "/.well-known/openid-configuration" | "/.well-known/openid-configuration/" => {
            return Ok(kept_an_hour(issuer(&exchange)));
        }
        "/openid/v1/jwks" => {
            let keys = server.authenticator.tokens.jwks().to_json();
            return Ok(kept_an_hour(render::respond(StatusCode::OK, "application/jwk-set+json", keys)));
        }
        "/openapi/v3/" => {
            let mut nothing = Response::new(serve::empty());
            *nothing.status_mut() = StatusCode::NOT_FOUND;
            return Ok(nothing);
        }
        "/" | "/index.html" => {
            let paths = server.discovery.paths(&exchange);
            return Ok(render::value(
                StatusCode::OK,
                &object!({"paths": paths}),
                Form { pretty: true, ..Form::default() },
            ));
        }
        _ => {}
    }
    if let Some(answer) = server.gate.respond(&path) {
        return Ok(answer);
    }
    if path == "/openapi/v2" || path.starts_with("/openapi/v3") {
        return Ok(crate::openapi::respond(exchange).await.unwrap_or_else(not_found));
    }
    if path.starts_with("/api")
        && let Some(answer) = server.discovery.respond(&exchange)?
    {
        return Ok(answer);
    }
    match path.trim_start_matches('/').split('/').collect::<Vec<_>>().as_slice() {
        ["api", ..] => unknown_path(server.storage.served(), ""),
        ["apis", group, _, ..] => unknown_path(server.storage.served(), group),
        _ => Ok(not_found()),
    }
}

/// What the routes of documents that have routes of their own answer in: those of versions, but not of the groups, whose
/// documents every method gets.
fn routed_document(served: &Table, path: &str) -> Option<Vec<&'static str>> {
    let api = || Some(negotiate::produced("get", ""));
    match path.trim_matches('/').split('/').collect::<Vec<_>>().as_slice() {
        ["version"] | [".well-known", "openid-configuration"] => Some(vec!["application/json"]),
        ["openid", "v1", "jwks"] => Some(vec!["application/jwk-set+json"]),
        ["api"] | ["api", "v1"] if !served.versions("").is_empty() => api(),
        ["apis", group, version] if served.versions(group).contains(version) => api(),
        _ => None,
    }
}

/// A document that anybody may keep for a while.
fn kept_an_hour(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// The discovery document of the token issuer.
fn issuer(exchange: &Exchange) -> Response<Body> {
    let tokens = &exchange.server.authenticator.tokens;
    let mut algorithms: Vec<&str> = tokens.keys.iter().map(|k| k.algorithm).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    let issuer = tokens.issuers.first().cloned().unwrap_or_default();
    let config = &exchange.server.config;
    let own = || format!("https://{}/openid/v1/jwks", config.external_address);
    let keys = config.jwks_uri.clone().unwrap_or_else(own);
    let document = object!({
        "issuer": issuer,
        "jwks_uri": keys,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    });
    render::respond(StatusCode::OK, "application/json", document.to_json())
}

impl Exchange {
    /// The call to the resource that the request is.
    fn call(&self, row: &Row) -> Call {
        let mut call = Call::new(self.server.clone(), row, self.user.clone());
        call.namespace.clone_from(&self.info.namespace);
        call.name.clone_from(&self.info.name);
        call.subresource.clone_from(&self.info.subresource);
        call.verb = self.info.verb;
        call.warnings = self.warnings.clone();
        call.trail = self.trail.clone();
        call.elsewhere = self.elsewhere.clone();
        call
    }

    /// The revision that a read of one object asks for, if any.
    fn revision(&self, row: &Row) -> Result<Option<i64>> {
        let asked = parse_revision(self.query.get("resourceVersion"));
        // Events are read from etcd, and what is not a revision is noticed there.
        asked.map_err(|why| match row.built_in() {
            "events" => ApiError::bad_request(format!("invalid resource version: {why}")),
            _ => ApiError::plain(why),
        })
    }

    /// The call of a write, with its options.
    fn write_call(&self, row: &Row, options: &str) -> Result<Call> {
        let mut call = self.call(row);
        call.write = WriteOptions::parse(&self.query, self.user_agent(), options)?;
        Ok(call)
    }

    /// Reads the body as an object of the call's row, or of another kind for a subresource.
    async fn object(
        &mut self,
        call: &Call,
        group_version: &str,
        kind: &str,
        ty: schema::Ty<'_>,
    ) -> Result<Value> {
        self.object_of(call, &[group_version], kind, ty).await
    }

    /// [`Exchange::object`] of any of these versions; it is of the first if it names none.
    async fn object_of(
        &mut self,
        call: &Call,
        versions: &[&str],
        kind: &str,
        ty: schema::Ty<'_>,
    ) -> Result<Value> {
        let group_version = versions.first().copied().unwrap_or_default();
        let body = self.body().await?;
        let mut decoded = negotiate::decode(self.headers(), &body, kind)?;
        let checked = match &call.row.custom {
            Some(_) if kind == call.row.kind => check_custom_type(call, &decoded.value, &body),
            _ => check_type(&mut decoded.value, versions, kind),
        };
        checked.map_err(|e| match e {
            Mistaken::Unreadable(why) => negotiate::unrecognized(&why, kind, &body),
            Mistaken::Other(error) => error,
        })?;
        let version = group_version.rsplit('/').next().unwrap_or_default();
        let mode = call.write.validation;
        let (object, warnings) = match &call.row.custom {
            Some(custom) if kind == call.row.kind => {
                custom.version().ty.read(decoded, (version, kind), mode)?
            }
            _ => schema::decode::object(decoded, ty, (version, kind), mode)?,
        };
        for warning in warnings {
            call.warn(warning);
        }
        self.trail.request_object(&object, || match kind == call.row.kind {
            true => call.whole(object.clone()),
            false => object.clone(),
        });
        Ok(object)
    }

    /// Reads the body as an object of the call's row.
    async fn own_object(&mut self, call: &Call) -> Result<Value> {
        self.object(call, &call.row.api_version(), call.row.kind, call.ty()).await
    }
}

/// Why a body is not taken for an object of the kind that is asked for.
enum Mistaken {
    /// Kind and version cannot be read of it.
    Unreadable(String),
    /// It is of another kind.
    Other(ApiError),
}

/// The body of a custom resource says what it is.
fn check_custom_type(call: &Call, value: &Value, body: &[u8]) -> std::result::Result<(), Mistaken> {
    let (want, kind) = (call.row.api_version(), call.row.kind);
    if !value.is_null() {
        check_object(value).map_err(|e| Mistaken::Unreadable(e.to_string()))?;
    }
    let (given, given_kind) = (value.api_version().to_owned(), value.kind().to_owned());
    if given_kind.is_empty() {
        let body = String::from_utf8_lossy(body);
        return Err(Mistaken::Unreadable(format!("Object 'Kind' is missing in '{body}'")));
    }
    if given != want {
        return Err(Mistaken::Other(ApiError::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({want})"
        ))));
    }
    if given_kind != kind {
        let path = api::field::Path::new("kind");
        let error = api::field::FieldError::invalid(&path, given_kind.as_str(), format!("must be {kind}"));
        let error = ApiError::invalid(call.row.group, &given_kind, value.name(), &[error]);
        return Err(Mistaken::Other(error));
    }
    Ok(())
}

/// The options of a deletion, which may say that they are of any group.
fn check_options_type(mut given: api::json::Decoded) -> Result<Value> {
    const KIND: &str = "DeleteOptions";
    if given.value.is_null() {
        // Nothing is said.
        given.value = Value::object();
    }
    check_object(&given.value)?;
    let (version, kind) = (given.value.api_version(), given.value.kind());
    if kind.is_empty() || kind == KIND {
        let ty = schema::kind("", "v1", KIND).expect("DeleteOptions is a known kind");
        let read = schema::decode::normalize_document(given, ty, schema::decode::Mode::Ignore);
        return read.map(|(options, _)| options).map_err(|e| ApiError::bad_request(e.to_string()));
    }
    let known = match version {
        "v1" | "" => {
            matches!(kind, "Status" | "APIVersions" | "APIGroup" | "APIGroupList" | "APIResourceList")
        }
        "meta.k8s.io/v1" => schema::kind("meta.k8s.io", "v1", kind).is_some(),
        _ => false,
    };
    let version = if version.is_empty() { "v1" } else { version };
    Err(ApiError::bad_request(match known {
        true => format!("converting (v1.{kind}) to (v1.{KIND}): unknown conversion"),
        false => format!(
            "no kind {} is registered for version {} in scheme \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\"",
            api::field::go_quote(kind),
            api::field::go_quote(version)
        ),
    }))
}

/// A body is an object.
fn check_object(value: &Value) -> Result<()> {
    if matches!(value, Value::Object(_)) {
        return Ok(());
    }
    let what = if value.is_null() { "<nil>" } else { value.kind_name() };
    Err(ApiError::bad_request(format!(
        "couldn't get version/kind; json parse error: json: cannot unmarshal {what} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
    )))
}

/// A body says what it is, or is taken for what is expected; null is taken for nothing said.
fn check_type(value: &mut Value, versions: &[&str], kind: &str) -> std::result::Result<(), Mistaken> {
    let group_version = versions.first().copied().unwrap_or_default();
    if value.is_null() {
        *value = Value::object();
    }
    check_object(value).map_err(|e| Mistaken::Unreadable(e.to_string()))?;
    for member in ["apiVersion", "kind"] {
        let given = value.get(member);
        if !matches!(given, Value::Null | Value::String(_)) {
            return Err(Mistaken::Unreadable(format!(
                "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go struct field .{member} of type string",
                given.kind_name()
            )));
        }
    }
    let (given_version, given_kind) = (value.api_version().to_owned(), value.kind().to_owned());
    let meant = if given_version.is_empty() { group_version } else { given_version.as_str() };
    let Some(given) = api::meta::GroupVersion::parse(meant) else {
        return Err(Mistaken::Unreadable(format!("unexpected GroupVersion string: {given_version}")));
    };
    if given_kind.is_empty() {
        value.set(&["kind"], kind);
    }
    if given_version.is_empty() {
        value.set(&["apiVersion"], group_version);
    }
    let same_kind = given_kind.is_empty() || given_kind == kind;
    let same_version = given_version.is_empty() || versions.contains(&given_version.as_str());
    if same_kind && same_version {
        return Ok(());
    }
    let given_kind = if given_kind.is_empty() { kind } else { &given_kind };
    let (group, version) = group_version.rsplit_once('/').unwrap_or(("", group_version));
    let why = if schema::kind(&given.group, &given.version, given_kind).is_none() {
        format!(
            "no kind {} is registered for version {} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            api::field::go_quote(given_kind),
            api::field::go_quote(meant)
        )
    } else {
        let into = match given.group == group && given.version != version {
            true => version,
            false => internal_package(group),
        };
        format!("converting ({}.{given_kind}) to ({into}.{kind}): unknown conversion", given.version)
    };
    Err(Mistaken::Other(ApiError::bad_request(format!(
        "{given_kind} in version {} cannot be handled as a {kind}: {why}",
        api::field::go_quote(&given.version)
    ))))
}

/// What upstream calls the package of the internal types of a group; events are of the core group there.
fn internal_package(group: &str) -> &str {
    match group.split('.').next().unwrap_or_default() {
        "" | "events" => "core",
        first => first,
    }
}
