use super::*;

/// The errors about a definition with this spec.
#[track_caller]
fn check(spec: &str, want: &[&str]) {
    let json = format!(r#"{{"metadata":{{"name":"ws.e.io"}},"spec":{spec}}}"#);
    let mut definition = api::json::decode(json.as_bytes()).unwrap().value;
    default(&mut definition);
    remember_version(&mut definition);
    let mut errors = Errors::new();
    validate(&definition, &mut errors);
    let got: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(got, want, "{spec}");
}

/// The errors about a definition whose only version has this schema.
#[track_caller]
fn check_schema(schema: &str, want: &[&str]) {
    let spec = format!(
        r#"{{"group":"e.io","scope":"Cluster","names":{{"plural":"ws","kind":"W"}},"versions":[{{"name":"v1","served":true,"storage":true,"schema":{{"openAPIV3Schema":{schema}}}}}]}}"#
    );
    check(&spec, want);
}

#[test]
fn schemas_are_structural() {
    check_schema(r#"{"type":"object","properties":{"a":{"type":"string"}}}"#, &[]);
    check_schema(
        r#"{"type":"object","properties":{"a":{}}}"#,
        &[
            "spec.validation.openAPIV3Schema.properties[a].type: Required value: must not be empty for specified object fields",
        ],
    );
    check_schema(
        r#"{"properties":{"l":{"type":"array"}}}"#,
        &[
            "spec.validation.openAPIV3Schema.properties[l].items: Required value: must be specified",
            "spec.validation.openAPIV3Schema.type: Required value: must not be empty at the root",
        ],
    );
    check_schema(
        r#"{"type":"object","anyOf":[{"properties":{"b":{"type":"string"}}}]}"#,
        &[
            "spec.validation.openAPIV3Schema.anyOf[0].properties[b].type: Forbidden: must be empty to be structural",
            "spec.validation.openAPIV3Schema.properties[b]: Required value: because it is defined in spec.validation.openAPIV3Schema.anyOf[0].properties[b]",
        ],
    );
    check_schema(
        r#"{"type":"object","properties":{"p":{"x-kubernetes-int-or-string":true,"anyOf":[{"type":"integer"},{"type":"string"}]}}}"#,
        &[],
    );
    check_schema(
        r#"{"type":"object","properties":{"metadata":{"type":"object","properties":{"labels":{"type":"object"}}}}}"#,
        &[
            "spec.validation.openAPIV3Schema.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ],
    );
}

#[test]
fn defaults_fit_their_schemas() {
    check_schema(r#"{"type":"object","properties":{"a":{"type":"string","default":"x"}}}"#, &[]);
    check_schema(
        r#"{"type":"object","properties":{"a":{"type":"object","properties":{"b":{"type":"string"}},"default":{"c":1}}}}"#,
        &[
            r#"spec.validation.openAPIV3Schema.properties[a].default: Invalid value: {"c":1}: must not have unknown fields"#,
        ],
    );
    check_schema(
        r#"{"type":"object","properties":{"a":{"type":"integer","default":"x"}}}"#,
        &[
            r#"spec.validation.openAPIV3Schema.properties[a].default: Invalid value: "string":  in body must be of type integer: "string""#,
        ],
    );
}

#[test]
fn defaults_are_checked_as_values_without_a_name() {
    let at = "spec.validation.openAPIV3Schema.properties[a].default";
    let check = |schema: &str, want: &[&str]| {
        let schema = format!(r#"{{"type":"object","properties":{{"a":{schema}}}}}"#);
        let want: Vec<String> = want.iter().map(|text| format!("{at}: {text}")).collect();
        check_schema(&schema, &want.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let not = r#"Invalid value: "": "" must not validate the schema (not)"#;
    check(r#"{"type":"string","default":"x","not":{"enum":["x"]}}"#, &[not]);
    let most = "Invalid value: 9:  in body should be less than or equal to 5";
    check(r#"{"type":"integer","default":9,"maximum":5}"#, &[most]);
    let set = r#"{"type":"array","default":[1,1],"items":{"type":"integer"},"x-kubernetes-list-type":"set"}"#;
    check(set, &[]);
}

#[test]
fn lists_have_keys_that_are_there() {
    check_schema(
        r#"{"type":"object","properties":{"l":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["n","z"],"items":{"type":"object","properties":{"n":{"type":"string"}}}}}}"#,
        &[
            "spec.validation.openAPIV3Schema.properties[l].items.properties[n].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            r#"spec.validation.openAPIV3Schema.properties[l].x-kubernetes-list-map-keys: Invalid value: ["n","z"]: entries must all be names of item properties"#,
        ],
    );
    check_schema(
        r#"{"type":"object","properties":{"l":{"type":"string","x-kubernetes-list-type":"set"}}}"#,
        &[
            r#"spec.validation.openAPIV3Schema.properties[l].type: Invalid value: "string": must be array if x-kubernetes-list-type is specified"#,
        ],
    );
}

#[test]
fn rules_have_the_form_of_rules() {
    check_schema(
        r#"{"type":"object","x-kubernetes-validations":[{"rule":" "},{"rule":"true","message":"a\nb"},{"rule":"true","reason":"Odd"}]}"#,
        &[
            "spec.validation.openAPIV3Schema.x-kubernetes-validations[0].rule: Required value: rule is not specified",
            r#"spec.validation.openAPIV3Schema.x-kubernetes-validations[1].message: Invalid value: "a\nb": must not contain line breaks"#,
            r#"spec.validation.openAPIV3Schema.x-kubernetes-validations[2].reason: Unsupported value: "Odd": supported values: "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired""#,
        ],
    );
}

#[test]
fn conversion_by_webhook_says_where() {
    let spec = |conversion: &str| {
        format!(
            r#"{{"group":"e.io","scope":"Cluster","names":{{"plural":"ws","kind":"W"}},"conversion":{conversion},"versions":[{{"name":"v1","served":true,"storage":true,"schema":{{"openAPIV3Schema":{{"type":"object"}}}}}}]}}"#
        )
    };
    check(
        &spec(r#"{"strategy":"Webhook"}"#),
        &[
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
            "spec.conversion.conversionReviewVersions: Required value",
        ],
    );
    check(
        &spec(
            r#"{"strategy":"Webhook","webhook":{"clientConfig":{"url":"http://x/"},"conversionReviewVersions":["v2"]}}"#,
        ),
        &[
            r#"spec.conversion.webhookClientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]"#,
            r#"spec.conversion.conversionReviewVersions: Invalid value: ["v2"]: must include at least one of v1, v1beta1"#,
        ],
    );
}

#[test]
fn groups_of_the_community_want_approval() {
    let definition = |annotation: &str| {
        let mut d = object!({"metadata": {"name": "ws.x.k8s.io"}, "spec": {"group": "x.k8s.io"}});
        if !annotation.is_empty() {
            d.set(&["metadata", "annotations", APPROVED], annotation);
        }
        d
    };
    let count = |new: &str, old: Option<&str>| {
        let mut errors = Errors::new();
        validate_approval(&definition(new), old.map(definition).as_ref(), &mut errors);
        errors.len()
    };
    assert_eq!(count("", None), 1);
    assert_eq!(count("https://github.com/kubernetes/enhancements/pull/1111", None), 0);
    assert_eq!(count("unapproved, for a test", None), 0);
    assert_eq!(count("whatever", None), 1);
    assert_eq!(count("", Some("")), 0);
}

#[test]
fn rules_are_compiled() {
    check_schema(
        r#"{"type":"object","properties":{"spec":{"type":"object","properties":{"n":{"type":"integer"}},"x-kubernetes-validations":[{"rule":"self.n > 0"}]}}}"#,
        &[],
    );
    check_schema(
        r#"{"type":"object","properties":{"spec":{"type":"object","x-kubernetes-validations":[{"rule":"self.n > 0","message":"m"}]}}}"#,
        &[
            "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value: {\"Rule\":\"self.n \\u003e 0\",\"Message\":\"m\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: compilation failed: ERROR: <input>:1:5: undefined field 'n'\n | self.n > 0\n | ....^",
        ],
    );
}
