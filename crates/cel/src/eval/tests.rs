use std::sync::Arc;

use api::{Value, object};

use super::{Activation, Limits};
use crate::decl::{Decl, DeclTypes};
use crate::env::{Env, Version};
use crate::library::authz::{Attributes, Authorizer, Authz, Decision};
use crate::types::Type;
use crate::value::{EvalError, Outcome, Val};

/// Allows reading pods.
struct Pods;

impl Authorizer for Pods {
    fn authorize(&self, asked: &Attributes) -> Decision {
        let allowed = &*asked.resource == "pods" && asked.verb == "get";
        let who = asked.service_account.as_ref().map_or("user", |(_, name)| name);
        Decision { allowed, reason: format!("{who} asks for {}", asked.name), error: None }
    }
}

struct Variables<'a> {
    object: &'a Value,
    decl: &'a Decl,
}

impl<'a> Activation<'a> for Variables<'a> {
    fn variable(&self, name: &str) -> Option<Outcome<'a>> {
        match name {
            "self" => Some(Val::from_data(self.object, self.decl)),
            "authorizer" => Some(Ok(Val::Authz(Authz::new(&Pods)))),
            _ => None,
        }
    }

    fn computed_field(&self, name: &str, field: &str) -> Option<Outcome<'a>> {
        match (name, field) {
            ("variables", "two") => Some(Ok(Val::Int(2))),
            ("variables", _) => Some(Err(EvalError::new("composited variable fails"))),
            _ => None,
        }
    }
}

