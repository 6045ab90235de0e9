//! Tells those who wait for changes of a cache that there are some.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How many waiters are woken in a millisecond, at most: more of them are woken the less often.
const WAKES: usize = 50;
/// Nobody waits longer than this for what has happened.
const LONGEST: Duration = Duration::from_millis(10);

/// A bell that rings at once when it is quiet. While much happens and many listen it rings only so often, and each of
/// them finds several changes: to wake a watcher costs more than to give it one change more.
pub(super) struct Bell {
    rung: watch::Sender<()>,
    state: Mutex<State>,
}

struct State {
    /// When it rang last, or will ring next.
    last: Instant,
    /// What makes it ring then.
    later: JoinSet<()>,
}

impl Bell {
    /// A bell that nobody hears yet.
    pub(super) fn new() -> Self {
        let state = State { last: Instant::now(), later: JoinSet::new() };
        Self { rung: watch::Sender::new(()), state: Mutex::new(state) }
    }

    /// Listens from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.rung.subscribe()
    }

    /// Something changed.
    pub(super) fn ring(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.last > now {
            return;
        }
        let next = state.last + self.pause();
        state.last = next.max(now);
        if next <= now {
            self.rung.send_replace(());
            return;
        }
        while state.later.try_join_next().is_some() {}
        let rung = self.rung.clone();
        state.later.spawn(async move {
            tokio::time::sleep_until(next).await;
            rung.send_replace(());
        });
    }

    /// The least time between two rings.
    fn pause(&self) -> Duration {
        let millis = (self.rung.receiver_count() / WAKES) as u64;
        Duration::from_millis(millis).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often the bell was heard while it was rung `times` times, a millisecond apart, and a while after.
    async fn heard(listeners: usize, times: usize) -> usize {
        let bell = Bell::new();
        let mut one = bell.subscribe();
        let _others: Vec<_> = (1..listeners).map(|_| bell.subscribe()).collect();
        tokio::time::sleep(LONGEST).await;
        let mut heard = 0;
        for _ in 0..times {
            bell.ring();
            tokio::time::sleep(Duration::from_millis(1)).await;
            heard += usize::from(one.has_changed().unwrap());
            one.mark_unchanged();
        }
        tokio::time::sleep(LONGEST).await;
        heard + usize::from(one.has_changed().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn few_hear_every_ring() {
        assert_eq!(heard(WAKES - 1, 20).await, 20);
    }

    #[tokio::test(start_paused = true)]
    async fn many_hear_the_first_at_once_and_the_last_in_the_end() {
        assert_eq!(heard(4 * WAKES, 1).await, 1);
        assert_eq!(heard(4 * WAKES, 2).await, 2);
        let often = heard(4 * WAKES, 40).await;
        assert!((10..=12).contains(&often), "{often}");
        let bounded = heard(1000 * WAKES, 40).await;
        assert!((4..=6).contains(&bounded), "{bounded}");
    }
}
