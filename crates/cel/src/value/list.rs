//! Lists: of an object, computed, or two one after the other.

use std::sync::Arc;

use super::{EvalError, Outcome, Val};
use crate::decl::{Decl, ListKind};

/// A list.
#[derive(Clone, Debug)]
pub struct List<'a> {
    items: Items<'a>,
    /// What the list is declared as: sets and lists of keyed objects compare and join in ways of their own.
    pub(super) decl: Option<&'a Decl>,
}

#[derive(Clone, Debug)]
enum Items<'a> {
    Data(&'a [api::Value], &'a Decl),
    Owned(Arc<Vec<Val<'a>>>),
    /// Joined without copying, so that joining costs what it is counted as.
    Joined(Arc<(List<'a>, List<'a>)>, usize),
}

impl<'a> List<'a> {
    /// A computed list.
    pub fn new(items: Vec<Val<'a>>) -> Self {
        Self { items: Items::Owned(Arc::new(items)), decl: None }
    }

    /// A list of an object: the items are declared as `item`, the list as `decl`.
    pub(crate) fn data(items: &'a [api::Value], item: &'a Decl, decl: &'a Decl) -> Self {
        Self { items: Items::Data(items, item), decl: Some(decl) }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.items {
            Items::Data(items, _) => items.len(),
            Items::Owned(items) => items.len(),
            Items::Joined(_, len) => *len,
        }
    }

    pub(crate) fn get(&self, at: usize) -> Option<Outcome<'a>> {
        let (mut list, mut at) = (self, at);
        loop {
            match &list.items {
                Items::Data(items, item) => return items.get(at).map(|v| Val::from_data(v, item)),
                Items::Owned(items) => return items.get(at).cloned().map(Ok),
                Items::Joined(pair, _) if at < pair.0.len() => list = &pair.0,
                Items::Joined(pair, _) => {
                    at -= pair.0.len();
                    list = &pair.1;
                }
            }
        }
    }

    /// The items in order; those of an object that do not fit their declaration are errors.
    pub fn iter(&self) -> ListIter<'a> {
        ListIter { stack: vec![(self.clone(), 0)] }
    }

    /// All items, or the first error.
    pub(crate) fn to_vec(&self) -> Result<Vec<Val<'a>>, EvalError> {
        self.iter().collect()
    }

    pub(crate) fn kind(&self) -> &ListKind {
        self.decl.map_or(&ListKind::Atomic, Decl::list_kind)
    }

    pub(crate) fn with_decl(mut self, decl: Option<&'a Decl>) -> Self {
        self.decl = decl;
        self
    }

    /// This list with more items at its end; copied only when someone else has it.
    pub(crate) fn extended(mut self, more: Vec<Val<'a>>) -> Self {
        match &mut self.items {
            Items::Owned(mine) => {
                Arc::make_mut(mine).extend(more);
                self
            }
            _ => self.join(List::new(more)),
        }
    }

    /// This list and the other behind it.
    pub(crate) fn join(self, other: List<'a>) -> Self {
        if other.len() == 0 {
            return self;
        }
        if self.len() == 0 {
            return other;
        }
        let len = self.len().saturating_add(other.len());
        let decl = self.decl;
        Self { items: Items::Joined(Arc::new((self, other)), len), decl }
    }
}

/// The items of a list.
#[derive(Debug)]
pub struct ListIter<'a> {
    stack: Vec<(List<'a>, usize)>,
}

impl<'a> Iterator for ListIter<'a> {
    type Item = Outcome<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (list, at) = self.stack.last_mut()?;
            let item = match &list.items {
                Items::Joined(pair, _) => {
                    let pair = pair.clone();
                    self.stack.pop();
                    self.stack.push((pair.1.clone(), 0));
                    self.stack.push((pair.0.clone(), 0));
                    continue;
                }
                Items::Data(items, item) => items.get(*at).map(|v| Val::from_data(v, item)),
                Items::Owned(items) => items.get(*at).cloned().map(Ok),
            };
            *at += 1;
            match item {
                Some(item) => return Some(item),
                None => self.stack.pop(),
            };
        }
    }
}
