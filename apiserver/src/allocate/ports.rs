//! Ports of nodes that Services hold: a set of bits in etcd, in upstream's form, that all API servers change by
//! compare and swap.

use std::collections::{HashMap, HashSet};
use std::iter;

use api::error::Result;
use api::{ApiError, Value, object};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::Rng;
use tokio::sync::Mutex;

use super::{node_ports, services};
use crate::storage::{Outcome, Precondition, Record, Storage};

const RECORD: Record =
    Record { resource: "servicenodeportallocations", kind: "RangeAllocation", prefix: "ranges" };
const NAME: &str = "servicenodeports";

/// For so many repairs a port that no Service has is kept: its Service may be about to be written.
const LEAK_RUNS: u8 = 3;

/// The ports of the range that are taken.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PortSet {
    first: u16,
    taken: Vec<bool>,
}

impl PortSet {
    fn new((first, last): (u16, u16)) -> Self {
        Self { first, taken: vec![false; usize::from(last.saturating_sub(first)) + 1] }
    }

    fn at(&self, port: i64) -> Option<usize> {
        let at = usize::try_from(port - i64::from(self.first)).ok()?;
        (at < self.taken.len()).then_some(at)
    }

    fn number(&self, at: usize) -> i64 {
        i64::from(self.first) + i64::try_from(at).unwrap_or(i64::MAX)
    }

    /// True when the port is of the range and taken.
    pub(super) fn has(&self, port: i64) -> bool {
        self.at(port).is_some_and(|at| self.taken[at])
    }

    /// Takes this port.
    ///
    /// # Errors
    /// It is taken, or not of the range.
    pub(super) fn take(&mut self, port: i64) -> std::result::Result<(), String> {
        let Some(at) = self.at(port) else {
            let range = self.range();
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {range}"
            ));
        };
        if std::mem::replace(&mut self.taken[at], true) {
            return Err("provided port is already allocated".to_owned());
        }
        Ok(())
    }

    /// Takes some port: the first ones of the range are left for those who choose, as long as there are others.
    pub(super) fn take_any(&mut self) -> Option<i64> {
        let all = self.taken.len();
        let chosen = if all <= 16 { 0 } else { (all / 32).clamp(16, 128) };
        let start = rand::rng().random_range(chosen..all);
        let at = (start..all).chain(chosen..start).chain(0..chosen).find(|at| !self.taken[*at])?;
        self.taken[at] = true;
        Some(self.number(at))
    }

    pub(super) fn give_back(&mut self, port: i64) {
        if let Some(at) = self.at(port) {
            self.taken[at] = false;
        }
    }

    fn ports(&self) -> impl Iterator<Item = i64> {
        self.taken.iter().enumerate().filter(|(_, taken)| **taken).map(|(at, _)| self.number(at))
    }

    fn range(&self) -> String {
        format!("{}-{}", self.first, self.number(self.taken.len() - 1))
    }

    /// The bits as a big-endian number.
    fn record(&self) -> Value {
        let byte = |bits: &[bool]| bits.iter().rev().fold(0_u8, |byte, bit| byte << 1 | u8::from(*bit));
        let bytes: Vec<u8> = self.taken.chunks(8).rev().map(byte).skip_while(|b| *b == 0).collect();
        object!({"range": (self.range()), "data": (STANDARD.encode(bytes))})
    }

    /// None when the record is of another range.
    fn read(record: &Value, range: (u16, u16)) -> Option<Self> {
        let mut set = Self::new(range);
        if record.str_at(&["range"]) != set.range() {
            return None;
        }
        let bytes = STANDARD.decode(record.str_at(&["data"])).ok()?;
        let bits = bytes.iter().rev().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        set.taken.iter_mut().zip(bits.chain(iter::repeat(false))).for_each(|(taken, bit)| *taken = bit);
        Some(set)
    }
}

/// What etcd holds.
struct Known {
    /// Revision of the record; zero without one.
    revision: i64,
    set: PortSet,
    /// True when it is to be written whatever happens: there is none, or of another range.
    rebuilt: bool,
}

/// Hands out ports.
pub(super) struct Ports {
    range: (u16, u16),
    /// What etcd held when it was last looked at.
    known: Mutex<Option<Known>>,
    /// Ports without a Service, and for how many repairs they are still kept.
    leaks: parking_lot::Mutex<HashMap<i64, u8>>,
}

impl Ports {
    pub(super) fn new(range: (u16, u16)) -> Self {
        Self { range, known: Mutex::default(), leaks: parking_lot::Mutex::default() }
    }

