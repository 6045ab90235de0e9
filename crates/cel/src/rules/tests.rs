use api::{Value, object};

use super::{Check, Rules, check};

fn definition(schema: &Value) -> Vec<String> {
    let how = Check { path: "schema", compile: true, known: &|_| false, unchanged: false };
    check(schema, &how).iter().map(ToString::to_string).collect()
}

/// The errors and the warnings about an object.
fn validate(schema: &Value, object: &Value, old: Option<&Value>) -> (Vec<String>, Vec<String>) {
    let mut warnings = Vec::new();
    let rules = Rules::new(schema).unwrap();
    let errors = rules.validate(object, old, &mut |w| warnings.push(w));
    (errors.iter().map(ToString::to_string).collect(), warnings)
}

/// A resource whose spec has the given rules.
fn resource(rules: Value) -> Value {
    let mut schema = object!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "replicas": {"type": "integer"},
        "name": {"type": "string", "maxLength": 20},
        "list": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 5}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}}
    }}}});
    schema.set(&["properties", "spec", "x-kubernetes-validations"], rules);
    schema
}

#[test]
fn rules_that_do_not_hold_are_errors() {
    let schema = resource(object!([
        {"rule": "self.replicas > 0"},
        {"rule": "self.replicas < 10", "message": " too many "},
        {"rule": "self.name != 'x'", "messageExpression": "'not ' + self.name", "fieldPath": ".name"},
        {"rule": "self.name.size() < 3", "reason": "FieldValueForbidden", "message": "long"},
        {"rule": "self.labels['a'] == 'b'"},
        {"rule": "size(self.name) > 0", "messageExpression": "self.labels['zip']", "message": "empty"}
    ]));
    assert_eq!(definition(&schema), Vec::<String>::new());
    let (errors, _) =
        validate(&schema, &object!({"spec": {"replicas": 0, "name": "x", "labels": {"a": "b"}}}), None);
    assert_eq!(
        errors,
        ["spec: Invalid value: failed rule: self.replicas > 0", "spec.name: Invalid value: not x"]
    );
    let (errors, _) =
        validate(&schema, &object!({"spec": {"replicas": 99, "name": "long", "labels": {}}}), None);
    assert_eq!(
        errors,
        [
            "spec: Invalid value: too many",
            "spec: Forbidden: long",
            "spec: Invalid value: \"object\": no such key: a evaluating rule: self.labels['a'] == 'b'",
        ]
    );
    let (errors, _) =
        validate(&schema, &object!({"spec": {"replicas": 1, "name": "", "labels": {"a": "b"}}}), None);
    assert_eq!(errors, ["spec: Invalid value: empty"]);
}

#[test]
fn rules_hold_for_resources_items_and_members() {
    let schema = object!({
        "type": "object",
        "x-kubernetes-validations": [{"rule": "self.metadata.name.startsWith('a')"}],
        "properties": {
            "ports": {"type": "array", "items": {
                "type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]
            }},
            "map": {"type": "object", "additionalProperties": {
                "type": "string", "x-kubernetes-validations": [{"rule": "self != ''", "reason": "FieldValueRequired"}]
            }}
        }
    });
    let object = object!({"metadata": {"name": "b"}, "ports": [1, (-1)], "map": {"x": ""}});
    let (errors, _) = validate(&schema, &object, None);
    assert_eq!(
        errors,
        [
            "<nil>: Invalid value: failed rule: self.metadata.name.startsWith('a')",
            "ports[1]: Invalid value: -1: failed rule: self > 0",
            "map[x]: Required value: failed rule: self != ''",
        ]
    );
}

#[test]
fn transitions_see_what_was() {
    let schema = object!({"type": "object", "properties": {
        "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "immutable"}]},
        "once": {"type": "integer", "x-kubernetes-validations": [
            {"rule": "oldSelf.hasValue() ? self >= oldSelf.value() : self == 1", "optionalOldSelf": true}
        ]},
        "items": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
                "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v"}]}
        }
    }});
    assert_eq!(definition(&schema), Vec::<String>::new());
    let old = object!({"fixed": "a", "once": 3, "items": [{"k": "x", "v": 2}, {"k": "y", "v": 2}]});
    assert_eq!(validate(&schema, &object!({"fixed": "z", "once": 1}), None).0, Vec::<String>::new());
    let new = object!({"fixed": "b", "once": 2, "items": [{"k": "y", "v": 1}, {"k": "x", "v": 3}, {"k": "z", "v": 0}]});
    assert_eq!(
        validate(&schema, &new, Some(&old)).0,
        [
            "fixed: Invalid value: \"b\": immutable",
            "once: Invalid value: 2: failed rule: oldSelf.hasValue() ? self >= oldSelf.value() : self == 1",
            "items[0]: Invalid value: failed rule: self.v >= oldSelf.v",
        ]
    );
    let (errors, _) = validate(&schema, &object!({"once": 2}), None);
    assert_eq!(errors.len(), 1);
}

#[test]
fn errors_that_were_there_before_become_warnings() {
    let schema = object!({"type": "object", "properties": {
        "a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]},
        "b": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]},
        "list": {"type": "array", "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]}}
    }});
    let old = object!({"a": (-1), "b": 1, "list": [(-1)]});
    let (errors, warnings) = validate(&schema, &object!({"a": (-1), "b": (-1), "list": [(-1)]}), Some(&old));
    assert_eq!(errors, ["b: Invalid value: -1: failed rule: self > 0"]);
    assert_eq!(
        warnings,
        ["a: Invalid value: -1: failed rule: self > 0", "list[0]: Invalid value: -1: failed rule: self > 0"]
    );
    // A list without keys is as it was or it is not.
    let (errors, _) = validate(&schema, &object!({"a": (-1), "list": [(-1), 1]}), Some(&old));
    assert_eq!(errors, ["list[0]: Invalid value: -1: failed rule: self > 0"]);
}

