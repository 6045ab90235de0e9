//! The Common Expression Language as Kubernetes 1.36 uses it: in the rules of custom resources, in admission policies and
//! match conditions, in device selectors and in the configuration of authentication.
//!
//! An expression is parsed, checked against declarations, and evaluated over values that are borrowed from the objects;
//! what it costs is bounded before (an estimate) and while it runs (a limit).
//!
//! Invariants: nothing here opens a file or a socket; every input is limited in size, in depth and in what it may cost; the
//! messages are those of cel-go, as users see them in answers of the API.
//!
//! Language: <https://github.com/google/cel-spec/blob/master/doc/langdef.md>; Kubernetes' libraries:
//! <https://kubernetes.io/docs/reference/using-api/cel/>.

pub mod access;
pub mod admission;
mod ast;
mod checker;
mod cost;
mod decl;
pub mod device;
mod env;
mod eval;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod lexer;
mod library;
mod parser;
mod plan;
pub mod rules;
mod source;
mod types;
mod value;

pub use checker::Checked;
pub use cost::{Range, Sizes};
pub use decl::{Decl, DeclTypes, MAX_REQUEST, escape};
pub use env::{Env, Version};
pub use eval::{Activation, Limits, PER_CALL_LIMIT, Program};
pub use library::authz::{Attributes, Authorizer, Authz, Decision};
pub use library::formats::NamedFormat;
pub use library::net::Cidr;
pub use library::regex::pattern_error;
pub use library::time::Moment;
pub use library::url::Url;
pub use parser::is_identifier;
pub use source::{Issue, Issues};
pub use types::{Declarations, Type};
pub use value::{EvalError, List, Map, Outcome, Text, Val};
