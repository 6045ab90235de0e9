use super::*;

const WIDGET: &str = r#"{"type":"object","properties":{"spec":{"type":"object","required":["size"],"properties":{
    "size":{"type":"integer","minimum":1,"maximum":10},
    "color":{"type":"string","enum":["red","green"],"default":"red"},
    "name":{"type":"string","pattern":"^[a-z]+$","minLength":2,"maxLength":4},
    "replicas":{"type":"integer","default":1},
    "parts":{"type":"array","maxItems":3,"items":{"type":"object","required":["name"],"properties":{"name":{"type":"string"},"weight":{"type":"number"},"level":{"type":"integer","default":2}}},"x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name"]},
    "tags":{"type":"array","items":{"type":"string"},"x-kubernetes-list-type":"set"},
    "free":{"type":"object","x-kubernetes-preserve-unknown-fields":true},
    "maybe":{"type":"string","nullable":true},
    "port":{"x-kubernetes-int-or-string":true},
    "labels":{"type":"object","additionalProperties":{"type":"string"}},
    "choice":{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}},"oneOf":[{"required":["a"]},{"required":["b"]}]},
    "template":{"type":"object","x-kubernetes-embedded-resource":true,"x-kubernetes-preserve-unknown-fields":true}
    }},"status":{"type":"object","properties":{"replicas":{"type":"integer"}}}}}"#;

fn value(json: &str) -> Value {
    api::json::decode(json.as_bytes()).unwrap().value
}

/// Reads a widget with this spec and compares the spec, followed by findings and errors.
#[track_caller]
fn check(spec: &str, want: &str) {
    let ty = CustomType::new(&value(WIDGET), false);
    let object =
        value(&format!(r#"{{"apiVersion":"e/v1","kind":"Widget","metadata":{{"name":"x"}},"spec":{spec}}}"#));
    let (object, findings) = ty.decode(object, Mode::Strict).unwrap();
    let errors = ty.validate(&object);
    let mut got = vec![object.get("spec").to_string()];
    got.extend(findings.into_iter().map(|f| f.0));
    got.extend(errors.iter().map(ToString::to_string));
    assert_eq!(got.join("; "), want, "{spec}");
}

#[test]
fn objects_are_defaulted_and_pruned() {
    check(r#"{"size":3}"#, r#"{"color":"red","replicas":1,"size":3}"#);
    check(
        r#"{"size":3,"color":null,"replicas":2,"maybe":null,"name":null}"#,
        r#"{"color":"red","maybe":null,"replicas":2,"size":3}"#,
    );
    check(
        r#"{"size":3,"replicas":2,"free":{"x":{"b":1,"a":2}},"unknown":"gone","parts":[{"name":"a","y":1}]}"#,
        r#"{"color":"red","free":{"x":{"a":2,"b":1}},"parts":[{"level":2,"name":"a"}],"replicas":2,"size":3}; unknown field "spec.parts[0].y"; unknown field "spec.unknown""#,
    );
    check(
        r#"{"size":3,"replicas":2,"template":{"kind":"X","metadata":{"name":"n","bad":1},"any":1}}"#,
        r#"{"color":"red","replicas":2,"size":3,"template":{"any":1,"kind":"X","metadata":{"name":"n"}}}; unknown field "spec.template.metadata.bad"; spec.template.apiVersion: Required value"#,
    );
}

#[test]
fn what_is_wrong_is_told_in_upstreams_words() {
    let spec = |more: &str| format!(r#"{{"color":"red","replicas":1,"size":3,{more}}}"#);
    let fails = |more: &str, error: &str| {
        let spec = spec(more);
        let mut sorted = value(&spec);
        crate::decode::sort(&mut sorted);
        check(&spec, &format!("{sorted}; {error}"));
    };
    check("{}", r#"{"color":"red","replicas":1}; spec.size: Required value"#);
    check(
        r#"{"size":11}"#,
        r#"{"color":"red","replicas":1,"size":11}; spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10"#,
    );
    check(
        r#"{"size":1,"color":"blue"}"#,
        r#"{"color":"blue","replicas":1,"size":1}; spec.color: Unsupported value: "blue": supported values: "red", "green""#,
    );
    check(
        r#"{"size":"x"}"#,
        r#"{"color":"red","replicas":1,"size":"x"}; spec.size: Invalid value: "string": spec.size in body must be of type integer: "string""#,
    );
    fails(
        r#""parts":[{"name":"a","level":1},{"name":"a","level":1}]"#,
        r#"spec.parts[1]: Duplicate value: {"name":"a"}"#,
    );
    fails(r#""tags":["x","y","x"]"#, r#"spec.tags[2]: Duplicate value: "x""#);
    fails(r#""name":"A1""#, r#"spec.name: Invalid value: "A1": spec.name in body should match '^[a-z]+$'"#);
    fails(
        r#""name":"a""#,
        r#"spec.name: Invalid value: "a": spec.name in body should be at least 2 chars long"#,
    );
    fails(r#""name":"abcde""#, "spec.name: Too long: may not be more than 4 bytes");
    fails(
        r#""port":{}"#,
        r#"spec.port: Invalid value: "object": spec.port in body must be of type integer,string: "object""#,
    );
    fails(
        r#""labels":{"a":1}"#,
        r#"spec.labels.a: Invalid value: "integer": spec.labels.a in body must be of type string: "integer""#,
    );
    fails(
        r#""choice":{}"#,
        r#"<nil>: Invalid value: "": "spec.choice" must validate one and only one schema (oneOf). Found none valid; spec.choice.a: Required value"#,
    );
    fails(
        r#""parts":[{"name":"a","level":1},{"name":"b","level":1},{"name":"c","level":1},{"name":"d","level":1}]"#,
        "spec.parts: Too many: 4: must have at most 3 items",
    );
}

#[test]
fn wrong_metadata_is_refused() {
    let ty = CustomType::new(&value(WIDGET), false);
    let e = ty.decode(value(r#"{"metadata":{"labels":{"a":1}}}"#), Mode::Strict).unwrap_err();
    assert_eq!(
        e.to_string(),
        r#"json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string"#
    );
}

#[test]
fn custom_resources_are_applied_by_their_schema() {
    use crate::apply::{Filter, OneVersion, Request, apply};
    let custom = CustomType::new(&value(WIDGET), false);
    let request = Request {
        manager: "t",
        subresource: "",
        api_version: "e/v1",
        kind: "Widget",
        ty: custom.ty(),
        reset: &Filter::None,
        now: jiff::Timestamp::UNIX_EPOCH,
        versions: &OneVersion("e/v1", custom.ty()),
    };
    let patch = |spec: &str| {
        value(&format!(r#"{{"apiVersion":"e/v1","kind":"Widget","metadata":{{"name":"w"}},"spec":{spec}}}"#))
    };
    let first = apply(
        None,
        &patch(r#"{"size":3,"parts":[{"name":"a"}],"tags":["x"],"free":{"a":{"b":1}}}"#),
        false,
        &request,
    )
    .unwrap();
    assert_eq!(
        first.array_at(&["metadata", "managedFields"])[0].get("fieldsV1").to_string(),
        r#"{"f:spec":{"f:free":{"f:a":{".":{},"f:b":{}}},"f:parts":{"k:{\"name\":\"a\"}":{".":{},"f:name":{}}},"f:size":{},"f:tags":{"v:\"x\"":{}}}}"#
    );
    let second =
        apply(Some(&first), &patch(r#"{"size":3,"parts":[{"name":"b"}]}"#), false, &request).unwrap();
    assert_eq!(second.get("spec").to_string(), r#"{"size":3,"parts":[{"name":"b"}]}"#);
}
