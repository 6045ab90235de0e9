//! The queues of one priority level: who runs, who waits, and who is next. Pure: time comes from the caller.
//!
//! Requests of one flow are dealt to one of few queues; of the queues with requests, the one whose oldest would be done
//! first in virtual time is next. Virtual time `r` counts the seconds of work that each busy queue has been given.
//!
//! Mirrors upstream's queueset. Source: KEP-1040, <https://en.wikipedia.org/wiki/Fair_queuing>.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::demand::Demand;

/// How long a request is thought to run before it has.
const SERVICE: f64 = 0.003;

/// What a request is expected to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Work {
    /// Seats while it runs.
    pub(super) initial: u32,
    /// Seats after it has been answered.
    pub(super) last: u32,
    /// How long those are held.
    pub(super) extra: Duration,
}

impl Work {
    /// A request that takes one seat and leaves nothing behind.
    pub(super) const ONE: Work = Work { initial: 1, last: 0, extra: Duration::ZERO };

    /// The seats that are held throughout.
    pub(super) fn seats(&self) -> u32 {
        self.initial.max(self.last)
    }

    /// Seconds of seats.
    pub(super) fn total(&self) -> f64 {
        f64::from(self.initial) * SERVICE + f64::from(self.last) * self.extra.as_secs_f64()
    }

    /// The same work after the answer on no more seats than `limit`, for longer.
    fn narrowed(mut self, limit: u32) -> Self {
        if self.last > limit && limit > 0 {
            self.extra = self.extra.mul_f64(f64::from(self.last) / f64::from(limit));
            self.last = limit;
        }
        self
    }
}

/// How a level queues.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Queuing {
    /// Nobody is limited.
    Exempt,
    /// What exceeds the limit is refused.
    Reject,
    /// What exceeds the limit waits.
    Queue {
        /// How many queues there are.
        queues: usize,
        /// How many requests a queue holds.
        length: usize,
        /// To how many queues the requests of one flow are dealt.
        hand: usize,
    },
}

/// Somebody who waits in a queue.
pub(super) trait Waiter {
    /// Lets it run; false when it has gone.
    fn go(self, slot: Slot) -> bool;
}

/// A request that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    queue: Option<usize>,
    pub(super) work: Work,
    pub(super) started: Instant,
}

/// A request that waits.
pub(super) struct Waiting<W> {
    id: u64,
    pub(super) work: Work,
    arrival: f64,
    pub(super) waiter: W,
}

/// One queue.
pub(super) struct Queue<W> {
    pub(super) waiting: VecDeque<Waiting<W>>,
    pub(super) executing: u32,
    pub(super) seats_in_use: u32,
    pub(super) next: f64,
    pub(super) work_waiting: f64,
}

impl<W> Queue<W> {
    fn new() -> Self {
        Self { waiting: VecDeque::new(), executing: 0, seats_in_use: 0, next: 0.0, work_waiting: 0.0 }
    }

    fn is_active(&self) -> bool {
        self.executing > 0 || !self.waiting.is_empty()
    }
}

/// What became of a request that came in.
#[derive(Debug)]
pub(super) enum Entered {
    /// It runs.
    Running(Slot),
    /// It waits, in this queue and by this number.
    Queued(usize, u64),
    /// It is refused, for this reason.
    Refused(&'static str),
}

/// The queues of a level, and what runs.
pub(super) struct QueueSet<W> {
    queuing: Queuing,
    pub(super) limit: u32,
    pub(super) queues: Vec<Queue<W>>,
    pub(super) waiting: u32,
    pub(super) executing: u32,
    pub(super) seats_in_use: u32,
    pub(super) seats_waiting: u32,
    active: u32,
    r: f64,
    last: Instant,
    robin: usize,
    enqueued: usize,
    ids: u64,
    pub(super) demand: Demand,
    pub(super) dispatched: u64,
    pub(super) rejected: u64,
    pub(super) timed_out: u64,
}

impl<W: Waiter> QueueSet<W> {
    pub(super) fn new(queuing: Queuing, limit: u32, now: Instant) -> Self {
        let mut set = Self {
            queuing,
            limit,
            queues: Vec::new(),
            waiting: 0,
            executing: 0,
            seats_in_use: 0,
            seats_waiting: 0,
            active: 0,
            r: 0.0,
            last: now,
            robin: 0,
            enqueued: 0,
            ids: 0,
            demand: Demand::new(now),
            dispatched: 0,
            rejected: 0,
            timed_out: 0,
        };
        set.configure(queuing, limit, now);
        set
    }

