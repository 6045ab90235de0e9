//! Objects that this server is writing. When the watch on etcd tells of one, the caches take the object from here instead
//! of decoding what was encoded a moment ago.

use std::collections::HashMap;
use std::sync::Arc;

use api::Value;
use parking_lot::Mutex;

/// What is taken by nobody is forgotten when there is more: what was written just before the watch broke, or twice.
const LIMIT: usize = 1_000;

/// Objects under way to etcd, by their full keys.
#[derive(Default)]
pub(super) struct Written(Mutex<HashMap<String, Arc<Write>>>);

struct Write {
    bytes: Vec<u8>,
    object: Value,
}

/// A write that has not been acknowledged. What it writes is forgotten unless it is [`Pending::done`].
pub(super) struct Pending<'w> {
    written: &'w Written,
    key: &'w str,
    write: Option<Arc<Write>>,
}

impl Written {
    /// Keeps `object`, which is about to be written at `key` as `bytes`.
    pub(super) fn keep<'w>(&'w self, key: &'w str, bytes: Vec<u8>, object: Value) -> Pending<'w> {
        let write = Arc::new(Write { bytes, object });
        let mut writes = self.0.lock();
        if writes.len() >= LIMIT {
            writes.clear();
        }
        writes.insert(key.to_owned(), write.clone());
        Pending { written: self, key, write: Some(write) }
    }

    /// The object that was written at `key`, if these are the bytes that were written of it.
    pub(super) fn take(&self, key: &str, bytes: &[u8]) -> Option<Value> {
        let mut writes = self.0.lock();
        if writes.get(key)?.bytes != bytes {
            return None;
        }
        let write = writes.remove(key)?;
        drop(writes);
        Some(Arc::try_unwrap(write).map_or_else(|shared| shared.object.clone(), |write| write.object))
    }
}

impl Pending<'_> {
    /// It was written: the watch will tell of it, or has.
    pub(super) fn done(mut self) {
        self.write = None;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let Some(write) = &self.write else { return };
        let mut writes = self.written.0.lock();
        // Another may be writing at the same key by now.
        if writes.get(self.key).is_some_and(|kept| Arc::ptr_eq(kept, write)) {
            writes.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn an_object_is_taken_once_and_by_its_bytes_alone() {
        let written = Written::default();
        written.keep("a", b"1".to_vec(), object!({"n": 1})).done();
        assert!(written.take("a", b"2").is_none());
        assert!(written.take("b", b"1").is_none());
        assert_eq!(written.take("a", b"1"), Some(object!({"n": 1})));
        assert!(written.take("a", b"1").is_none());
    }

    #[test]
    fn what_was_not_written_is_forgotten() {
        let written = Written::default();
        let first = written.keep("a", b"1".to_vec(), object!({"n": 1}));
        let second = written.keep("a", b"2".to_vec(), object!({"n": 2}));
        drop(first);
        second.done();
        assert_eq!(written.take("a", b"2"), Some(object!({"n": 2})));
        drop(written.keep("a", b"3".to_vec(), object!({"n": 3})));
        assert!(written.take("a", b"3").is_none());
    }

    #[test]
    fn what_nobody_takes_does_not_pile_up() {
        let written = Written::default();
        for n in 0..LIMIT + 5 {
            written.keep(&n.to_string(), Vec::new(), Value::Null).done();
        }
        assert_eq!(written.0.lock().len(), 5);
    }
}
