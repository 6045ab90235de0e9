//! What holds for any bytes. Built for tests and for fuzzing alone; the corpora are in `fuzz/corpus`.
//!
//! Inputs of several parts have lines of three dashes between them.

use std::str::from_utf8;

use api::{Value, json};

use crate::access::{About, Expression};
use crate::decl::Decl;
use crate::device::{Device, Selector};
use crate::rules::{Check, Rules, check};
use crate::{Env, Limits, Type, Val, Version};

static DYN: Decl = Decl::DYN;

/// What the expressions here may cost.
const COST: u64 = 20_000;

/// The parts of an input.
fn parts<const N: usize>(data: &[u8]) -> Option<[&str; N]> {
    from_utf8(data).ok()?.split("\n---\n").collect::<Vec<_>>().try_into().ok()
}

fn document(text: &str) -> Option<Value> {
    json::decode(text.as_bytes()).ok().map(|d| d.value)
}

/// An expression and what its variable `object` is: no evaluation ends well above the limit of its cost, and every
/// evaluation of it gives the same.
pub fn expressions(data: &[u8]) {
    let Some([text, object]) = parts(data) else { return };
    let Some(object) = document(object) else { return };
    for about in [About::Claims, About::User, About::Review] {
        if let Ok(expression) = Expression::compile(about, text, &[]) {
            let _ = (expression.selects("extra"), expression.evaluate(&object).is_ok());
        }
    }
    let env = Env::new(Version::STORED).with_bindings().with_json_patch().variable("object", Type::Dyn);
    let Ok(checked) = env.compile(text) else { return };
    let Ok(program) = checked.program() else { return };
    let evaluate = || {
        let variable = ("object", Val::from_data(&object, &DYN).expect("any document is dynamic"));
        program.evaluate(&[variable], Limits { cost: COST, deadline: None })
    };
    let ((first, cost), (second, again)) = (evaluate(), evaluate());
    assert_eq!((first.is_ok(), cost), (second.is_ok(), again));
    assert!(first.is_err() || cost <= COST, "cost {cost}");
}

/// A schema with rules, an object and what it was before: the rules are judged without fail.
pub fn rules(data: &[u8]) {
    let Some([schema, object, old]) = parts(data) else { return };
    let (Some(schema), Some(object)) = (document(schema), document(object)) else { return };
    let _ = check(&schema, &Check { path: "schema", compile: true, known: &|_| false, unchanged: false });
    let Some(rules) = Rules::new(&schema) else { return };
    let mut warnings = 0;
    let _ = rules.validate(&object, document(old).as_ref(), &mut |_| warnings += 1);
    assert!(document(old).is_some() || warnings == 0, "nothing is let pass without an old object");
}

/// A selector of devices and a device.
pub fn devices(data: &[u8]) {
    let Some([text, device]) = parts(data) else { return };
    let Some(device) = document(device) else { return };
    let Ok(selector) = Selector::new(text, Version::STORED) else { return };
    let Ok(device) = Device::new("driver.example.com", &device) else { return };
    let _ = (selector.max_cost(), selector.matches(&device));
}

#[test]
fn committed_inputs_hold() {
    testing::replay(&[("expressions", expressions), ("rules", rules), ("devices", devices)]);
}
