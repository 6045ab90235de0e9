//! Work queues: keys to look at, each by one worker at a time, again after a while when that failed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(1000);

/// What a reconciler wants next for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something changes.
    Done,
    /// To look again after this time.
    After(Duration),
}

/// A work queue; clones share it. Unbounded, but each key is in it at most once.
pub struct Queue<K>(Arc<Inner<K>>);

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Keys in `ready`, or to be put there when their worker is done.
    dirty: HashSet<K>,
    working: HashSet<K>,
    later: BinaryHeap<Reverse<(Instant, K)>>,
    /// When a key in `later` is really due: the soonest time asked for.
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
}

impl<K: Clone + Eq + Hash + Ord + Send + 'static> Default for Queue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash + Ord + Send + 'static> Queue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            later: BinaryHeap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
        };
        Self(Arc::new(Inner { state: Mutex::new(state), wake: Notify::new() }))
    }

    /// Puts a key in, unless it is there already.
    pub fn add(&self, key: K) {
        self.0.state.lock().add(key);
        self.0.wake.notify_one();
    }

    /// Puts a key in after a while; the soonest of several times counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.0.state.lock().add_at(key, Instant::now() + delay);
        self.0.wake.notify_one();
    }

    /// Puts a key in after a time that doubles with each of its failures.
    pub fn retry(&self, key: K) {
        let mut state = self.0.state.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        let delay = RETRY_FIRST.saturating_mul(1 << (*failures).min(20)).min(RETRY_MAX);
        *failures += 1;
        state.add_at(key, Instant::now() + delay);
        drop(state);
        self.0.wake.notify_one();
    }

    /// Forgets the failures of a key.
    pub fn forget(&self, key: &K) {
        self.0.state.lock().failures.remove(key);
    }

    /// How many keys wait now.
    pub fn len(&self) -> usize {
        self.0.state.lock().ready.len()
    }

    /// True when no key waits now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next key, for one worker; hand it back with [`Queue::done`].
    pub async fn take(&self) -> K {
        loop {
            let wake = self.0.wake.notified();
            let next_due = {
                let mut state = self.0.state.lock();
                state.ripen(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.0.wake.notify_one();
                    }
                    return key;
                }
                state.later.peek().map(|Reverse((at, _))| *at)
            };
            match next_due {
                None => wake.await,
                Some(at) => tokio::select! {
                    () = wake => {}
                    () = tokio::time::sleep_until(at) => {}
                },
            }
        }
    }

    /// Hands a key back; it comes again if it was added meanwhile.
    pub fn done(&self, key: &K) {
        let mut state = self.0.state.lock();
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.0.wake.notify_one();
        }
    }

    /// Works the queue with `workers` at a time until `stop`. A failed key is logged under the queue's `name` and retried.
    pub async fn run<F, R>(&self, name: &str, workers: usize, stop: CancellationToken, reconcile: F)
    where
        K: Display,
        F: Fn(K) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = anyhow::Result<Next>> + Send,
    {
        let mut running = JoinSet::new();
        for _ in 0..workers {
            let (queue, reconcile, name) = (self.clone(), reconcile.clone(), name.to_owned());
            running.spawn(async move {
                loop {
                    let key = queue.take().await;
                    queue.work(&name, key, &reconcile).await;
                }
            });
        }
        tokio::select! {
            () = stop.cancelled() => {}
            Some(ended) = running.join_next() => {
                // A panicking reconciler takes the daemon down: its invariants are broken.
                let Err(e) = ended;
                std::panic::resume_unwind(e.into_panic());
            }
        }
    }

    async fn work<F, R>(&self, name: &str, key: K, reconcile: &F)
    where
        K: Display,
        F: Fn(K) -> R,
        R: Future<Output = anyhow::Result<Next>>,
    {
        match reconcile(key.clone()).await {
            Ok(next) => {
                self.forget(&key);
                if let Next::After(delay) = next {
                    self.add_after(key.clone(), delay);
                }
            }
            Err(e) => {
                // Conflicts and losing a race with a deletion mend themselves with the next look.
                let text = format!("{e:#}");
                match e.downcast_ref::<crate::Error>() {
                    Some(e) if e.is_conflict() || e.is_not_found() => {
                        tracing::debug!(controller = name, key = %key, err = text, "Will retry");
                    }
                    _ => tracing::warn!(controller = name, key = %key, err = text, "Will retry"),
                }
                self.retry(key.clone());
            }
        }
        self.done(&key);
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    fn add(&mut self, key: K) {
        if !self.dirty.insert(key.clone()) {
            return;
        }
        if !self.working.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: K, at: Instant) {
        if self.due.get(&key).is_some_and(|known| *known <= at) {
            return;
        }
        self.due.insert(key.clone(), at);
        self.later.push(Reverse((at, key)));
    }

    /// Moves keys whose time has come into `ready`.
    fn ripen(&mut self, now: Instant) {
        while self.later.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((at, key))) = self.later.pop() else { return };
            // A key asked for sooner left its later entry behind.
            if self.due.get(&key) == Some(&at) {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_worked_by_one_at_a_time_and_comes_again() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.take().await, "a");
        queue.add("a");
        assert!(queue.is_empty(), "it is being worked");
        queue.done(&"a");
        assert_eq!(queue.take().await, "a");
        queue.done(&"a");
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn later_keys_come_at_the_soonest_time_asked_for() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(10));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("b", Duration::from_secs(5));
        for (key, seconds) in [("a", 2), ("b", 5)] {
            assert_eq!(queue.take().await, key);
            assert_eq!(start.elapsed().as_secs(), seconds);
            queue.done(&key);
        }
        queue.add("c");
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(queue.take().await, "c");
        assert!(queue.is_empty(), "the entry of a at 10 s is stale");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time() {
        let queue = Queue::new();
        let start = Instant::now();
        for total in [5, 15, 35] {
            queue.retry("a");
            assert_eq!(queue.take().await, "a");
            assert_eq!(start.elapsed().as_millis(), total);
            queue.done(&"a");
        }
        queue.forget(&"a");
        queue.retry("a");
        queue.take().await;
        assert_eq!(start.elapsed().as_millis(), 40);
    }
}
