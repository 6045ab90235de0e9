//! Compares with what upstream v1.36.2 writes, recorded outside the project; skipped where that is absent.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use api::Value;
use jiff::Timestamp;
use schema::apply::{Filter, Managed, OneVersion, Operation, Request, track_update};
use schema::decode::{Mode, normalize};
use schema::openapi::{self, Connect, Resource};
use schema::proto;

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
    assert!(out.len() > 150, "only {} kinds", out.len());
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

/// The objects that upstream created in answers to recorded requests: name of the case and object.
fn created() -> Vec<(String, Value)> {
    let Some(dir) = reference("golden") else { return Vec::new() };
    let mut out = Vec::new();
    for file in ["answers.json", "every-kind-answers.json"] {
        let answers = api::json::decode(&std::fs::read(dir.join(file)).unwrap()).unwrap().value;
        for (name, answer) in answers.as_object().unwrap().iter() {
            if answer.get("code").as_i64() == Some(201) {
                out.push((name.to_owned(), answer.get("body").clone()));
            }
        }
    }
    out
}

#[test]
fn fields_that_upstream_tracked_are_tracked() {
    let reset = Filter::exclude(&[&["status"]]);
    let mut failed = Vec::new();
    for (name, object) in created() {
        let api_version = object.str_at(&["apiVersion"]).to_owned();
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let Some(ty) = schema::kind(group, version, object.str_at(&["kind"])) else { continue };
        let managed = Managed::decode(object.at(&["metadata", "managedFields"])).unwrap();
        let [(id, entry)] = managed.iter().collect::<Vec<_>>()[..] else { continue };
        // Sent with an empty list, which is tracked, but answered with null.
        if name == "default/csinode" {
            continue;
        }
        if id.operation != Operation::Update {
            continue;
        }
        assert_eq!(managed.encode(), *object.at(&["metadata", "managedFields"]), "{name}");
        let request = Request {
            manager: &id.manager,
            subresource: "",
            api_version: &api_version,
            kind: "",
            ty,
            reset: &reset,
            now: Timestamp::UNIX_EPOCH,
            versions: &OneVersion(&api_version, ty),
        };
        let mut new = object.clone();
        new.remove_at(&["metadata", "managedFields"]);
        track_update(None, &mut new, &request);
        let got = Managed::decode(new.at(&["metadata", "managedFields"])).unwrap();
        let got = got.iter().next().map(|(_, e)| e.set.clone()).unwrap_or_default();
        let missing = entry.set.clone().difference(&got);
        if !missing.is_empty() {
            failed.push(format!("{name}: {}", missing.to_value()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn protobuf_is_read_and_written_as_upstream_does() {
    let mut failed = Vec::new();
    for (stem, json, pb) in kinds() {
        let ty = type_of(&stem);
        let envelope = proto::open(&pb).unwrap();
        let bytes = proto::seal(envelope.api_version, envelope.kind, &proto::encode(&json, ty));
        if bytes != pb {
            let at = bytes.iter().zip(&pb).take_while(|(a, b)| a == b).count();
            let window = |b: &[u8]| {
                String::from_utf8_lossy(&b[at.saturating_sub(40)..(at + 40).min(b.len())]).into_owned()
            };
            failed.push(format!(
                "{stem} written at {at}:\n  want {:?}\n  got  {:?}",
                window(&pb),
                window(&bytes)
            ));
        }
        match proto::decode_object(&pb, |_, _| Some(ty)) {
            Ok(Some(value)) if value == json => {}
            Ok(Some(value)) => {
                let (got, want) = (value.to_string(), json.to_string());
                let at = got.bytes().zip(want.bytes()).take_while(|(a, b)| a == b).count();
                let window = |s: &str| s[at.saturating_sub(60)..(at + 80).min(s.len())].to_owned();
                failed.push(format!("{stem} read:\n  want {}\n  got  {}", window(&want), window(&got)));
            }
            other => failed.push(format!("{stem} read: {other:?}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn what_upstream_stored_is_read_and_stored_the_same() {
    let Some(dir) = reference("reference/etcd") else { return };
    let dump = api::json::decode(&std::fs::read(dir.join("dump.json")).unwrap()).unwrap().value;
    let lookup = |gv: &str, kind: &str| {
        let (group, version) = gv.split_once('/').unwrap_or(("", gv));
        schema::kind(group, version, kind)
    };
    for entry in dump.as_array().unwrap().iter().filter(|e| e.str_at(&["encoding"]) == "protobuf") {
        let (key, hex) = (entry.str_at(&["key"]), entry.str_at(&["hex"]).as_bytes());
        let nibble = |b: u8| (b as char).to_digit(16).unwrap() as u8;
        let bytes: Vec<u8> = hex.chunks(2).map(|p| nibble(p[0]) << 4 | nibble(p[1])).collect();
        let object = proto::decode_object(&bytes, lookup).unwrap().unwrap();
        let ty = lookup(object.str_at(&["apiVersion"]), object.str_at(&["kind"])).unwrap();
        assert_eq!(proto::encode_object(&object, ty), bytes, "{key}: {object}");
    }
}

/// The recorded discovery documents: group, version and their resources.
fn discovered() -> Vec<(String, String, Value)> {
    let Some(dir) = reference("reference/discovery") else { return Vec::new() };
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let doc = api::json::decode(&std::fs::read(&path).unwrap()).unwrap().value;
        if doc.str_at(&["kind"]) == "APIResourceList" {
            let gv = doc.str_at(&["groupVersion"]).to_owned();
            let (group, version) = gv.split_once('/').unwrap_or(("", &gv));
            out.push((group.to_owned(), version.to_owned(), doc));
        }
    }
    out
}

const CONNECT: [(&str, &str, bool); 7] = [
    ("pods/attach", "core/v1.PodAttachOptions", false),
    ("pods/exec", "core/v1.PodExecOptions", false),
    ("pods/portforward", "core/v1.PodPortForwardOptions", false),
    ("pods/proxy", "core/v1.PodProxyOptions", true),
    ("services/proxy", "core/v1.ServiceProxyOptions", true),
    ("nodes/proxy", "core/v1.NodeProxyOptions", true),
    ("", "", false),
];

/// Without what is said in words, and in no order.
fn facts(value: &Value) -> Value {
    match value {
        Value::Object(m) => {
            let mut out: api::Map = m
                .iter()
                .filter(|(k, v)| !(*k == "description" && v.as_str().is_some()))
                .map(|(k, v)| (k, facts(v)))
                .collect();
            out.sort_keys();
            out.into()
        }
        Value::Array(a) => {
            let mut items: Vec<Value> = a.iter().map(facts).collect();
            items.sort_by_key(ToString::to_string);
            items.into()
        }
        other => other.clone(),
    }
}

fn differences(path: &str, want: &Value, got: &Value, out: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(w), Value::Object(g)) => {
            for (k, v) in w.iter() {
                match g.get(k) {
                    Some(other) => differences(&format!("{path} > {k}"), v, other, out),
                    None => out.push(format!("{path} > {k}: missing")),
                }
            }
            for (k, _) in g.iter().filter(|(k, _)| !w.contains_key(k)) {
                out.push(format!("{path} > {k}: more"));
            }
        }
        (w, g) if w != g => out.push(format!("{path}: want {w} got {g}")),
        _ => {}
    }
}

/// Calls `f` with the table of resources of each discovered group and version.
fn each_version(mut f: impl FnMut(&str, &str, &[Resource<'_>])) {
    let text = |v: &Value, key: &str| v.str_at(&[key]).to_owned();
    for (group, version, doc) in &discovered() {
        let resources = doc.array_at(&["resources"]);
        let verbs: Vec<Vec<&str>> = resources
            .iter()
            .map(|r| r.array_at(&["verbs"]).iter().filter_map(Value::as_str).collect())
            .collect();
        let owned: Vec<[String; 4]> =
            resources.iter().map(|r| ["name", "kind", "group", "version"].map(|k| text(r, k))).collect();
        let rows: Vec<Resource<'_>> = resources
            .iter()
            .zip(&verbs)
            .zip(&owned)
            .map(|((r, verbs), [name, kind, g, v])| {
                let connect = CONNECT.iter().find(|(n, _, _)| n == name && group.is_empty());
                Resource {
                    group,
                    version,
                    name,
                    kind,
                    namespaced: r.get("namespaced") == &Value::Bool(true),
                    of: (!v.is_empty()).then_some((g.as_str(), v.as_str())),
                    verbs,
                    connect: connect.map(|(_, options, with_path)| Connect {
                        options,
                        methods: if *with_path {
                            &["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]
                        } else {
                            &["GET", "POST"]
                        },
                        with_path: *with_path,
                    }),
                    options: (name == "pods/log").then_some("core/v1.PodLogOptions"),
                    custom: false,
                    schema: None,
                    selectable: Vec::new(),
                }
            })
            .collect();
        f(group, version, &rows);
    }
}

/// Without references to parameters that operations share.
fn inlined(value: &Value, shared: &Value) -> Value {
    let name = value.get("$ref").as_str().and_then(|text| text.strip_prefix("#/parameters/"));
    match (name, value) {
        (Some(name), _) => shared.get(name).clone(),
        (None, Value::Object(m)) => {
            m.iter().map(|(key, inner)| (key, inlined(inner, shared))).collect::<api::Map>().into()
        }
        (None, Value::Array(a)) => a.iter().map(|inner| inlined(inner, shared)).collect::<Vec<_>>().into(),
        (None, other) => other.clone(),
    }
}

#[test]
fn openapi_documents_state_what_upstreams_state() {
    let Some(dir) = reference("reference/openapi") else { return };
    let read = |file: &str| facts(&api::json::decode(&std::fs::read(dir.join(file)).unwrap()).unwrap().value);
    let swagger = read("swagger.json");
    let mut failed = Vec::new();
    each_version(|group, version, rows| {
        let path = openapi::v3_path(group, version);
        let want = read(&format!("v3/{}_openapi.json", path.replace('/', "__")));
        let got = facts(&openapi::v3(group, version, rows));
        differences(&path, &want, &got, &mut failed);

        // Version 2 has everything in one document, the recorded one more than is served by default.
        let got = facts(&openapi::v2(rows));
        for part in ["definitions", "paths"] {
            for (name, got) in got.get(part).as_object().unwrap().iter() {
                let want = facts(&inlined(swagger.at(&[part, name]), swagger.get("parameters")));
                differences(&format!("v2 {name}"), &want, got, &mut failed);
            }
        }
    });
    // All groups are in the recorded DeleteOptions and WatchEvent, served or not.
    let everywhere = |f: &String| {
        (f.contains("DeleteOptions") || f.contains("WatchEvent"))
            && f.contains("x-kubernetes-group-version-kind")
    };
    failed.retain(|f| !everywhere(f));
    assert!(
        failed.is_empty(),
        "{} differences:\n{}",
        failed.len(),
        failed[..failed.len().min(40)].join("\n")
    );
}
