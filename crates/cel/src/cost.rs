//! What calls cost at run time, counted as cel-go and Kubernetes count it.

use crate::value::{Outcome, Val};

mod estimate;

pub use estimate::{Range, Sizes};

/// Looking at a character of a text.
pub(crate) const TEXT: f64 = 0.1;
/// A character of a pattern.
pub(crate) const PATTERN: f64 = 0.25;
/// Making a list, a map, an object.
pub(crate) const LIST: u64 = 10;
pub(crate) const MAP: u64 = 30;
pub(crate) const STRUCT: u64 = 40;
/// Asking the authorizer.
pub(crate) const CHECK: u64 = 350_000;

/// How the cost of a call is counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rule {
    Fixed(u64),
    /// The size of the first argument, times a factor.
    First(f64),
    /// The size of the second argument.
    Second,
    /// The size of the result, times a factor.
    Result(f64),
    /// The size of the smaller of two, where there are sizes.
    Smaller,
    /// `==`, which is cheap for values of the libraries.
    Equality,
    /// The sizes of both.
    Both,
    Pattern,
    Contains,
    /// Going through everything in the first argument.
    Traversal,
    Selector,
    ContainsIp {
        text: bool,
    },
    ContainsCidr {
        text: bool,
    },
    Validate,
    /// A list of the size of the result is made.
    MakesList,
    Flatten,
    /// Every element of this argument with every other.
    SelfCompare(usize),
    /// Every element with every other, times a factor.
    Sets(u64),
}

/// How a call of `function` is counted, of which `overload` is known before the values are (else it is empty).
pub(crate) fn rule(function: &str, overload: &str) -> Rule {
    if let Some(rule) = extension(overload) {
        return rule;
    }
    match function {
        "check" => return Rule::Fixed(CHECK),
        "fieldSelector" | "labelSelector" => return Rule::Selector,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => return Rule::Traversal,
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "jsonpatch.escapeKey" => {
            return Rule::First(TEXT);
        }
        "replace" | "split" | "ip.isCanonical" => return Rule::First(2.0 * TEXT),
        "join" => return Rule::Result(2.0 * TEXT),
        "find" | "findAll" => return Rule::Pattern,
        "cidr" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
            return Rule::First(TEXT);
        }
        "ip" if overload == "cidr_ip" => return Rule::Fixed(1),
        "ip" => return Rule::First(TEXT),
        "containsIP" => return Rule::ContainsIp { text: overload == "cidr_contains_ip_string" },
        "containsCIDR" => return Rule::ContainsCidr { text: overload == "cidr_contains_cidr_string" },
        "validate" => return Rule::Validate,
        _ => {}
    }
    match overload {
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string"
        | "strings_quote" | "string_format" => Rule::First(TEXT),
        "in_list" => Rule::Second,
        "equals" => Rule::Equality,
        "not_equals" => Rule::Smaller,
        "less_string"
        | "greater_string"
        | "less_equals_string"
        | "greater_equals_string"
        | "less_bytes"
        | "greater_bytes"
        | "less_equals_bytes"
        | "greater_equals_bytes" => Rule::Smaller,
        "add_string" | "add_bytes" => Rule::Both,
        "matches_string" => Rule::Pattern,
        "contains_string" => Rule::Contains,
        _ => Rule::Fixed(1),
    }
}

fn extension(overload: &str) -> Option<Rule> {
    Some(match overload {
        "list_slice" | "lists_range" | "list_reverse" => Rule::MakesList,
        "list_flatten" | "list_flatten_int" => Rule::Flatten,
        "list_distinct" => Rule::SelfCompare(0),
        "list_sets_contains_list" | "list_sets_intersects_list" => Rule::Sets(1),
        "list_sets_equivalent_list" => Rule::Sets(2),
        _ if overload.ends_with("_sort") => Rule::SelfCompare(0),
        _ if overload.ends_with("_sortByAssociatedKeys") => Rule::SelfCompare(1),
        _ => return None,
    })
}

