//! TokenRequest: a token for a ServiceAccount, for a time and perhaps for a pod.

use api::error::Result;
use api::field::{FieldError, Path};
use api::{ApiError, Value};
use http::{Response, StatusCode};
use serve::Body;

use crate::admission::{self, Operation};
use crate::audit::Level;
use crate::authn::service_account::{Account, Binding};
use crate::http::Exchange;
use crate::registry::Call;
use crate::render;
use crate::resources::{Row, TABLE};

const TEN_MINUTES: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// Kubelets ask for a little over an hour; such tokens live a year for clients that never read them again.
const EXTENDED: i64 = 3607;
const YEAR: i64 = 365 * 24 * 3600;

pub(super) async fn request(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let form = exchange.form_of_action()?;
    let call = exchange.write_call(row, "CreateOptions")?;
    let ty =
        schema::kind("authentication.k8s.io", "v1", "TokenRequest").expect("TokenRequest is a known kind");
    let mut request = exchange.object(&call, "authentication.k8s.io/v1", "TokenRequest", ty).await?;
    call.check_namespace(&mut request.clone())?;
    let tokens = &exchange.server.authenticator.tokens;
    if request.at(&["spec", "expirationSeconds"]).is_null() {
        request.set(&["spec", "expirationSeconds"], 3600);
    }
    call.track_body(&mut request, "authentication.k8s.io/v1", ty);
    admission::mutate(&call, Operation::Create, &mut request, None).await?;
    if request.array_at(&["spec", "audiences"]).is_empty() {
        request.set(&["spec", "audiences"], tokens.audiences.clone());
    }
    check_name(&call, &request)?;
    let account = render::object_of(row, &*call.get(None).await?);
    let (asked_for, uid) = (request.uid(), account.uid());
    if !asked_for.is_empty() && asked_for != uid {
        let why = format!(
            "the UID in the token request ({asked_for}) does not match the UID of the service account ({uid})"
        );
        return Err(ApiError::conflict("authentication.k8s.io", "TokenRequest", &call.name, &why));
    }
    for field in ["name", "namespace", "uid"] {
        request.set(&["metadata", field], account.at(&["metadata", field]));
    }
    request.set(&["metadata", "creationTimestamp"], api::time::format(jiff::Timestamp::now()));
    check(&request)?;
    admission::validate(&call, Operation::Create, Some(&request), None).await?;
    let mut binding = binding(&call, request.at(&["spec", "boundObjectRef"]))?;
    let asked = request.at(&["spec", "expirationSeconds"]).as_i64().unwrap_or(3600);
    let longest = tokens.max_expiration.map_or(i64::MAX, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
    let granted = asked.min(longest);
    if granted < asked {
        call.warn(format!("requested expiration of {asked} seconds shortened to {granted} seconds"));
    }
    let audiences: Vec<String> = request
        .array_at(&["spec", "audiences"])
        .iter()
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let extended = granted == EXTENDED
        && exchange.server.config.extend_tokens
        && audiences.iter().all(|a| tokens.audiences.contains(a))
        && binding.is_of("Pod");
    binding.warn_after = extended.then_some(granted);
    let lifetime = if extended { YEAR } else { granted };
    let who = Account { namespace: account.namespace(), name: account.name(), uid: account.uid() };
    let (token, _) = tokens.sign(&who, &binding, &audiences, lifetime)?;
    if exchange.trail.level() > Level::None
        && let Ok(claims) = tokens.verify(&token)
    {
        let id = format!("JTI={}", claims.str_at(&["jti"]));
        exchange.trail.annotate("authentication.kubernetes.io/issued-credential-id", id);
    }
    // The kubelet is told the time it asked for, so that it refreshes then.
    let expiry = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(granted);
    request.set(&["spec", "expirationSeconds"], granted);
    request.set(&["status", "token"], token);
    request.set(&["status", "expirationTimestamp"], api::time::format(expiry));
    render::one(&call, StatusCode::CREATED, &request, form)
}

/// A request says the name of its account or none.
fn check_name(call: &Call, request: &Value) -> Result<()> {
    if request.name().is_empty() || request.name() == call.name {
        return Ok(());
    }
    let path = Path::new("metadata.name");
    let why = "must match the service account name if specified";
    let error = FieldError::invalid(&path, request.name(), why);
    Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", &call.name, &[error]))
}

fn check(request: &Value) -> Result<()> {
    let spec = Path::new("spec");
    let path = spec.child("expirationSeconds");
    let seconds = request.at(&["spec", "expirationSeconds"]).as_i64().unwrap_or(0);
    let why = if seconds < TEN_MINUTES {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let error = FieldError::invalid(&path, seconds, why);
    Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", "", &[error]))
}

/// What the token is to be bound to, which must exist.
fn binding(call: &Call, reference: &Value) -> Result<Binding> {
    if reference.is_null() {
        return Ok(Binding::default());
    }
    let (kind, name) = (reference.kind(), reference.str_at(&["name"]));
    let given = api::meta::GroupVersion::parse(reference.api_version()).unwrap_or_default();
    let plural = match (given.group.as_str(), kind) {
        ("", "Pod") => "pods",
        ("", "Secret") => "secrets",
        ("", "Node") => "nodes",
        (group, kind) => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {group}/{}, Kind={kind}",
                given.version
            )));
        }
    };
    let row = TABLE.find_any_version("", plural).expect("a built-in resource");
    let cache = |plural| call.server.storage.cache(TABLE.store("", plural));
    let found = cache(plural).get(&row.key(&call.namespace, name)).map(|s| s.object());
    let found = found.ok_or_else(|| ApiError::not_found("", plural, name))?;
    if kind == "Pod" && found.str_at(&["spec", "serviceAccountName"]) != call.name {
        let why = format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            call.name
        );
        return Err(ApiError::bad_request(why));
    }
    let uid = reference.str_at(&["uid"]);
    if !uid.is_empty() && uid != found.uid() {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict("", kind, name, &why));
    }
    let node = found.str_at(&["spec", "nodeName"]);
    let node = Some(node).filter(|node| kind == "Pod" && !node.is_empty()).map(|node| {
        // Also of one that is gone the name is told.
        let uid = cache("nodes").get(node).map(|s| s.object().uid().to_owned());
        (node.to_owned(), uid.unwrap_or_default())
    });
    let object = Some((kind.to_owned(), name.to_owned(), found.uid().to_owned()));
    Ok(Binding { object, node, warn_after: None })
}
