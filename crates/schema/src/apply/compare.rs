//! Which fields two objects differ in.

use api::{Map, Value};

use super::element::Element;
use super::set::{Filter, Set};
use super::tree::{Atom, ListAtom, MapAtom, Shaped, items, members};
use crate::types::Ty;

/// The fields that two objects differ in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Only the old object has them.
    pub removed: Set,
    /// Both have them, with other values.
    pub modified: Set,
    /// Only the new object has them.
    pub added: Set,
}

impl Comparison {
    /// What the new object has that the old one has not, or otherwise.
    pub(super) fn touched(self) -> Set {
        match self.modified.is_empty() {
            true => self.added,
            false => self.modified.union(&self.added),
        }
    }

    pub(super) fn filter(self, filter: &Filter) -> Self {
        Self {
            removed: filter.apply(self.removed),
            modified: filter.apply(self.modified),
            added: filter.apply(self.added),
        }
    }
}

/// Compares two objects of a type. Items of lists that have no identity are passed over.
pub fn compare(old: &Value, new: &Value, ty: Ty<'_>) -> Comparison {
    let mut walker = Walker { out: Comparison::default(), path: Vec::new() };
    walker.visit(Some(old), Some(new), Shaped::Of(ty));
    walker.out
}

struct Walker {
    out: Comparison,
    path: Vec<Element>,
}

type Side<'v> = Option<&'v Value>;

impl Walker {
    fn visit(&mut self, old: Side<'_>, new: Side<'_>, shape: Shaped<'_>) {
        if old.is_some() && old == new {
            return;
        }
        let (left, right) = (shape.atom(old), shape.atom(new));
        let leaf = match (old, new) {
            (_, None) => self.handle(left, old, new),
            (None, _) => self.handle(right, old, new),
            _ if left.same(&right) => self.handle(right, old, new),
            _ => {
                self.handle(left, old, new);
                self.handle(right, old, new)
            }
        };
        if !leaf && old.is_none() {
            self.out.added.insert(&self.path);
        } else if !leaf && new.is_none() {
            self.out.removed.insert(&self.path);
        }
    }

    /// True when the value was seen as one thing.
    fn handle(&mut self, atom: Atom<'_>, old: Side<'_>, new: Side<'_>) -> bool {
        let leaf = match atom {
            Atom::Scalar(_) => true,
            Atom::List(l) => {
                let (a, b) = (items(old), items(new));
                l.atomic() || (a.is_none_or(<[_]>::is_empty) && b.is_none_or(<[_]>::is_empty))
            }
            Atom::Map(m) => {
                let (a, b) = (members(old), members(new));
                m.atomic || (a.is_none_or(|m| m.is_empty()) && b.is_none_or(|m| m.is_empty()))
            }
        };
        match atom {
            _ if leaf => match (old, new) {
                (None, _) => self.out.added.insert(&self.path),
                (_, None) => self.out.removed.insert(&self.path),
                (Some(old), Some(new)) if old != new => self.out.modified.insert(&self.path),
                _ => {}
            },
            Atom::List(l) => self.list(l, items(old).unwrap_or_default(), items(new).unwrap_or_default()),
            Atom::Map(m) => self.map(m, old, new),
            Atom::Scalar(_) => {}
        }
        leaf
    }

    fn map(&mut self, atom: MapAtom<'_>, old: Side<'_>, new: Side<'_>) {
        let (old, new) = (members(old), members(new));
        let told = |(name, value): &(&str, &Value)| !(value.is_empty() && atom.leaves_out_empty(name));
        for (name, a) in old.into_iter().flat_map(Map::iter).filter(told) {
            let b = new.and_then(|m| m.get(name));
            self.step(Element::Field(name.into()), Some(a), b, atom.member_or_any(name));
        }
        for (name, b) in new.into_iter().flat_map(Map::iter).filter(told) {
            if old.is_none_or(|m| !m.contains_key(name)) {
                self.step(Element::Field(name.into()), None, Some(b), atom.member_or_any(name));
            }
        }
    }

    fn step(&mut self, element: Element, old: Side<'_>, new: Side<'_>, shape: Shaped<'_>) {
        self.path.push(element);
        self.visit(old, new, shape);
        self.path.pop();
    }

    fn list(&mut self, atom: ListAtom<'_>, old: &[Value], new: &[Value]) {
        for (element, a, b) in pairs(atom, old, new) {
            match (a.as_slice(), b.as_slice()) {
                ([] | [_], [] | [_]) => self.step(element, a.first().copied(), b.first().copied(), atom.item),
                ([_, _, ..], [_, _, ..]) => {
                    if a != b {
                        self.mark(element, |c| &mut c.modified);
                    }
                }
                ([_, _, ..], rest) => {
                    if let Some(one) = rest.first() {
                        self.step(element.clone(), None, Some(one), atom.item);
                    }
                    self.mark(element, |c| &mut c.removed);
                }
                (rest, _) => {
                    if let Some(one) = rest.first() {
                        self.step(element.clone(), Some(one), None, atom.item);
                    }
                    self.mark(element, |c| &mut c.added);
                }
            }
        }
    }

    fn mark(&mut self, element: Element, set: impl Fn(&mut Comparison) -> &mut Set) {
        self.path.push(element);
        set(&mut self.out).insert(&self.path);
        self.path.pop();
    }
}

type Pair<'v> = (Element, Vec<&'v Value>, Vec<&'v Value>);

/// The items of two lists by identity, those of the old list first.
fn pairs<'v>(atom: ListAtom<'_>, old: &'v [Value], new: &'v [Value]) -> Vec<Pair<'v>> {
    let mut pairs: Vec<Pair<'v>> = Vec::with_capacity(old.len().max(new.len()));
    let mut index = std::collections::BTreeMap::new();
    for (is_new, item) in old.iter().map(|v| (false, v)).chain(new.iter().map(|v| (true, v))) {
        let Ok(element) = atom.element(item) else { continue };
        let at = *index.entry(element).or_insert_with_key(|element| {
            pairs.push((element.clone(), Vec::new(), Vec::new()));
            pairs.len() - 1
        });
        let (_, a, b) = &mut pairs[at];
        if is_new { b } else { a }.push(item);
    }
    pairs
}
