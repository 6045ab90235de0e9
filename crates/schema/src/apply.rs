//! Field management: who set which field, and server-side apply.
//!
//! `metadata.managedFields` holds, for each manager, the set of fields it owns ([`Set`]). Every write goes through
//! [`track_update`] or [`apply`]; both take the live object, and give the new one its managed fields. Objects are in the
//! version of the request and normalized; the object that [`apply`] returns is not: decode and default it.
//!
//! Mirrors `structured-merge-diff` v6 and apimachinery's field manager.
//!
// DIVERGES: sets of managers from before a list or map of the type became atomic, or ceased to be, are taken as they
// are; upstream rewrites them.

use std::borrow::Cow;

use api::{ApiError, Map, Value};
use jiff::Timestamp;

use crate::decode;
use crate::types::Ty;

mod compare;
mod conflict;
mod element;
mod fields_of;
mod last_applied;
mod managed;
mod merge;
mod overlay;
mod remove;
mod set;
mod tree;
mod updater;
mod validate;

pub use compare::{Comparison, compare};
pub use conflict::{Conflict, Conflicts};
pub use element::Element;
pub use fields_of::fields_of;
pub use managed::{Entry, Managed, ManagerId, Operation};
pub use overlay::overlay;
pub use set::{Filter, Set};

/// Who owns what was there before something was applied first.
pub const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// What a write is, as far as managed fields care.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Field manager: the query parameter or what stands before the first slash of the user agent; `unknown` if empty.
    pub manager: &'a str,
    /// Subresource, empty for the object itself.
    pub subresource: &'a str,
    /// `group/version` of the request's object.
    pub api_version: &'a str,
    /// Kind of the object; empty when it is not to be checked.
    pub kind: &'a str,
    /// Type of the object in that version.
    pub ty: Ty<'a>,
    /// Fields that this write cannot change, such as `status` in a write of the object itself.
    pub reset: &'a Filter,
    /// Now.
    pub now: Timestamp,
    /// Converts objects to the versions that other managers used.
    pub versions: &'a dyn Versions,
}

/// Brings objects of one kind into its other versions.
pub trait Versions {
    /// `object` as `api_version`, with the type it has there; none when that version is not served any more. The
    /// object says itself in `apiVersion` what it is now.
    fn at<'v>(&'v self, object: &'v Value, api_version: &str) -> Option<(Cow<'v, Value>, Ty<'v>)>;
}

/// A kind with one version.
#[derive(Clone, Copy)]
pub struct OneVersion<'a>(pub &'a str, pub Ty<'a>);

impl Versions for OneVersion<'_> {
    fn at<'v>(&'v self, object: &'v Value, api_version: &str) -> Option<(Cow<'v, Value>, Ty<'v>)> {
        (self.0 == api_version).then_some((Cow::Borrowed(object), self.1))
    }
}

/// Why an apply is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields with other values.
    #[error("{0}")]
    Conflicts(Conflicts),
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The configuration does not fit the type, or the managed fields cannot be read; upstream answers 500.
    #[error("{0}")]
    Failed(String),
}

impl From<ApplyError> for ApiError {
    fn from(e: ApplyError) -> Self {
        match e {
            ApplyError::Conflicts(c) => c.into(),
            ApplyError::BadRequest(text) => ApiError::bad_request(text),
            ApplyError::Failed(text) => ApiError::new(http::StatusCode::INTERNAL_SERVER_ERROR, "", text),
        }
    }
}

/// Sets the managed fields of `new`, which replaces `live` (none for a new object) by anything but an apply.
pub fn track_update(live: Option<&Value>, new: &mut Value, request: &Request<'_>) {
    let mut managed = managed_before(live, new, request);
    remove_managed(new);
    if [live, Some(new)].into_iter().flatten().any(|object| tree::lacks_keys(object, request.ty)) {
        // Nobody can own what has no name, and then nobody owns anything.
        return;
    }
    // An object from before managed fields gets none until something is applied to it.
    let old = live.filter(|l| !l.str_at(&["metadata", "uid"]).is_empty());
    if old.is_none() || !managed.is_empty() {
        let empty;
        let live = match live {
            Some(live) => live,
            None => {
                empty = empty_object(new, request.ty);
                &empty
            }
        };
        updater::update(live, new, &mut managed, request);
    }
    set_managed(new, &managed, request.ty);
}

