//! The spec of a definition.

use api::Value;
use api::field::Problem;
use api::names::{dns_subdomain, dns1035_label};

use super::versions::{SHARED, printed, shared};
use super::{Errors, forbidden, invalid, names, not_supported, push, required, schema};

const MAX_SELECTABLE: usize = 8;

/// Checks the spec of a definition.
pub(super) fn validate(spec: &Value, errors: &mut Errors) {
    group(spec.str_at(&["group"]), errors);
    match spec.str_at(&["scope"]) {
        "" => required(errors, "spec.scope", ""),
        "Cluster" | "Namespaced" => {}
        other => not_supported(errors, "spec.scope", other, &["Cluster", "Namespaced"]),
    }
    let versions = spec.array_at(&["versions"]);
    if shared(versions, "schema").is_none_or(|s| s.get("openAPIV3Schema").is_null()) {
        for (i, version) in versions.iter().enumerate() {
            if version.at(&["schema", "openAPIV3Schema"]).is_null() {
                required(errors, &format!("spec.versions[{i}].schema.openAPIV3Schema"), "");
            }
        }
    }
    for (i, version) in versions.iter().enumerate() {
        one_version(version, versions, &format!("spec.versions[{i}]"), errors);
    }
    together(spec.get("versions"), errors);
    for field in ["plural", "singular", "kind", "listKind"] {
        if spec.str_at(&["names", field]).is_empty() {
            required(errors, &format!("spec.names.{field}"), "");
        }
    }
    names::validate(spec.get("names"), "spec.names", errors);
    if let Some(first) = versions.first() {
        let status = versions.iter().any(|v| !v.at(&["subresources", "status"]).is_null());
        parts(first, versions, true, "spec", status, errors);
    }
    conversion(spec.get("conversion"), errors);
    if spec.get("preserveUnknownFields").as_bool() == Some(true) {
        let schemas = versions.iter().map(|version| version.at(&["schema", "openAPIV3Schema"]));
        let mut schemas = schemas.filter(|schema| !schema::is_too_deep(schema));
        if schemas.any(|s| schema::has(s, &|part| !part.get("default").is_null())) {
            let why = "must be false in order to use defaults in the schema";
            invalid(errors, "spec.preserveUnknownFields", true, why);
        }
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        invalid(errors, "spec.preserveUnknownFields", true, why);
    }
}

fn group(group: &str, errors: &mut Errors) {
    let found = dns_subdomain(group);
    if group.is_empty() {
        required(errors, "spec.group", "");
    } else if !found.is_empty() {
        invalid(errors, "spec.group", group, found.join(","));
    } else if !group.contains('.') {
        invalid(errors, "spec.group", group, "should be a domain with at least one dot");
    }
}

fn together(all: &Value, errors: &mut Errors) {
    let versions = all.array_at(&[]);
    let mut seen: Vec<&str> = versions.iter().map(|v| v.str_at(&["name"])).collect();
    seen.sort_unstable();
    if seen.windows(2).any(|w| w[0] == w[1]) {
        invalid(errors, "spec.versions", printed(all), "must contain unique version names");
    }
    if versions.iter().filter(|v| v.get("storage").as_bool() == Some(true)).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        invalid(errors, "spec.versions", printed(all), why);
    }
    if let Some(first) = versions.first().filter(|v| !v.str_at(&["name"]).is_empty()) {
        let found = dns1035_label(first.str_at(&["name"]));
        if !found.is_empty() {
            invalid(errors, "spec.version", first.get("name").clone(), found.join(","));
        }
    }
}

fn one_version(version: &Value, versions: &[Value], path: &str, errors: &mut Errors) {
    let name = version.str_at(&["name"]);
    let found = dns1035_label(name);
    if !found.is_empty() {
        invalid(errors, &format!("{path}.name"), name, found.join(","));
    }
    let deprecated = version.get("deprecated").as_bool() == Some(true);
    if let Some(text) = version.get("deprecationWarning").as_str() {
        let path = format!("{path}.deprecationWarning");
        if !deprecated {
            invalid(errors, &path, text, "can only be set for deprecated versions");
        } else if text.is_empty() {
            invalid(errors, &path, text, "must not be an empty string");
        } else if text.len() > 256 {
            invalid(errors, &path, text, "must be <= 256 characters long");
        }
        if let Some(at) = text.char_indices().find(|(_, c)| c.is_control()).map(|(i, _)| i) {
            let why = format!(
                "must only contain printable UTF-8 characters; non-printable character found at index {at}"
            );
            invalid(errors, &path, text, why);
        }
    }
    let status = !version.at(&["subresources", "status"]).is_null();
    parts(version, versions, false, path, status, errors);
}