    /// Changes the configuration; queues that are too many go when they are empty.
    pub(super) fn configure(&mut self, queuing: Queuing, limit: u32, now: Instant) {
        self.sync(now);
        (self.queuing, self.limit) = (queuing, limit);
        if let Queuing::Queue { queues, .. } = queuing {
            while self.queues.len() < queues {
                self.queues.push(Queue::new());
            }
        }
        self.trim();
        self.dispatch(now);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting == 0 && self.executing == 0
    }

    fn trim(&mut self) {
        let wanted = match self.queuing {
            Queuing::Queue { queues, .. } => queues,
            _ => 0,
        };
        while self.queues.len() > wanted
            && self.queues.last().is_some_and(|q| !q.is_active() && q.seats_in_use == 0)
        {
            self.queues.pop();
        }
    }

    /// Moves virtual time on.
    fn sync(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.last).as_secs_f64();
        self.last = now;
        if self.active > 0 {
            let seats = (self.seats_in_use + self.seats_waiting).min(self.limit);
            self.r += passed * f64::from(seats) / f64::from(self.active);
        }
    }

    /// A request comes in; `waiter` is asked for when it must wait.
    pub(super) fn enter(
        &mut self,
        now: Instant,
        hash: u64,
        work: Work,
        waiter: impl FnOnce() -> W,
    ) -> Entered {
        self.sync(now);
        let Queuing::Queue { queues, length, hand } = self.queuing else {
            if !self.has_room(work.seats()) {
                self.rejected += 1;
                return Entered::Refused("concurrency-limit");
            }
            return Entered::Running(self.start(now, None, work));
        };
        let index = self.shuffle(hash, queues, hand);
        let queue = &mut self.queues[index];
        if self.seats_in_use >= self.limit && queue.waiting.len() >= length {
            self.rejected += 1;
            return Entered::Refused("queue-full");
        }
        if !queue.is_active() {
            queue.next = self.r;
        }
        if self.waiting == 0 && self.seats_in_use < self.limit && self.has_room(work.seats()) {
            // Nobody is before it.
            let work = work.narrowed(self.limit);
            self.bound(index, self.r);
            return Entered::Running(self.start(now, Some(index), work));
        }
        self.ids += 1;
        let id = self.ids;
        self.active += u32::from(!self.queues[index].is_active());
        let queue = &mut self.queues[index];
        queue.waiting.push_back(Waiting { id, work, arrival: self.r, waiter: waiter() });
        queue.work_waiting += work.total();
        self.waiting += 1;
        self.seats_waiting += work.seats();
        self.note_demand(now);
        self.bound_oldest(index);
        self.dispatch(now);
        Entered::Queued(index, id)
    }

    /// A request that waits goes; true when it was still waiting.
    pub(super) fn leave(&mut self, now: Instant, index: usize, id: u64) -> bool {
        self.sync(now);
        let Some(queue) = self.queues.get_mut(index) else { return false };
        let Some(at) = queue.waiting.iter().position(|w| w.id == id) else { return false };
        self.take(index, at);
        self.rejected += 1;
        self.timed_out += 1;
        self.note_demand(now);
        self.bound_oldest(index);
        self.trim();
        true
    }