#[test]
fn budgets_end_validation() {
    let schema = object!({"type": "object", "properties": {"l": {
        "type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [
            {"rule": "self.all(x, self.all(y, x + y >= 0))"}, {"rule": "size(self) == 0"}
        ]
    }}});
    let many = Value::Array((0..2000).map(Value::from).collect());
    let (errors, _) = validate(&schema, &object!({"l": many}), None);
    let expected = "l: Invalid value: \"array\": 'operation cancelled: actual cost limit exceeded': no further validation \
                    rules will be run due to call cost exceeds limit for rule: self.all(x, self.all(y, x + y >= 0))";
    assert_eq!(errors, [expected]);
    let schema = object!({"type": "object", "properties": {"l": {"type": "array", "items": {
        "type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [{"rule": "self.all(x, x >= 0)"}]
    }}}});
    let inner = Value::Array((0..10_000).map(Value::from).collect());
    let (errors, _) = validate(&schema, &object!({"l": (vec![inner; 300])}), None);
    let last = "Invalid value: \"array\": validation failed due to running out of cost budget, no further validation \
                rules will be run";
    assert!(errors.len() == 1 && errors[0].ends_with(last), "{errors:?}");
}

#[test]
fn mistakes_in_rules_are_found_in_the_definition() {
    let one = |rule: Value| definition(&resource(Value::Array(vec![rule])));
    let at = "schema.properties[spec].x-kubernetes-validations[0]";
    for (rule, place, message) in [
        (
            object!({"rule": "self.replica > 0"}),
            "rule",
            "compilation failed: ERROR: <input>:1:5: undefined field 'replica'",
        ),
        (object!({"rule": "self.replicas"}), "rule", "cel expression must evaluate to a bool"),
        (object!({"rule": " "}), "rule", "Required value: rule is not specified"),
        (object!({"rule": "true", "message": " "}), "message", "must be non-empty if specified"),
        (object!({"rule": "true", "message": "a\nb"}), "message", "must not contain line breaks"),
        (
            object!({"rule": "true ||\n false"}),
            "message",
            "message must be specified if rule contains line breaks",
        ),
        (
            object!({"rule": "true", "messageExpression": "1"}),
            "messageExpression",
            "messageExpression must evaluate to a string",
        ),
        (
            object!({"rule": "true", "reason": "Because"}),
            "reason",
            "supported values: \"FieldValueDuplicate\"",
        ),
        (object!({"rule": "true", "fieldPath": ".nope"}), "fieldPath", "must be a valid path"),
        (
            object!({"rule": "true", "optionalOldSelf": true}),
            "optionalOldSelf",
            "may not be set if oldSelf is not used in rule",
        ),
        (object!({"rule": "self.name.matches('[')"}), "rule", "invalid matches argument"),
        (
            object!({"rule": "self.name.find('[') == ''"}),
            "rule",
            "program instantiation failed: error parsing regexp: missing closing ]: `[`",
        ),
        (
            object!({"rule": "self.labels.all(a, self.labels.all(b, a != b))"}),
            "rule",
            "Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
        ),
    ] {
        let errors = one(rule.clone());
        let wanted = format!("{at}.{place}: ");
        assert!(errors.iter().any(|e| e.starts_with(&wanted) && e.contains(message)), "{rule}: {errors:#?}");
    }
    assert_eq!(one(object!({"rule": "true", "fieldPath": ".labels['a.b']"})), Vec::<String>::new());
}

#[test]
fn old_values_are_not_known_in_plain_lists() {
    let schema = object!({"type": "object", "properties": {"l": {"type": "array", "maxItems": 3, "items": {
        "type": "string", "maxLength": 5, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]
    }}}});
    let place = "schema.properties[l].items.x-kubernetes-validations[0].rule";
    let why =
        "oldSelf cannot be used on the uncorrelatable portion of the schema within schema.properties[l]";
    assert_eq!(definition(&schema), [format!("{place}: Invalid value: \"self == oldSelf\": {why}")]);
}

#[test]
fn costs_add_up_over_a_schema() {
    let rules: Vec<Value> = (0..40).map(|_| object!({"rule": "self.all(x, x.contains('a'))"})).collect();
    let mut schema = object!({"type": "object", "properties": {
        "l": {"type": "array", "maxItems": 100, "items": {"type": "string", "maxLength": 80000}}
    }});
    schema.set(&["properties", "l", "x-kubernetes-validations"], rules);
    let errors = definition(&schema);
    assert_eq!(errors.len(), 5, "{errors:#?}");
    assert!(errors[0].ends_with(
        "Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
    ));
    assert!(errors[4].starts_with(
        "schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds \
         budget by factor of 1."
    ));
}

#[test]
fn single_costs_of_an_unchanged_schema_are_let_be() {
    let schema = resource(object!([{"rule": "self.labels.all(a, self.labels.all(b, a != b))"}]));
    let how = Check { path: "schema", compile: true, known: &|_| true, unchanged: true };
    let errors: Vec<String> = check(&schema, &how).iter().map(ToString::to_string).collect();
    assert!(
        !errors.is_empty() && errors.iter().all(|e| e.contains("entire OpenAPIv3 schema")),
        "{errors:#?}"
    );
    // Without the form being right elsewhere, nothing is compiled.
    let how = Check { path: "schema", compile: false, known: &|_| false, unchanged: false };
    assert_eq!(check(&resource(object!([{"rule": "nonsense("}])), &how), []);
}
