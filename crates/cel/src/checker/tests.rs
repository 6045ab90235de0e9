use std::sync::Arc;

use crate::env::{Env, Version};
use crate::types::{Declarations, Type};

/// An object type with two fields.
struct Pods;

impl Declarations for Pods {
    fn has_type(&self, name: &str) -> bool {
        matches!(name, "Pod" | "Spec")
    }

    fn field(&self, object: &str, field: &str) -> Option<Type> {
        match (object, field) {
            ("Pod", "name") => Some(Type::String),
            ("Pod", "spec") => Some(Type::object("Spec")),
            ("Spec", "replicas") => Some(Type::Int),
            ("Spec", "ports") => Some(Type::list(Type::Int)),
            ("Spec", "labels") => Some(Type::map(Type::String, Type::String)),
            ("Spec", "any") => Some(Type::Dyn),
            _ => None,
        }
    }
}

fn env(version: Version) -> Env {
    Env::new(version)
        .variable("self", Type::object("Pod"))
        .variable("x", Type::Dyn)
        .declarations(Arc::new(Pods))
}

/// The type of the expression, or what is wrong with it (the first line of each message).
fn check(expression: &str, expected: &str) {
    let outcome = match env(Version::STORED).compile(expression) {
        Ok(checked) => checked.output_type().to_string(),
        Err(issues) => {
            let lines: Vec<String> = issues
                .list()
                .iter()
                .map(|i| format!("{}:{}: {}", i.line.unwrap_or(0), i.column + 1, i.message))
                .collect();
            lines.join("\n")
        }
    };
    assert_eq!(outcome, expected, "{expression}");
}

#[test]
fn expressions_have_types() {
    check("1 + 2", "int");
    check("self.spec.replicas > 3 && self.name.startsWith('a')", "bool");
    check("self.spec.ports.map(p, string(p))", "list(string)");
    check("self.spec.labels", "map(string, string)");
    check("[]", "list(dyn)");
    check("[[], [1]]", "list(list(int))");
    check("{}", "map(dyn, dyn)");
    check("x.foo.bar", "dyn");
    check("x + 1", "int");
    check("x + x", "dyn");
    check("self.?spec.?replicas.orValue(3)", "int");
    check("self.spec.ports[?0]", "optional_type(int)");
    check("optional.none()", "optional_type(dyn)");
    check("self.spec.labels.transformMap(k, v, size(v))", "map(string, int)");
    check("self.spec.labels.all(k, v, k != v)", "bool");
    check("type(1) == int", "bool");
    check("type(self.name)", "type(string)");
    check("timestamp('2020-01-01T00:00:00Z') - duration('1h')", "timestamp");
    check("true ? self.name : 'x'", "string");
    check("self.spec.labels.exists_one(k, k == 'a')", "bool");
    check("self.spec.ports.sortBy(p, -p).first()", "optional_type(int)");
    check("1 < 2.0 && 1u < 2", "bool");
    check("1 == x", "bool");
    check("duration('1s') == null", "bool");
    check("Pod{name: 'a'}.name", "string");
    check("cidr('10.0.0.0/8').ip().family() + url('https://a').getHost().size()", "int");
    check("format.dns1123Label().validate('a').orValue(['x'])", "list(string)");
    check("['a'].sort() + ['b'].distinct()", "list(string)");
    check("[1, 2].max()", "int");
}

#[test]
fn mistakes_are_named_as_cel_go_names_them() {
    check("y", "1:1: undeclared reference to 'y' (in container '')");
    check("self.nam", "1:5: undefined field 'nam'");
    check("self.name.x", "1:10: type 'string' does not support field selection");
    check("1 + 'a'", "1:3: found no matching overload for '_+_' applied to '(int, string)'");
    check("self.name == 1", "1:11: found no matching overload for '_==_' applied to '(string, int)'");
    check("self.name == null", "1:11: found no matching overload for '_==_' applied to '(string, null)'");
    check("self.name.matches(1)", "1:18: found no matching overload for 'matches' applied to 'string.(int)'");
    check("foo(1)", "1:4: undeclared reference to 'foo' (in container '')");
    check("self.foo()", "1:9: undeclared reference to 'foo' (in container '')");
    check("[1, 'a']", "1:5: expected type 'int' but found 'string'");
    check("{'a': 1, 'b': 2.0}", "1:15: expected type 'int' but found 'double'");
    check("[1, dyn('a')]", "1:8: expected type 'int' but found 'dyn'");
    check("1 && true", "1:1: expected type 'bool' but found 'int'");
    check(
        "self.name.all(c, true)",
        "1:5: expression of type 'string' cannot be range of a comprehension (must be list, map, or dynamic)",
    );
    check("self.spec.ports.all(p, p)", "1:24: expected type 'bool' but found 'int'");
    check("true ? 1 : 'a'", "1:6: found no matching overload for '_?_:_' applied to '(bool, int, string)'");
    check(
        "Pod{nam: 'a', name: 1}",
        "1:8: undefined field 'nam'\n1:19: expected type of field 'name' is 'string' but provided type is 'int'",
    );
    check("'a'.matches('[')", "1:13: invalid matches argument");
    check("duration('1x') > duration('1s')", "1:10: invalid duration argument");
    check("timestamp('2020-13-01T00:00:00Z') == timestamp(0)", "1:11: invalid timestamp argument");
    check(
        "y + z",
        "1:1: undeclared reference to 'y' (in container '')\n1:5: undeclared reference to 'z' (in container '')",
    );
    check(
        "'%d'.format(['a'])",
        "1:14: error during formatting: decimal clause can only be used on integers, was given string",
    );
    check("'%s'.format([1, 'a'])", "1:12: too many arguments supplied to string.format (expected 1, got 2)");
    check(
        "'%z'.format([1])",
        "1:12: could not parse formatting clause: unrecognized formatting clause \"z\"",
    );
    check("[?1]", "1:3: expected type 'optional_type(int)' but found 'int'");
}

#[test]
fn versions_decide_what_is_known() {
    let new = |version, expression: &str| env(Version(version)).compile(expression).is_ok();
    assert!(new(34, "[1].distinct() == [1]") && !new(33, "[1].distinct() == [1]"));
    assert!(new(32, "[1].all(i, v, i < v)") && !new(31, "[1].all(i, v, i < v)"));
    assert!(new(33, "isSemver('1.0.0')") && !new(32, "isSemver('1.0.0')"));
    assert!(new(36, "'a'.lowerAscii() == 'a'") && !new(36, "'a'.reverse() == 'a'"));
    assert!(!new(36, "cel.bind(a, 1, a) == 1"));
    assert!(env(Version::NEW).with_bindings().compile("cel.bind(a, 1, a + a)").is_ok());
    assert!(env(Version::NEW).with_json_patch().compile("jsonpatch.escapeKey('a/b')").is_ok());
}

#[test]
fn variables_that_occur_are_known() {
    let checked = env(Version::STORED).compile("[1].all(self, self > 0) && x.self == 'oldSelf'").unwrap();
    assert!(checked.uses("x"));
    assert!(!checked.uses("oldSelf"));
}

#[test]
fn inference_does_not_blow_up() {
    let before = std::time::Instant::now();
    let expression = format!("[]==[]{}", "||[]==[]".repeat(10_000));
    assert!(env(Version::STORED).compile(&expression).is_ok());
    assert!(before.elapsed() < std::time::Duration::from_secs(5));
}
