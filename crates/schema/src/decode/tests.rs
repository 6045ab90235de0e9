use super::*;

/// Reads `json` as the named type and compares with `want`: the JSON it prints as followed by the findings, or the
/// error.
#[track_caller]
fn check(ty: &str, json: &str, want: &str) {
    let value = api::json::decode(json.as_bytes()).unwrap().value;
    let got = match normalize(value, crate::named(ty).unwrap(), Mode::Strict) {
        Ok((value, findings)) => {
            let mut out = vec![value.to_string()];
            out.extend(findings.into_iter().map(|f| f.0));
            out.join("; ")
        }
        Err(e) => e.to_string(),
    };
    assert_eq!(got, want, "{ty} from {json}");
}

#[test]
fn members_are_ordered_and_zero_values_written_as_in_go() {
    check(
        "core/v1.Pod",
        r#"{"spec":{},"apiVersion":"v1","metadata":{"name":"x"},"kind":"Pod"}"#,
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"},"spec":{"containers":null},"status":{}}"#,
    );
    check(
        "core/v1.Container",
        r#"{"name":"c","command":[],"resources":null,"stdin":false}"#,
        r#"{"name":"c","resources":{}}"#,
    );
    check("rbac/v1.ClusterRole", r#"{}"#, r#"{"metadata":{},"rules":null}"#);
    check("apps/v1.ControllerRevision", r#"{"revision":0}"#, r#"{"metadata":{},"data":null,"revision":0}"#);
    check("core/v1.ContainerPort", r#"{"protocol":"TCP"}"#, r#"{"containerPort":0,"protocol":"TCP"}"#);
    check(
        "core/v1.PodCondition",
        r#"{"type":"Ready","status":"True"}"#,
        r#"{"type":"Ready","status":"True","lastProbeTime":null,"lastTransitionTime":null}"#,
    );
    check(
        "meta/v1.ObjectMeta",
        r#"{"creationTimestamp":null,"labels":{"b":"1","a":null}}"#,
        r#"{"labels":{"a":"","b":"1"}}"#,
    );
    check(
        "apps/v1.DeploymentSpec",
        r#"{"replicas":0,"paused":false}"#,
        r#"{"replicas":0,"selector":null,"template":{"metadata":{},"spec":{"containers":null}},"strategy":{}}"#,
    );
    check("core/v1.Volume", r#"{"emptyDir":{},"name":"v"}"#, r#"{"name":"v","emptyDir":{}}"#);
    check("core/v1.Probe", r#"{"httpGet":{"port":null}}"#, r#"{"httpGet":{"port":0}}"#);
}

#[test]
fn scalars_take_their_canonical_forms() {
    check(
        "core/v1.ResourceRequirements",
        r#"{"limits":{"memory":"1024Mi","cpu":0.5}}"#,
        r#"{"limits":{"cpu":"500m","memory":"1Gi"}}"#,
    );
    check(
        "core/v1.PodStatus",
        r#"{"startTime":"2026-01-01T02:00:00.5+02:00"}"#,
        r#"{"startTime":"2026-01-01T00:00:00Z"}"#,
    );
    check(
        "coordination/v1.LeaseSpec",
        r#"{"renewTime":"2026-01-01T02:00:00.123456+02:00"}"#,
        r#"{"renewTime":"2026-01-01T00:00:00.123456Z"}"#,
    );
    check("core/v1.HTTPGetAction", r#"{"port":"http"}"#, r#"{"port":"http"}"#);
}

#[test]
fn what_is_unknown_is_dropped_and_reported_by_path() {
    check(
        "core/v1.PodSpec",
        r#"{"containers":[{"name":"c","nope":1,"env":[{"Name":"x"}]}],"bogus":{}}"#,
        r#"{"containers":[{"name":"c","env":[{"name":""}],"resources":{}}]}; unknown field "containers[0].nope"; unknown field "containers[0].env[0].Name"; unknown field "bogus""#,
    );
    check(
        "core/v1.Pod",
        r#"{"metadata":{"labels":{"a":"b"},"x":1}}"#,
        r#"{"metadata":{"labels":{"a":"b"}},"spec":{"containers":null},"status":{}}; unknown field "metadata.x""#,
    );
}

#[test]
fn type_errors_are_told_in_upstreams_words() {
    let go = |field: &str, of: &str, what: &str| {
        format!("json: cannot unmarshal {what} into Go struct field {field} of type {of}")
    };
    for (ty, json, want) in [
        (
            "core/v1.Pod",
            r#"{"spec":{"containers":"nope"}}"#,
            go("PodSpec.spec.containers", "[]v1.Container", "string"),
        ),
        ("core/v1.Pod", r#"{"spec":"text"}"#, go("Pod.spec", "v1.PodSpec", "string")),
        (
            "core/v1.Pod",
            r#"{"spec":{"containers":[{"image":1}]}}"#,
            go("Container.spec.containers.image", "string", "number"),
        ),
        (
            "apps/v1.Deployment",
            r#"{"spec":{"replicas":1.5}}"#,
            go("DeploymentSpec.spec.replicas", "int32", "number 1.5"),
        ),
        ("core/v1.ConfigMap", r#"{"data":{"a":1}}"#, go("ConfigMap.data", "string", "number")),
        (
            "core/v1.PodSpec",
            r#"{"restartPolicy":[]}"#,
            go("PodSpec.restartPolicy", "v1.RestartPolicy", "array"),
        ),
        ("core/v1.Pod", "[]", "json: cannot unmarshal array into Go value of type v1.Pod".into()),
        (
            "core/v1.ResourceRequirements",
            r#"{"requests":{"cpu":"1x"}}"#,
            api::quantity::ParseError::Form.to_string(),
        ),
        ("core/v1.Secret", r#"{"data":{"a":"a!"}}"#, "illegal base64 data at input byte 1".into()),
        (
            "meta/v1.ObjectMeta",
            r#"{"creationTimestamp":"now"}"#,
            r#"parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006""#.into(),
        ),
    ] {
        check(ty, json, &want);
    }
}

#[test]
fn durations_round_trip() {
    for (text, nanos, want) in [
        ("1h0m0s", 3_600_000_000_000, "1h0m0s"),
        ("90s", 90_000_000_000, "1m30s"),
        ("1.5s", 1_500_000_000, "1.5s"),
        ("250ms", 250_000_000, "250ms"),
        ("-1m", -60_000_000_000, "-1m0s"),
        ("0", 0, "0s"),
    ] {
        assert_eq!(scalar::parse_duration(text), Some(nanos), "{text}");
        assert_eq!(scalar::format_duration(nanos), want, "{text}");
    }
}

#[test]
fn requests_are_refused_or_warned_about() {
    let ty = crate::kind("", "v1", "ConfigMap").unwrap();
    let body = || api::json::decode(br#"{"data":{"k":"1"},"data":{"k":"2"},"spec":1}"#).unwrap();
    let e = object(body(), ty, ("v1", "ConfigMap"), Mode::Strict).unwrap_err();
    assert_eq!(
        e.to_string(),
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"data\", unknown field \"spec\""
    );
    let (_, warnings) = object(body(), ty, ("v1", "ConfigMap"), Mode::Warn).unwrap();
    assert_eq!(warnings, ["duplicate field \"data\"", "unknown field \"spec\""]);
    assert!(object(body(), ty, ("v1", "ConfigMap"), Mode::Ignore).unwrap().1.is_empty());
}

#[test]
fn findings_come_in_the_order_of_the_document() {
    let ty = crate::kind("", "v1", "ConfigMap").unwrap();
    let body = br#"{"one":1,"metadata":{"x":1,"labels":{"a.b":"1","a.b":"2"},"name":"n","name":"m","y":2},"two":{"k":1,"k":2},"data":{},"data":{}}"#;
    let body = api::json::decode(body).unwrap();
    let (_, warnings) = object(body, ty, ("v1", "ConfigMap"), Mode::Warn).unwrap();
    let places: Vec<&str> = warnings.iter().map(|w| w.split('"').nth(1).unwrap()).collect();
    // Nobody looks into what is unknown.
    let expected = ["one", "metadata.x", "metadata.labels.a.b", "metadata.name", "metadata.y", "two", "data"];
    assert_eq!(places, expected);
}

#[test]
fn storing_as_protobuf_forgets_empty_lists() {
    let ty = crate::named("core/v1.PodSpec").unwrap();
    let value = api::json::decode(br#"{"containers":[]}"#).unwrap().value;
    let mut value = normalize(value, ty, Mode::Strict).unwrap().0;
    assert_eq!(value.to_string(), r#"{"containers":[]}"#);
    forget_empty(&mut value, ty);
    assert_eq!(value.to_string(), r#"{"containers":null}"#);
}
