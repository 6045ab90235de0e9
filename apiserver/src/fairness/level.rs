//! A priority level while requests pass it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use api::Value;
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::demand::Stats;
use super::dropped::Dropped;
use super::metrics::Counted;
use super::queues::{Entered, QueueSet, Queuing, Slot, Waiter, Work};

/// The most seats that a request may take where the level says nothing.
pub(super) const MOST: u32 = 100;

/// Who waits is told through a channel.
pub(super) struct Ticket {
    sender: oneshot::Sender<Slot>,
    /// Who it is, for those who look at queues.
    pub(super) schema: String,
    pub(super) flow: String,
    pub(super) since: jiff::Timestamp,
}

impl Waiter for Ticket {
    fn go(self, slot: Slot) -> bool {
        self.sender.send(slot).is_ok()
    }
}

/// The spec of a level.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) queuing: Queuing,
    /// Its part of the server's seats.
    pub(super) shares: u32,
    /// How much of its part others may use, in percent.
    pub(super) lendable: u32,
    /// How much it may use of others, in percent of its part; none for as much as there is.
    pub(super) borrowing: Option<u32>,
}

impl Settings {
    /// Reads a PriorityLevelConfiguration; none when it contradicts itself.
    pub(super) fn new(name: &str, spec: &Value) -> Option<Self> {
        let number =
            |value: &Value, field: &str| value.get(field).as_i64().and_then(|n| u32::try_from(n).ok());
        let exempt = spec.str_at(&["type"]) == "Exempt";
        if exempt != (name == "exempt") {
            return None;
        }
        if exempt {
            let own = spec.get("exempt");
            let (shares, lendable) =
                (number(own, "nominalConcurrencyShares"), number(own, "lendablePercent"));
            let (shares, lendable) = (shares.unwrap_or(0), lendable.unwrap_or(0));
            return Some(Self { queuing: Queuing::Exempt, shares, lendable, borrowing: None });
        }
        let own = spec.get("limited");
        let queuing = match own.str_at(&["limitResponse", "type"]) {
            "Reject" => Queuing::Reject,
            "Queue" => {
                let queuing = own.at(&["limitResponse", "queuing"]);
                let size = |field: &str| number(queuing, field).and_then(|n| usize::try_from(n).ok());
                let (queues, length, hand) = (size("queues")?, size("queueLengthLimit")?, size("handSize")?);
                if queues == 0 || hand == 0 || hand > queues {
                    return None;
                }
                Queuing::Queue { queues, length, hand }
            }
            _ => return None,
        };
        Some(Self {
            queuing,
            shares: number(own, "nominalConcurrencyShares").unwrap_or(30),
            lendable: number(own, "lendablePercent").unwrap_or(0),
            borrowing: number(own, "borrowingLimitPercent"),
        })
    }
}

/// A priority level.
pub(super) struct Level {
    pub(super) name: String,
    pub(super) uid: HeaderValue,
    pub(super) settings: Settings,
    pub(super) shared: Arc<Shared>,
}

/// What a level keeps when its object changes.
pub(super) struct Shared {
    pub(super) set: Mutex<QueueSet<Ticket>>,
    pub(super) dropped: Dropped,
    /// What was asked for until the seats were last divided.
    pub(super) stats: Mutex<Stats>,
    /// The widest request that is let in as such.
    pub(super) most: AtomicU32,
    tasks: TaskTracker,
}

impl Shared {
    pub(super) fn new(queuing: Queuing, tasks: TaskTracker) -> Self {
        let now = Instant::now();
        Self {
            set: Mutex::new(QueueSet::new(queuing, 0, now)),
            dropped: Dropped::new(now),
            stats: Mutex::default(),
            most: AtomicU32::new(MOST),
            tasks,
        }
    }