/// Checks those parts of a version that all share, or those that they do not.
fn parts(version: &Value, versions: &[Value], shares: bool, path: &str, status: bool, errors: &mut Errors) {
    for (field, name) in SHARED {
        let part = version.get(field);
        if part.is_null() || shared(versions, field).is_some() != shares {
            continue;
        }
        let path = format!("{path}.{}", if shares { name } else { field });
        match field {
            "schema" => schema::validate(
                part.get("openAPIV3Schema"),
                status,
                &format!("{path}.openAPIV3Schema"),
                errors,
            ),
            "subresources" => scale(part.get("scale"), &path, errors),
            "additionalPrinterColumns" => columns(part, &path, errors),
            _ => selectable(part, version.at(&["schema", "openAPIV3Schema"]), &path, errors),
        }
    }
}

fn simple_path(text: &str, path: &str, errors: &mut Errors) -> bool {
    if !text.starts_with('.') {
        invalid(errors, path, text, "must be a simple json path starting with .");
        return false;
    }
    true
}

fn scale(scale: &Value, path: &str, errors: &mut Errors) {
    if scale.is_null() {
        return;
    }
    let below = |text: &str, parents: &[&str]| parents.iter().any(|p| text.starts_with(p));
    for (field, parent) in [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")] {
        let (text, path) = (scale.str_at(&[field]), format!("{path}.scale.{field}"));
        if text.is_empty() {
            required(errors, &path, "");
        } else if simple_path(text, &path, errors) && !below(text, &[&format!("{parent}.")]) {
            invalid(errors, &path, text, format!("should be a json path under {parent}"));
        }
    }
    let (text, path) = (scale.str_at(&["labelSelectorPath"]), format!("{path}.scale.labelSelectorPath"));
    if !text.is_empty() && simple_path(text, &path, errors) && !below(text, &[".spec.", ".status."]) {
        invalid(errors, &path, text, "should be a json path under either .spec or .status");
    }
}

fn columns(columns: &Value, path: &str, errors: &mut Errors) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    for (i, column) in columns.as_array().into_iter().flatten().enumerate() {
        let at = |field: &str| format!("{path}[{i}].{field}");
        let text = |field: &str| column.str_at(&[field]);
        if text("name").is_empty() {
            required(errors, &at("name"), "");
        }
        let kinds = format!("must be one of {}", TYPES.join(","));
        if text("type").is_empty() {
            required(errors, &at("type"), &kinds);
        } else if !TYPES.contains(&text("type")) {
            invalid(errors, &at("type"), text("type"), kinds);
        }
        if !text("format").is_empty() && !FORMATS.contains(&text("format")) {
            invalid(errors, &at("format"), text("format"), format!("must be one of {}", FORMATS.join(",")));
        }
        if text("jsonPath").is_empty() {
            required(errors, &at("JSONPath"), "");
        } else {
            simple_path(text("jsonPath"), &at("JSONPath"), errors);
        }
    }
}

fn selectable(fields: &Value, schema: &Value, path: &str, errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for (i, text) in fields.as_array().into_iter().flatten().map(|f| f.str_at(&["jsonPath"])).enumerate() {
        let path = format!("{path}[{i}].jsonPath");
        if text.is_empty() {
            required(errors, &path, "");
            continue;
        }
        let (shown, found) = match cel::rules::member_path(text, schema) {
            Ok(found) => found,
            Err(why) => {
                invalid(errors, &path, text, format!("is an invalid path: {why}"));
                continue;
            }
        };
        if shown.split(['.', '[']).next() == Some("metadata") {
            invalid(errors, &path, text, "must not point to fields in metadata");
        }
        if !matches!(found.str_at(&["type"]), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            invalid(errors, &path, text, why);
        }
        if seen.contains(&shown) {
            push(errors, &path, Problem::Duplicate(text.into()), "");
        } else {
            seen.push(shown);
        }
    }
    if seen.len() > MAX_SELECTABLE {
        let why = format!("must have at most {MAX_SELECTABLE} items");
        push(errors, path, Problem::TooMany(Value::from(seen.len() as i64)), why);
    }
}

