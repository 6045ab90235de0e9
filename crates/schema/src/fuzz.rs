//! What holds for any bytes. Built for tests and for fuzzing alone; the corpora are in `fuzz/corpus`.
//!
//! Inputs of several documents have lines of three dashes between them.

use std::str::from_utf8;

use api::{Value, json};

use crate::apply::{Filter, OneVersion, Request, apply, fields_of, keep_times, track_update};
use crate::custom::CustomType;
use crate::decode::{Mode, forget_empty, normalize, object};
use crate::types::Ty;
use crate::{internal, kind, patch, proto};

/// The documents of an input.
fn documents<const N: usize>(data: &[u8]) -> Option<[Value; N]> {
    let read = |text: &str| json::decode(text.as_bytes()).ok().map(|d| d.value);
    let documents: Option<Vec<Value>> = from_utf8(data).ok()?.split("\n---\n").map(read).collect();
    documents?.try_into().ok()
}

/// The type that a document names; a pod's when it names none.
fn type_of(document: &Value) -> Ty<'static> {
    let gv = api::meta::GroupVersion::parse(document.api_version());
    gv.and_then(|gv| kind(&gv.group, &gv.version, document.kind()))
        .or_else(|| kind("", "v1", "Pod"))
        .expect("pods are known")
}

/// Holds that an object of a type reads as itself.
fn is_canonical(value: &Value, ty: Ty<'_>) {
    let (again, findings) =
        normalize(value.clone(), ty, Mode::Strict).expect("canonical objects can be read");
    assert_eq!(again.to_string(), value.to_string());
    assert!(findings.is_empty(), "{findings:?}");
}

/// Bodies in JSON: an object that was read reads as itself, and survives protobuf.
pub fn bodies(data: &[u8]) {
    let Ok(body) = json::decode(data) else { return };
    let ty = type_of(&body.value);
    let _ = internal::view(&body.value, ty).to_string();
    let Ok((mut value, _)) = object(body, ty, ("v1", "Thing"), Mode::Warn) else { return };
    is_canonical(&value, ty);
    assert!(internal::difference(&value, &value, ty).is_empty());
    for key in ["kind", "apiVersion"] {
        value.remove_at(&[key]);
    }
    forget_empty(&mut value, ty);
    let bytes = proto::encode(&value, ty);
    let back = proto::decode(&bytes, ty).expect("what was written can be read");
    assert_eq!(proto::encode(&back, ty), bytes);
}

/// Bodies in protobuf: what was read is written as what is read as the same again.
pub fn protobuf(data: &[u8]) {
    let lookup = |api_version: &str, name: &str| {
        let gv = api::meta::GroupVersion::parse(api_version)?;
        kind(&gv.group, &gv.version, name)
    };
    let Ok(Some(value)) = proto::decode_object(data, lookup) else { return };
    let Some(ty) = lookup(value.api_version(), value.kind()) else { return };
    let bytes = proto::encode_object(&value, ty);
    let back = proto::decode_object(&bytes, lookup)
        .expect("what was written can be read")
        .expect("its type is known");
    assert_eq!(proto::encode_object(&back, ty), bytes);
    if let Ok((value, _)) = normalize(value, ty, Mode::Ignore) {
        is_canonical(&value, ty);
    }
}

/// An object and a patch of each form: results read as themselves, and a merge patch changes nothing the second time.
pub fn patches(data: &[u8]) {
    let Some([doc, change]) = documents(data) else { return };
    let ty = type_of(&doc);
    let _ = patch::go_map(&change);
    let results = [
        patch::strategic(doc.clone(), change.clone(), ty).ok(),
        patch::merge(doc.clone(), change.clone(), Mode::Warn).ok().inspect(|once| {
            let twice =
                patch::merge(once.clone(), change.clone(), Mode::Warn).expect("it was possible before");
            assert_eq!(twice, *once);
        }),
        patch::json(doc, &change, Mode::Warn).ok().map(|(value, _)| value),
    ];
    for result in results.into_iter().flatten() {
        if let Ok((value, _)) = patch::decode(result, &|| String::new(), ty, Mode::Warn, Vec::new()) {
            is_canonical(&value, ty);
        }
    }
}

/// An object with managed fields, and what somebody wants of it: applied twice it is as applied once.
pub fn applies(data: &[u8]) {
    let Some([live, config]) = documents(data) else { return };
    let ty = type_of(&config);
    let Ok((live, _)) = normalize(live, ty, Mode::Ignore) else { return };
    let api_version = config.api_version().to_owned();
    let request = Request {
        manager: "fuzz",
        subresource: "",
        api_version: &api_version,
        kind: "",
        ty,
        reset: &Filter::None,
        now: jiff::Timestamp::UNIX_EPOCH,
        versions: &OneVersion(&api_version, ty),
    };
    let _ = apply(Some(&live), &config, false, &Request { manager: "kubectl", ..request });
    let mut updated = live.clone();
    updated.set(&["metadata", "labels", "fuzz"], "1");
    track_update(Some(&live), &mut updated, &request);
    keep_times(&live, &mut updated);
    let Ok(first) = apply(Some(&live), &config, true, &request) else { return };
    let _ = fields_of(&first, ty);
    // What is applied is read as the type before it is stored.
    let Ok((first, _)) = normalize(first, ty, Mode::Ignore) else { return };
    if first.at(&["metadata", "managedFields"]).is_null() {
        // What nobody owns is given to `before-first-apply` by the next one.
        return;
    }
    let again = apply(Some(&first), &config, false, &request).expect("all of it is the manager's own");
    let (again, _) = normalize(again, ty, Mode::Ignore).expect("it could be read before");
    assert_eq!(again.to_string(), first.to_string());
}

/// A schema of a custom resource, sound or not, and an object: what was read reads as itself.
pub fn custom(data: &[u8]) {
    let Some([schema, object]) = documents(data) else { return };
    for preserve in [false, true] {
        let custom = CustomType::new(&schema, preserve);
        let _ = custom.validate_change(&object, Some(&schema), false);
        let Ok((value, _)) = custom.decode(object.clone(), Mode::Strict) else { continue };
        let _ = (custom.validate(&value), fields_of(&value, custom.ty()));
        // Unsound schemas have defaults that are not known to them.
        let (again, _) = custom.decode(value.clone(), Mode::Strict).expect("it could be read before");
        assert_eq!(again.to_string(), value.to_string());
        let stored = custom.read_stored(object.clone());
        let _ = patch::strategic(value, stored, custom.ty());
    }
}

#[test]
fn committed_inputs_hold() {
    testing::replay(&[
        ("bodies", bodies),
        ("protobuf", protobuf),
        ("patches", patches),
        ("applies", applies),
        ("custom", custom),
    ]);
}
