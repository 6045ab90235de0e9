use std::sync::Arc;

use api::{Value, object};

use crate::decl::{Decl, DeclTypes, MAX_REQUEST};
use crate::env::{Env, Version};

fn schema() -> Value {
    object!({"type": "object", "properties": {
        "n": {"type": "integer"},
        "short": {"type": "string", "maxLength": 10},
        "long": {"type": "string"},
        "kind": {"type": "string", "enum": ["A", "LONGEST"]},
        "few": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 20}},
        "many": {"type": "array", "items": {"type": "integer"}},
        "labels": {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "string", "maxLength": 5}},
        "nested": {"type": "array", "maxItems": 4, "items": {"type": "object", "properties": {
            "inner": {"type": "array", "maxItems": 6, "items": {"type": "integer"}}
        }}},
        "when": {"type": "string", "format": "date-time"}
    }})
}

/// The most that the expression costs.
fn most(expression: &str) -> u64 {
    let decl = Arc::new(Decl::from_schema(&schema(), "Self", false).unwrap());
    let env = Env::new(Version::STORED)
        .with_bindings()
        .variable("self", decl.cel_type())
        .declarations(Arc::new(DeclTypes::new([decl.clone()])));
    let checked = env.compile(expression).unwrap_or_else(|issues| panic!("{issues}"));
    checked.estimate_cost(decl.as_ref()).max
}

#[test]
fn limits_of_the_schema_bound_the_cost() {
    for (expression, expected) in [
        ("true", 0),
        // Numbers of an object have no size.
        ("self.n == 1", 2),
        ("has(self.n)", 1),
        // Four bytes for each of ten characters.
        ("self.short == 'abcdefghijklmnop'", 4),
        ("self.short.contains('a')", 6),
        ("self.long.contains('a')", MAX_REQUEST / 10 + 3),
        ("self.kind.startsWith('A')", 3),
        ("self.kind == self.long", 5),
        ("self.few.all(s, s == 'x')", 2 + 5 * (2 + 1 + 1 + 1) + 1),
        ("self.many.size() > 0", 4),
        ("self.labels.all(k, self.labels[k] == 'x')", 2 + 3 * 8 + 1),
        ("self.nested.all(x, x.inner.all(y, y > 0))", 2 + 4 * (2 + 1 + (2 + 6 * 5 + 1)) + 1),
        ("self.short.matches('[a-z]+')", 2 + 5 * 2),
        ("self.short.lowerAscii() == 'abc'", 7),
        ("cel.bind(s, self.few, s.size() > 2 && s.size() < 9)", 10 + 2 + 6),
        ("self.when < timestamp('2020-01-01T00:00:00Z')", 4),
        ("[1, 2, 3].exists(x, x in self.many)", 10 + 3 * (3 + 1 + 1 + 2 + MAX_REQUEST / 2 - 1) + 1),
    ] {
        assert_eq!(most(expression), expected, "{expression}");
    }
}

#[test]
fn what_has_no_limit_saturates() {
    assert_eq!(
        most("self.many.all(a, self.many.all(b, self.many.all(c, self.many.all(d, a + b + c < d))))"),
        u64::MAX
    );
    assert!(most("lists.range(self.n).all(x, x > 0)") > u64::MAX / 2);
}
