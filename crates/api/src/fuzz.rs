//! What holds for any bytes. Built for tests and for fuzzing alone; the corpora are in `fuzz/corpus`.

use std::str::from_utf8;

use crate::quantity::Quantity;
use crate::selector::{FieldSelector, LabelSelector};
use crate::{Value, json, names, time};

/// Documents that were read are written as what is written the same again.
pub fn documents(data: &[u8]) {
    let Ok(read) = json::decode(data) else { return };
    let written = read.value.to_json();
    let again = json::decode(&written).expect("what was written is JSON");
    assert_eq!(again.value.to_json(), written);
    assert!(again.duplicates.is_empty());
    let _ = LabelSelector::from_object(&read.value).map(|s| s.map(|s| s.matches_labels(&read.value)));
}

/// Selectors are printed as what is read as the same selector again.
pub fn selectors(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        let printed = selector.to_string();
        let again = LabelSelector::parse(&printed).expect("what is printed is a selector");
        assert_eq!((again.requirements().len(), again.to_string()), (selector.requirements().len(), printed));
        let (none, some) = (selector.matches(|_| None), selector.matches(|_| Some("1")));
        assert!(!selector.is_everything() || (none && some));
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let printed = selector.to_string();
        assert_eq!(FieldSelector::parse(&printed).as_ref(), Ok(&selector), "printed as {printed:?}");
        assert!(!selector.is_everything() || selector.matches(|_| ""));
    }
}

/// Quantities and times have one canonical form, and names are judged without fail.
pub fn scalars(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    let mut sum = Quantity::from_millis(1);
    for word in text.split_whitespace() {
        if let Ok(quantity) = word.parse::<Quantity>() {
            let printed = quantity.to_string();
            let again: Quantity = printed.parse().expect("what is printed is a quantity");
            assert_eq!(again.to_string(), printed, "{word}");
            assert_eq!(again.cmp(&quantity), std::cmp::Ordering::Equal, "{word} is printed as {printed}");
            let _ = (quantity.units(), quantity.millis(), quantity.as_f64(), quantity.is_integer());
            sum = sum.plus(quantity).minus(again).plus(quantity);
        }
        // Years before the first have no form that is read again.
        if let Some(t) = time::parse(word).filter(|t| !time::format(*t).starts_with('-')) {
            assert_eq!(
                time::parse(&time::format_micro(t)).map(time::format),
                Some(time::format(t)),
                "{word}"
            );
        }
    }
    let _ = sum.to_string();
    let rules: [fn(&str) -> Vec<String>; 16] = [
        names::dns_label,
        names::dns_subdomain,
        names::dns1035_label,
        names::path_segment,
        names::qualified_name,
        names::wildcard_subdomain,
        names::search_domain,
        names::port_name,
        names::environment_variable,
        names::http_header,
        names::percent,
        names::label_value,
        names::config_key,
        |text| vec![names::generate(text)],
        |text| vec![names::safe_encode(text)],
        |text| vec![Value::from(text).to_string()],
    ];
    for rule in rules {
        let _ = rule(text);
    }
}

#[test]
fn committed_inputs_hold() {
    testing::replay(&[("documents", documents), ("selectors", selectors), ("scalars", scalars)]);
}