    /// Lets `change` look at the set and change it; it is called again when another server was faster.
    ///
    /// # Errors
    /// Those of `change`, or etcd does not answer.
    pub(super) async fn change<T>(
        &self,
        storage: &Storage,
        change: impl Fn(&mut PortSet) -> Result<T>,
    ) -> Result<T> {
        let mut known = self.known.lock().await;
        let mut fresh = false;
        loop {
            let now = match known.take() {
                Some(known) => known,
                None => {
                    fresh = true;
                    self.load(storage).await?
                }
            };
            let mut next = now.set.clone();
            let done = match change(&mut next) {
                Ok(done) => done,
                // What was in the way may be gone.
                Err(_) if !fresh => continue,
                Err(e) => {
                    *known = Some(now);
                    return Err(e);
                }
            };
            if next == now.set && !now.rebuilt {
                *known = Some(now);
                return Ok(done);
            }
            let guard = match now.revision {
                0 => Precondition::Absent,
                revision => Precondition::Revision(revision),
            };
            if let Outcome::Done(revision) = RECORD.put(storage, NAME, guard, &next.record(), None).await? {
                *known = Some(Known { revision, set: next, rebuilt: false });
                return Ok(done);
            }
        }
    }

    /// The set as etcd has it, or as the Services have it when etcd has none.
    async fn load(&self, storage: &Storage) -> Result<Known> {
        let record = RECORD.get(storage, NAME).await?;
        let revision = record.as_ref().map_or(0, |(_, revision)| *revision);
        if let Some(set) = record.and_then(|(record, _)| PortSet::read(&record, self.range)) {
            return Ok(Known { revision, set, rebuilt: false });
        }
        storage.catch_up().await?;
        let mut set = PortSet::new(self.range);
        for port in used(storage) {
            // Ports of an earlier range, and those that two Services have, cannot be helped here.
            let _ = set.take(port);
        }
        Ok(Known { revision, set, rebuilt: true })
    }

    /// Takes the ports that Services have and nobody took, and gives back those that no Service has had for a while.
    ///
    /// # Errors
    /// etcd does not answer.
    pub(super) async fn repair(&self, storage: &Storage) -> Result<()> {
        *self.known.lock().await = None;
        storage.catch_up().await?;
        let used = used(storage);
        let mut leaks = self.leaks.lock().clone();
        leaks.retain(|port, _| !used.contains(port));
        let leaks = self
            .change(storage, |set| {
                let mut leaks = leaks.clone();
                let unused: Vec<i64> = set.ports().filter(|port| !used.contains(port)).collect();
                for port in unused {
                    match leaks.entry(port).or_insert(LEAK_RUNS) {
                        0 => {
                            tracing::warn!(
                                port,
                                "a port of nodes was taken and never used: it is free again"
                            );
                            leaks.remove(&port);
                            set.give_back(port);
                        }
                        runs => *runs -= 1,
                    }
                }
                for port in &used {
                    if !set.has(*port) && set.take(*port).is_ok() {
                        tracing::warn!(port, "a port of nodes was used and not taken: it is taken now");
                    }
                }
                Ok::<_, ApiError>(leaks)
            })
            .await?;
        *self.leaks.lock() = leaks;
        Ok(())
    }
}

pub(super) fn used(storage: &Storage) -> HashSet<i64> {
    services(storage).flat_map(|s| node_ports(&s)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_stored_as_big_endian_numbers() {
        let mut set = PortSet::new((30000, 32767));
        assert_eq!(set.record(), object!({"range": "30000-32767", "data": ""}));
        for port in [30000, 30009, 30010] {
            set.take(port).unwrap();
        }
        // Bits 0, 9 and 10: 0x0601.
        assert_eq!(set.record().str_at(&["data"]), "BgE=");
        assert_eq!(PortSet::read(&set.record(), (30000, 32767)).unwrap(), set);
        assert!(PortSet::read(&set.record(), (30000, 32000)).is_none());
        assert_eq!(set.ports().collect::<Vec<_>>(), [30000, 30009, 30010]);
    }

    #[test]
    fn a_port_is_taken_once() {
        let mut set = PortSet::new((30000, 30001));
        assert!(set.take(30000).is_ok());
        assert_eq!(set.take(30000).unwrap_err(), "provided port is already allocated");
        assert_eq!(
            set.take(29999).unwrap_err(),
            "provided port is not in the valid range. The range of valid ports is 30000-30001"
        );
        assert_eq!(set.take_any(), Some(30001));
        assert_eq!(set.take_any(), None);
        set.give_back(30000);
        assert_eq!(set.take_any(), Some(30000));
    }

    #[test]
    fn the_first_ports_are_left_for_those_who_choose() {
        let mut set = PortSet::new((30000, 30099));
        let taken: Vec<i64> = (0..84).map(|_| set.take_any().unwrap()).collect();
        assert!(taken.iter().all(|port| *port >= 30016), "{taken:?}");
        assert!(set.take_any().unwrap() < 30016);
    }
}
