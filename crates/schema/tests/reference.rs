//! Compares with what upstream v1.36.2 writes, recorded outside the project; skipped where that is absent.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use api::Value;
use schema::decode::{Mode, normalize};

/// The folder of recorded facts, if it is there: `shared` beside the workspace.
fn reference(folder: &str) -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().map(|d| d.join("shared").join(folder)).find(|d| d.is_dir());
    if found.is_none() {
        println!("skipped: ../shared/{folder} is not there");
    }
    found
}

/// Each recorded kind: file stem, JSON and protobuf.
fn kinds() -> Vec<(String, Value, Vec<u8>)> {
    let Some(dir) = reference("reference/roundtrip") else { return Vec::new() };
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let dropped = [
            "extensions.",
            "apps.v1beta",
            "imagepolicy.",
            "flowcontrol.apiserver.k8s.io.v1beta1",
            "flowcontrol.apiserver.k8s.io.v1beta2",
        ];
        if path.extension().is_some_and(|e| e == "json") && !dropped.iter().any(|d| stem.starts_with(d)) {
            let json = api::json::decode(&std::fs::read(&path).unwrap()).unwrap().value;
            out.push((stem, json, std::fs::read(path.with_extension("pb")).unwrap()));
        }
    }
    out
}

fn type_of(stem: &str) -> schema::Ty<'static> {
    let (gv, kind) = stem.rsplit_once('.').unwrap();
    let (group, version) = gv.rsplit_once('.').unwrap();
    let group = if group == "core" { "" } else { group };
    schema::kind(group, version, kind).unwrap_or_else(|| panic!("no type for {stem}"))
}

#[test]
fn what_upstream_prints_is_printed_the_same() {
    let mut failed = Vec::new();
    for (stem, json, _) in kinds() {
        let text = json.to_string();
        match normalize(json, type_of(&stem), Mode::Strict) {
            Ok((value, findings)) if findings.is_empty() && value.to_string() == text => {}
            Ok((value, findings)) => {
                let got = value.to_string();
                let at = got.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
                let window = |s: &str| s[at.saturating_sub(60)..(at + 80).min(s.len())].to_owned();
                failed.push(format!(
                    "{stem}: {findings:?}\n  want {}\n  got  {}",
                    window(&text),
                    window(&got)
                ));
            }
            Err(e) => failed.push(format!("{stem}: {e}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