    pub(super) fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    /// Lets a request in, when it is its turn.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub(super) async fn enter(
        self: &Arc<Self>,
        counted: &Counted,
        (schema, flow): (&str, &str),
        (hash, work): (u64, Work),
        limit: Duration,
    ) -> Result<Slot, &'static str> {
        let mut receiver = None;
        let entered = {
            let mut set = self.set.lock();
            let entered = set.enter(Instant::now(), hash, work, || {
                let (sender, r) = oneshot::channel();
                receiver = Some(r);
                let since = jiff::Timestamp::now();
                Ticket { sender, schema: schema.to_owned(), flow: flow.to_owned(), since }
            });
            if let Entered::Queued(queue, _) = entered {
                counted.queue_length.observe(set.queues[queue].waiting.len() as f64);
            }
            entered
        };
        let (queue, id) = match entered {
            Entered::Running(slot) => return Ok(slot),
            Entered::Refused(reason) => return Err(reason),
            Entered::Queued(queue, id) => (queue, id),
        };
        let receiver = receiver.expect("who is queued has been asked for a waiter");
        let seats = i64::from(work.seats());
        counted.waiting.inc();
        counted.seats_waiting.add(seats);
        let mut waiting = InQueue { shared: self, counted, seats, queue, id, receiver };
        match tokio::time::timeout(limit, &mut waiting.receiver).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err("time-out"),
        }
    }

    /// A request has been answered.
    pub(super) fn finish(self: &Arc<Self>, slot: Slot) {
        let extra = self.set.lock().finish(Instant::now(), &slot);
        if !extra.is_zero() {
            let shared = self.clone();
            self.tasks.spawn(async move {
                tokio::time::sleep(extra).await;
                shared.set.lock().release(Instant::now(), &slot);
            });
        }
    }
}

/// A request in a queue. When its sender goes away it leaves the queue, or gives back the seats that it has just got.
struct InQueue<'l> {
    shared: &'l Arc<Shared>,
    counted: &'l Counted,
    seats: i64,
    queue: usize,
    id: u64,
    receiver: oneshot::Receiver<Slot>,
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        self.counted.waiting.dec();
        self.counted.seats_waiting.sub(self.seats);
        self.receiver.close();
        // Empty when the slot was taken, or never sent.
        if let Ok(slot) = self.receiver.try_recv() {
            self.shared.finish(slot);
            return;
        }
        self.shared.set.lock().leave(Instant::now(), self.queue, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairness::metrics::Metrics;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_seat_is_lost_when_many_come_and_some_go_away() {
        let shared = Arc::new(Shared::new(Queuing::Exempt, TaskTracker::new()));
        let queuing = Queuing::Queue { queues: 8, length: 20, hand: 3 };
        shared.set.lock().configure(queuing, 3, Instant::now());
        let counted = Arc::new(Metrics::new(&prometheus::Registry::new()).unwrap().of("l", "s"));
        let most = Arc::new(AtomicU32::new(0));
        let tracker = TaskTracker::new();
        for i in 0..2_000_u64 {
            let (shared, counted, most) = (shared.clone(), counted.clone(), most.clone());
            tracker.spawn(async move {
                let work = Work { initial: 1 + u32::from(i % 7 == 0), ..Work::ONE };
                let patience = Duration::from_micros(200 + i % 5 * 400);
                let asked = shared.enter(&counted, ("s", "f"), (i % 16, work), Duration::from_millis(20));
                // Some senders go away while they wait.
                let entered = match i % 3 {
                    0 => tokio::time::timeout(patience, asked).await.unwrap_or(Err("gone")),
                    _ => asked.await,
                };
                if let Ok(slot) = entered {
                    most.fetch_max(shared.set.lock().seats_in_use, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_micros(i % 300)).await;
                    shared.finish(slot);
                }
            });
        }
        tracker.close();
        tracker.wait().await;
        let set = shared.set.lock();
        assert!(set.is_idle());
        assert_eq!((set.seats_in_use, set.seats_waiting), (0, 0));
        assert!(most.load(Ordering::Relaxed) <= 3);
        assert_eq!((counted.waiting.get(), counted.seats_waiting.get()), (0, 0));
        assert!(set.queues.iter().all(|q| q.waiting.is_empty() && q.executing == 0 && q.seats_in_use == 0));
    }
}
