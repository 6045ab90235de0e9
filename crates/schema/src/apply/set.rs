//! Sets of field paths.

use std::cmp::Ordering;

use api::{Map, Value};

use super::element::Element;
use super::tree::Shaped;

/// A set of field paths: a tree whose nodes are sorted, each a member or not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    nodes: Vec<Node>,
}

/// A node is a member, or has something below it.
#[derive(Clone, Debug, PartialEq)]
struct Node {
    element: Element,
    member: bool,
    below: Set,
}

/// What to leave out of a set.
#[derive(Clone, Debug, Default)]
pub enum Filter {
    /// Nothing.
    #[default]
    None,
    /// These paths and everything below them.
    Exclude(Set),
}

impl Filter {
    /// Leaves out these paths of field names and everything below them.
    pub fn exclude(paths: &[&[&str]]) -> Self {
        Filter::Exclude(Set::of(paths))
    }

    /// The set without what is left out.
    pub fn apply(&self, set: Set) -> Set {
        match self {
            Filter::None => set,
            Filter::Exclude(out) => set.recursive_difference(out),
        }
    }
}

impl Set {
    /// The set of these paths of field names.
    pub fn of(paths: &[&[&str]]) -> Self {
        let mut set = Set::default();
        for path in paths {
            let path: Vec<Element> = path.iter().map(|p| Element::Field((*p).into())).collect();
            set.insert(&path);
        }
        set
    }

    /// True without members.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn find(&self, element: &Element) -> Result<usize, usize> {
        // Walks mostly add in order.
        match self.nodes.last().map(|n| n.element.cmp(element)) {
            Some(Ordering::Less) | None => Err(self.nodes.len()),
            Some(Ordering::Equal) => Ok(self.nodes.len() - 1),
            Some(Ordering::Greater) => self.nodes.binary_search_by(|n| n.element.cmp(element)),
        }
    }

    /// Adds a path; nothing for the empty one.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else { return };
        let at = self.find(first).unwrap_or_else(|at| {
            self.nodes.insert(at, Node { element: first.clone(), member: false, below: Set::default() });
            at
        });
        if rest.is_empty() {
            self.nodes[at].member = true;
        } else {
            self.nodes[at].below.insert(rest);
        }
    }

    /// True when the one-step path is a member.
    pub fn has(&self, element: &Element) -> bool {
        self.find(element).is_ok_and(|i| self.nodes[i].member)
    }

    /// True when the path is a member.
    pub fn contains(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.has(last),
            [first, rest @ ..] => self.below(first).is_some_and(|s| s.contains(rest)),
        }
    }

    /// The set below an element, if there is anything.
    pub fn below(&self, element: &Element) -> Option<&Set> {
        self.find(element).ok().map(|i| &self.nodes[i].below).filter(|s| !s.is_empty())
    }

    /// Joins two sorted sets; each pair of nodes of the same element, or lone node, becomes a node or nothing.
    fn zip(
        self,
        other: &Set,
        left: impl Fn(Node) -> Option<Node>,
        both: impl Fn(Node, &Node) -> Node,
        right: impl Fn(&Node) -> Option<Node>,
    ) -> Set {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let mut others = other.nodes.iter().peekable();
        for node in self.nodes {
            while let Some(o) = others.next_if(|o| o.element < node.element) {
                nodes.extend(right(o));
            }
            match others.next_if(|o| o.element == node.element) {
                Some(o) => {
                    let node = both(node, o);
                    nodes.extend((node.member || !node.below.is_empty()).then_some(node));
                }
                None => nodes.extend(left(node)),
            }
        }
        nodes.extend(others.filter_map(right));
        Set { nodes }
    }

    /// What is in either.
    pub fn union(self, other: &Set) -> Set {
        let both = |a: Node, b: &Node| Node {
            member: a.member || b.member,
            below: a.below.union(&b.below),
            element: a.element,
        };
        self.zip(other, Some, both, |b| Some(b.clone()))
    }

    /// What is in both.
    pub fn intersection(self, other: &Set) -> Set {
        let both = |a: Node, b: &Node| Node {
            member: a.member && b.member,
            below: a.below.intersection(&b.below),
            element: a.element,
        };
        self.zip(other, |_| None, both, |_| None)
    }

    /// What is in this one alone.
    pub fn difference(self, other: &Set) -> Set {
        let both = |a: Node, b: &Node| Node {
            member: a.member && !b.member,
            below: a.below.difference(&b.below),
            element: a.element,
        };
        self.zip(other, Some, both, |_| None)
    }

    /// What is in this one, and neither in the other nor below a member of it.
    pub fn recursive_difference(self, other: &Set) -> Set {
        let both = |a: Node, b: &Node| Node {
            member: a.member && !b.member,
            below: if b.member { Set::default() } else { a.below.recursive_difference(&b.below) },
            element: a.element,
        };
        self.zip(other, Some, both, |_| None)
    }

    /// With every declared field on the way to a member made a member too.
    pub(super) fn with_named_fields(&self, shape: Option<Shaped<'_>>) -> Set {
        let nodes = self.nodes.iter().map(|n| {
            let declared = shape.is_some_and(|s| matches!(&n.element, Element::Field(f) if s.declares(f)));
            Node {
                element: n.element.clone(),
                member: n.member || declared,
                below: n.below.with_named_fields(shape.and_then(|s| s.child(&n.element))),
            }
        });
        Set { nodes: nodes.collect() }
    }

    /// Calls `f` with every path: at each node first the members, then what is below.
    pub fn each(&self, f: &mut impl FnMut(&[Element])) {
        self.each_below(&mut Vec::new(), f);
    }

    fn each_below(&self, path: &mut Vec<Element>, f: &mut impl FnMut(&[Element])) {
        for node in self.nodes.iter().filter(|n| n.member) {
            path.push(node.element.clone());
            f(path);
            path.pop();
        }
        for node in &self.nodes {
            path.push(node.element.clone());
            node.below.each_below(path, f);
            path.pop();
        }
    }

    /// The set as `fieldsV1`.
    pub fn to_value(&self) -> Value {
        let mut map = Map::with_capacity(self.nodes.len());
        self.write(&mut map);
        Value::Object(map)
    }

    fn write(&self, out: &mut Map) {
        for node in &self.nodes {
            let mut inner = Map::new();
            if node.member && !node.below.is_empty() {
                inner.push(".", Value::object());
            }
            node.below.write(&mut inner);
            out.push(node.element.text(), Value::Object(inner));
        }
    }

    /// Reads `fieldsV1`. Elements of kinds that are not known are skipped.
    pub fn from_value(value: &Value) -> Result<Set, String> {
        let mut nodes = Vec::new();
        for (key, inner) in value.as_object().into_iter().flat_map(Map::iter).filter(|(k, _)| *k != ".") {
            let Some(element) = Element::parse(key)? else { continue };
            let below = Set::from_value(inner)?;
            let member = below.is_empty() || inner.as_object().is_some_and(|m| m.contains_key("."));
            nodes.push(Node { element, member, below });
        }
        nodes.sort_by(|a, b| a.element.cmp(&b.element));
        Ok(Set { nodes })
    }
}
