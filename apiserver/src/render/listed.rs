//! Lists as JSON, put together piece by piece while they are sent: the objects are there already, encoded.

use std::sync::Arc;

use api::{Value, object};
use bytes::{BufMut, Bytes, BytesMut};

use super::{custom_list, without_type};
use crate::registry::{Page, set_type};
use crate::resources::Resource;
use crate::storage::Stored;

/// About so much is put together at a time.
const PIECE: usize = 128 << 10;

/// The pieces of a list.
pub(super) struct Listed {
    /// What comes before the next object.
    before: Vec<u8>,
    items: std::vec::IntoIter<Arc<Stored>>,
    /// What objects begin with that they do not say in a list.
    typed: Vec<u8>,
    /// What comes after the last one; empty when all has been told.
    after: Vec<u8>,
}

impl Listed {
    /// The objects of a page, which are served as they are stored.
    pub(super) fn new(row: &Resource, page: Page) -> Self {
        let metadata = page.metadata();
        let (list, typed) = match row.custom.is_some() {
            true => (custom_list(row, metadata, Vec::new()).to_json(), b"{".to_vec()),
            false => {
                let mut typed = Value::object();
                set_type(&mut typed, row);
                let mut typed = typed.to_json();
                typed.pop();
                typed.push(b',');
                let list = object!({
                    "kind": (row.list_kind()), "apiVersion": (row.api_version()), "metadata": metadata, "items": [],
                });
                (list.to_json(), typed)
            }
        };
        let open = list.windows(2).position(|w| w == b"[]").map_or(list.len(), |at| at + 1);
        let (before, after) = list.split_at(open);
        let after = [after, b"\n"].concat();
        Self { before: before.to_vec(), items: page.items.into_iter(), typed, after }
    }

    /// True when there is nothing more to come.
    pub(super) fn is_told(&self) -> bool {
        self.after.is_empty()
    }

    /// All that is left, in one piece.
    pub(super) fn whole(self) -> Bytes {
        let mut whole = BytesMut::new();
        self.for_each(|piece| whole.extend_from_slice(&piece));
        whole.freeze()
    }

    /// How large the next piece becomes, at least.
    fn room(&self) -> usize {
        let mut room = self.before.len() + self.after.len();
        for stored in self.items.as_slice() {
            if room >= PIECE {
                break;
            }
            room += stored.json.len() + 1;
        }
        room
    }
}

impl Iterator for Listed {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.is_told() {
            return None;
        }
        let mut out = BytesMut::with_capacity(self.room());
        while out.len() < PIECE
            && let Some(stored) = self.items.next()
        {
            out.extend_from_slice(&self.before);
            self.before.clear();
            self.before.push(b',');
            match stored.json.strip_prefix(self.typed.as_slice()) {
                Some(rest) => {
                    out.put_u8(b'{');
                    out.extend_from_slice(rest);
                }
                None => out.extend_from_slice(&without_type(stored.object()).to_json()),
            }
        }
        if self.items.as_slice().is_empty() {
            // A comma is only for those that come.
            if self.before != b"," {
                out.extend_from_slice(&self.before);
            }
            out.extend_from_slice(&std::mem::take(&mut self.after));
        }
        Some(out.freeze())
    }
}
