//! What calls of functions may cost, and how big their results may be.

use super::{Argument, Estimator, ONE, Range};
use crate::ast::{Expr, Kind, Literal};
use crate::cost::{CHECK, LIST, PATTERN, STRUCT, TEXT};
use crate::types::Type;

/// Longest name of a format.
const FORMAT_NAME: u64 = 64;
/// Longest pattern of a format.
const FORMAT_PATTERN: f64 = 128.0;

/// A call: the arguments do not include the target.
pub(super) struct Site<'s, 'e> {
    pub(super) e: &'e Expr,
    pub(super) function: &'s str,
    pub(super) overload: &'s str,
    pub(super) target: Option<&'s Argument<'e>>,
    pub(super) args: &'s [Argument<'e>],
    pub(super) costs: &'s [Range],
}

/// A cost, and the size of the result if that is known.
type Estimate = (Range, Option<Range>);

fn only(cost: Range) -> Option<Estimate> {
    Some((cost, None))
}

impl Site<'_, '_> {
    fn arguments_cost(&self) -> Range {
        self.costs.iter().fold(super::ZERO, |sum, cost| sum.add(*cost))
    }
}

impl<'e> Estimator<'e> {
    /// The size of an argument as functions of extensions see it.
    fn argument_size(&self, a: &Argument<'_>) -> Range {
        let known = a.size.or_else(|| (!a.path.is_empty()).then(|| self.sizes.size(&a.path)).flatten());
        known.unwrap_or(Range::UNKNOWN)
    }

    pub(super) fn function_cost(&mut self, call: &Site<'_, 'e>) -> Estimate {
        let found = self.extension(call).or_else(|| self.kubernetes(call));
        if let Some((cost, size)) = found {
            return (cost.add(call.arguments_cost()), size);
        }
        self.standard(call)
    }

    /// The extensions for lists and sets.
    fn extension(&self, call: &Site<'_, 'e>) -> Option<Estimate> {
        let list = |cost: Range, size: Range| Some((cost.add(Range::fixed(1 + LIST)), Some(size)));
        match (call.overload, call.target, call.args) {
            (
                "list_sets_contains_list" | "list_sets_intersects_list" | "list_sets_equivalent_list",
                _,
                [a, b],
            ) => {
                let factor = if call.overload == "list_sets_equivalent_list" { 2.0 } else { 1.0 };
                only(self.argument_size(a).times(self.argument_size(b)).factor(factor).add(ONE))
            }
            ("list_slice", Some(target), [start, end]) => {
                let size = self.argument_size(target);
                let length = literal(end, size.max).wrapping_sub(literal(start, 0));
                list(Range::fixed(length), Range::fixed(length))
            }
            ("lists_range", None, [n]) => {
                let size = Range::fixed(literal(n, u64::MAX));
                list(size, size)
            }
            ("list_reverse", Some(target), []) => {
                let size = self.argument_size(target);
                list(size, size)
            }
            ("list_flatten" | "list_flatten_int", Some(target), depth) => {
                let size = self.argument_size(target);
                let depth = depth.first().map_or(1, |depth| literal(depth, u64::MAX));
                list(size.factor(depth as f64), size)
            }
            ("list_distinct", Some(target), []) => self.every_pair(target, 2.0),
            (sort, Some(target), []) if sort.ends_with("_sort") => self.every_pair(target, sort_factor(sort)),
            (sort, Some(_), [keys]) if sort.ends_with("_sortByAssociatedKeys") => {
                self.every_pair(keys, sort_factor(sort))
            }
            _ => None,
        }
    }

    fn every_pair(&self, list: &Argument<'_>, factor: f64) -> Option<Estimate> {
        let size = self.argument_size(list);
        let pairs = size.times(size);
        Some((pairs.factor(factor).add(Range::fixed(1 + LIST)), Some(pairs)))
    }