fn conversion(conversion: &Value, errors: &mut Errors) {
    if conversion.is_null() {
        return;
    }
    const PATH: &str = "spec.conversion";
    let strategy = conversion.str_at(&["strategy"]);
    match strategy {
        "" => required(errors, "spec.conversion.strategy", ""),
        "None" | "Webhook" => {}
        other => not_supported(errors, "spec.conversion.strategy", other, &["None", "Webhook"]),
    }
    let config = conversion.at(&["webhook", "clientConfig"]);
    let reviews = conversion.array_at(&["webhook", "conversionReviewVersions"]);
    if strategy != "Webhook" {
        for (there, field) in
            [(!config.is_null(), "webhookClientConfig"), (!reviews.is_empty(), "conversionReviewVersions")]
        {
            if there {
                let why = "should not be set when strategy is not set to Webhook";
                forbidden(errors, &format!("{PATH}.{field}"), why);
            }
        }
        return;
    }
    let path = format!("{PATH}.webhookClientConfig");
    let (url, service) = (config.get("url"), config.get("service"));
    if config.is_null() {
        required(errors, &path, "required when strategy is set to Webhook");
    } else if url.is_null() == service.is_null() {
        required(errors, &path, "exactly one of url or service is required");
    } else if let Some(url) = url.as_str() {
        webhook_url(url, &format!("{path}.url"), errors);
    } else {
        for field in ["name", "namespace"] {
            if service.str_at(&[field]).is_empty() {
                required(errors, &format!("{path}.service.{field}"), &format!("service {field} is required"));
            }
        }
        let port = service.get("port").as_i64().unwrap_or(443);
        if !(1..=65535).contains(&port) {
            let why = "port is not valid: must be between 1 and 65535, inclusive";
            invalid(errors, &format!("{path}.service.port"), port, why);
        }
    }
    review_versions(reviews, &format!("{PATH}.conversionReviewVersions"), errors);
}

fn webhook_url(url: &str, path: &str, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let Ok(parsed) = url.parse::<http::Uri>() else {
        return required(errors, path, &format!("url must be a valid URL{FORM}"));
    };
    if parsed.scheme_str() != Some("https") {
        let why = format!("'https' is the only allowed URL scheme{FORM}");
        invalid(errors, path, parsed.scheme_str().unwrap_or_default(), why);
    }
    if parsed.host().is_none_or(str::is_empty) {
        invalid(errors, path, "", format!("host must be specified{FORM}"));
    }
    if parsed.authority().is_some_and(|a| a.as_str().contains('@')) {
        invalid(errors, path, url, "user information is not permitted in the URL");
    }
    if parsed.query().is_some() {
        invalid(
            errors,
            path,
            parsed.query().unwrap_or_default(),
            "query parameters are not permitted in the URL",
        );
    }
}

fn review_versions(versions: &[Value], path: &str, errors: &mut Errors) {
    if versions.is_empty() {
        return required(errors, path, "");
    }
    let names: Vec<&str> = versions.iter().filter_map(Value::as_str).collect();
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            invalid(errors, &format!("{path}[{i}]"), *name, "duplicate version");
            continue;
        }
        for why in dns1035_label(name) {
            invalid(errors, &format!("{path}[{i}]"), *name, why);
        }
    }
    if !names.iter().any(|n| matches!(*n, "v1" | "v1beta1")) {
        invalid(errors, path, Value::Array(versions.to_vec()), "must include at least one of v1, v1beta1");
    }
}

/// Formats that nobody checks.
pub(super) fn warnings(definition: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for version in definition.array_at(&["spec", "versions"]) {
        schema::unknown_formats(version.at(&["schema", "openAPIV3Schema"]), &mut out);
    }
    out
}
