//! What every component agrees on without any input or output: object values, names, quantities, selectors,
//! field errors and the `Status` error of the Kubernetes API.
//!
//! Invariants: nothing here knows a concrete kind but [`pod`], opens a file or a socket, or reads a clock other than through an
//! argument. The vocabulary is that of the Kubernetes API conventions
//! (<https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md>).

pub mod defaults;
pub mod error;
pub mod field;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod json;
pub mod meta;
pub mod names;
pub mod pod;
pub mod quantity;
pub mod selector;
pub mod time;
pub mod value;

pub use error::ApiError;
pub use value::{Map, Value};

/// Builds a [`Value`] from JSON-like syntax: `object!({"kind": "Pod", "spec": {"replicas": n}})`.
///
/// Every leaf is an expression with a `From` conversion into [`Value`].
#[macro_export]
macro_rules! object {
    ({}) => { $crate::Value::Object($crate::Map::new()) };
    ({ $($key:literal : $value:tt),* $(,)? }) => {{
        let mut map = $crate::Map::new();
        $( map.insert($key, $crate::object!($value)); )*
        $crate::Value::Object(map)
    }};
    ([ $($item:tt),* $(,)? ]) => { $crate::Value::Array(vec![ $( $crate::object!($item) ),* ]) };
    (null) => { $crate::Value::Null };
    ($leaf:expr) => { $crate::Value::from($leaf) };
}