    /// Takes a request out of its queue.
    fn take(&mut self, index: usize, at: usize) -> Option<Waiting<W>> {
        let queue = &mut self.queues[index];
        let waiting = queue.waiting.remove(at)?;
        queue.work_waiting =
            if queue.waiting.is_empty() { 0.0 } else { queue.work_waiting - waiting.work.total() };
        self.active -= u32::from(!queue.is_active());
        self.waiting -= 1;
        self.seats_waiting -= waiting.work.seats();
        Some(waiting)
    }

    /// A request has been answered. Its seats are to be released after the time that is returned.
    pub(super) fn finish(&mut self, now: Instant, slot: &Slot) -> Duration {
        self.sync(now);
        self.executing -= 1;
        if let Some(index) = slot.queue {
            let ran = now.saturating_duration_since(slot.started).as_secs_f64();
            let queue = &mut self.queues[index];
            queue.executing -= 1;
            queue.next -= f64::from(slot.work.initial) * (SERVICE - ran);
            self.active -= u32::from(!queue.is_active());
            self.bound_oldest(index);
        }
        if slot.work.extra.is_zero() {
            self.release(now, slot);
        }
        slot.work.extra
    }

    /// Gives the seats of a request to others.
    pub(super) fn release(&mut self, now: Instant, slot: &Slot) {
        self.sync(now);
        self.seats_in_use -= slot.work.seats();
        if let Some(index) = slot.queue {
            self.queues[index].seats_in_use -= slot.work.seats();
            if self.waiting == 0 {
                self.trim();
            }
        }
        self.note_demand(now);
        self.dispatch(now);
    }

    fn start(&mut self, now: Instant, index: Option<usize>, work: Work) -> Slot {
        self.executing += 1;
        self.dispatched += 1;
        self.seats_in_use += work.seats();
        if let Some(index) = index {
            let queue = &mut self.queues[index];
            self.active += u32::from(!queue.is_active());
            queue.executing += 1;
            queue.seats_in_use += work.seats();
            queue.next += work.total();
        }
        self.note_demand(now);
        Slot { queue: index, work, started: now }
    }

    fn note_demand(&mut self, now: Instant) {
        self.demand.set(now, self.seats_in_use + self.seats_waiting);
    }

    fn has_room(&self, seats: u32) -> bool {
        match self.queuing {
            Queuing::Exempt => true,
            // What is wider than everything runs alone.
            _ if seats > self.limit => self.executing == 0,
            _ => self.seats_in_use + seats <= self.limit,
        }
    }

    /// Starts whoever can start.
    fn dispatch(&mut self, now: Instant) {
        while self.waiting > 0 && self.seats_in_use < self.limit && self.dispatch_one(now) {}
    }

    fn dispatch_one(&mut self, now: Instant) -> bool {
        let count = self.queues.len();
        let mut best: Option<(usize, f64)> = None;
        for step in 1..=count {
            let index = (self.robin + step) % count;
            let queue = &self.queues[index];
            let Some(oldest) = queue.waiting.front() else { continue };
            let finish = queue.next + oldest.work.total();
            if best.is_none_or(|(_, least)| finish < least) {
                best = Some((index, finish));
            }
        }
        let Some((index, _)) = best else { return false };
        let seats = self.queues[index].waiting.front().map_or(0, |w| w.work.seats());
        if !self.has_room(seats) {
            return false;
        }
        let Some(waiting) = self.take(index, 0) else { return false };
        self.robin = index;
        let slot = Slot { queue: Some(index), work: waiting.work.narrowed(self.limit), started: now };
        if waiting.waiter.go(slot) {
            self.start(now, Some(index), slot.work);
        } else {
            self.note_demand(now);
        }
        self.bound_oldest(index);
        true
    }

    /// A queue does not save up what it did not use before its oldest request came.
    fn bound_oldest(&mut self, index: usize) {
        if let Some(arrival) = self.queues[index].waiting.front().map(|w| w.arrival) {
            self.bound(index, arrival);
        }
    }

