use super::*;
use crate::decode::{Mode, normalize};

fn value(json: &str) -> Value {
    api::json::decode(json.as_bytes()).unwrap().value
}

/// Replays writes, one `(how, manager, object, want)` each, to an object of `kind`. `how` is `apply`, `force`, `create`,
/// `update` (the whole object) or `merge` (a merge patch); `want` is the managed fields that follow, `manager:{...}`
/// each, appliers with a star, or the error.
#[track_caller]
fn check(kind: &str, api_version: &str, writes: &[(&str, &str, &str, &str)]) {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let ty = crate::kind(group, version, kind).unwrap();
    let reset = Filter::exclude(&[&["status"]]);
    let mut live: Option<Value> = None;
    for (i, (how, manager, json, want)) in writes.iter().enumerate() {
        let request = Request {
            manager,
            subresource: "",
            api_version,
            kind: "",
            ty,
            reset: &reset,
            now: Timestamp::from_second(1_700_000_000 + i as i64).unwrap(),
            versions: &OneVersion(api_version, ty),
        };
        let mut body = value(json);
        body.set(&["apiVersion"], api_version);
        body.set(&["kind"], kind);
        let result = if matches!(*how, "apply" | "force") {
            apply(live.as_ref(), &body, *how == "force", &request).map_err(|e| e.to_string())
        } else {
            let mut new = match (*how, &live) {
                ("merge", Some(live)) => crate::patch::merge(live.clone(), body, Mode::Ignore).unwrap(),
                _ => body,
            };
            new = normalize(new, ty, Mode::Ignore).unwrap().0;
            track_update(live.as_ref(), &mut new, &request);
            Ok(new)
        };
        let got = match result {
            Ok(object) => {
                let mut object = normalize(object, ty, Mode::Ignore).unwrap().0;
                object.set(&["metadata", "uid"], "u");
                let managed = Managed::decode(object.at(&["metadata", "managedFields"])).unwrap();
                let texts = managed.encode();
                live = Some(object);
                let texts = texts.as_array().unwrap().iter().map(|e| {
                    let star = if e.str_at(&["operation"]) == "Apply" { "*" } else { "" };
                    let new = if e.str_at(&["time"]).is_empty() { "!" } else { "" };
                    format!("{}{star}{new}:{}", e.str_at(&["manager"]), e.get("fieldsV1"))
                });
                texts.collect::<Vec<_>>().join(" ").replace("\\\"", "'").replace('"', "")
            }
            Err(e) => e,
        };
        assert_eq!(got, *want, "write {i} by {manager}");
    }
}

