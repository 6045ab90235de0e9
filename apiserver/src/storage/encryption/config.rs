//! The file that says what is encrypted and how: `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use api::Value;
use api::field::{FieldError, Path};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use daemon::GoDuration;
use serde::Deserialize;

use super::keys::{Gcm, Key};
use super::kms::Kms;
use super::plugin::Plugin;
use super::{Chain, Cipher, Provider, Providers};

const AES_SIZES: &[usize] = &[16, 24, 32];
const BOX_SIZES: &[usize] = &[32];

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    resources: Vec<ResourcesFile>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResourcesFile {
    resources: Vec<String>,
    providers: Vec<ProviderFile>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ProviderFile {
    aesgcm: Option<KeysFile>,
    aescbc: Option<KeysFile>,
    secretbox: Option<KeysFile>,
    identity: Option<Identity>,
    kms: Option<KmsFile>,
}

#[derive(Deserialize)]
struct Identity {}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KeysFile {
    keys: Vec<KeyFile>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KeyFile {
    name: String,
    secret: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct KmsFile {
    api_version: String,
    name: String,
    #[serde(rename = "cachesize")]
    cache_size: Option<i64>,
    endpoint: String,
    timeout: Option<GoDuration>,
}

/// Reads a configuration; `reloads` says whether it is read again when it changes.
///
/// # Errors
/// It is no valid configuration, or asks for what is not supported.
pub(crate) fn parse(text: &str, reloads: bool) -> Result<Providers> {
    if text.is_empty() {
        bail!("encryption provider configuration file is empty");
    }
    let versions = ["apiserver.config.k8s.io/v1", "v1"];
    let file: File = crate::config_file::parse_strictly(text, &versions, "EncryptionConfiguration")?;
    let mut errors = Vec::new();
    check(&file, reloads, &mut errors);
    match errors.as_slice() {
        [] => build(text, file),
        [one] => bail!("{one}"),
        many => bail!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}

fn build(text: &str, file: File) -> Result<Providers> {
    let mut chains: HashMap<(String, String), Vec<Arc<Chain>>> = HashMap::new();
    let mut kms = Vec::new();
    for entry in file.resources {
        let mut chain = Chain::default();
        for provider in entry.providers {
            chain.0.push(provider_of(provider, &mut kms)?);
        }
        let chain = Arc::new(chain);
        for name in entry.resources {
            let resource = parsed(&name);
            for (wide, shown) in [
                ((resource.0.clone(), "*".to_owned()), format!("*.{}", resource.0)),
                (("*".to_owned(), "*".to_owned()), "*.*".to_owned()),
            ] {
                if chains.contains_key(&wide) {
                    bail!("resource {name:?} is masked by earlier rule {shown:?}");
                }
            }
            chains.entry(resource).or_default().push(chain.clone());
        }
    }
    // Several entries of a resource count as one, in their order.
    let merged = |mut list: Vec<Arc<Chain>>| match list.len() {
        1 => list.pop().unwrap_or_default(),
        _ => Arc::new(Chain(list.iter().flat_map(|c| c.0.iter().map(Provider::share)).collect())),
    };
    let chains = chains.into_iter().map(|(resource, list)| (resource, merged(list))).collect();
    Ok(Providers { text: text.to_owned(), chains, kms })
}

impl Provider {
    fn share(&self) -> Self {
        Self { prefix: self.prefix.clone(), cipher: self.cipher.clone() }
    }
}

fn provider_of(file: ProviderFile, kms: &mut Vec<Arc<Kms>>) -> Result<Provider> {
    let keys = |provider: &str, name: &'static str, keys: KeysFile, make: fn(&[u8]) -> Option<Key>| {
        let keys = keys
            .keys
            .into_iter()
            .filter_map(|key| Some((format!("{}:", key.name), make(&STANDARD.decode(&key.secret).ok()?)?)));
        Ok(Provider {
            prefix: format!("k8s:enc:{provider}:v1:"),
            cipher: Cipher::Keys(name, Arc::new(keys.collect())),
        })
    };
    match file {
        ProviderFile { aesgcm: Some(file), .. } => keys("aesgcm", "AES", file, |k| Gcm::new(k).map(Key::Gcm)),
        ProviderFile { aescbc: Some(file), .. } => {
            keys("aescbc", "AES", file, |k| Some(Key::Cbc(k.to_vec())))
        }
        ProviderFile { secretbox: Some(file), .. } => keys("secretbox", "Secretbox", file, Key::secretbox),
        ProviderFile { kms: Some(file), .. } => {
            if file.api_version != "v2" {
                bail!(
                    "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead; KMSv1 is not supported"
                );
            }
            let timeout = file.timeout.map_or(Duration::from_secs(3), |d| d.0);
            let path = file.endpoint.trim_start_matches("unix://");
            let provider = Arc::new(Kms::new(&file.name, Plugin::new(path, timeout)));
            kms.push(provider.clone());
            Ok(Provider { prefix: format!("k8s:enc:kms:v2:{}:", file.name), cipher: Cipher::Kms(provider) })
        }
        _ => Ok(Provider { prefix: String::new(), cipher: Cipher::Identity }),
    }
}

/// Group and resource of `resource.group`.
fn parsed(name: &str) -> (String, String) {
    let (resource, group) = name.split_once('.').unwrap_or((name, ""));
    (group.to_owned(), resource.to_owned())
}

fn check(file: &File, reloads: bool, errors: &mut Vec<FieldError>) {
    let root = Path::new("resources");
    if file.resources.is_empty() {
        errors.push(FieldError::required(&root, "at least one resources is required"));
    }
    let mut names = HashSet::new();
    for (i, entry) in file.resources.iter().enumerate() {
        let at = root.index(i);
        let (resources, providers) = (at.child("resources"), at.child("providers"));
        if entry.resources.is_empty() {
            errors.push(FieldError::required(&resources, format!("at least one {resources} is required")));
        }
        check_overlap(&entry.resources, &resources, errors);
        for (j, name) in entry.resources.iter().enumerate() {
            if let Some(why) = wrong_resource(name) {
                errors.push(FieldError::invalid(&resources.index(j), name.as_str(), why));
            }
        }
        if entry.providers.is_empty() {
            errors.push(FieldError::required(&providers, format!("at least one {providers} is required")));
        }
        for (j, provider) in entry.providers.iter().enumerate() {
            check_provider(provider, &providers.index(j), &mut names, reloads, errors);
        }
    }
}

fn check_overlap(resources: &[String], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let parsed: Vec<_> = resources.iter().map(|r| parsed(r)).collect();
    let (mut duplicate, mut overlap) = (false, false);
    for (i, one) in parsed.iter().enumerate() {
        for (_, other) in parsed.iter().enumerate().filter(|(j, _)| *j != i) {
            if one == other && !duplicate {
                duplicate = true;
                continue;
            }
            let everything = one.0 == "*" && one.1 == "*";
            overlap |= everything || (one.0 == other.0 && (one.1 == "*" || other.1 == "*"));
        }
    }
    if duplicate {
        let why = "the same resource cannot be specified multiple times";
        errors.push(FieldError::invalid(path, resources.to_vec(), why));
    }
    if overlap {
        let why = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked";
        errors.push(FieldError::invalid(path, resources.to_vec(), why));
    }
}

fn wrong_resource(name: &str) -> Option<&'static str> {
    let (group, resource) = parsed(name);
    Some(match (group.as_str(), resource.as_str()) {
        _ if name.to_lowercase() != name => "resource name should not contain capital letters",
        _ if name == "*" => {
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
        }
        ("", "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations") => {
            "resources which do not have REST API/s cannot be encrypted"
        }
        ("events.k8s.io", _) => {
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"
        }
        ("extensions", _) => "'extensions' group has been removed and cannot be used for encryption",
        ("*", resource) if resource != "*" => "encrypting the same resource across groups is not supported",
        _ => return None,
    })
}

fn check_provider(
    provider: &ProviderFile,
    path: &Path<'_>,
    names: &mut HashSet<String>,
    reloads: bool,
    errors: &mut Vec<FieldError>,
) {
    let found = [
        provider.kms.is_some(),
        provider.aesgcm.is_some(),
        provider.aescbc.is_some(),
        provider.secretbox.is_some(),
        provider.identity.is_some(),
    ];
    let why = match found.iter().filter(|f| **f).count() {
        0 => {
            "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"
        }
        1 => "",
        _ => {
            "more than one provider specified in a single element, should split into different list elements"
        }
    };
    if !why.is_empty() {
        errors.push(FieldError::invalid(path, Value::object(), why));
    }
    if let Some(kms) = &provider.kms {
        check_kms(kms, &path.child("kms"), names, reloads, errors);
        names.insert(kms.name.clone());
    } else if let Some(keys) = &provider.aesgcm {
        check_keys(keys, &path.child("aesgcm").child("keys"), AES_SIZES, errors);
    } else if let Some(keys) = &provider.aescbc {
        check_keys(keys, &path.child("aescbc").child("keys"), AES_SIZES, errors);
    } else if let Some(keys) = &provider.secretbox {
        check_keys(keys, &path.child("secretbox").child("keys"), BOX_SIZES, errors);
    }
}

fn check_keys(file: &KeysFile, path: &Path<'_>, sizes: &[usize], errors: &mut Vec<FieldError>) {
    if file.keys.is_empty() {
        errors.push(FieldError::required(path, "at least one keys is required"));
    }
    for (i, key) in file.keys.iter().enumerate() {
        let path = path.index(i);
        if key.name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), "name is a mandatory field for a key"));
        }
        let path = path.child("secret");
        if key.secret.is_empty() {
            errors.push(FieldError::required(&path, "secret is a mandatory field for a key"));
            continue;
        }
        match STANDARD.decode(&key.secret) {
            Err(_) => errors.push(FieldError::invalid(&path, "REDACTED", "secrets must be base64 encoded")),
            Ok(secret) if sizes.contains(&secret.len()) => {}
            Ok(secret) => {
                let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
                let (got, sizes) = (secret.len(), sizes.join(" "));
                let why =
                    format!("secret is not of the expected length, got {got}, expected one of [{sizes}]");
                errors.push(FieldError::invalid(&path, "REDACTED", why));
            }
        }
    }
}