    /// Kubernetes' libraries.
    fn kubernetes(&self, call: &Site<'_, 'e>) -> Option<Estimate> {
        let size = |a: &Argument<'_>| self.argument_size(a);
        match (call.function, call.target, call.args) {
            ("check", ..) => only(Range::fixed(CHECK)),
            ("fieldSelector" | "labelSelector", _, [selector]) => {
                let length = size(selector);
                let requirements = length.factor(0.5).factor((LIST + STRUCT) as f64);
                only(Range::fixed(LIST).add(length.factor(TEXT)).add(requirements))
            }
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(target), _) => {
                only(self.traversal(target))
            }
            ("url" | "jsonpatch.escapeKey", _, [text]) => Some((size(text).factor(TEXT), Some(size(text)))),
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(text), _) => {
                Some((size(text).factor(TEXT), Some(size(text))))
            }
            ("replace", Some(text), [old, new, ..]) => {
                Some((size(text).factor(2.0 * TEXT), Some(replaced(size(text), size(old), size(new)))))
            }
            ("split", Some(text), args) => {
                let max = match args.get(1).map(|a| &a.expr.kind) {
                    Some(Kind::Literal(Literal::Int(n))) => *n as u64,
                    _ => size(text).max,
                };
                Some((size(text).factor(2.0 * TEXT), Some(Range { min: 0, max })))
            }
            ("join", Some(list), args) => {
                let count = size(list);
                let mut joined = self.element(list).map_or(super::ZERO, |(_, element)| count.times(element));
                if let Some(separator) = args.first() {
                    let gaps = Range { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
                    joined = joined.add(size(separator).times(gaps));
                }
                Some((joined.factor(TEXT), Some(joined)))
            }
            ("find" | "findAll", Some(text), [pattern, ..]) => {
                let cost = size(text).add(ONE).factor(TEXT).times(size(pattern).factor(PATTERN));
                Some((cost, Some(Range { min: 0, max: size(text).max })))
            }
            ("ip", ..) if call.overload == "cidr_ip" => only(ONE),
            (
                "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver",
                _,
                [text, ..],
            ) => only(size(text).factor(TEXT)),
            ("ip.isCanonical", _, [text]) => only(size(text).factor(2.0 * TEXT)),
            ("containsIP" | "containsCIDR", _, [other]) => {
                let address = Range { min: 4, max: 16 };
                let mut cost = address.add(address).factor(TEXT);
                if call.function == "containsCIDR" {
                    cost = cost.add(address.factor(TEXT)).add(ONE);
                }
                if matches!(call.overload, "cidr_contains_ip_string" | "cidr_contains_cidr_string") {
                    cost = cost.add(size(other).factor(TEXT));
                }
                only(cost)
            }
            ("validate", _, [text, ..]) => only(size(text).factor(TEXT).factor(FORMAT_PATTERN * PATTERN)),
            ("_==_", _, [a, b]) if a.t == b.t => library_equality(b),
            _ => None,
        }
    }

    /// Going through a list, or through a text.
    fn traversal(&self, target: &Argument<'_>) -> Range {
        let size = self.argument_size(target);
        match self.element(target) {
            Some((Type::String | Type::Bytes, element)) => size.times(ONE.add(element.factor(TEXT))),
            Some(_) => size.times(ONE),
            None => size.factor(TEXT),
        }
    }

    /// The type and the size of the elements of a list.
    fn element<'t>(&self, list: &Argument<'t>) -> Option<(&'t Type, Range)> {
        let t = match list.t {
            Type::List(element) => element.as_ref(),
            Type::Map(key, _) => key.as_ref(),
            Type::Opaque(_, params) => params.first()?,
            _ => return None,
        };
        let size = if list.path.is_empty() {
            None
        } else {
            self.sizes.size(&super::deeper(list.path.clone(), "@items"))
        };
        Some((t, size.unwrap_or(Range::UNKNOWN)))
    }

    /// The language itself.
    fn standard(&mut self, call: &Site<'_, 'e>) -> Estimate {
        let arguments = call.arguments_cost();
        let size = |a: &Argument<'_>| a.size.unwrap_or(Range::UNKNOWN);
        let scan = |a: &Argument<'_>| size(a).factor(TEXT);
        match (call.overload, call.target, call.args) {
            ("string_format", Some(target), _) => (scan(target).add(arguments), None),
            ("string_to_bytes", _, [a]) => {
                let s = size(a);
                (scan(a).add(arguments), Some(Range { min: s.min, max: s.max.wrapping_mul(4) }))
            }
            ("bytes_to_string", _, [a]) => {
                let s = size(a);
                (scan(a).add(arguments), Some(Range { min: s.min / 4, max: s.max }))
            }
            ("strings_quote", _, [a]) => {
                let s = size(a);
                let max = s.max.wrapping_mul(2).wrapping_add(2);
                (scan(a).add(arguments), Some(Range { min: s.min.wrapping_add(2), max }))
            }
            ("starts_with_string" | "ends_with_string", _, [a]) => (scan(a).add(arguments), None),
            ("in_list", _, [_, list]) => (size(list).factor(1.0).add(arguments), None),
            ("matches_string", Some(text), [pattern]) => {
                let text = size(text).add(ONE).factor(TEXT);
                (text.times(size(pattern).factor(PATTERN)).add(arguments), None)
            }
            ("contains_string", Some(text), [part]) => (scan(text).times(scan(part)).add(arguments), None),
            ("logical_or" | "logical_and", _, [_, _]) => {
                let (a, b) = (call.costs[0], call.costs[1]);
                (Range { min: a.min, max: a.add(b).max }, None)
            }
            ("conditional", _, [_, yes, no]) => {
                let result = size(yes).union(size(no));
                let entry = self.entry(yes.expr).zip(self.entry(no.expr)).map(|(a, b)| a.union(b));
                self.set_entry(call.e, entry);
                (call.costs[0].add(call.costs[1].union(call.costs[2])), Some(result))
            }
            ("add_string" | "add_bytes" | "add_list", _, [a, b]) => {
                let result = size(a).add(size(b));
                let entry = self.entry(a.expr).zip(self.entry(b.expr)).map(|(a, b)| a.union(b));
                self.set_entry(call.e, entry);
                let cost = if call.overload == "add_list" { ONE } else { result.factor(TEXT) };
                (cost.add(arguments), Some(result))
            }
            (
                "less_string"
                | "greater_string"
                | "less_equals_string"
                | "greater_equals_string"
                | "less_bytes"
                | "greater_bytes"
                | "less_equals_bytes"
                | "greater_equals_bytes"
                | "equals"
                | "not_equals",
                _,
                [a, b],
            ) => {
                let max = size(a).max.min(size(b).max);
                let compared = Range { min: u64::from(max > 0), max };
                (compared.factor(TEXT).add(arguments), None)
            }
            _ => (ONE.add(arguments), None),
        }
    }
}

