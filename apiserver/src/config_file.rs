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

/// Reads a file of one of `api_versions` and of `kind`; with what is wrong with it that may be overlooked: unknown fields,
/// and fields that stand twice.
///
/// # Errors
/// It cannot be read, or is something else.
pub fn read<T: DeserializeOwned>(path: &Path, api_versions: &[&str], kind: &str) -> Result<(T, Vec<String>)> {
    parse(&text(path)?, api_versions, kind).with_context(|| format!("in {}", path.display()))
}

/// Reads a document in which nothing is overlooked; see [`read`].
///
/// # Errors
/// It is something else, or something is wrong with it.
pub fn parse_strictly<T: DeserializeOwned>(text: &str, api_versions: &[&str], kind: &str) -> Result<T> {
    let (value, findings) = parse(text, api_versions, kind)?;
    match findings.as_slice() {
        [] => Ok(value),
        findings => bail!("strict decoding error: {}", findings.join(", ")),
    }
}

/// Reads a document; see [`read`].
///
/// # Errors
/// It is something else.
pub fn parse<T: DeserializeOwned>(text: &str, api_versions: &[&str], kind: &str) -> Result<(T, Vec<String>)> {
    let (mut document, mut findings) = document(text)?;
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
    let value =
        serde_ignored::deserialize(document, |path| findings.push(format!("unknown field \"{path}\"")))
            .with_context(|| format!("not a valid {kind}"))?;
    Ok((value, findings))
}

/// Reads YAML or JSON as the bodies of requests are read; with what is wrong with it that may be overlooked.
///
/// # Errors
/// It is neither.
pub fn document(text: &str) -> Result<(serde_json::Value, Vec<String>)> {
    let read = crate::negotiate::yaml(text.as_bytes());
    let read = read.map_err(|e| anyhow::anyhow!("failed decoding: {}", e.status().message))?;
    let document = serde_json::from_slice(&read.value.to_json()).context("failed decoding")?;
    let twice = read.duplicates.into_iter().map(|field| format!("duplicate field \"{field}\""));
    Ok((document, twice.chain(read.complaint).collect()))
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
        assert_eq!(
            check("{apiVersion: x/v1, kind: C, n: 3, m: {}}").unwrap(),
            (3, vec!["unknown field \"m\"".to_owned()])
        );
        for wrong in ["apiVersion: x/v2\nkind: C\nn: 3\n", "n: 3", "[]", "apiVersion: x/v1\nkind: C\nn: x\n"]
        {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