fn schema() -> Value {
    object!({"type": "object", "properties": {
        "name": {"type": "string"},
        "n": {"type": "integer"},
        "ratio": {"type": "number"},
        "ports": {"type": "array", "items": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "keyed": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "namespace": {"type": "string"},
        "port": {"x-kubernetes-int-or-string": true},
        "when": {"type": "string", "format": "date-time"},
        "wait": {"type": "string", "format": "duration"},
        "data": {"type": "string", "format": "byte"},
        "none": {"type": "string", "nullable": true}
    }})
}

fn data() -> Value {
    object!({
        "name": "web-1", "n": 3, "ratio": 2, "ports": [80, 443], "set": ["a", "b"],
        "keyed": [{"k": "x", "v": 1}, {"k": "y", "v": 2}], "labels": {"app": "web", "a/b": "c"},
        "namespace": "default", "port": "http", "when": "2020-02-29T12:30:45.5Z", "wait": "1h30m",
        "data": "aGk=", "none": null
    })
}

/// The value, or what went wrong, and the cost.
fn run(expression: &str, limits: Limits) -> (String, u64) {
    let decl = Arc::new(Decl::from_schema(&schema(), "Self", false).unwrap());
    let object = data();
    let env = Env::new(Version::STORED)
        .with_bindings()
        .with_json_patch()
        .variable("self", decl.cel_type())
        .variable("authorizer", Type::object("kubernetes.authorization.Authorizer"))
        .variable("variables", Type::map(Type::String, Type::Dyn))
        .declarations(Arc::new(DeclTypes::new([decl.clone()])));
    let checked = env.compile(expression).unwrap_or_else(|issues| panic!("{issues}"));
    let program = match checked.program() {
        Ok(program) => program,
        Err(e) => return (format!("program: {e}"), 0),
    };
    let variables = Variables { object: &object, decl: &decl };
    let (outcome, cost) = program.evaluate(&variables, limits);
    (outcome.map_or_else(|e| format!("error: {e}"), |v| v.to_string()), cost)
}

fn check(expression: &str, expected: &str) {
    assert_eq!(run(expression, Limits::default()).0, expected, "{expression}");
}

/// Each expression is true.
fn holds(expressions: &[&str]) {
    expressions.iter().for_each(|e| check(e, "true"));
}

fn costs(expression: &str, expected: u64) {
    let (shown, cost) = run(expression, Limits::default());
    assert_eq!(cost, expected, "{expression} is {shown}");
}

#[test]
fn numbers_are_computed_with_care() {
    check("7 / 2 * 2 + 7 % 2 - -1", "8");
    check("1 / 0", "program: division by zero".replace("program", "error").as_str());
    check("1 % 0", "error: modulus by zero");
    check("9223372036854775807 + 1", "error: integer overflow");
    check("-9223372036854775808 / -1", "error: integer overflow");
    check("0u - 1u", "error: unsigned integer overflow");
    check("1.0 / 0.0", "+Inf");
    check("string(1e6) + string(0.00001) + string(123456.5)", "1e+061e-05123456.5");
    check("int('12') + int(3.9) + int(4u) + int(duration('2ns'))", "21");
    check("int('x')", "program: type conversion error from 'string' to 'int'");
    check("int(self.ratio * 1e30)", "error: integer overflow");
    check("uint(self.n - 4)", "error: unsigned integer overflow");
    check("double('1e999')", "program: type conversion error from 'string' to 'double'");
    holds(&[
        "dyn(1) == 1.0 && 1u == dyn(1) && dyn(2.5) > 2 && 3 < dyn(3u) + dyn(1u)",
        "dyn(9223372036854775807) < 18446744073709551615u && dyn(-1) < 0u",
        "self.ratio == 2.0 && type(self.ratio) == double && self.n == 3",
        "double('NaN') != double('NaN')",
        "bool('t') && !bool('False')",
    ]);
}

#[test]
fn logic_absorbs_errors() {
    holds(&[
        "1 / 0 == 1 || true",
        "true || 1 / 0 == 1",
        "!(1 / 0 == 1 && false)",
        "[0, 1].exists(x, 1 / x == 1)",
    ]);
    check("1 / 0 == 1 || false", "error: division by zero");
    check("[0, 2].all(x, 4 / x == 2)", "error: division by zero");
    check("[0, 2].all(x, 4 / x == 3)", "false");
    check("self.n > 1 ? 'many' : self.labels.missing", "many");
    check("dyn(1) || false", "error: no such overload");
}

#[test]
fn text_is_cut_and_joined() {
    check("self.name.charAt(0) + 'héllo'.substring(1, 3) + 'abc'.charAt(3)", "wél");
    check("'abc'.charAt(4)", "error: index out of range: 4");
    check("'abc'.substring(2, 1)", "error: invalid substring range. start: 2, end: 1");
    check(
        "'a-b-c'.split('-') + 'a-b-c'.split('-', 2) + 'ab'.split('') + 'a'.split('-', 0)",
        "[a, b, c, a, b-c, a, b]",
    );
    check("['x', 'y'].join('/') + ['a'].join()", "x/ya");
    check("'ababab'.replace('b', 'X', 2) + 'aa'.replace('', '-')", "aXaXab-a-a-");
    check(
        "['hello hello'.indexOf('l'), 'hello'.lastIndexOf('l'), 'hello'.indexOf('l', 3), 'héé'.lastIndexOf('é', 1)]",
        "[2, 3, 3, 1]",
    );
    check("'ta©o©αT'.lastIndexOf('©', 3) + 'abab'.lastIndexOf('ab', 1) + 'aaa'.lastIndexOf('aa')", "3");
    check("'  a\\t'.trim() + 'ÀbC'.upperAscii() + 'ÀbC'.lowerAscii()", "aÀBCÀbc");
    check("strings.quote('a\"\\n')", "\"a\\\"\\n\"");
    check(
        "'%s|%d|%.2f|%x|%X|%o|%b|%%'.format(['a', 7, 3.14159, 255, 'hi', 8, true])",
        "a|7|3.14|ff|6869|10|1|%",
    );
    check(
        "'%s %s'.format([['a', 1.0], {'k': duration('1m')}])",
        "[\"a\", 1.000000] {\"k\":duration(\"60s\")}",
    );
    check(
        "'%d'.format([dyn('a')])",
        "error: error during formatting: decimal clause can only be used on integers, was given string",
    );
    check("self.name.format([])", "web-1");
    check("jsonpatch.escapeKey('a/b~c')", "a~1b~0c");
    holds(&[
        "self.name.matches('^web-[0-9]+$') && 'abc123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2']",
        "'a1b2'.findAll('[0-9]', 1) == ['1'] && 'x'.find('y') == ''",
        "self.name.contains('eb') && self.name.startsWith('web') && self.name.endsWith('1')",
        "size('héé') == 3 && size(b'héé') == 5 && string(self.data) == 'hi' && self.data == b'hi'",
    ]);
    check("string(b'\\xff')", "program: invalid UTF-8 in bytes, cannot convert to string");
    check("'a'.matches('(' + ')(')", "error: error parsing regexp: missing closing ): `()(`");
}

#[test]
fn objects_are_read_by_their_schema() {
    check("self.ports[1]", "443");
    check("self.ports[2]", "error: index out of bounds: 2");
    check("self.labels.missing", "error: no such key: missing");
    check("self.labels['a/b'] + self.__namespace__ + self.namespace", "cdefaultdefault");
    check("self.port", "http");
    holds(&[
        "has(self.name) && !has(self.none) && has(self.labels.app) && !has(self.labels.other)",
        "self.when == timestamp('2020-02-29T12:30:45.5Z') && self.when.getDate() == 29 && self.wait > duration('1h')",
        "self.set == ['b', 'a'] && self.set + ['b', 'c'] == ['c', 'a', 'b'] && size(self.set + ['b']) == 2",
        "self.ports != [443, 80] && self.keyed == [self.keyed[1], self.keyed[0]]",
        "self.keyed.all(e, e.v > 0) && self.keyed.map(e, e.k) == ['x', 'y']",
        "'app' in self.labels && !('b' in self.labels) && 80 in self.ports && self.labels.all(k, size(k) > 2)",
        "type(self.labels) == map && type(self.ports) == list && type(self) == map",
    ]);
    check("variables.two + 1", "3");
    check("variables.other", "error: composited variable fails");
}

#[test]
fn optional_values_are_chained() {
    check("self.?name.orValue('none')", "web-1");
    check("self.labels.?nope.orValue('none')", "none");
    check("self.labels[?'nope'].hasValue() || self.ports[?7].hasValue()", "false");
    check("self.ports[?0].optMap(p, p + 1).value()", "81");
    check("optional.none().value()", "error: optional.none() dereference");
    check("self.?none.or(self.?name).value()", "web-1");
    check("[?optional.of(1), ?self.ports[?9]]", "[1]");
    check("{?'a': self.?name, ?'b': self.labels.?zip}", "{a: web-1}");
    check("optional.ofNonZeroValue('').hasValue()", "false");
    check("optional.of([1]).optFlatMap(x, x.first()).value() + optional.unwrap([optional.of(2)])[0]", "3");
    check("has(self.?labels.app)", "true");
    check("has(self.?labels.nope)", "false");
}

#[test]
fn lists_and_maps_are_folded() {
    check("[1, 2, 3].map(x, x % 2 == 1, x * x)", "[1, 9]");
    check(
        "[3, 1, 2].sort() + [3, 1].reverse() + lists.range(2) + [1, 1, 2].distinct()",
        "[1, 2, 3, 1, 3, 0, 1, 1, 2]",
    );
    check("['bb', 'a'].sortBy(s, size(s))", "[a, bb]");
    check("[[1], [2, 3]].flatten() + [1, 2, 3].slice(1, 2)", "[1, 2, 3, 2]");
    check("[[[1], [2]]].flatten(2)", "[1, 2]");
    check("[1].slice(0, 2)", "error: cannot slice(0, 2), list is length 1");
    check("[1, 2].sum() + [4, 9].max() - [4, 9].min() + [5, 6, 5].lastIndexOf(5)", "10");
    check("[1.5, 2.0].sum()", "3.5");
    check("self.ports.filter(p, p > 1000).max()", "error: max called on empty list");
    check("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 10)", "{b: 20}");
    check("['x', 'y'].transformList(i, v, '%s%d'.format([v, i]))", "[x0, y1]");
    check("['x'].transformMapEntry(i, v, {v: i})", "{x: 0}");
    check("['x', 'x'].transformMapEntry(i, v, {v: i})", "error: insert failed: key x already exists");
    check("cel.bind(a, 1 + 1, cel.bind(b, a * a, a + b))", "6");
    check("cel.bind(a, 1 / 0, 5)", "5");
    check("dyn(1).exists(x, x > 0)", "error: got 'types.Int', expected iterable type");
    check("dyn('a').all(i, v, true)", "error: unsupported comprehension range type: types.String");
    check("[[1, 2], [3]].map(l, l.map(x, x + size(l)))", "[[3, 4], [4]]");
    holds(&[
        "[1, 2].exists_one(x, x > 1) && [1, 2].all(i, v, i < v) && {'a': 1}.exists(k, v, v == 1)",
        "sets.contains([1, 2], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])",
        "[1, 2, 2].isSorted() && !['b', 'a'].isSorted() && {1: 'a'}[1] == 'a' && {'a': [1]} == {'a': [1]}",
        "type([]) == list && type(type(1)) == type && type(null) == null_type",
    ]);
}

#[test]
fn times_have_parts() {
    check(
        "string(timestamp('2011-08-18T19:03:37.010+01:00') + duration('1h'))",
        "2011-08-18T20:03:37.01+01:00",
    );
    check("timestamp('2011-08-18T19:03:37+01:00').getHours()", "18");
    check("self.when + self.wait", "2020-02-29T14:00:45.5Z");
    check("string(duration('90m')) + string(duration('1ms'))", "5400s0.001s");
    check("timestamp('9999-12-31T23:59:59Z') + duration('1s')", "error: timestamp overflow");
    check("timestamp('2020-01-01T00:00:00Z').getFullYear('-01:00')", "2019");
    check(
        "timestamp('2020-01-01T12:00:00Z').getHours('Nowhere/Here')",
        "error: unknown time zone Nowhere/Here",
    );
    check("duration('-1h15m').getMinutes() + duration('1.5s').getMilliseconds()", "1425");
    check(
        "[self.when.getMonth(), self.when.getDayOfYear(), self.when.getDayOfWeek(), self.when.getMilliseconds()]",
        "[1, 59, 6, 500]",
    );
    check("int(timestamp('1969-12-31T23:59:59.5Z'))", "-1");
    check("timestamp('2020-01-02T00:00:00Z') - timestamp('2020-01-01T00:00:00Z')", "86400s");
}

#[test]
fn kubernetes_libraries_work() {
    check("url('https://u@example.com:80/a b?x=1&x=2&y=%20#f').getQuery()", "{x: [1, 2], y: [ ]}");
    check("url('https://[::1]:80/a%20b').getHostname() + url('/p q').getEscapedPath()", "::1/p%20q");
    check("quantity('1.5Gi').add(quantity('512Mi')).compareTo(quantity('2Gi'))", "0");
    check("quantity('50k').sub(1).asInteger() + sign(quantity('-1'))", "49998");
    check("quantity('0.5').asInteger()", "error: cannot convert value to integer");
    check("ip('2001:DB8::1').family() + cidr('10.1.2.3/8').prefixLength()", "14");
    check("cidr('10.1.2.3/8').masked()", "10.0.0.0/8");
    check("ip('::ffff:1.2.3.4')", "error: IPv4-mapped IPv6 address \"::ffff:1.2.3.4\" is not allowed");
    check("semver('v1.2', true).minor() + semver('1.2.3').compareTo(semver('1.10.0'))", "1");
    check(
        "format.dns1123Label().validate('A')",
        "optional([a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')])",
    );
    check("authorizer.group('').resource('pods').name('p').check('get').reason()", "user asks for p");
    check(
        "authorizer.serviceAccount('ns', 'robot').group('').resource('nodes').check('get').allowed()",
        "false",
    );
    check("authorizer.path('')", "error: path must not be empty");
    holds(&[
        "isURL('https://a.b/c') && isURL('/a') && !isURL('../a') && !isURL('https://a:b/') && !isURL('')",
        "quantity('1k').isInteger() && !quantity('1000m').isInteger() && !quantity('99999999999999999999G').isInteger()",
        "isQuantity('20Mi') && !isQuantity('200 Mi') && quantity('1k') == quantity('1000')",
        "isIP('1.2.3.4') && !isIP('1.2.3') && ip.isCanonical('::1') && !ip.isCanonical('0:0::1') && ip('127.0.0.1').isLoopback()",
        "cidr('10.0.0.0/8').containsIP('10.9.9.9') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !isCIDR('10.0.0.0/33')",
        "isSemver('1.0.0-beta+1') && !isSemver('1.0') && isSemver('v1', true) && semver('1.0.0').isLessThan(semver('1.0.1'))",
        "format.named('uuid').value().validate('8c1f7ddc-3f5b-4a0e-8e65-b3c0d6d9d9c3') == optional.none() && !format.named('x').hasValue()",
        "string(ip('1.2.3.4')) == '1.2.3.4' && cidr('::/0').ip() == ip('::')",
    ]);
}

#[test]
fn costs_are_counted_as_upstream_counts_them() {
    costs("self.n == 3", 3);
    costs("self.name == 'web-1'", 3);
    costs("has(self.name)", 1);
    costs("self.ports[0] == 80", 4);
    costs("self.ports[self.n - 3]", 6);
    costs("self.ports.all(p, p > 0)", 13);
    costs("[1, 2, 3].map(x, x)", 40);
    costs("1 in [1, 2, 3]", 0);
    costs("self.n in self.ports", 6);
    costs("true ? self.name : 'x'", 1);
    costs("self.name.startsWith('web') || 1 / 0 == 1", 3);
    costs("self.name.lowerAscii()", 3);
    costs("authorizer.group('').resource('pods').check('get').allowed()", 350_004);
    costs("[3, 1].sort()", 19);
    costs("cel.bind(a, 1, a + a)", 3);
    costs("{'a': self.n}", 32);
}

#[test]
fn costs_and_time_are_limited() {
    let limits = Limits { cost: 100, deadline: None };
    let (shown, cost) = run("lists.range(1000).all(x, x >= 0) || true", limits);
    assert_eq!(shown, "error: operation cancelled: actual cost limit exceeded");
    assert!(cost > 100 && cost < 2000, "{cost}");
    let limits = Limits { cost: u64::MAX, deadline: Some(std::time::Instant::now()) };
    let (shown, _) = run("lists.range(100000).all(x, x >= 0)", limits);
    assert_eq!(shown, "error: operation interrupted");
    check("lists.range(1000000000)", "error: list is too long");
    let doubled = (0..60).fold("self.ports".to_owned(), |inner, _| format!("cel.bind(l, {inner}, l + l)"));
    check(&doubled, "error: list is too long");
    let long = "'0123456789'.replace('', '0123456789')".to_owned();
    let long = (0..8).fold(long, |inner, _| format!("cel.bind(s, {inner}, s.replace('', s))"));
    check(&long, "error: string is too long");
}

#[test]
fn folds_build_lists_in_linear_time() {
    let started = std::time::Instant::now();
    let limits = Limits { cost: u64::MAX, deadline: None };
    let (shown, _) = run("size(lists.range(200000).map(x, x).filter(x, x % 2 == 0))", limits);
    assert_eq!(shown, "100000");
    assert!(started.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn big_objects_are_searched_in_reasonable_time() {
    let members = (0..20_000).map(|n| (format!("key{n}"), Value::from(n)));
    let object =
        Value::Object(members.collect::<Vec<_>>().into_iter().fold(api::Map::new(), |mut map, (k, v)| {
            map.push(k, v);
            map
        }));
    let checked = Env::new(Version::STORED)
        .variable("m", Type::map(Type::String, Type::Dyn))
        .compile("m.all(k, k in m && m[k] >= 0)");
    let program = checked.unwrap().program().unwrap();
    let started = std::time::Instant::now();
    let variables = [("m", Val::from_data(&object, &Decl::DYN).unwrap())];
    let (outcome, _) = program.evaluate(&variables, Limits { cost: u64::MAX, deadline: None });
    assert!(matches!(outcome, Ok(Val::Bool(true))), "{outcome:?}");
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn values_become_parts_of_objects() {
    let export = |expression: &str| {
        let program = Env::new(Version::STORED).compile(expression).unwrap().program().unwrap();
        let (outcome, _) = program.evaluate(&[("none", Val::Null)], Limits::default());
        outcome.unwrap().to_value().map_or_else(|e| e.to_string(), |v| v.to_string())
    };
    assert_eq!(
        export(
            "{'a': dyn([1u, 2u].map(x, x)), 'b': dyn(optional.none()), 'c': dyn(b'hi'), 'd': dyn(duration('1m'))}"
        ),
        r#"{"a":[1,2],"b":null,"c":"aGk=","d":"60s"}"#
    );
    assert_eq!(export("type(1)"), "a value of type type cannot be part of an object");
    assert_eq!(export("{1: 2}"), "no such overload");
}

#[test]
fn deep_expressions_fit_the_stack() {
    let nested = (0..60).fold("[1]".to_owned(), |inner, _| format!("[{inner}].map(x, x)[0]"));
    check(&format!("size({nested}) == 1"), "true");
    let parens = format!("{}1{}", "(1 + ".repeat(240), ")".repeat(240));
    check(&parens, "241");
}

/// Pieces of expressions, put together at random.
const PIECES: [&str; 72] = [
    "self",
    ".",
    "name",
    "n",
    "ports",
    "labels",
    "keyed",
    "when",
    "wait",
    "data",
    "port",
    "none",
    "set",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "?",
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "!=",
    "<",
    ">=",
    "&&",
    "||",
    "!",
    " in ",
    "1",
    "0",
    "-1",
    "2.5",
    "7u",
    "'a'",
    "'é'",
    "b'\\xff'",
    "true",
    "null",
    "has(",
    ".all(x,",
    ".map(x,",
    ".filter(x,",
    ".exists_one(x,",
    "x",
    ".size()",
    "size(",
    "string(",
    "int(",
    "timestamp('2020-01-01T00:00:00Z')",
    "duration('1h')",
    ".substring(1)",
    ".charAt(0)",
    ".split('')",
    ".matches('[')",
    ".format([1, 'é'])",
    ".?",
    "[?",
    ".orValue(1)",
    "optional.none()",
    "quantity('1')",
    "ip('::1')",
    "cidr('::/0')",
    "semver('1.0.0')",
    ".transformMap(k, v, v)",
    "dyn(",
];

proptest::proptest! {
    #[test]
    fn nothing_makes_the_evaluator_panic(picks in proptest::collection::vec(0..PIECES.len(), 1..14)) {
        let expression: String = picks.iter().map(|i| PIECES[*i]).collect();
        let object = data();
        let decl = Arc::new(Decl::from_schema(&schema(), "Self", false).unwrap());
        let env = Env::new(Version::STORED)
            .variable("self", decl.cel_type())
            .declarations(Arc::new(DeclTypes::new([decl.clone()])));
        if let Ok(checked) = env.compile(&expression) {
            checked.estimate_cost(decl.as_ref());
            if let Ok(program) = checked.program() {
                let _ = program.evaluate(&Variables { object: &object, decl: &decl }, Limits::default());
            }
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,40}") {
        let env = Env::new(Version::STORED);
        let _ = env.compile(&text);
        let _ = env.compile(&format!("'{text}'"));
        for call in ["matches('x',", "duration(", "timestamp(", "quantity(", "url(", "ip(", "cidr(", "semver("] {
            let quoted = format!("{text:?}");
            if let Ok(Ok(program)) = env.compile(&format!("{call}{quoted})")).map(|c| c.program()) {
                let _ = program.evaluate(&[("none", Val::Null)], Limits::default());
            }
        }
    }
}