/// A factor of a size, rounded up.
pub(crate) fn ceil(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

fn size(outcome: Option<&Outcome<'_>>) -> u64 {
    match outcome {
        Some(Ok(v)) => v.size().unwrap_or(1),
        _ => 1,
    }
}

impl Rule {
    /// The cost of a call with these arguments and this result.
    pub(crate) fn cost(self, args: &[Outcome<'_>], result: &Outcome<'_>) -> u64 {
        let first = || size(args.first());
        let second = || size(args.get(1));
        match self {
            Rule::Fixed(cost) => cost,
            Rule::First(factor) => ceil(first(), factor),
            Rule::Second => second(),
            Rule::Result(factor) => ceil(size(Some(result)), factor),
            Rule::Equality if matches!(args.first(), Some(Ok(v)) if is_library(v)) => 1,
            Rule::Smaller | Rule::Equality => ceil(first().min(second()), TEXT),
            Rule::Both => ceil(first().saturating_add(second()), TEXT),
            Rule::Pattern => ceil(first().saturating_add(1), TEXT).saturating_mul(ceil(second(), PATTERN)),
            Rule::Contains => ceil(first(), TEXT).saturating_mul(ceil(second(), TEXT)),
            Rule::Traversal => match args.first() {
                Some(Ok(v)) => traversal(v),
                _ => 1,
            },
            Rule::Selector => selector(second()),
            Rule::ContainsIp { text } => {
                ceil(2 * first(), TEXT) + if text { ceil(second(), TEXT) } else { 0 }
            }
            Rule::ContainsCidr { text } => {
                ceil(2 * first(), TEXT)
                    + ceil(first(), TEXT)
                    + 1
                    + if text { ceil(second(), TEXT) } else { 0 }
            }
            Rule::Validate => match args.first() {
                Some(Ok(Val::Format(format))) => {
                    ceil(second() + 1, TEXT).saturating_mul(ceil(format.pattern_size, PATTERN))
                }
                _ => 1,
            },
            Rule::MakesList => size(Some(result)).saturating_add(1 + LIST),
            Rule::Flatten => {
                let depth = match args.get(1) {
                    Some(Ok(Val::Int(n))) => (*n).max(0) as u64,
                    _ => 1,
                };
                first().saturating_mul(depth).saturating_add(1 + LIST)
            }
            Rule::SelfCompare(which) => self_compare(args.get(which)),
            Rule::Sets(factor) => first().saturating_mul(second()).saturating_mul(factor).saturating_add(1),
        }
    }
}

fn self_compare(list: Option<&Outcome<'_>>) -> u64 {
    let n = size(list);
    let text = match list {
        Some(Ok(Val::List(l))) => matches!(l.get(0), Some(Ok(Val::String(_) | Val::Bytes(_)))),
        _ => false,
    };
    let factor = if text { 2.0 + TEXT } else { 2.0 };
    ((n.saturating_mul(n)) as f64 * factor) as u64 + 1 + LIST
}

/// True for the values of Kubernetes' libraries.
fn is_library(v: &Val<'_>) -> bool {
    matches!(
        v,
        Val::Quantity(..)
            | Val::Ip(_)
            | Val::Cidr(_)
            | Val::Format(_)
            | Val::Url(_)
            | Val::Semver(_)
            | Val::Authz(_)
    )
}

/// Parsing a selector of this length.
pub(crate) fn selector(length: u64) -> u64 {
    let requirements = ceil(length, 0.5);
    LIST.saturating_add(ceil(length, TEXT)).saturating_add(requirements.saturating_mul(LIST + STRUCT))
}

fn traversal(v: &Val<'_>) -> u64 {
    let sum = |costs: &mut dyn Iterator<Item = u64>| costs.fold(0, u64::saturating_add);
    match v {
        Val::String(s) => (s.len() as f64 * TEXT) as u64,
        Val::Bytes(b) => (b.len() as f64 * TEXT) as u64,
        Val::List(l) => sum(&mut l.iter().map(|i| i.map_or(1, |v| traversal(&v)))),
        Val::Map(m) => sum(&mut m.iter().map(|(k, v)| traversal(&k) + v.map_or(1, |v| traversal(&v)))),
        _ => 1,
    }
}
