//! CredentialProviderConfig, `kubelet.config.k8s.io/v1`: which programs know credentials of which registries.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use api::field::{FieldError, Path as Field};
use daemon::GoDuration;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::images::keyring::hex;

const KIND: &str = "CredentialProviderConfig";
const VERSIONS: [&str; 3] =
    ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"];
/// The versions in which providers are talked to.
const PROTOCOLS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
];
const CACHE_TYPES: [&str; 2] = ["ServiceAccount", "Token"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    providers: Vec<Provider>,
}

/// One program.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Provider {
    pub(super) name: String,
    pub(super) match_images: Vec<String>,
    pub(super) default_cache_duration: Option<GoDuration>,
    pub(super) api_version: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<Variable>,
    pub(super) token_attributes: Option<TokenAttributes>,
}

/// A variable of the program's environment.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
}

/// Asks for a token of the pod's service account.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct TokenAttributes {
    pub(super) service_account_token_audience: String,
    pub(super) cache_type: String,
    pub(super) require_service_account: Option<bool>,
    pub(super) required_service_account_annotation_keys: Vec<String>,
    pub(super) optional_service_account_annotation_keys: Vec<String>,
}

/// Reads the file, or all of a folder in the order of their names. Returns the providers and what stands for the
/// configuration in metrics.
///
/// # Errors
/// What cannot be read, or is not valid.
pub(super) fn read(path: &Path) -> anyhow::Result<(Vec<Provider>, String)> {
    let files = files(path).with_context(|| format!("unable to access path {:?}", path.display()))?;
    if files.is_empty() {
        bail!("no configuration files found in directory {:?}", path.display());
    }
    let (mut providers, mut hash) = (Vec::new(), Sha256::new());
    for file in files {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("unable to read file {:?}", file.display()))?;
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(&text);
        let decoded: File = daemon::config::parse(&text, &VERSIONS, KIND)
            .with_context(|| format!("error decoding config {:?}", file.display()))?;
        providers.extend(decoded.providers);
    }
    let errors: Vec<String> = validate(&providers).iter().map(ToString::to_string).collect();
    match errors.as_slice() {
        [] => Ok((providers, format!("sha256:{}", hex(&hash.finalize())))),
        [one] => bail!("failed to validate credential provider config: {one}"),
        many => bail!("failed to validate credential provider config: [{}]", many.join(", ")),
    }
}

fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let known =
            path.extension().is_some_and(|ext| ["json", "yaml", "yml"].iter().any(|name| ext == *name));
        if known && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn validate(providers: &[Provider]) -> Vec<FieldError> {
    let root = Field::new("providers");
    let mut errors = Vec::new();
    if providers.is_empty() {
        errors.push(FieldError::required(&root, "at least 1 item in plugins is required"));
    }
    let mut names = HashSet::new();
    for provider in providers {
        let name = root.child("name");
        let says = [
            (provider.name.contains('/'), "provider name cannot contain '/'"),
            (provider.name.contains(' '), "provider name cannot contain spaces"),
            (provider.name == ".", "provider name cannot be '.'"),
            (provider.name == "..", "provider name cannot be '..'"),
        ];
        errors.extend(
            says.into_iter()
                .filter(|(wrong, _)| *wrong)
                .map(|(_, why)| FieldError::invalid(&name, provider.name.as_str(), why)),
        );
        if !names.insert(&provider.name) {
            errors.push(FieldError::duplicate(&name, provider.name.as_str()));
        }
        validate_provider(provider, &root, &mut errors);
    }
    errors
}

fn validate_provider(provider: &Provider, root: &Field<'_>, errors: &mut Vec<FieldError>) {
    let version = root.child("apiVersion");
    match provider.api_version.as_str() {
        "" => errors.push(FieldError::required(&version, "")),
        known if PROTOCOLS.contains(&known) => {}
        other => errors.push(FieldError::not_supported(&version, other, &PROTOCOLS)),
    }
    if provider.match_images.is_empty() {
        let why = "at least 1 item in matchImages is required";
        errors.push(FieldError::required(&root.child("matchImages"), why));
    }
    if provider.default_cache_duration.is_none() {
        errors.push(FieldError::required(&root.child("defaultCacheDuration"), ""));
    }
    if let Some(attributes) = &provider.token_attributes {
        let path = root.child("tokenAttributes");
        validate_attributes(attributes, &path, errors);
        if provider.api_version != PROTOCOLS[0] {
            let why = format!("tokenAttributes is only supported for {} API version", PROTOCOLS[0]);
            errors.push(FieldError::forbidden(&path, why));
        }
    }
}

