use super::*;

fn value(json: &str) -> Value {
    api::json::decode(json.as_bytes()).unwrap().value
}

/// Applies `patch` to `doc` and compares what comes out, or the error.
#[track_caller]
fn check(how: &str, doc: &str, patch: &str, want: &str) {
    let got = match how {
        "json" => json(value(doc), &value(patch), Mode::Warn).map(|(v, f)| format!("{v}{}", f.join("; "))),
        "merge" => merge(value(doc), value(patch), Mode::Warn).map(|v| v.to_string()),
        ty => strategic(value(doc), value(patch), crate::named(ty).unwrap()).map(|v| v.to_string()),
    };
    assert_eq!(got.unwrap_or_else(|e| e.to_string()), want, "{how} {patch} on {doc}");
}

#[test]
fn json_patches() {
    let check = |doc, patch, want| check("json", doc, patch, want);
    check(
        r#"{"a":1}"#,
        r#"[{"op":"add","path":"/b","value":[1]},{"op":"add","path":"/b/-","value":2}]"#,
        r#"{"a":1,"b":[1,2]}"#,
    );
    check(
        r#"{"a":[1,2,3]}"#,
        r#"[{"op":"remove","path":"/a/-1"},{"op":"replace","path":"/a/0","value":9}]"#,
        r#"{"a":[9,2]}"#,
    );
    check(r#"{"a":{"x/y":1}}"#, r#"[{"op":"move","from":"/a/x~1y","path":"/b"}]"#, r#"{"a":{},"b":1}"#);
    check(
        r#"{"a":1}"#,
        r#"[{"op":"test","path":"/a","value":1},{"op":"copy","from":"/a","path":"/b"}]"#,
        r#"{"a":1,"b":1}"#,
    );
    check(r#"{"a":1}"#, r#"[{"op":"test","path":"/a","value":2}]"#, "testing value /a failed: test failed");
    check(r#"{"a":1}"#, r#"[{"op":"test","path":"/z","value":null}]"#, r#"{"a":1}"#);
    check(r#"{"a":1}"#, r#"[{"op":"replace","path":"/b","value":2}]"#, r#"{"a":1,"b":2}"#);
    check(
        r#"{}"#,
        r#"[{"op":"remove","path":"/z"}]"#,
        "error in remove for path: '/z': Unable to remove nonexistent key: z: missing value",
    );
    check(
        r#"{}"#,
        r#"[{"op":"add","path":"/x/y","value":1}]"#,
        r#"add operation does not apply: doc is missing path: "/x/y": missing value"#,
    );
    check(
        "{}",
        r#"{"op":"add"}"#,
        "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
    );
    check(
        "{}",
        r#"[{"op":"add","path":"/a","value":1,"x":2}]"#,
        r#"{"a":1}json patch unknown field "[0].x""#,
    );
}

#[test]
fn merge_patches() {
    let check = |doc, patch, want| check("merge", doc, patch, want);
    check(r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"b":null,"d":3}}"#, r#"{"a":{"c":2,"d":3}}"#);
    check(r#"{"a":[1]}"#, r#"{"a":[2,{"x":null}]}"#, r#"{"a":[2,{}]}"#);
    check(r#"{}"#, r#"{"a":{"b":null,"c":1}}"#, r#"{"a":{"c":1}}"#);
    check("{}", "null", "Invalid JSON Patch");
    check(
        "{}",
        "[]",
        "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
    );
}

const PODSPEC: &str =
    r#"{"containers":[{"name":"a","image":"1","env":[{"name":"E","value":"1"}]},{"name":"b"}]}"#;

#[test]
fn strategic_patches_merge_lists_by_key() {
    let check = |patch, want| check("core/v1.PodSpec", PODSPEC, patch, want);
    check(
        r#"{"containers":[{"name":"b","image":"2"}]}"#,
        r#"{"containers":[{"name":"a","image":"1","env":[{"name":"E","value":"1"}]},{"name":"b","image":"2"}]}"#,
    );
    check(
        r#"{"containers":[{"name":"c"}]}"#,
        r#"{"containers":[{"name":"c"},{"name":"a","image":"1","env":[{"name":"E","value":"1"}]},{"name":"b"}]}"#,
    );
    check(r#"{"containers":[{"name":"a","$patch":"delete"}]}"#, r#"{"containers":[{"name":"b"}]}"#);
    check(r#"{"containers":[{"$patch":"replace"},{"name":"z"}]}"#, r#"{"containers":[{"name":"z"}]}"#);
    check(
        r#"{"containers":[{"name":"a","image":null,"env":[{"name":"E","value":"2"},{"name":"F"}]}]}"#,
        r#"{"containers":[{"name":"a","env":[{"name":"E","value":"2"},{"name":"F"}]},{"name":"b"}]}"#,
    );
    check(
        r#"{"$setElementOrder/containers":[{"name":"b"},{"name":"a"}]}"#,
        r#"{"containers":[{"name":"b"},{"name":"a","image":"1","env":[{"name":"E","value":"1"}]}]}"#,
    );
    check(r#"{"containers":[{"image":"x"}]}"#, "map: map[image:x] does not contain declared merge key: name");
    check(
        r#"{"containers":[{"name":"a","$patch":"x"}]}"#,
        "unknown patch type: x in map: map[$patch:x name:a]",
    );
}

#[test]
fn strategic_patches_must_come_in_the_order_they_ask_for() {
    let check = |patch, want| check("core/v1.PodSpec", PODSPEC, patch, want);
    check(
        r#"{"$setElementOrder/containers":[{"name":"a"},{"name":"b"}],"containers":[{"name":"b"},{"name":"a"}]}"#,
        "The order in patch list:\n[map[name:b] map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:a] map[name:b]]\n",
    );
    check(
        r#"{"$setElementOrder/containers":[{"name":"z"}],"containers":[{"name":"z"},{"$patch":"replace"}]}"#,
        "The order in patch list:\n[map[name:z] map[$patch:replace]]\n doesn't match $setElementOrder list:\n[map[name:z]]\n",
    );
    check(
        r#"{"$setElementOrder/containers":[{"name":"b"}],"containers":[{"name":"a","$patch":"delete"}]}"#,
        r#"{"containers":[{"name":"b"}]}"#,
    );
}

#[test]
fn strategic_patches_have_directives_for_maps_and_scalars() {
    check(
        "meta/v1.ObjectMeta",
        r#"{"finalizers":["a","b"]}"#,
        r#"{"finalizers":["c","a"]}"#,
        r#"{"finalizers":["c","a","b"]}"#,
    );
    check(
        "meta/v1.ObjectMeta",
        r#"{"finalizers":["a","b"]}"#,
        r#"{"$deleteFromPrimitiveList/finalizers":["a"]}"#,
        r#"{"finalizers":["b"]}"#,
    );
    check(
        "meta/v1.ObjectMeta",
        r#"{"finalizers":["a","b"]}"#,
        r#"{"$setElementOrder/finalizers":["n","b"],"finalizers":["n"]}"#,
        r#"{"finalizers":["n","a","b"]}"#,
    );
    check(
        "apps/v1.DeploymentSpec",
        r#"{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1}}}"#,
        r#"{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}"#,
        r#"{"strategy":{"type":"Recreate"}}"#,
    );
    check(
        "core/v1.PodSpec",
        r#"{"nodeSelector":{"a":"b"}}"#,
        r#"{"nodeSelector":{"$patch":"replace","c":"d"}}"#,
        r#"{"nodeSelector":{"c":"d"}}"#,
    );
    check(
        "core/v1.PodSpec",
        r#"{"tolerations":[{"key":"a"}]}"#,
        r#"{"tolerations":[{"key":"b"}]}"#,
        r#"{"tolerations":[{"key":"b"}]}"#,
    );
    check(
        "apps/v1.DeploymentSpec",
        "{}",
        r#"{"strategy":{"$retainKeys":["x"],"type":"Recreate"}}"#,
        r#"{"strategy":{"$retainKeys":["x"],"type":"Recreate"}}"#,
    );
    check(
        "apps/v1.DeploymentSpec",
        r#"{"strategy":{}}"#,
        r#"{"strategy":{"$retainKeys":["x"],"type":"Recreate"}}"#,
        "invalid patch format of retainKeys",
    );
}

#[test]
fn what_does_not_decode_is_quoted() {
    let ty = crate::kind("", "v1", "ConfigMap").unwrap();
    let patch = value(r#"{"data":{"a":1}}"#);
    let e = decode(patch.clone(), &|| go_map(&patch), ty, Mode::Warn, Vec::new()).unwrap_err();
    assert_eq!(
        e.to_string(),
        " \"\" is invalid: patch: Invalid value: \"map[data:map[a:1]]\": json: cannot unmarshal number into Go struct field ConfigMap.data of type string"
    );
}

#[test]
fn copies_of_a_json_patch_are_bounded() {
    let doc = value(&format!(r#"{{"data":{{"a":"{}"}}}}"#, "x".repeat(1000)));
    let doubling = |n: usize| {
        let copies: Vec<String> =
            (0..n).map(|i| format!(r#"{{"op":"copy","from":"/data","path":"/data/b{i}"}}"#)).collect();
        json(doc.clone(), &value(&format!("[{}]", copies.join(","))), Mode::Warn)
    };
    assert!(doubling(8).is_ok());
    let refused = doubling(40).unwrap_err().to_string();
    assert!(
        refused.starts_with("Unable to complete the copy, the accumulated size increase of copy is "),
        "{refused}"
    );
}