    fn bound(&mut self, index: usize, arrival: f64) {
        let queue = &mut self.queues[index];
        queue.next = queue.next.max(arrival);
    }

    /// The queue of the hand with the least work waiting.
    fn shuffle(&mut self, hash: u64, queues: usize, hand: usize) -> usize {
        let mut cards = [0; MAX_HAND];
        let hand = deal(hash, queues, &mut cards[..hand.clamp(1, MAX_HAND.min(queues))]);
        let offset = self.enqueued % hand.len();
        self.enqueued = self.enqueued.wrapping_add(1);
        let (late, early) = hand.split_at(offset);
        let mut best = (hand[offset], f64::INFINITY);
        for index in early.iter().chain(late) {
            let work = self.queues[*index].work_waiting;
            if work < best.1 {
                best = (*index, work);
            }
        }
        best.0
    }
}

/// More cards than a hash has entropy for are refused when a level is written.
const MAX_HAND: usize = 15;

/// Deals distinct cards from a deck, each hand as likely as any other.
fn deal(mut hash: u64, deck: usize, hand: &mut [usize]) -> &[usize] {
    let mut rests = [0; MAX_HAND];
    for (i, rest) in rests.iter_mut().enumerate().take(hand.len()) {
        let left = (deck - i) as u64;
        // The rest of the division is less than the deck, which is a usize.
        *rest = (hash % left) as usize;
        hash /= left;
    }
    for (i, card) in hand.iter_mut().enumerate() {
        *card = rests[i];
        for rest in rests[..i].iter().rev() {
            *card += usize::from(*card >= *rest);
        }
    }
    hand
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Takes note of who runs.
    struct Noted(std::rc::Rc<std::cell::RefCell<Vec<(&'static str, Slot)>>>, &'static str, bool);

    impl Waiter for Noted {
        fn go(self, slot: Slot) -> bool {
            if self.2 {
                self.0.borrow_mut().push((self.1, slot));
            }
            self.2
        }
    }

    #[test]
    fn hands_have_no_card_twice() {
        let mut seen = BTreeSet::new();
        for hash in 0..5_000_u64 {
            let mut cards = [0; 4];
            let hand = deal(hash.wrapping_mul(0x9E37_79B9_7F4A_7C15), 16, &mut cards);
            let distinct: BTreeSet<usize> = hand.iter().copied().collect();
            assert_eq!(distinct.len(), 4, "{hand:?}");
            assert!(hand.iter().all(|c| *c < 16));
            seen.extend(distinct);
        }
        assert_eq!(seen.len(), 16);
    }

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn what_exceeds_the_limit_is_refused_without_queues() {
        let start = Instant::now();
        let mut set: QueueSet<Noted> = QueueSet::new(Queuing::Reject, 2, start);
        let log = std::rc::Rc::default();
        let enter = |set: &mut QueueSet<Noted>, seats: u32| {
            set.enter(start, 0, Work { initial: seats, ..Work::ONE }, || {
                Noted(std::rc::Rc::clone(&log), "", true)
            })
        };
        let Entered::Running(slot) = enter(&mut set, 1) else { panic!("there is room") };
        assert!(matches!(enter(&mut set, 2), Entered::Refused("concurrency-limit")));
        assert!(matches!(enter(&mut set, 1), Entered::Running(_)));
        assert!(matches!(enter(&mut set, 1), Entered::Refused("concurrency-limit")));
        assert_eq!(set.finish(at(start, 1), &slot), Duration::ZERO);
        assert!(matches!(enter(&mut set, 1), Entered::Running(_)));
        assert_eq!((set.executing, set.seats_in_use, set.rejected), (2, 2, 2));
    }

    #[test]
    fn flows_take_turns_whoever_came_first() {
        let start = Instant::now();
        let queuing = Queuing::Queue { queues: 8, length: 10, hand: 1 };
        let mut set: QueueSet<Noted> = QueueSet::new(queuing, 1, start);
        let log: std::rc::Rc<std::cell::RefCell<Vec<(&'static str, Slot)>>> = std::rc::Rc::default();
        let note = |name: &'static str| Noted(std::rc::Rc::clone(&log), name, true);
        let Entered::Running(first) = set.enter(start, 1, Work::ONE, || note("")) else {
            panic!("there is room")
        };
        for _ in 0..4 {
            assert!(matches!(set.enter(start, 1, Work::ONE, || note("loud")), Entered::Queued(1, _)));
        }
        assert!(matches!(set.enter(start, 2, Work::ONE, || note("quiet")), Entered::Queued(2, _)));
        let mut running = first;
        for ms in 1..=5 {
            set.finish(at(start, ms), &running);
            running = log.borrow().last().unwrap().1;
        }
        let order: Vec<&str> = log.borrow().iter().map(|(name, _)| *name).collect();
        // The flow that had not run yet is first, although it came last.
        assert_eq!(order, ["quiet", "loud", "loud", "loud", "loud"]);
        set.finish(at(start, 6), &running);
        assert!(set.is_idle());
        assert_eq!((set.seats_in_use, set.seats_waiting, set.active), (0, 0, 0));
    }

    #[test]
    fn full_queues_refuse_and_those_who_leave_are_not_started() {
        let start = Instant::now();
        let queuing = Queuing::Queue { queues: 1, length: 2, hand: 1 };
        let mut set: QueueSet<Noted> = QueueSet::new(queuing, 1, start);
        let log: std::rc::Rc<std::cell::RefCell<Vec<(&'static str, Slot)>>> = std::rc::Rc::default();
        let note = |name: &'static str, there: bool| Noted(std::rc::Rc::clone(&log), name, there);
        let Entered::Running(first) = set.enter(start, 0, Work::ONE, || note("", true)) else {
            panic!("there is room")
        };
        let Entered::Queued(queue, id) = set.enter(start, 0, Work::ONE, || note("late", true)) else {
            panic!("it waits")
        };
        assert!(matches!(set.enter(start, 0, Work::ONE, || note("gone", false)), Entered::Queued(..)));
        assert!(matches!(set.enter(start, 0, Work::ONE, || note("", true)), Entered::Refused("queue-full")));
        assert!(set.leave(at(start, 1), queue, id));
        assert!(!set.leave(at(start, 1), queue, id));
        assert!(matches!(set.enter(start, 0, Work::ONE, || note("next", true)), Entered::Queued(..)));
        set.finish(at(start, 2), &first);
        assert_eq!(log.borrow().iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["next"]);
        assert_eq!((set.waiting, set.executing, set.timed_out), (0, 1, 1));
    }

    #[test]
    fn seats_are_held_after_the_answer_where_work_is_left() {
        let start = Instant::now();
        let queuing = Queuing::Queue { queues: 4, length: 2, hand: 2 };
        let mut set: QueueSet<Noted> = QueueSet::new(queuing, 4, start);
        let work = Work { initial: 1, last: 8, extra: Duration::from_millis(5) };
        let log = std::rc::Rc::default();
        let Entered::Running(slot) = set.enter(start, 3, work, || Noted(std::rc::Rc::clone(&log), "", true))
        else {
            panic!("there is room")
        };
        // The work after the answer is done on as many seats as there are, for longer.
        assert_eq!((slot.work.last, slot.work.extra), (4, Duration::from_millis(10)));
        assert_eq!(set.finish(at(start, 1), &slot), Duration::from_millis(10));
        assert_eq!((set.executing, set.seats_in_use), (0, 4));
        set.release(at(start, 11), &slot);
        assert_eq!(set.seats_in_use, 0);
        // Fewer queues are kept once they are empty.
        set.configure(Queuing::Reject, 4, at(start, 12));
        assert!(set.queues.is_empty());
    }
}
