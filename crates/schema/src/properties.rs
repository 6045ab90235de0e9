//! Properties that hold for any input: nothing panics, and what is written is read again.

use api::{Map, Value};
use proptest::prelude::*;

use crate::apply::{Filter, OneVersion, Request, Set, apply, compare, fields_of, track_update};
use crate::decode::{Mode, normalize};
use crate::types::{Shape, Ty};
use crate::{kind, patch, proto};

/// Any small JSON value, made of the names that pods have.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-1e9..1e9f64).prop_map(Value::Float),
        "[a-z0-9=:+-]{0,12}".prop_map(Value::from),
        Just(Value::from("2026-01-01T00:00:00Z")),
        Just(Value::from("1Gi")),
    ];
    let names = "(metadata|spec|status|containers|name|image|ports|labels|env|\\$patch|\\$setElementOrder/env|finalizers|limits|resources|hostPort|.)";
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec((names, inner), 0..5)
                .prop_map(|m| Value::Object(m.into_iter().collect::<Map>())),
        ]
    })
}

/// A value that fits the type; `seed` decides what is there.
fn fitting(ty: Ty<'_>, seed: &mut u64, depth: usize) -> Value {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let pick = *seed >> 33;
    match ty.shape() {
        Shape::Struct(s) => {
            let mut map = Map::new();
            for f in &s.fields {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                if (*seed >> 40).is_multiple_of(4) && depth < 6 {
                    map.push(f.name.clone(), fitting(ty.at(f.ty), seed, depth + 1));
                }
            }
            map.into()
        }
        Shape::List(l) => {
            (0..pick % 3).map(|_| fitting(ty.at(l.item), seed, depth + 1)).collect::<Vec<_>>().into()
        }
        Shape::Map(m) => (0..pick % 3)
            .map(|i| (format!("k{i}"), fitting(ty.at(m.value), seed, depth + 1)))
            .collect::<Map>()
            .into(),
        Shape::Bool => pick.is_multiple_of(2).into(),
        Shape::Int32 => ((pick % 100) as i32 - 50).into(),
        Shape::Int64 => Value::Int(*seed as i64),
        Shape::Float => Value::Float(pick as f64 / 4.0),
        Shape::Bytes => ["", "YQ==", "AAEC"][pick as usize % 3].into(),
        Shape::Quantity => ["0", "1", "500m", "1Gi", "-3"][pick as usize % 5].into(),
        Shape::IntOrString => [Value::from(7), Value::from("x")][pick as usize % 2].clone(),
        Shape::Time => "2026-03-04T05:06:07Z".into(),
        Shape::MicroTime => "2026-03-04T05:06:07.000089Z".into(),
        Shape::Duration => "1m30s".into(),
        Shape::Raw | Shape::FieldsV1 | Shape::Any => api::object!({"a": [1, "x"]}),
        Shape::SchemaOrBool(_) => true.into(),
        Shape::SchemaOrArray(id) | Shape::SchemaOrStrings(id) => fitting(ty.at(*id), seed, depth + 1),
        Shape::String | Shape::Builtin(_) => ["", "a", "b"][pick as usize % 3].into(),
    }
}

fn pod() -> Ty<'static> {
    kind("", "v1", "Pod").expect("a built-in kind")
}

/// Any set of a few paths.
fn any_set() -> impl Strategy<Value = Set> {
    proptest::collection::vec(proptest::collection::vec("[ab]", 1..4), 0..6).prop_map(|paths| {
        let paths: Vec<Vec<&str>> = paths.iter().map(|p| p.iter().map(String::as_str).collect()).collect();
        Set::of(&paths.iter().map(Vec::as_slice).collect::<Vec<_>>())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn reading_never_panics_and_is_done_after_once(value in any_json()) {
        if let Ok((once, _)) = normalize(value, pod(), Mode::Strict) {
            let (twice, findings) = normalize(once.clone(), pod(), Mode::Strict).unwrap();
            prop_assert_eq!(once.to_string(), twice.to_string());
            prop_assert!(findings.is_empty());
        }
    }

    #[test]
    fn bytes_from_anywhere_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = proto::decode(&bytes, pod());
        let _ = proto::open(&bytes);
    }

    #[test]
    fn protobuf_gives_back_what_was_written(seed in any::<u64>(), which in 0..5usize) {
        let (group, version, name) = [
            ("", "v1", "Pod"),
            ("apps", "v1", "Deployment"),
            ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
            ("resource.k8s.io", "v1", "ResourceClaim"),
            ("networking.k8s.io", "v1", "NetworkPolicy"),
        ][which];
        let ty = kind(group, version, name).unwrap();
        let mut seed = seed;
        let mut value = normalize(fitting(ty, &mut seed, 0), ty, Mode::Strict).unwrap().0;
        for key in ["kind", "apiVersion"] {
            value.remove_at(&[key]);
        }
        crate::decode::forget_empty(&mut value, ty);
        let bytes = proto::encode(&value, ty);
        let back = proto::decode(&bytes, ty).unwrap();
        prop_assert_eq!(proto::encode(&back, ty), bytes);
    }

    #[test]
    fn patches_never_panic(doc in any_json(), change in any_json()) {
        let _ = patch::strategic(doc.clone(), change.clone(), pod());
        let _ = patch::merge(doc.clone(), change.clone(), Mode::Warn);
        let _ = patch::json(doc, &change, Mode::Warn);
    }

    #[test]
    fn sets_behave_as_sets(a in any_set(), b in any_set()) {
        let (union, both) = (a.clone().union(&b), a.clone().intersection(&b));
        prop_assert_eq!(&union, &b.clone().union(&a));
        prop_assert_eq!(&both, &b.clone().intersection(&a));
        prop_assert_eq!(a.clone().difference(&b).union(&both), a.clone());
        prop_assert_eq!(&Set::from_value(&union.to_value()).unwrap(), &union);
        prop_assert!(a.clone().recursive_difference(&b).difference(&a.clone().difference(&b)).is_empty());
    }

    #[test]
    fn what_is_applied_is_owned_and_nothing_changes_when_applied_again(seed in any::<u64>()) {
        let ty = kind("", "v1", "ConfigMap").unwrap();
        let mut seed = seed;
        let mut config = fitting(ty, &mut seed, 0);
        config.remove_at(&["metadata"]);
        config.set(&["apiVersion"], "v1");
        config.set(&["kind"], "ConfigMap");
        let request = Request {
            manager: "m", subresource: "", api_version: "v1", kind: "ConfigMap", ty, reset: &Filter::None,
            now: jiff::Timestamp::UNIX_EPOCH, versions: &OneVersion("v1", ty),
        };
        let first = apply(None, &config, false, &request).unwrap();
        let again = apply(Some(&first), &config, false, &request).unwrap();
        prop_assert_eq!(&first, &again);
        prop_assert!(compare(&first, &again, ty).added.is_empty());
        let mut updated = first.clone();
        track_update(Some(&first), &mut updated, &request);
        prop_assert_eq!(fields_of(&first, ty), fields_of(&updated, ty));
    }
}
