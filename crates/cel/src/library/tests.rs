use std::sync::Arc;

use super::Library;
use super::call::{Call, Patterns, builtin};
use crate::cost::rule;
use crate::env::Version;
use crate::types::Type;
use crate::value::map::Entries;
use crate::value::{Map, Outcome, Val};

/// What the planner makes steps of its own.
const PLANNED: [&str; 11] = [
    "_?_:_",
    "_&&_",
    "_||_",
    "@not_strictly_false",
    "_==_",
    "_!=_",
    "_[_]",
    "_[?_]",
    "_?._",
    "or",
    "orValue",
];

/// Values of every type, some of them at the edges.
fn samples() -> Vec<Val<'static>> {
    let mut entries = Entries::default();
    entries.insert(Val::string("é"), Val::Int(1)).unwrap();
    let call = |name: &str, arg: &str| {
        let mut patterns = Patterns::default();
        let mut call = Call { overload: "", patterns: &mut patterns };
        (builtin(name).unwrap())(&mut call, &[Val::string(arg)]).unwrap()
    };
    vec![
        Val::Null,
        Val::Bool(true),
        Val::Int(i64::MIN),
        Val::Int(-1),
        Val::Int(1),
        Val::Int(i64::MAX),
        Val::Uint(u64::MAX),
        Val::Double(f64::NAN),
        Val::Double(-1e300),
        Val::string(""),
        Val::string("é%.1f1\u{1f600}"),
        Val::Bytes(Arc::from([0xff_u8])),
        call("timestamp", "9999-12-31T23:59:59.999999999Z"),
        call("timestamp", "0001-01-01T00:00:00Z"),
        Val::Duration(i64::MAX),
        Val::Duration(i64::MIN),
        Val::list(vec![]),
        Val::list(vec![Val::Int(1), Val::string("a"), Val::list(vec![Val::Null])]),
        Val::Map(Map::new(entries)),
        Val::Type(Type::Int),
        Val::Optional(None),
        Val::Int(7).some(),
        call("url", "https://é.example:1/é?%C3%A9"),
        call("quantity", "-9223372036854775807"),
        call("ip", "255.255.255.255"),
        call("ip", "::1"),
        call("cidr", "::/0"),
        call("cidr", "10.0.0.0/32"),
        call("semver", "18446744073709551615.0.0"),
    ]
}

#[test]
fn every_signature_has_a_function() {
    let library = Library::base(Version::STORED).with_json_patch();
    for name in library.functions.keys().filter(|name| !PLANNED.contains(name)) {
        assert!(builtin(name).is_some(), "{name}");
    }
}

#[test]
fn functions_fail_on_what_they_are_not_for() {
    let library = Library::base(Version::STORED).with_json_patch();
    let samples = samples();
    let mut called = 0;
    for function in library.functions.values() {
        let Some(builtin) = builtin(function.name) else { continue };
        for overload in &function.overloads {
            let mut patterns = Patterns::default();
            let mut run = |args: &[&Val<'static>]| {
                let args: Vec<Val<'static>> = args.iter().map(|v| (*v).clone()).collect();
                let mut call = Call { overload: overload.id, patterns: &mut patterns };
                let result: Outcome<'_> = builtin(&mut call, &args);
                let args: Vec<Outcome<'_>> = args.into_iter().map(Ok).collect();
                rule(function.name, overload.id).cost(&args, &result);
                if let Ok(v) = result {
                    let _ = v.to_string();
                }
                called += 1;
            };
            match overload.params.len() {
                0 => run(&[]),
                1 => samples.iter().for_each(|a| run(&[a])),
                2 => samples.iter().for_each(|a| samples.iter().for_each(|b| run(&[a, b]))),
                _ => {
                    // The first argument fits, or nothing would be reached.
                    for a in samples.iter().filter(|a| matches!(a, Val::String(_) | Val::List(_))) {
                        for b in &samples {
                            samples.iter().for_each(|c| run(&[a, b, c]));
                        }
                    }
                }
            }
        }
    }
    assert!(called > 10_000, "{called}");
}

#[test]
fn texts_of_go_are_read_and_written() {
    let seconds = |text: &str| super::time::parse_duration(text);
    assert_eq!(seconds("1h15m30.918s"), Some(4_530_918_000_000));
    assert_eq!(seconds("-1.5ms"), Some(-1_500_000));
    assert_eq!(seconds("1\u{b5}s"), Some(1_000));
    assert_eq!(seconds("0"), Some(0));
    for wrong in ["", "1", "1x", "s", ".s", "-", "1h-1m", "10000000h", "1e3s", "1..s"] {
        assert_eq!(seconds(wrong), None, "{wrong}");
    }
    let time = |text: &str| super::time::parse_timestamp(text).map(|t| t.to_string());
    for right in ["9999-12-31T23:59:59.999999999Z", "0001-01-01T00:00:00Z", "2020-02-29T01:02:03-07:30"] {
        assert_eq!(time(right).as_deref(), Some(right));
    }
    for wrong in [
        "2021-02-29T00:00:00Z",
        "2020-01-01",
        "2020-01-01T24:00:00Z",
        "2020-01-01T00:00:60Z",
        "2020-01-01t00:00:00Z",
    ] {
        assert_eq!(time(wrong), None, "{wrong}");
    }
    let float = super::format::shortest;
    assert_eq!(
        [1.0, 0.1, 123456.0, 1234567.0, 1e21, 1e-5, -2.5e-7, f64::INFINITY].map(float),
        ["1", "0.1", "123456", "1.234567e+06", "1e+21", "1e-05", "-2.5e-07", "+Inf"]
    );
    let complaint = |pattern: &str| super::regex::compile(pattern).unwrap_err();
    for (pattern, message) in [
        ("a(", "missing closing ): `a(`"),
        ("a)", "unexpected ): `a)`"),
        ("[a", "missing closing ]: `[a`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a+?+", "invalid nested repetition operator: `+?+`"),
    ] {
        assert_eq!(complaint(pattern), format!("error parsing regexp: {message}"));
    }
    for fine in ["[*+]+", "[]*+]", r"\*+", "a+?", "(?:a*)*", "(?i)x", "^[^]]++?$"] {
        let _ = super::regex::compile(fine);
    }
    assert!(super::regex::compile("[*+]+").is_ok() && super::regex::compile(r"\++").is_ok());
}