#[test]
fn appliers_share_and_give_up_fields() {
    let conflict = r#"Apply failed with 1 conflict: conflict with "m2": .data.z"#;
    check(
        "ConfigMap",
        "v1",
        &[
            ("apply", "m1", r#"{"data":{"x":"1","y":"1"}}"#, "m1*:{f:data:{f:x:{},f:y:{}}}"),
            (
                "apply",
                "m2",
                r#"{"data":{"y":"1","z":"1"}}"#,
                "m1*:{f:data:{f:x:{},f:y:{}}} m2*:{f:data:{f:y:{},f:z:{}}}",
            ),
            ("apply", "m1", r#"{"data":{"x":"1"}}"#, "m1*:{f:data:{f:x:{}}} m2*:{f:data:{f:y:{},f:z:{}}}"),
            ("apply", "m2", r#"{"data":{"z":"2"}}"#, "m1*:{f:data:{f:x:{}}} m2*:{f:data:{f:z:{}}}"),
            ("apply", "m3", r#"{"data":{"z":"3"}}"#, conflict),
            ("force", "m3", r#"{"data":{"z":"3"}}"#, "m1*:{f:data:{f:x:{}}} m3*:{f:data:{f:z:{}}}"),
            ("apply", "m2", r#"{"data":{}}"#, "m2*!:{f:data:{}} m1*:{f:data:{f:x:{}}} m3*:{f:data:{f:z:{}}}"),
        ],
    );
}

const DEPLOYMENT: &str = r#"{"metadata":{"name":"d"},"spec":{"replicas":1,"selector":{"matchLabels":{"app":"a"}},"template":{"metadata":{"labels":{"app":"a"}},"spec":{"containers":[{"name":"c","image":"i:1"}]}}}}"#;
const UPDATED: &str = "f:selector:{},f:template:{f:metadata:{f:labels:{.:{},f:app:{}}},f:spec:{f:containers:{k:{'name':'c'}:{.:{},f:image:{},f:name:{},f:resources:{}}}}}";
const APPLIED: &str = "cd*!:{f:spec:{f:selector:{},f:template:{f:metadata:{f:labels:{f:app:{}}},f:spec:{f:containers:{k:{'name':'c'}:{.:{},f:image:{},f:name:{}}}}}}}";

#[test]
fn updaters_take_fields_over_and_appliers_must_not() {
    let without_replicas = DEPLOYMENT.replace(r#""replicas":1,"#, "");
    let both = without_replicas.replace(
        r#""image":"i:1"}"#,
        r#""image":"i:1"},{"name":"s","image":"s","env":[{"name":"A","value":"1"}]}"#,
    );
    let creator = format!("creator:{{f:spec:{{{UPDATED}}}}} hpa:{{f:spec:{{f:replicas:{{}}}}}}");
    let side =
        "},k:{'name':'s'}:{.:{},f:env:{k:{'name':'A'}:{.:{},f:name:{},f:value:{}}},f:image:{},f:name:{}}";
    let applied_both = APPLIED.replace("f:name:{}}", &format!("f:name:{{}}{side}")).replace('!', "");
    check(
        "Deployment",
        "apps/v1",
        &[
            ("create", "creator", DEPLOYMENT, &format!("creator:{{f:spec:{{f:replicas:{{}},{UPDATED}}}}}")),
            ("merge", "hpa", r#"{"spec":{"replicas":5}}"#, &creator),
            (
                "apply",
                "cd",
                DEPLOYMENT,
                r#"Apply failed with 1 conflict: conflict with "hpa" using apps/v1: .spec.replicas"#,
            ),
            ("apply", "cd", &without_replicas, &format!("{APPLIED} {creator}")),
            ("apply", "cd", &both, &format!("{applied_both} {creator}")),
            ("apply", "cd", &without_replicas, &format!("{} {creator}", APPLIED.replace('!', ""))),
        ],
    );
}

#[test]
fn ports_get_their_default_protocol_as_key() {
    check(
        "Service",
        "v1",
        &[
            (
                "create",
                "u",
                r#"{"spec":{"ports":[{"port":80,"protocol":"TCP"}]}}"#,
                "u:{f:spec:{f:ports:{.:{},k:{'port':80,'protocol':'TCP'}:{.:{},f:port:{},f:protocol:{},f:targetPort:{}}}}}",
            ),
            (
                "apply",
                "a",
                r#"{"spec":{"ports":[{"port":80,"name":"x"}]}}"#,
                "a*:{f:spec:{f:ports:{k:{'port':80,'protocol':'TCP'}:{.:{},f:name:{},f:port:{}}}}} u:{f:spec:{f:ports:{.:{},k:{'port':80,'protocol':'TCP'}:{.:{},f:port:{},f:protocol:{},f:targetPort:{}}}}}",
            ),
        ],
    );
}

#[test]
fn what_is_left_out_in_the_end_is_nobodys() {
    check(
        "ResourceSlice",
        "resource.k8s.io/v1",
        &[(
            "create",
            "a",
            r#"{"metadata":{"name":"s"},"spec":{"driver":"d","devices":[]}}"#,
            "a:{f:spec:{f:driver:{}}}",
        )],
    );
}

#[test]
fn configurations_that_do_not_fit_are_refused_in_upstreams_words() {
    let check = |json: &str, want: &str| check("ConfigMap", "v1", &[("apply", "m", json, want)]);
    let prefix = "failed to create typed patch object (/base; /v1, Kind=ConfigMap): ";
    check(
        r#"{"metadata":{"name":"base"},"bogus":1}"#,
        &format!("{prefix}.bogus: field not declared in schema"),
    );
    check(
        r#"{"metadata":{"name":"base"},"data":{"a":1}}"#,
        &format!("{prefix}.data.a: expected string, got &value.valueUnstructured{{Value:1}}"),
    );
    check(r#"{"metadata":{"managedFields":[{}]}}"#, "metadata.managedFields must be nil");
}

#[test]
fn old_updaters_are_put_together() {
    let names: Vec<String> = (0..13).map(|i| format!("m{i:02}")).collect();
    let bodies: Vec<String> = (0..13).map(|i| format!(r#"{{"data":{{"k{i:02}":"1"}}}}"#)).collect();
    let first = |n: usize| {
        let each = (0..n).map(|i| {
            let data = if i == 0 { ".:{},f:k00" } else { &format!("f:k{i:02}") };
            format!("m{i:02}:{{f:data:{{{data}:{{}}}}}}")
        });
        each.collect::<Vec<_>>().join(" ")
    };
    let mut wants: Vec<String> = (1..=10).map(first).collect();
    for n in 10..13 {
        let ancient: Vec<String> = (0..n - 8).map(|i| format!("f:k{i:02}:{{}}")).collect();
        let rest: Vec<String> =
            (n - 8..=n).map(|i| format!("m{i:02}:{{f:data:{{f:k{i:02}:{{}}}}}}")).collect();
        wants.push(format!("ancient-changes:{{f:data:{{.:{{}},{}}}}} {}", ancient.join(","), rest.join(" ")));
    }
    let writes: Vec<(&str, &str, &str, &str)> =
        (0..13).map(|i| ("merge", names[i].as_str(), bodies[i].as_str(), wants[i].as_str())).collect();
    check("ConfigMap", "v1", &writes);
}

#[test]
fn managed_fields_survive_reading_and_writing() {
    let text = r#"[{"manager":"m","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:a":{".":{},"k:{\"name\":\"x\",\"port\":1}":{"f:n":{}},"v:\"s\"":{},"i:2":{}}},"subresource":"status"}]"#;
    assert_eq!(Managed::decode(&value(text)).unwrap().encode().to_string(), text);
}