fn sort_factor(overload: &str) -> f64 {
    if overload.starts_with("list_string_") || overload.starts_with("list_bytes_") { 2.0 + TEXT } else { 2.0 }
}

/// A whole number that is written out.
fn literal(a: &Argument<'_>, unknown: u64) -> u64 {
    match &a.expr.kind {
        Kind::Literal(Literal::Int(n)) => u64::try_from(*n).unwrap_or(0),
        _ => unknown,
    }
}

/// The size of a text in which something is replaced.
fn replaced(text: Range, old: Range, new: Range) -> Range {
    let bound = |text: u64, old: u64, never: bool| -> (u64, u64) {
        if old == 0 {
            (text.saturating_add(1), text)
        } else if never {
            (0, text)
        } else {
            ((text as f64 / old as f64).ceil() as u64, 0)
        }
    };
    let (max_count, max_kept) = bound(text.max, old.min, new.max <= old.min);
    let (min_count, min_kept) = bound(text.min, old.max, old.max <= new.min);
    Range { min: min_count, max: max_count }.times(new).add(Range { min: min_kept, max: max_kept })
}

/// Comparing values of the libraries.
fn library_equality(b: &Argument<'_>) -> Option<Estimate> {
    let name = match b.t {
        Type::Opaque(name, _) | Type::Struct(name) => name.as_ref(),
        _ => return None,
    };
    match name {
        "net.IP" | "net.CIDR" | "kubernetes.Quantity" | "kubernetes.Semver" => only(ONE),
        "kubernetes.NamedFormat" => only(Range { min: 1, max: FORMAT_NAME }.factor(TEXT)),
        "kubernetes.URL" => only(Range { min: 1, max: b.size.map_or(1, |s| s.max) }.factor(TEXT)),
        _ if name.starts_with("kubernetes.authorization.") => only(ONE),
        _ => None,
    }
}
