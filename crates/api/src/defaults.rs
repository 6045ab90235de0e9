//! Members that are filled in when nothing is said of them.

use crate::Value;

/// Sets `key` when it is absent or null.
pub fn default_to(object: &mut Value, key: &str, value: impl Into<Value>) {
    let member = object.make_object().entry(key);
    if member.is_null() {
        *member = value.into();
    }
}

/// Sets `key` when it is absent, null or empty.
pub fn default_if_empty(object: &mut Value, key: &str, value: impl Into<Value>) {
    let member = object.make_object().entry(key);
    if member.is_empty() {
        *member = value.into();
    }
}