fn validate_attributes(attributes: &TokenAttributes, path: &Field<'_>, errors: &mut Vec<FieldError>) {
    if attributes.service_account_token_audience.is_empty() {
        errors.push(FieldError::required(&path.child("serviceAccountTokenAudience"), ""));
    }
    let (required, optional) = (
        &attributes.required_service_account_annotation_keys,
        &attributes.optional_service_account_annotation_keys,
    );
    let required_path = path.child("requiredServiceAccountAnnotationKeys");
    match attributes.require_service_account {
        None => errors.push(FieldError::required(&path.child("requireServiceAccount"), "")),
        Some(false) if !required.is_empty() => {
            let why =
                "requireServiceAccount cannot be false when requiredServiceAccountAnnotationKeys is set";
            errors.push(FieldError::forbidden(&required_path, why));
        }
        Some(_) => {}
    }
    for (path, keys) in
        [(required_path, required), (path.child("optionalServiceAccountAnnotationKeys"), optional)]
    {
        let mut seen = HashSet::new();
        for key in keys {
            let wrong = api::names::qualified_name(&key.to_lowercase());
            errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&path, key.as_str(), why)));
            if !seen.insert(key) {
                errors.push(FieldError::duplicate(&path, key.as_str()));
            }
        }
    }
    let both: Vec<api::Value> =
        required.iter().filter(|key| optional.contains(key)).map(|key| key.as_str().into()).collect();
    if !both.is_empty() {
        let why = "annotation keys cannot be both required and optional";
        errors.push(FieldError::invalid(path, api::Value::Array(both), why));
    }
    let cache = path.child("cacheType");
    match attributes.cache_type.as_str() {
        "" => {
            let why = "cacheType is required to be set when tokenAttributes is specified. Supported values are: \
                       ServiceAccount, Token";
            errors.push(FieldError::required(&cache, why));
        }
        known if CACHE_TYPES.contains(&known) => {}
        other => errors.push(FieldError::not_supported(&cache, other, &CACHE_TYPES)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(providers: &str) -> anyhow::Result<Vec<Provider>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, format!("apiVersion: {}\nkind: {KIND}\nproviders: {providers}", VERSIONS[0]))?;
        read(&path).map(|(providers, _)| providers)
    }

    #[test]
    fn a_configuration_is_read_or_refused() {
        let fine = r#"name: p, matchImages: ["*.r.io"], defaultCacheDuration: 1h, apiVersion: credentialprovider.kubelet.k8s.io/v1"#;
        let found = parsed(&format!("[{{{fine}, args: [get], env: [{{name: A, value: b}}]}}]")).unwrap();
        assert_eq!((found[0].name.as_str(), found[0].args.len(), found[0].env.len()), ("p", 1, 1));
        let token = "tokenAttributes: {serviceAccountTokenAudience: a, cacheType: Token, requireServiceAccount: true}";
        assert!(parsed(&format!("[{{{fine}, {token}}}]")).is_ok());
        for (providers, why) in [
            ("[]".to_owned(), "providers: Required value: at least 1 item in plugins is required"),
            (format!("[{{{fine}, colour: red}}]"), "unknown field"),
            (format!("[{{{fine}}}, {{{fine}}}]"), "providers.name: Duplicate value: \"p\""),
            (format!("[{{{}}}]", fine.replace("name: p", "name: a/b")), "provider name cannot contain '/'"),
            ("[{name: p}]".to_owned(), "providers.matchImages: Required value"),
            (format!("[{{{}}}]", fine.replace("/v1", "/v9")), "providers.apiVersion: Unsupported value"),
            (
                format!("[{{{fine}, tokenAttributes: {{serviceAccountTokenAudience: a}}}}]"),
                "providers.tokenAttributes.requireServiceAccount: Required value",
            ),
        ] {
            let error = format!("{:#}", parsed(&providers).unwrap_err());
            assert!(error.contains(why), "{providers}: {error}");
        }
    }

    #[test]
    fn files_of_a_folder_are_read_together() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, provider: &str| {
            let text = format!(
                "apiVersion: {}\nkind: {KIND}\nproviders:\n- name: {provider}\n  matchImages: [r.io]\n  \
                 defaultCacheDuration: 0s\n  apiVersion: {}\n",
                VERSIONS[0], PROTOCOLS[0]
            );
            std::fs::write(dir.path().join(name), text).unwrap();
        };
        assert!(read(dir.path()).is_err());
        write("b.yml", "second");
        write("a.json", "first");
        write("c.txt", "none");
        let (providers, hash) = read(dir.path()).unwrap();
        assert_eq!(providers.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["first", "second"]);
        assert!(hash.starts_with("sha256:"));
    }
}
