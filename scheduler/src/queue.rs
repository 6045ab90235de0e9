//! Pods that wait: ready to be tried, backing off, or until something happens that could help them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use client::Key;
use tokio::time::Instant;

/// Pods that have waited this long for an event are tried anyway.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// What turned a pod away, as far as it matters for what may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Plugin {
    /// Labels, taints, names.
    Node,
    /// Resources and ports.
    Room,
    /// Claims and volumes.
    Volumes,
    /// Affinity between pods and spreading.
    Relations,
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    /// A node came or changed.
    Node,
    /// A pod left its node.
    PodGone,
    /// A pod got a node, or its labels changed.
    PodPlaced,
    /// A claim, volume or storage class changed.
    Volume,
}

impl Happened {
    fn helps(self, plugin: Plugin) -> bool {
        match self {
            Happened::Node => true,
            Happened::PodGone => matches!(plugin, Plugin::Room | Plugin::Relations),
            Happened::PodPlaced => plugin == Plugin::Relations,
            Happened::Volume => plugin == Plugin::Volumes,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    /// Until then.
    Backoff(Instant),
    Waiting,
    /// Being tried.
    Trying,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    rank: Rank,
    attempts: u32,
    tried: Instant,
    turned_away_by: Vec<Plugin>,
}

/// Higher priority first, then who has waited longest.
type Rank = (Reverse<i64>, Instant, u64);

/// The waiting pods.
pub(crate) struct Queue {
    entries: HashMap<Key, Entry>,
    active: BTreeSet<(Rank, Key)>,
    backoff: BTreeSet<(Instant, Key)>,
    sequence: u64,
    initial: Duration,
    max: Duration,
}

impl Queue {
    pub(crate) fn new(initial: Duration, max: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            active: BTreeSet::new(),
            backoff: BTreeSet::new(),
            sequence: 0,
            initial,
            max,
        }
    }

    /// A new pod, or one that changed so that trying again makes sense.
    pub(crate) fn add(&mut self, key: &Key, priority: i64, now: Instant) {
        if let Some(entry) = self.entries.get(key) {
            match entry.place {
                Place::Waiting => self.wake(key, now),
                Place::Active | Place::Backoff(_) | Place::Trying => {}
            }
            return;
        }
        self.sequence += 1;
        let rank = (Reverse(priority), now, self.sequence);
        let entry = Entry { place: Place::Active, rank, attempts: 0, tried: now, turned_away_by: Vec::new() };
        self.active.insert((rank, key.clone()));
        self.entries.insert(key.clone(), entry);
    }

    /// Forgets a pod.
    pub(crate) fn remove(&mut self, key: &Key) {
        let Some(entry) = self.entries.remove(key) else { return };
        match entry.place {
            Place::Active => drop(self.active.remove(&(entry.rank, key.clone()))),
            Place::Backoff(at) => drop(self.backoff.remove(&(at, key.clone()))),
            Place::Waiting | Place::Trying => {}
        }
    }

    /// The next pod to try.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Key> {
        self.ripen(now);
        let (_, key) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&key).expect("active pods have entries");
        entry.place = Place::Trying;
        entry.attempts += 1;
        entry.tried = now;
        Some(key)
    }

    /// When the next pod stops backing off.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.backoff.first().map(|(at, _)| *at)
    }

    /// The pod fits nowhere: it waits for an event that could change that.
    pub(crate) fn turned_away(&mut self, key: &Key, by: Vec<Plugin>) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.place = Place::Waiting;
            entry.turned_away_by = by;
        }
    }

    /// Trying failed for another reason: it is tried again after its back-off.
    pub(crate) fn failed(&mut self, key: &Key, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.place = Place::Waiting;
            self.wake(key, now);
        }
    }

    /// Wakes the pods that this could help.
    pub(crate) fn happened(&mut self, what: Happened, now: Instant) {
        let helped = |e: &Entry| {
            e.place == Place::Waiting && e.turned_away_by.iter().any(|plugin| what.helps(*plugin))
        };
        let woken: Vec<Key> =
            self.entries.iter().filter(|(_, e)| helped(e)).map(|(k, _)| k.clone()).collect();
        for key in woken {
            self.wake(&key, now);
        }
    }

    /// Wakes pods that have waited for too long.
    pub(crate) fn flush(&mut self, now: Instant) {
        let late = |e: &Entry| e.place == Place::Waiting && now - e.tried > FORGOTTEN;
        let woken: Vec<Key> = self.entries.iter().filter(|(_, e)| late(e)).map(|(k, _)| k.clone()).collect();
        for key in woken {
            self.wake(&key, now);
        }
    }

    fn wake(&mut self, key: &Key, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let doubled = self.initial.saturating_mul(1 << entry.attempts.saturating_sub(1).min(16));
        let until = entry.tried + doubled.min(self.max);
        if entry.attempts > 0 && until > now {
            entry.place = Place::Backoff(until);
            self.backoff.insert((until, key.clone()));
        } else {
            entry.place = Place::Active;
            self.active.insert((entry.rank, key.clone()));
        }
    }

    fn ripen(&mut self, now: Instant) {
        while self.backoff.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.backoff.pop_first() else { return };
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.place = Place::Active;
                self.active.insert((entry.rank, key));
            }
        }
    }

    /// How many pods wait, by the names of upstream's gauge.
    pub(crate) fn counts(&self) -> [(&'static str, usize); 3] {
        let waiting = self.entries.values().filter(|e| e.place == Place::Waiting).count();
        [("active", self.active.len()), ("backoff", self.backoff.len()), ("unschedulable", waiting)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("d", name)
    }

    fn queue() -> (Queue, Instant) {
        (Queue::new(Duration::from_secs(1), Duration::from_secs(10)), Instant::now())
    }

    #[tokio::test]
    async fn priority_goes_before_age() {
        let (mut q, now) = queue();
        q.add(&key("old"), 0, now);
        q.add(&key("important"), 10, now);
        q.add(&key("young"), 0, now);
        let order: Vec<Key> = std::iter::from_fn(|| q.pop(now)).collect();
        assert_eq!(order, [key("important"), key("old"), key("young")]);
    }

    #[tokio::test]
    async fn a_pod_waits_for_what_could_help_and_backs_off() {
        let (mut q, now) = queue();
        q.add(&key("a"), 0, now);
        q.pop(now);
        q.turned_away(&key("a"), vec![Plugin::Room]);
        q.happened(Happened::Volume, now);
        assert_eq!(q.counts()[2].1, 1, "a volume is no room");
        q.happened(Happened::PodGone, now);
        assert_eq!(q.pop(now), None, "it backs off first");
        let later = now + Duration::from_secs(1);
        assert_eq!(q.pop(later), Some(key("a")));
        q.turned_away(&key("a"), vec![Plugin::Room]);
        q.happened(Happened::Node, later);
        assert_eq!(q.next_due(), Some(later + Duration::from_secs(2)), "twice as long the second time");
        q.remove(&key("a"));
        assert_eq!(q.next_due(), None);
    }

    #[tokio::test]
    async fn nothing_is_forgotten() {
        let (mut q, now) = queue();
        q.add(&key("a"), 0, now);
        q.pop(now);
        q.turned_away(&key("a"), vec![Plugin::Node]);
        q.flush(now + Duration::from_secs(299));
        assert_eq!(q.pop(now + Duration::from_secs(299)), None);
        q.flush(now + Duration::from_secs(301));
        assert_eq!(q.pop(now + Duration::from_secs(301)), Some(key("a")));
    }
}
