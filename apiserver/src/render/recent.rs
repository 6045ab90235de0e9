//! Events that watches were sent last, in forms that take work: watches of the same things are sent the same.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::negotiate::Form;
use crate::resources::{Resource, Row};
use crate::storage::Stored;

/// Watches of one change are woken together, so that little need be kept: so much of objects and of what was made of them.
const LIMIT: usize = 1 << 20;

/// What is told of one change of an object.
#[derive(Clone)]
pub(super) struct Told<'t> {
    /// The version in which the object is shown.
    pub row: &'t Row,
    /// What happened: `ADDED`, say.
    pub what: &'static str,
    /// The object.
    pub object: &'t Arc<Stored>,
    /// How it is shown.
    pub form: Form,
}

/// The last events, by what they tell.
#[derive(Default)]
pub struct Recent(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    events: VecDeque<Event>,
    bytes: usize,
}

/// An event. That it holds what it tells of keeps the addresses, by which it is found, from being used again.
struct Event {
    row: Row,
    what: &'static str,
    object: Arc<Stored>,
    form: Form,
    frame: Bytes,
}

impl Event {
    fn tells(&self, told: &Told<'_>) -> bool {
        Arc::ptr_eq(&self.object, told.object)
            && std::ptr::eq::<Resource>(&*self.row, &**told.row)
            && self.what == told.what
            && self.form == told.form
    }

    fn size(&self) -> usize {
        self.object.json.len() + self.frame.len()
    }
}

impl Recent {
    /// The event that tells this, made unless it was a moment ago.
    pub(super) fn frame(&self, told: &Told<'_>, make: impl FnOnce() -> Bytes) -> Bytes {
        if let Some(known) = self.0.lock().events.iter().rev().find(|e| e.tells(told)) {
            return known.frame.clone();
        }
        let frame = make();
        let Told { row, what, object, form } = told.clone();
        let event = Event { row: row.clone(), what, object: object.clone(), form, frame: frame.clone() };
        if event.size() <= LIMIT {
            let mut kept = self.0.lock();
            kept.bytes += event.size();
            kept.events.push_back(event);
            while kept.bytes > LIMIT {
                kept.bytes -= kept.events.pop_front().map_or(kept.bytes, |e| e.size());
            }
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use api::object;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::negotiate::Encoding;
    use crate::resources::TABLE;
    use crate::storage::Cache;

    #[test]
    fn an_event_is_made_once_for_all_who_are_sent_it_in_that_form() {
        let recent = Recent::default();
        let row = TABLE.find("", "v1", "configmaps").unwrap();
        let cache = Cache::new("configmaps", row.clone(), CancellationToken::new());
        let stored = |name: &str| Arc::new(cache.stored(name, &object!({"metadata": {"name": name}}), 1));
        let (a, b) = (stored("a"), stored("b"));
        let protobuf = Form { encoding: Encoding::Protobuf, ..Form::default() };
        let made = std::cell::Cell::new(0);
        let ask = |what, object, form| {
            recent.frame(&Told { row, what, object, form }, || {
                made.set(made.get() + 1);
                made.get().to_string().into()
            })
        };
        assert_eq!(ask("ADDED", &a, protobuf), "1");
        assert_eq!(ask("ADDED", &b, protobuf), "2");
        assert_eq!(ask("ADDED", &a, protobuf), "1");
        assert_eq!(ask("MODIFIED", &a, protobuf), "3");
        assert_eq!(ask("ADDED", &a, Form { encoding: Encoding::Yaml, ..protobuf }), "4");
        assert_eq!(ask("ADDED", &stored("a"), protobuf), "5");
    }

    #[test]
    fn little_is_kept() {
        let recent = Recent::default();
        let row = TABLE.find("", "v1", "configmaps").unwrap();
        let cache = Cache::new("configmaps", row.clone(), CancellationToken::new());
        for n in 0..50 {
            let object = Arc::new(cache.stored("a", &object!({"n": n}), n));
            let told = Told { row, what: "ADDED", object: &object, form: Form::default() };
            assert_eq!(recent.frame(&told, || vec![b'x'; LIMIT / 10].into()).len(), LIMIT / 10);
        }
        let kept = recent.0.lock();
        assert!(kept.events.len() < 10 && kept.bytes <= LIMIT);
        assert_eq!(kept.bytes, kept.events.iter().map(Event::size).sum::<usize>());
    }
}
