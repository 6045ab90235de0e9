//! ConfigMaps and Secrets.

use api::field::{FieldError, Path};
use api::{Value, names};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::check::At;
use super::{Entry, Errors, Field, Strategy, default_if_empty, key_pair};

pub(super) const STRATEGIES: &[Entry] = &[("", "configmaps", &CONFIG_MAP), ("", "secrets", &SECRET)];

static CONFIG_MAP: Strategy = Strategy {
    validate: validate_config_map,
    validate_update: |new, old, errors| validate_sealed(new, old, &["data", "binaryData"], errors),
    changes_first: true,
    ..Strategy::NEUTRAL
};

const SIZE_MAX: usize = 1024 * 1024;

/// The number of bytes that a base64 text stands for.
fn decoded_len(text: &str) -> usize {
    (text.len() / 4 * 3).saturating_sub(text.bytes().rev().take_while(|b| *b == b'=').count())
}

fn validate_config_map(object: &Value, errors: &mut Errors) {
    let (data, binary) = (At::of(object, "data"), At::of(object, "binaryData"));
    let mut size = 0;
    for (key, value) in data.entries() {
        let at = value.with(&Value::Null);
        check_key(&at, key, errors);
        if !binary.value.get(key).is_null() {
            at.invalid_as(errors, key, "duplicate of key present in binaryData");
        }
        size += value.text().len();
    }
    for (key, value) in binary.entries() {
        check_key(&value, key, errors);
        size += decoded_len(value.text());
    }
    if size > SIZE_MAX {
        errors.push(FieldError::too_long(&Path::new("[]"), SIZE_MAX));
    }
}

fn check_key(at: &At<'_>, key: &str, errors: &mut Errors) {
    for why in names::config_key(key) {
        at.invalid_as(errors, key, why);
    }
}

/// An object that was marked immutable stays so, with its data.
fn validate_sealed(new: &Value, old: &Value, data: &[&str], errors: &mut Errors) {
    const WHY: &str = "field is immutable when `immutable` is set";
    if old.get("immutable").as_bool() != Some(true) {
        return;
    }
    if new.get("immutable").as_bool() != Some(true) {
        At::of(new, "immutable").forbidden(errors, WHY);
    }
    for field in data {
        let (is, was) = (new.get(field), old.get(field));
        if is != was && !(is.is_empty() && was.is_empty()) {
            At::of(new, field).forbidden(errors, WHY);
        }
    }
}

static SECRET: Strategy = Strategy {
    fields: &[Field::text("type", &["type"])],
    default: |secret| {
        merge_string_data(secret);
        default_if_empty(secret, "type", "Opaque");
    },
    prepare_create: merge_string_data,
    prepare_update: |new, old| {
        merge_string_data(new);
        // A secret whose type is left out keeps it.
        default_if_empty(new, "type", old.get("type"));
    },
    validate: validate_secret,
    validate_update: |new, old, errors| {
        At::of(new, "type").immutable(errors, old.get("type"));
        validate_sealed(new, old, &["data"], errors);
    },
    changes_first: true,
    warn: |secret| {
        let decoded = |key| STANDARD.decode(secret.str_at(&["data", key])).unwrap_or_default();
        let is_tls = secret.str_at(&["type"]) == "kubernetes.io/tls";
        let pair = || key_pair::check(&decoded("tls.crt"), &decoded("tls.key"));
        is_tls.then(|| pair().err()).flatten().into_iter().collect()
    },
    ..Strategy::NEUTRAL
};

/// `stringData` is a way to write `data`; it is never stored.
fn merge_string_data(secret: &mut Value) {
    let Some(Value::Object(strings)) = secret.make_object().remove("stringData") else { return };
    for (key, value) in strings {
        secret.set(&["data", &key], STANDARD.encode(value.as_str().unwrap_or_default()));
    }
}

const ACCOUNT: &str = "kubernetes.io/service-account.name";

fn validate_secret(object: &Value, errors: &mut Errors) {
    let data = At::of(object, "data");
    let mut size = 0;
    for (key, value) in data.entries() {
        check_key(&value, key, errors);
        size += decoded_len(value.text());
    }
    if size > SIZE_MAX {
        errors.push(FieldError::too_long(&data.path, SIZE_MAX));
    }
    let require = |key: &str, empty_counts: bool, errors: &mut Errors| {
        let value = data.value.get(key);
        let missing = value.is_null() || (empty_counts && value.is_empty());
        if missing {
            errors.push(FieldError::required(&data.path.key(key), ""));
        }
        !missing
    };
    match object.str_at(&["type"]) {
        "kubernetes.io/service-account-token" if object.annotation(ACCOUNT).is_none_or(str::is_empty) => {
            let path = Path::new("metadata.annotations");
            errors.push(FieldError::required(&path.key(ACCOUNT), ""));
        }
        "kubernetes.io/dockercfg" if require(".dockercfg", false, errors) => {
            check_json(&data, ".dockercfg", errors);
        }
        "kubernetes.io/dockerconfigjson" if require(".dockerconfigjson", false, errors) => {
            check_json(&data, ".dockerconfigjson", errors);
        }
        "kubernetes.io/basic-auth"
            if ["username", "password"].iter().all(|k| data.value.get(k).is_null()) =>
        {
            require("username", false, errors);
            require("password", false, errors);
        }
        "kubernetes.io/ssh-auth" => {
            require("ssh-privatekey", true, errors);
        }
        "kubernetes.io/tls" => {
            require("tls.crt", false, errors);
            require("tls.key", false, errors);
        }
        _ => {}
    }
}

/// Registry credentials are a JSON object.
fn check_json(data: &At<'_>, key: &str, errors: &mut Errors) {
    let bytes = STANDARD.decode(data.value.str_at(&[key])).unwrap_or_default();
    let why = match api::json::decode(&bytes) {
        Ok(decoded) if decoded.value.as_object().is_some() || decoded.value.is_null() => return,
        Ok(decoded) => format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            decoded.value.kind_name()
        ),
        Err(e) => crate::negotiate::go_syntax_error(&bytes, &e),
    };
    errors.push(FieldError::invalid(&data.path.key(key), "<secret contents redacted>", why));
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn check(secret: Value, want: &[&str]) {
        let mut errors = Vec::new();
        validate_secret(&secret, &mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
    }

    #[test]
    fn secrets_of_a_type_have_its_keys() {
        check(object!({"type": "Opaque"}), &[]);
        check(
            object!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            &["data[tls.key]: Required value"],
        );
        check(
            object!({"type": "kubernetes.io/dockercfg", "data": {".dockercfg": "eA=="}}),
            &[
                "data[.dockercfg]: Invalid value: \"<secret contents redacted>\": invalid character 'x' looking for beginning of value",
            ],
        );
    }

    #[test]
    fn lengths_are_those_of_the_bytes() {
        for (text, want) in [("", 0), ("eA==", 1), ("eHk=", 2), ("eHl6", 3)] {
            assert_eq!(decoded_len(text), want, "{text}");
        }
    }
}
