//! The schema engine: everything that depends on the shape of API objects and on nothing else.
//!
//! - [`types`]: what a value may look like: [`kind`]`("apps", "v1", "Deployment")` gives a [`Ty`].
//! - [`decode`]: `decode::object(body, ty, ("v1", "Pod"), mode)` checks a request's body and brings it into the form that
//!   upstream would print; `decode::normalize` is the step alone.
//! - [`patch`]: `patch::json`, `patch::merge` and `patch::strategic` apply a patch to a versioned object;
//!   `patch::decode` reads the result as the type, with upstream's messages.
//! - [`apply`]: managed fields. `apply::track_update(live, &mut new, &request)` after every write that is no apply,
//!   `apply::apply(live, &patch, force, &request)` for one that is (decode and default what it returns),
//!   `apply::keep_times(live, &mut new)` before deciding that an update changes something.
//! - [`proto`]: protobuf with and without its envelope: `proto::encode_object(&object, ty)`,
//!   `proto::decode_object(bytes, lookup)`, `proto::watch_event`.
//! - [`openapi`]: `openapi::v3(group, version, &resources)`, `openapi::v2(&resources)` and its protobuf form
//!   `openapi::gnostic(&document)`, all from the caller's table of [`openapi::Resource`].
//! - [`internal`]: `internal::view(&value, ty)` and `internal::difference(&old, &new, ty)`: values as messages quote them.
//! - [`custom`]: the same for custom resources: `CustomType::new(&open_api_v3_schema, preserve)` has a `ty()` for
//!   patches and apply, `decode` (defaults, pruning, metadata), `validate` (everything but CEL rules).
//!
//! No input or output, no clock, no concrete kinds in code.

pub mod apply;
pub mod custom;
pub mod decode;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod internal;
pub mod openapi;
pub mod patch;
pub mod proto;
pub mod types;

pub use types::{Schema, Ty, builtin, kind, named};

#[cfg(test)]
mod properties;
