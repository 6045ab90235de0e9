//! When a Job counts as failed, and when as done.

use std::collections::HashSet;

use crate::kinds::Errors;
use crate::kinds::check::At;

const RULES: usize = 20;
const PATTERNS: usize = 20;
const CODES: usize = 255;
const INDEXES_BYTES: usize = 64 * 1024;

pub(super) fn validate_failure(spec: &At<'_>, errors: &mut Errors) {
    let rules = spec.get("podFailurePolicy.rules");
    rules.not_more(errors, RULES);
    let mut containers: HashSet<String> = HashSet::new();
    for list in ["template.spec.containers", "template.spec.initContainers"] {
        containers.extend(spec.get(list).items().map(|c| c.get("name").text().to_owned()));
    }
    for rule in rules.items() {
        validate_rule(spec, &rule, &containers, errors);
    }
}

/// The words of a required value.
fn valid_values(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
    format!("valid values: [{}]", quoted.join(" "))
}

fn one_of(at: &At<'_>, values: &[&str], errors: &mut Errors) {
    if at.text().is_empty() {
        at.required(errors, valid_values(values));
    } else {
        at.one_of(errors, values);
    }
}

fn validate_rule(spec: &At<'_>, rule: &At<'_>, containers: &HashSet<String>, errors: &mut Errors) {
    let action = rule.get("action");
    if action.text() == "FailIndex" {
        if !spec.get("backoffLimitPerIndex").is_set() {
            action.invalid(errors, "requires the backoffLimitPerIndex to be set");
        }
    } else {
        one_of(&action, &["Count", "FailIndex", "FailJob", "Ignore"], errors);
    }
    let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
    if codes.is_set() {
        validate_codes(&codes, containers, errors);
    }
    conditions.not_more(errors, PATTERNS);
    for pattern in conditions.items() {
        pattern.get("type").qualified(errors);
        one_of(&pattern.get("status"), &["False", "True", "Unknown"], errors);
    }
    match (codes.is_set(), conditions.len() > 0) {
        (true, true) => {
            let why = "specifying both OnExitCodes and OnPodConditions is not supported";
            rule.invalid_unshown(errors, why);
        }
        (false, false) => {
            let why = "specifying one of OnExitCodes and OnPodConditions is required";
            rule.invalid_unshown(errors, why);
        }
        _ => {}
    }
}

fn validate_codes(codes: &At<'_>, containers: &HashSet<String>, errors: &mut Errors) {
    let operator = codes.get("operator");
    one_of(&operator, &["In", "NotIn"], errors);
    let container = codes.get("containerName");
    if container.is_set() && !containers.contains(container.text()) {
        let why = "must be one of the container or initContainer names in the pod template";
        container.invalid(errors, why);
    }
    let values = codes.get("values");
    if values.len() == 0 {
        values.invalid(errors, "at least one value is required");
    } else {
        values.not_more(errors, CODES);
    }
    let mut seen = HashSet::new();
    let mut ordered = true;
    let mut before = i64::MIN;
    for value in values.items() {
        let code = value.int();
        if operator.text() == "In" && code == 0 {
            value.invalid(errors, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            value.duplicate(errors);
        }
        ordered &= before <= code;
        before = code;
    }
    if !ordered {
        values.invalid(errors, "must be ordered");
    }
}

pub(super) fn validate_success(spec: &At<'_>, errors: &mut Errors) {
    let rules = spec.get("successPolicy.rules");
    if rules.len() == 0 {
        let why = "at least one rules must be specified when the successPolicy is specified";
        rules.required(errors, why);
    }
    rules.not_more(errors, RULES);
    let completions = spec.get("completions").int();
    for rule in rules.items() {
        let (count, indexes) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
        if !count.is_set() && !indexes.is_set() {
            let why = "at least one of succeededCount or succeededIndexes must be specified";
            rule.required(errors, why);
        }
        let mut total = 0;
        if indexes.is_set() {
            indexes.not_longer(errors, INDEXES_BYTES);
            match count_indexes(indexes.text(), completions) {
                Ok(n) => total = n,
                Err(why) => {
                    indexes.invalid(errors, format!("error parsing succeededIndexes: {why}"));
                }
            }
        }
        if !count.is_set() {
            continue;
        }
        count.not_negative(errors);
        if count.int() > completions {
            let why =
                format!("must be less than or equal to {completions} (the number of specified completions)");
            count.invalid(errors, why);
        }
        if indexes.is_set() && count.int() > total {
            let why = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            count.invalid(errors, why);
        }
    }
}

/// The intervals of a list like `1,3-5`, each below `completions` and after the one before.
pub(super) fn intervals(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let mut out: Vec<(i64, i64)> = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = interval(part, completions)?;
        if let Some((_, before)) = out.last().filter(|(_, before)| *before >= first) {
            return Err(format!("non-increasing order, previous: {before}, current: {first}"));
        }
        out.push((first, last));
    }
    Ok(out)
}

/// The number of indexes in such a list.
pub(super) fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    Ok(intervals(text, completions)?.iter().map(|(first, last)| last - first + 1).sum())
}

fn interval(part: &str, completions: i64) -> Result<(i64, i64), String> {
    let limits: Vec<&str> = part.split('-').collect();
    let read = |text: &str| {
        let quoted = api::field::go_quote(text);
        let n: i64 =
            text.parse().map_err(|_| format!("cannot convert string to integer for index: {quoted}"))?;
        if n >= completions { Err(format!("too large index: {quoted}")) } else { Ok(n) }
    };
    match limits.as_slice() {
        [one] => read(one).map(|n| (n, n)),
        [first, last] => {
            let (first, last) = (read(first)?, read(last)?);
            if first >= last {
                return Err(format!("non-increasing order, previous: {first}, current: {last}"));
            }
            Ok((first, last))
        }
        _ => Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            api::field::go_quote(part)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_indexes() {
        let check = |text: &str, want: Result<i64, &str>| {
            assert_eq!(count_indexes(text, 10), want.map_err(str::to_owned), "{text}");
        };
        check("", Ok(0));
        check("1,3-5", Ok(4));
        check("3,1", Err("non-increasing order, previous: 3, current: 1"));
        check("10", Err("too large index: \"10\""));
        check("x", Err("cannot convert string to integer for index: \"x\""));
        check("5-5", Err("non-increasing order, previous: 5, current: 5"));
    }
}
