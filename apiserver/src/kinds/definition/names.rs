//! The names of a custom resource.

use api::Value;
use api::names::dns1035_label;

use super::{Errors, invalid};

/// Checks names, of the spec or those that were accepted. Absent ones are not looked at.
pub(super) fn validate(names: &Value, path: &str, errors: &mut Errors) {
    const MIXED: &str = "may have mixed case, but should otherwise match: ";
    for (field, mixed) in [("plural", false), ("singular", false), ("kind", true), ("listKind", true)] {
        let name = names.str_at(&[field]);
        if name.is_empty() {
            continue;
        }
        let (checked, before) =
            if mixed { (name.to_ascii_lowercase(), MIXED) } else { (name.to_owned(), "") };
        label(&checked, name, before, &format!("{path}.{field}"), errors);
    }
    list(names, "shortNames", path, errors);
    let (kind, list_kind) = (names.str_at(&["kind"]), names.str_at(&["listKind"]));
    if !kind.is_empty() && kind == list_kind {
        invalid(errors, &format!("{path}.listKind"), list_kind, "kind and listKind may not be the same");
    }
    list(names, "categories", path, errors);
}

fn list(names: &Value, field: &str, path: &str, errors: &mut Errors) {
    for (i, name) in names.array_at(&[field]).iter().filter_map(Value::as_str).enumerate() {
        label(name, name, "", &format!("{path}.{field}[{i}]"), errors);
    }
}

fn label(checked: &str, name: &str, before: &str, path: &str, errors: &mut Errors) {
    let found = dns1035_label(checked);
    if !found.is_empty() {
        invalid(errors, path, name, format!("{before}{}", found.join(",")));
    }
}
