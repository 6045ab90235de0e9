//! Configuration files: YAML or JSON that says what it is.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

/// Larger files are refused.
const LIMIT: u64 = 8 << 20;

/// Reads the text of a file that is not too large.
///
/// # Errors
/// It cannot be read, is larger than 8 MiB, or no text.
pub fn text(path: &Path) -> Result<String> {
    let shown = path.display();
    let size = std::fs::metadata(path).with_context(|| format!("failed to read file path {shown}"))?.len();
    if size > LIMIT {
        bail!("{shown} is larger than {LIMIT} bytes");
    }
    std::fs::read_to_string(path).with_context(|| format!("failed to read file path {shown}"))
}

/// Reads a file of one of `api_versions` and of `kind`; with the paths of fields that it should not have.
///
/// # Errors
/// It cannot be read, or is something else.
pub fn read<T: DeserializeOwned>(path: &Path, api_versions: &[&str], kind: &str) -> Result<(T, Vec<String>)> {
    parse(&text(path)?, api_versions, kind).with_context(|| format!("in {}", path.display()))
}

/// Reads a file that may not have fields it should not have; see [`read`].
///
/// # Errors
/// As of [`read`]; or it has such fields.
pub fn read_strictly<T: DeserializeOwned>(path: &Path, api_versions: &[&str], kind: &str) -> Result<T> {
    let (value, unknown) = read(path, api_versions, kind)?;
    match unknown.as_slice() {
        [] => Ok(value),
        fields => {
            let fields: Vec<String> = fields.iter().map(|f| format!("unknown field \"{f}\"")).collect();
            bail!("in {}: strict decoding error: {}", path.display(), fields.join(", "))
        }
    }
}

/// Reads a document; see [`read`].
///
/// # Errors
/// It is something else.
pub fn parse<T: DeserializeOwned>(text: &str, api_versions: &[&str], kind: &str) -> Result<(T, Vec<String>)> {
    let mut document: serde_json::Value = serde_saphyr::from_str(text).context("failed decoding")?;
    let Some(map) = document.as_object_mut() else { bail!("failed decoding: not an object") };
    let mut member =
        |name: &str| map.remove(name).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    let (version, found) = (member("apiVersion"), member("kind"));
    if found != kind || !api_versions.contains(&version.as_str()) {
        bail!(
            "no kind {found:?} is registered for version {version:?}: expected {kind} of {}",
            api_versions.join(" or ")
        );
    }
    let mut unknown = Vec::new();
    let value = serde_ignored::deserialize(document, |path| unknown.push(path.to_string()))
        .with_context(|| format!("not a valid {kind}"))?;
    Ok((value, unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct C {
        n: u32,
    }

    #[test]
    fn files_say_what_they_are() {
        let check = |text: &str| parse::<C>(text, &["x/v1"], "C").map(|(c, unknown)| (c.n, unknown));
        assert_eq!(check("apiVersion: x/v1\nkind: C\nn: 3\n").unwrap(), (3, Vec::new()));
        assert_eq!(check("{apiVersion: x/v1, kind: C, n: 3, m: {}}").unwrap(), (3, vec!["m".to_owned()]));
        for wrong in ["apiVersion: x/v2\nkind: C\nn: 3\n", "n: 3", "[]", "apiVersion: x/v1\nkind: C\nn: x\n"]
        {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
