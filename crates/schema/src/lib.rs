//! The schema engine: everything that depends on the shape of API objects and on nothing else.
//!
//! - [`types`]: what a value may look like: [`kind`]`("apps", "v1", "Deployment")` gives a [`Ty`].
//! - [`decode`]: `decode::object(body, ty, ("v1", "Pod"), mode)` checks a request's body and brings it into the form that
//!   upstream would print; `decode::normalize` is the step alone.
//! - [`patch`]: `patch::json`, `patch::merge` and `patch::strategic` apply a patch to a versioned object;
//!   `patch::decode` reads the result as the type, with upstream's messages.
//!
//! No input or output, no clock, no concrete kinds in code.

pub mod decode;
pub mod patch;
pub mod types;

pub use types::{Schema, Ty, builtin, kind, named};
