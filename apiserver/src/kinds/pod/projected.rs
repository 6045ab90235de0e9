//! Projected volumes: files from several sources in one directory.

use std::collections::HashSet;

use api::Value;

use super::environment::{validate_field, validate_resource};
use super::mounts::not_reserved;
use super::volumes::validate_key;
use crate::kinds::Errors;
use crate::kinds::certificates::validate_signer;
use crate::kinds::check::At;
use crate::kinds::volume_sources::validate_mode;

const FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

/// Checks a file that holds a field of the pod.
pub(super) fn validate_field_file(file: &At<'_>, errors: &mut Errors) {
    file.get("path").not_empty(errors);
    not_reserved(&file.get("path"), errors);
    let (field, resource) = (file.get("fieldRef"), file.get("resourceFieldRef"));
    if field.is_set() {
        validate_field(&field, &FIELDS, errors);
        if resource.is_set() {
            let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
            file.invalid_as(errors, "resource", why);
        }
    } else if resource.is_set() {
        validate_resource(&resource, true, errors);
    } else {
        file.required(errors, "one of fieldRef and resourceFieldRef is required");
    }
    validate_mode(&file.get("mode"), errors);
}

/// Checks a projected volume.
pub(super) fn validate(volume: &At<'_>, errors: &mut Errors) {
    validate_mode(&volume.get("defaultMode"), errors);
    let mut paths: HashSet<String> = HashSet::new();
    for source in volume.get("sources").items() {
        let mut kinds = 0;
        for kind in [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ] {
            let at = source.get(kind);
            if at.is_set() {
                kinds += 1;
                validate_source(kind, &at, volume, &mut paths, errors);
            }
        }
        if kinds > 1 {
            source.forbidden(errors, "may not specify more than 1 volume type per source");
        }
    }
}

fn validate_source(
    kind: &str,
    source: &At<'_>,
    volume: &At<'_>,
    paths: &mut HashSet<String>,
    errors: &mut Errors,
) {
    let mut once = |path: &str, shown: &str, errors: &mut Errors| {
        if !paths.insert(path.to_owned()) {
            volume.invalid_as(errors, shown, "conflicting duplicate paths");
        }
    };
    match kind {
        "secret" | "configMap" => {
            let name = source.get("name");
            name.not_empty(errors);
            for item in source.get("items").items() {
                validate_key(&item, errors);
                let path = item.get("path").text();
                if !path.is_empty() {
                    once(path, name.text(), errors);
                }
            }
        }
        "downwardAPI" => {
            for item in source.get("items").items() {
                validate_field_file(&source.with(item.value), errors);
                let path = item.get("path").text();
                if !path.is_empty() {
                    once(path, path, errors);
                }
            }
        }
        "serviceAccountToken" => validate_token(source, volume, errors),
        "clusterTrustBundle" => {
            validate_bundle(source, errors);
            let path = source.get("path").text();
            once(path, path, errors);
        }
        _ => {
            validate_certificate(source, errors);
            let mut any = false;
            for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
                let path = source.get(field);
                if !path.text().is_empty() {
                    any = true;
                    not_reserved(&path, errors);
                    once(path.text(), path.text(), errors);
                }
            }
            if !any {
                let why = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
                source.required(errors, why);
            }
        }
    }
}

fn validate_token(source: &At<'_>, volume: &At<'_>, errors: &mut Errors) {
    let seconds = source.get("expirationSeconds");
    if seconds.int() < SHORTEST {
        seconds.invalid(errors, "may not specify a duration less than 10 minutes");
    }
    if seconds.int() > LONGEST {
        seconds.invalid(errors, "may not specify a duration larger than 2^32 seconds");
    }
    let shown = volume.get("path");
    let path = shown.with(source.value.get("path"));
    if path.not_empty(errors) {
        not_reserved(&path, errors);
    }
}

fn validate_bundle(source: &At<'_>, errors: &mut Errors) {
    let (name, signer, selector) =
        (source.get("name"), source.get("signerName"), source.get("labelSelector"));
    match (name.is_set(), signer.is_set()) {
        (true, true) => {
            let why = "only one of name and signerName may be used";
            source.invalid_struct(errors, "core/v1.ClusterTrustBundleProjection", why);
        }
        (true, false) => {
            if name.text().is_empty() {
                name.required(errors, "must be a valid object name");
            }
            let rest = name.text().rsplit_once(':').map_or(name.text(), |(_, rest)| rest);
            for why in api::names::dns_subdomain(rest) {
                name.invalid(errors, format!("not a valid clustertrustbundlename: {why}"));
            }
            if selector.is_set() {
                selector.invalid(errors, "labelSelector must be unset if name is specified");
            }
        }
        (false, true) => {
            if signer.text().is_empty() {
                signer.required(errors, "must be a valid signer name");
            }
            validate_signer(&signer.path, signer.text(), errors);
            selector.label_selector(errors);
        }
        (false, false) => source.required(errors, "either name or signerName must be specified"),
    }
    source.get("path").not_empty(errors);
    not_reserved(&source.get("path"), errors);
}

const KEYS: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
const DAY: i64 = 24 * 3600;

fn validate_certificate(source: &At<'_>, errors: &mut Errors) {
    let signer = source.get("signerName");
    validate_signer(&signer.path, signer.text(), errors);
    let annotations = source.get("userAnnotations");
    for (key, _) in annotations.entries() {
        let lower = Value::from(key.to_ascii_lowercase());
        let at = annotations.with(&lower);
        let found = errors.len();
        at.qualified(errors);
        if errors.len() == found && !key.contains('/') {
            at.invalid(errors, "must be a domain-prefixed key (such as \"acme.io/foo\")");
        }
    }
    let kind = source.get("keyType");
    if !KEYS.contains(&kind.text()) {
        kind.unsupported(errors, &KEYS);
    }
    let seconds = source.get("maxExpirationSeconds");
    if seconds.is_set() {
        if seconds.int() < 3600 {
            seconds.invalid(errors, "if provided, maxExpirationSeconds must be >= 3600");
        }
        let own = signer.text().split('/').next().unwrap_or_default();
        let kubernetes = own == "kubernetes.io" || own.ends_with(".kubernetes.io");
        let max = if kubernetes { DAY } else { 91 * DAY };
        if seconds.int() > max {
            seconds.invalid(errors, format!("if provided, maxExpirationSeconds must be <= {max}"));
        }
    }
}
