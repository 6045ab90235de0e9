//! Configuration files: YAML or JSON documents with an `apiVersion` and a `kind`.

use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct TypeMeta {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

/// Reads the file as `T` after checking that it declares one of `api_versions` and `kind`. Whether unknown fields are errors is
/// `T`'s own decision (`#[serde(deny_unknown_fields)]`).
pub fn read<T: DeserializeOwned>(path: &Path, api_versions: &[&str], kind: &str) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, api_versions, kind).with_context(|| format!("in {}", path.display()))
}

/// Reads a document already in memory; see [`read`].
pub fn parse<T: DeserializeOwned>(text: &str, api_versions: &[&str], kind: &str) -> anyhow::Result<T> {
    let meta: TypeMeta = serde_saphyr::from_str(text).context("not a YAML object")?;
    if meta.kind != kind || !api_versions.contains(&meta.api_version.as_str()) {
        bail!(
            "no kind {:?} is registered for version {:?}: expected {kind} of {}",
            meta.kind,
            meta.api_version,
            api_versions.join(" or ")
        );
    }
    serde_saphyr::from_str(text).with_context(|| format!("not a valid {kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Debug)]
    struct C {
        n: u32,
    }

    #[test]
    fn kind_and_version_are_checked() {
        let ok = "apiVersion: x/v1\nkind: C\nn: 3\n";
        assert_eq!(parse::<C>(ok, &["x/v1"], "C").unwrap().n, 3);
        assert!(parse::<C>(ok, &["x/v2"], "C").is_err());
        assert!(parse::<C>("n: 3", &["x/v1"], "C").is_err());
        assert!(parse::<C>("apiVersion: x/v1\nkind: C\nn: many\n", &["x/v1"], "C").is_err());
    }
}