/// Applies `patch`, what the manager wants, to `live` (none for a new object).
pub fn apply(
    live: Option<&Value>,
    patch: &Value,
    force: bool,
    request: &Request<'_>,
) -> Result<Value, ApplyError> {
    check_patch(patch, request)?;
    let mut live = live.cloned().unwrap_or_else(|| empty_object(patch, request.ty));
    let mut managed = Managed::decode(live.at(&["metadata", "managedFields"]))
        .map_err(|e| ApplyError::Failed(format!("failed to decode managed fields: {e}")))?;
    remove_managed(&mut live);
    if managed.is_empty() {
        let first = Request { manager: BEFORE_FIRST_APPLY, ..*request };
        updater::update(&empty_object(&live, request.ty), &live, &mut managed, &first);
    }
    let mut object = match updater::apply(&live, patch, &mut managed.clone(), request, force) {
        Ok((object, after)) => {
            managed = after;
            object
        }
        Err(ApplyError::Conflicts(conflicts)) if request.manager == "kubectl" => {
            let rest = last_applied::not_from_last_applied(conflicts, &live, request);
            if !rest.0.is_empty() {
                return Err(ApplyError::Conflicts(rest));
            }
            let (object, after) = updater::apply(&live, patch, &mut managed, request, true)?;
            managed = after;
            object
        }
        Err(e) => return Err(e),
    };
    if request.manager == "kubectl" {
        last_applied::renew(&mut object, patch);
    }
    set_managed(&mut object, &managed, request.ty);
    Ok(object)
}

/// Gives `new` the managed fields of `live` where a write changed nothing but their times, so that it is no change.
pub fn keep_times(live: &Value, new: &mut Value) {
    let managed = |v: &Value| Managed::decode(v.at(&["metadata", "managedFields"])).unwrap_or_default();
    let (old_managed, new_managed) = (managed(live), managed(new));
    let same = |(a, b): ((&ManagerId, &Entry), (&ManagerId, &Entry))| {
        a.0 == b.0 && a.1.api_version == b.1.api_version && a.1.set == b.1.set
    };
    if old_managed == new_managed
        || old_managed.0.len() != new_managed.0.len()
        || !old_managed.iter().zip(new_managed.iter()).all(same)
    {
        return;
    }
    let without = |v: &Value| {
        let mut v = v.clone();
        remove_managed(&mut v);
        v
    };
    if without(live) == without(new) {
        new.set(&["metadata", "managedFields"], live.at(&["metadata", "managedFields"]));
    }
}

fn check_patch(patch: &Value, request: &Request<'_>) -> Result<(), ApplyError> {
    let (found, kind) = (patch.str_at(&["apiVersion"]), patch.str_at(&["kind"]));
    let other_kind = !request.kind.is_empty() && kind != request.kind;
    if found != request.api_version || other_kind {
        let slash = if found.contains('/') { "" } else { "/" };
        return Err(ApplyError::BadRequest(format!("invalid object type: {slash}{found}, Kind={kind}")));
    }
    if !patch.at(&["metadata", "managedFields"]).is_null() {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()));
    }
    validate::validate(patch, request.ty, false).map_err(|errors| {
        let (namespace, name) = (patch.str_at(&["metadata", "namespace"]), patch.str_at(&["metadata", "name"]));
        let (group, version) = request.api_version.split_once('/').unwrap_or(("", request.api_version));
        let kind = patch.str_at(&["kind"]);
        ApplyError::Failed(format!(
            "failed to create typed patch object ({namespace}/{name}; {group}/{version}, Kind={kind}): {errors}"
        ))
    })
}

/// What the managed fields were before this write. A client may set them in an update of the object itself, or empty
/// them with a list of nothing.
fn managed_before(live: Option<&Value>, new: &Value, request: &Request<'_>) -> Managed {
    let of = |object: &Value| Managed::decode(object.at(&["metadata", "managedFields"]));
    let before = || live.map(|l| of(l).unwrap_or_default()).unwrap_or_default();
    if !request.subresource.is_empty() {
        return before();
    }
    let reset = match new.at(&["metadata", "managedFields"]) {
        Value::Array(entries) => match entries.as_slice() {
            [] => true,
            [only] => only.is_empty(),
            _ => false,
        },
        _ => false,
    };
    match of(new) {
        _ if reset => Managed::default(),
        Ok(managed) if !managed.is_empty() => managed,
        _ => before(),
    }
}

/// An object of the type with nothing set.
fn empty_object(like: &Value, ty: Ty<'_>) -> Value {
    if ty.as_struct().is_some_and(|s| s.go) {
        return decode::zero(ty);
    }
    let mut map = Map::new();
    map.push("apiVersion", like.get("apiVersion").clone());
    map.push("kind", like.get("kind").clone());
    Value::Object(map)
}

fn remove_managed(object: &mut Value) {
    object.remove_at(&["metadata", "managedFields"]);
}

fn set_managed(object: &mut Value, managed: &Managed, ty: Ty<'_>) {
    remove_managed(object);
    if managed.is_empty() {
        return;
    }
    let mut entries = managed.encode();
    if ty.is_custom() {
        decode::sort(&mut entries);
    }
    object.set(&["metadata", "managedFields"], entries);
    if ty.is_custom()
        && let Some(metadata) = object.at_mut(&["metadata"]).and_then(Value::as_object_mut)
    {
        metadata.sort_keys();
    }
}

#[cfg(test)]
mod tests;
