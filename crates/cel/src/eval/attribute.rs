//! Names and what is selected below them.

use std::collections::HashMap;

use super::{Evaluation, Slot};
use crate::plan::{Attribute, Node, Qualifier, QualifierKey, Root};
use crate::value::{EvalError, Map, Outcome, Val};

/// Members of bigger objects are looked up in a table, so that looking up each of them takes reasonable time.
const BIG: usize = 64;

/// Tables of big objects, by their addresses.
#[derive(Debug, Default)]
pub(super) struct Tables<'a>(HashMap<usize, HashMap<&'a str, &'a api::Value>>);

impl<'a> Tables<'a> {
    /// The value under `key`, as [`Map::find`] says.
    pub(super) fn find(&mut self, map: &Map<'a>, key: &Val<'_>) -> Result<Option<Val<'a>>, EvalError> {
        map.find_with(key, |object, name| {
            if object.len() <= BIG {
                return object.get(name);
            }
            let address = std::ptr::from_ref(object).addr();
            self.0.entry(address).or_insert_with(|| object.iter().collect()).get(name).copied()
        })
    }
}

impl<'p, 'a> Evaluation<'p, '_, 'a> {
    pub(super) fn attribute(&mut self, attribute: &'p Attribute) -> Outcome<'a> {
        let v = self.resolve(attribute);
        if let Err(e) = &v
            && e.is_cancelled()
        {
            return v;
        }
        if !attribute.test && !matches!(attribute.root, Root::Conditional(_)) {
            self.charge(1)?;
        }
        match v? {
            Val::Optional(found) if attribute.test => Ok(Val::Bool(found.is_some())),
            v => Ok(v),
        }
    }

    /// The value of an attribute, without what evaluating it costs as a node of its own.
    fn resolve(&mut self, attribute: &'p Attribute) -> Outcome<'a> {
        let mut qualifiers = attribute.qualifiers.as_slice();
        let mut v = match &attribute.root {
            Root::Variable(name) => match self.computed(name, qualifiers) {
                Some(v) => {
                    qualifiers = &qualifiers[1..];
                    self.charge(1)?;
                    v?
                }
                None => self.variable(name)?,
            },
            Root::Local(slot) => self.local(*slot)?,
            Root::Node(node) => self.eval(node)?,
            Root::Conditional([condition, yes, no]) => {
                let branch = match self.eval(condition)? {
                    Val::Bool(true) => yes,
                    Val::Bool(false) => no,
                    _ => return Err(EvalError::no_overload()),
                };
                match branch {
                    Node::Attribute(attribute) if !attribute.test => self.resolve(attribute)?,
                    node => self.eval(node)?,
                }
            }
        };
        let mut optional = false;
        if let Val::Optional(inner) = &v
            && !qualifiers.is_empty()
        {
            match inner {
                None => return Ok(v),
                Some(inner) => {
                    optional = true;
                    v = inner.as_ref().clone();
                }
            }
        }
        for qualifier in qualifiers {
            optional |= qualifier.optional;
            match self.qualify(&v, qualifier, optional)? {
                Some(found) => v = found,
                None => return Ok(Val::Optional(None)),
            }
        }
        Ok(if optional { v.some() } else { v })
    }

    fn computed(&self, name: &str, qualifiers: &'p [Qualifier]) -> Option<Outcome<'a>> {
        match qualifiers.first() {
            Some(Qualifier { key: QualifierKey::Const(Val::String(field)), test: false, .. }) => {
                self.variables.computed_field(name, field)
            }
            _ => None,
        }
    }

    fn variable(&mut self, name: &str) -> Outcome<'a> {
        self.variables
            .variable(name)
            .unwrap_or_else(|| Err(EvalError::new(format!("no such attribute(s): {name}"))))
    }

    pub(super) fn local(&mut self, slot: usize) -> Outcome<'a> {
        if let Slot::Lazy(node) = self.slots[slot] {
            let v = self.eval(node);
            self.slots[slot] = Slot::Value(v);
        }
        match &self.slots[slot] {
            Slot::Value(v) => v.clone(),
            _ => Err(EvalError::new("no such attribute(s): the variable of a macro")),
        }
    }

    /// One step down. None where what is optional is absent.
    fn qualify(
        &mut self,
        v: &Val<'a>,
        qualifier: &'p Qualifier,
        optional: bool,
    ) -> Result<Option<Val<'a>>, EvalError> {
        let dynamic;
        let key: &Val<'_> = match &qualifier.key {
            QualifierKey::Const(key) => key,
            QualifierKey::Dynamic(node) => {
                dynamic = self.key(node, optional)?;
                &dynamic
            }
        };
        let found = self.find(v, key);
        self.charge(u64::from(found.is_ok() || !optional))?;
        match found {
            Ok(_) if qualifier.test => Ok(Some(Val::Bool(true))),
            Ok(v) => Ok(Some(v)),
            Err(Missing::Key) if optional => Ok(None),
            Err(Missing::Key) if qualifier.test => Ok(Some(Val::Bool(false))),
            Err(Missing::Key) if matches!(v, Val::List(_)) => {
                Err(EvalError::new(format!("index out of bounds: {key}")))
            }
            Err(Missing::Key) => Err(EvalError::new(format!("no such key: {key}"))),
            Err(Missing::Other(e)) => Err(e),
        }
    }

    /// The value of what is between the brackets.
    fn key(&mut self, node: &'p Node, optional: bool) -> Outcome<'a> {
        let key = match node {
            Node::Attribute(attribute) if !attribute.test => self.resolve(attribute),
            node => self.eval(node),
        };
        match key {
            Ok(key @ (Val::String(_) | Val::Int(_) | Val::Uint(_) | Val::Bool(_) | Val::Double(_))) => {
                Ok(key)
            }
            Err(e) if e.is_cancelled() => Err(e),
            failed => {
                self.charge(u64::from(!optional))?;
                let key = failed?;
                Err(EvalError::new(format!("invalid qualifier type: {}", key.runtime_type().name())))
            }
        }
    }

    /// What is under `key`, or at it.
    fn find(&mut self, v: &Val<'a>, key: &Val<'_>) -> Result<Val<'a>, Missing> {
        match v {
            Val::Map(map) => self.tables.find(map, key).map_err(Missing::Other)?.ok_or(Missing::Key),
            Val::Struct(object) => object.1.find(key).map_err(Missing::Other)?.ok_or(Missing::Key),
            Val::List(list) => {
                let at = match key {
                    Val::Int(n) => usize::try_from(*n).ok(),
                    Val::Uint(n) => usize::try_from(*n).ok(),
                    Val::Double(d) if d.fract() == 0.0 && *d >= 0.0 => Some(*d as usize),
                    Val::Double(d) if d.fract() == 0.0 => None,
                    other => {
                        let name = other.runtime_type();
                        let message = format!("unsupported index type '{}' in list", name.name());
                        return Err(Missing::Other(EvalError::new(message)));
                    }
                };
                match at.and_then(|at| list.get(at)) {
                    Some(item) => item.map_err(Missing::Other),
                    None => Err(Missing::Key),
                }
            }
            _ => Err(Missing::Key),
        }
    }
}

/// Why a step down leads nowhere.
enum Missing {
    Key,
    Other(EvalError),
}
