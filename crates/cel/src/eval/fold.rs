//! Folds: what macros over lists and maps have become.

use std::time::Instant;

use super::{CLOCK, Evaluation, Slot};
use crate::library::call::list_fits;
use crate::plan::{Fold, Node};
use crate::value::{EvalError, Map, Outcome, Val};

impl<'p, 'a> Evaluation<'p, '_, 'a> {
    pub(super) fn fold(&mut self, fold: &'p Fold) -> Outcome<'a> {
        let range = self.eval(&fold.range)?;
        let saved: Vec<Slot<'p, 'a>> = (fold.slot..fold.slot + 2 + usize::from(fold.two))
            .map(|slot| std::mem::replace(&mut self.slots[slot], Slot::Empty))
            .collect();
        self.slots[fold.slot] = Slot::Lazy(&fold.init);
        let outcome = self.iterate(fold, &range).and_then(|()| self.eval(&fold.result));
        for (n, slot) in saved.into_iter().enumerate() {
            self.slots[fold.slot + n] = slot;
        }
        outcome
    }

    fn iterate(&mut self, fold: &'p Fold, range: &Val<'a>) -> Result<(), EvalError> {
        match range {
            Val::List(list) if fold.two => {
                for (n, item) in list.iter().enumerate() {
                    self.slots[fold.slot + 1] = Slot::Value(Ok(Val::Int(n as i64)));
                    self.slots[fold.slot + 2] = Slot::Value(item);
                    if !self.step(fold)? {
                        break;
                    }
                }
            }
            Val::List(list) => {
                for item in list.iter() {
                    self.slots[fold.slot + 1] = Slot::Value(item);
                    if !self.step(fold)? {
                        break;
                    }
                }
            }
            Val::Map(map) if fold.two => {
                for (key, value) in map.iter() {
                    self.slots[fold.slot + 1] = Slot::Value(Ok(key));
                    self.slots[fold.slot + 2] = Slot::Value(value);
                    if !self.step(fold)? {
                        break;
                    }
                }
            }
            Val::Map(map) => {
                for key in map.keys() {
                    self.slots[fold.slot + 1] = Slot::Value(Ok(key));
                    if !self.step(fold)? {
                        break;
                    }
                }
            }
            other if fold.two => {
                let why = format!("unsupported comprehension range type: {}", go_name(other));
                return Err(EvalError::new(why));
            }
            other => return Err(EvalError::new(format!("got '{}', expected iterable type", go_name(other)))),
        }
        Ok(())
    }

    /// One turn of a fold; false when the condition ends it.
    fn step(&mut self, fold: &'p Fold) -> Result<bool, EvalError> {
        self.steps += 1;
        if self.steps.is_multiple_of(CLOCK)
            && self.limits.deadline.is_some_and(|deadline| Instant::now() > deadline)
        {
            return Err(EvalError::Cancelled("operation interrupted"));
        }
        match self.eval(&fold.condition) {
            Ok(Val::Bool(false)) => return Ok(false),
            Err(e) if e.is_cancelled() => return Err(e),
            _ => {}
        }
        let v = self.eval(&fold.step);
        if let Err(e) = &v
            && e.is_cancelled()
        {
            return Err(e.clone());
        }
        self.slots[fold.slot] = Slot::Value(v);
        Ok(true)
    }

    /// Takes the accumulator out of its slot, to be changed in place.
    fn take(&mut self, slot: usize) -> Outcome<'a> {
        if matches!(self.slots[slot], Slot::Lazy(_)) {
            let _ = self.local(slot);
        }
        match std::mem::replace(&mut self.slots[slot], Slot::Empty) {
            Slot::Value(v) => v,
            _ => Err(EvalError::no_overload()),
        }
    }

    pub(super) fn append(&mut self, slot: usize, items: &'p Node) -> Outcome<'a> {
        self.charge(1)?;
        let items = self.eval(items);
        if let Err(e) = &items
            && e.is_cancelled()
        {
            return items;
        }
        let accumulated = self.take(slot);
        self.charge(1)?;
        match (accumulated?, items?) {
            (Val::List(list), Val::List(items)) => {
                list_fits(list.len().saturating_add(items.len()))?;
                Ok(Val::List(list.extended(items.to_vec()?)))
            }
            _ => Err(EvalError::no_overload()),
        }
    }

    pub(super) fn insert(&mut self, slot: usize, entry: &'p [Node]) -> Outcome<'a> {
        self.charge(1)?;
        let mut parts = Vec::with_capacity(2);
        for node in entry {
            parts.push(self.eval(node)?);
        }
        self.charge(1)?;
        let Val::Map(map) = self.take(slot)? else { return Err(EvalError::no_overload()) };
        let mut entries = map.into_entries()?;
        let mut put = |key: Val<'a>, value: Val<'a>| {
            let shown = key.to_string();
            match entries.insert(key, value)? {
                true => Ok(()),
                false => Err(EvalError::new(format!("insert failed: key {shown} already exists"))),
            }
        };
        match parts.as_slice() {
            [key, value] => put(key.clone(), value.clone())?,
            [Val::Map(more)] => {
                for (key, value) in more.iter() {
                    put(key, value?)?;
                }
            }
            _ => return Err(EvalError::no_overload()),
        }
        Ok(Val::Map(Map::new(entries)))
    }
}

/// What cel-go calls the values of a type in its own source, which its message shows.
fn go_name(v: &Val<'_>) -> &'static str {
    match v {
        Val::Null => "types.Null",
        Val::Bool(_) => "types.Bool",
        Val::Int(_) => "types.Int",
        Val::Uint(_) => "types.Uint",
        Val::Double(_) => "types.Double",
        Val::String(_) => "types.String",
        Val::Bytes(_) => "types.Bytes",
        Val::Timestamp(_) => "types.Timestamp",
        Val::Duration(_) => "types.Duration",
        Val::Optional(_) => "*types.Optional",
        Val::Type(_) => "*types.Type",
        _ => "ref.Val",
    }
}
