//! Maps: of an object, or computed.

use std::collections::HashMap;
use std::sync::Arc;

use super::{EvalError, Outcome, Text, Val};
use crate::decl::{Decl, escape};

/// A map, or an object with declared fields.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// Members of an object, with what they are declared as
    Data(&'a api::Map, &'a Decl),
    /// A computed map
    Owned(Arc<Entries<'a>>),
}

/// The entries of a computed map, in order.
#[derive(Clone, Debug, Default)]
pub struct Entries<'a> {
    list: Vec<(Val<'a>, Val<'a>)>,
    index: HashMap<Key, usize>,
    /// What is found under keys that are not there.
    default: Option<Box<Val<'a>>>,
}

/// What a map is looked up by; numbers are equal across their types.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Bool(bool),
    Number(i128),
    String(Arc<str>),
}

impl Key {
    pub(crate) fn of(val: &Val<'_>) -> Option<Self> {
        Some(match val {
            Val::Bool(b) => Key::Bool(*b),
            Val::Int(n) => Key::Number(i128::from(*n)),
            Val::Uint(n) => Key::Number(i128::from(*n)),
            Val::Double(d) if d.fract() == 0.0 && d.abs() < 1e19 => Key::Number(*d as i128),
            Val::String(Text::Shared(s)) => Key::String(s.clone()),
            Val::String(Text::Borrowed(s)) => Key::String((*s).into()),
            _ => return None,
        })
    }
}

impl<'a> Entries<'a> {
    /// No entries, and something to find nevertheless.
    pub(crate) fn with_default(default: Val<'a>) -> Self {
        Self { default: Some(Box::new(default)), ..Self::default() }
    }

    /// Sets an entry; false when there is one already, which stays.
    pub(crate) fn insert(&mut self, key: Val<'a>, value: Val<'a>) -> Result<bool, EvalError> {
        let hash = Key::of(&key).ok_or_else(|| EvalError::new("unsupported key type"))?;
        let at = self.list.len();
        match self.index.entry(hash) {
            std::collections::hash_map::Entry::Occupied(_) => Ok(false),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(at);
                self.list.push((key, value));
                Ok(true)
            }
        }
    }

    /// Sets an entry, in the place of one that is there already.
    pub(crate) fn replace(&mut self, key: Val<'a>, value: Val<'a>) -> Result<(), EvalError> {
        let hash = Key::of(&key).ok_or_else(|| EvalError::new("unsupported key type"))?;
        if let Some(at) = self.index.get(&hash) {
            self.list[*at] = (key, value);
            return Ok(());
        }
        self.insert(key, value).map(|_| ())
    }
}

impl<'a> Map<'a> {
    /// A computed map.
    pub(crate) fn new(entries: Entries<'a>) -> Self {
        Map::Owned(Arc::new(entries))
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Map::Data(map, _) => map.len(),
            Map::Owned(entries) => entries.list.len(),
        }
    }

    /// The value under `key`.
    ///
    /// # Errors
    /// Objects have no keys but strings; values of an object may not fit their declaration.
    pub(crate) fn find(&self, key: &Val<'_>) -> Result<Option<Val<'a>>, EvalError> {
        self.find_with(key, |map, name| map.get(name))
    }

    /// Is there an entry under `key`?
    ///
    /// # Errors
    /// As [`Map::find`].
    pub(crate) fn contains(&self, key: &Val<'_>) -> Result<bool, EvalError> {
        match self {
            Map::Owned(entries) => Ok(Key::of(key).is_some_and(|k| entries.index.contains_key(&k))),
            Map::Data(..) => self.find(key).map(|found| found.is_some()),
        }
    }

    /// [`Map::find`] with a way to look up the members of an object.
    pub(crate) fn find_with(
        &self,
        key: &Val<'_>,
        get: impl FnOnce(&'a api::Map, &str) -> Option<&'a api::Value>,
    ) -> Result<Option<Val<'a>>, EvalError> {
        match self {
            Map::Owned(entries) => {
                let at = Key::of(key).and_then(|k| entries.index.get(&k));
                Ok(at.map(|at| &entries.list[*at].1).or(entries.default.as_deref()).cloned())
            }
            Map::Data(map, decl) => {
                let key = key.as_str().ok_or_else(EvalError::no_overload)?;
                let unescaped = if decl.is_object() { escape::unescape(key) } else { Some(key.into()) };
                let Some(name) = unescaped else { return Ok(None) };
                Map::member(get(map, &name), &name, decl).transpose()
            }
        }
    }

    /// The member `value` named `name` of an object declared as `decl`.
    pub(crate) fn member(value: Option<&'a api::Value>, name: &str, decl: &'a Decl) -> Option<Outcome<'a>> {
        let value = value?;
        if decl.is_object() && value.is_null() {
            return None;
        }
        decl.member(name).map(|decl| Val::from_data(value, decl))
    }

    /// The entries, to add to; copied only when someone else has the map.
    pub(crate) fn into_entries(self) -> Result<Entries<'a>, EvalError> {
        if let Map::Owned(entries) = self {
            return Ok(Arc::unwrap_or_clone(entries));
        }
        let mut entries = Entries::default();
        for (key, value) in self.iter() {
            entries.insert(key, value?)?;
        }
        Ok(entries)
    }

    /// The keys, as a fold over the map sees them.
    pub(crate) fn keys(&self) -> Vec<Val<'a>> {
        match self {
            Map::Owned(entries) => entries.list.iter().map(|(k, _)| k.clone()).collect(),
            Map::Data(map, decl) => map
                .keys()
                .filter(|k| decl.member(k).is_some())
                .map(|k| match decl.is_object().then(|| escape::escape(k)).flatten() {
                    Some(escaped) if escaped != k => Val::string(escaped.as_ref()),
                    _ => Val::String(Text::Borrowed(k)),
                })
                .collect(),
        }
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (Val<'a>, Outcome<'a>)> {
        let entries: Vec<(Val<'a>, Outcome<'a>)> = match self {
            Map::Owned(entries) => entries.list.iter().map(|(k, v)| (k.clone(), Ok(v.clone()))).collect(),
            Map::Data(map, decl) => map
                .iter()
                .filter_map(|(k, v)| {
                    Some((Val::String(Text::Borrowed(k)), Val::from_data(v, decl.member(k)?)))
                })
                .collect(),
        };
        entries.into_iter()
    }
}