fn check_kms(
    kms: &KmsFile,
    path: &Path<'_>,
    names: &HashSet<String>,
    reloads: bool,
    errors: &mut Vec<FieldError>,
) {
    let (name, first) = (path.child("name"), matches!(kms.api_version.as_str(), "" | "v1"));
    if kms.name.is_empty() {
        errors.push(FieldError::required(&name, "name is a mandatory field for a provider"));
    }
    if !first && kms.name.contains(':') {
        let why = format!("invalid KMS provider name {}, must not contain ':'", kms.name);
        errors.push(FieldError::invalid(&name, kms.name.as_str(), why));
    }
    if (reloads || !first) && names.contains(&kms.name) {
        let why = format!("duplicate KMS provider name {}, names must be unique", kms.name);
        errors.push(FieldError::invalid(&name, kms.name.as_str(), why));
    }
    if kms.timeout.is_some_and(GoDuration::is_zero) {
        errors.push(FieldError::invalid(&path.child("timeout"), "0s", "timeout should be a positive value"));
    }
    let endpoint = path.child("endpoint");
    if kms.endpoint.is_empty() {
        errors.push(FieldError::invalid(&endpoint, "", "endpoint is a mandatory field for a kms"));
    } else if !kms.endpoint.starts_with("unix:///") {
        let scheme = kms.endpoint.split_once(':').map_or("", |(scheme, _)| scheme);
        let why = format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported");
        errors.push(FieldError::invalid(&endpoint, kms.endpoint.as_str(), why));
    }
    if let Some(size) = kms.cache_size.filter(|_| !first) {
        errors.push(FieldError::invalid(&path.child("cachesize"), size, "cachesize is not supported in v2"));
    }
    if !first && kms.api_version != "v2" {
        let why = "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported";
        errors.push(FieldError::invalid(&path.child("apiVersion"), kms.api_version.as_str(), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(resources: &str, want: &str) {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: {resources}"
        );
        let got = parse(&text, false).err().map_or_else(String::new, |e| e.to_string());
        assert_eq!(got, want, "{resources}");
    }

    #[tokio::test]
    async fn configurations_are_checked_as_upstream_checks_them() {
        let key = "{aescbc: {keys: [{name: k, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}}";
        let of = |resources: &str| format!("[{{resources: {resources}, providers: [{key}]}}]");
        check(&of("[secrets]"), "");
        check(&of("['*.*']"), "");
        check(&of("[secrets, '*.apps']"), "");
        check("[]", "resources: Required value: at least one resources is required");
        check(
            &of("[secrets, secrets]"),
            "resources[0].resources: Invalid value: [\"secrets\",\"secrets\"]: the same resource cannot be specified multiple times",
        );
        check(
            &of("[deployments.apps, '*.apps']"),
            "resources[0].resources: Invalid value: [\"deployments.apps\",\"*.apps\"]: using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked",
        );
        check(
            &of("['pods.*']"),
            "resources[0].resources[0]: Invalid value: \"pods.*\": encrypting the same resource across groups is not supported",
        );
        let with = |provider: &str| format!("[{{resources: [secrets], providers: [{provider}]}}]");
        check(&with("{identity: {}}"), "");
        check(
            &with("{}"),
            "resources[0].providers[0]: Invalid value: {}: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity",
        );
        check(
            &with("{secretbox: {keys: [{name: k, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}}"),
            "resources[0].providers[0].secretbox.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 16, expected one of [32]",
        );
        check(
            &with("{kms: {apiVersion: v2, name: k, endpoint: 'http://a'}}"),
            "resources[0].providers[0].kms.endpoint: Invalid value: \"http://a\": unsupported scheme \"http\" for KMS provider, only unix is supported",
        );
        check(&with("{kms: {apiVersion: v2, name: k, endpoint: 'unix:///no/such'}}"), "");
        check(
            &with("{kms: {name: k, endpoint: 'unix:///no/such'}}"),
            "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead; KMSv1 is not supported",
        );
        let twice = format!(
            "[{{resources: ['*.*'], providers: [{key}]}}, {{resources: [secrets], providers: [{key}]}}]"
        );
        check(&twice, "resource \"secrets\" is masked by earlier rule \"*.*\"");
    }
}
