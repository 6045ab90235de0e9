//! What was verified before: a signature costs more than the rest of a request, and a client sends the same credentials
//! with each.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use ring::digest::{Context, SHA256};

/// Credentials that are remembered; with one more, all are verified anew.
const ROOM: usize = 1024;

/// What is known of credentials with good signatures. Nothing is remembered of those with bad ones.
#[derive(Debug)]
pub(crate) struct Verified<K>(Mutex<HashMap<[u8; 32], Arc<K>>>);

impl<K> Default for Verified<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K> Verified<K> {
    /// What is known of the credentials that these parts make up: as long as it `holds`, from before, else by verifying.
    pub(super) fn or<'p, E>(
        &self,
        parts: impl IntoIterator<Item = &'p [u8]>,
        holds: impl FnOnce(&K) -> bool,
        verify: impl FnOnce() -> Result<K, E>,
    ) -> Result<Arc<K>, E> {
        let digest = digest(parts);
        let before = self.0.lock().get(&digest).cloned();
        if let Some(known) = before.filter(|known| holds(known)) {
            return Ok(known);
        }
        let known = Arc::new(verify()?);
        let mut all = self.0.lock();
        if all.len() >= ROOM {
            all.clear();
        }
        all.insert(digest, known.clone());
        Ok(known)
    }
}

/// One digest for each sequence of parts, however they are cut.
fn digest<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_verified_is_remembered_as_long_as_it_holds() {
        let verified = Verified::default();
        let ask = |parts: &[&'static [u8]], holds: bool, answer: Result<u32, ()>| {
            verified.or(parts.iter().copied(), |_| holds, || answer).map(|known| *known)
        };
        assert_eq!(ask(&[b"a", b"b"], true, Err(())), Err(()));
        assert_eq!(ask(&[b"a", b"b"], true, Ok(1)), Ok(1));
        assert_eq!(ask(&[b"a", b"b"], true, Ok(2)), Ok(1));
        assert_eq!(ask(&[b"ab", b""], true, Ok(3)), Ok(3));
        assert_eq!(ask(&[b"a", b"b"], false, Err(())), Err(()));
        assert_eq!(ask(&[b"a", b"b"], false, Ok(4)), Ok(4));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let verified = Verified::default();
        for n in 0..=ROOM as u64 {
            verified.or([&n.to_le_bytes()[..]], |_| true, || Ok::<_, ()>(n)).unwrap();
        }
        assert_eq!(verified.0.lock().len(), 1);
    }
}
