//! When those who were refused should try again: later, the more are refused.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::Mutex;

const LONGEST: u64 = 32;

/// What was refused of a level.
pub(super) struct Dropped(Mutex<State>);

struct State {
    began: Instant,
    /// Seconds and how many were refused in them.
    history: VecDeque<(u64, u64)>,
    current: (u64, u64),
    retry_after: u64,
    changed: Option<u64>,
}

impl Dropped {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(State {
            began: now,
            history: VecDeque::new(),
            current: (0, 0),
            retry_after: 1,
            changed: None,
        }))
    }

    /// Takes note of a refusal; the seconds after which to try again.
    pub(super) fn note(&self, now: Instant) -> u64 {
        let mut state = self.0.lock();
        let second = now.saturating_duration_since(state.began).as_secs();
        if state.current.0 == second {
            state.current.1 += 1;
            return state.retry_after;
        }
        let before = std::mem::replace(&mut state.current, (second, 1));
        state.history.push_back(before);
        let kept = (2 * state.retry_after).min(LONGEST);
        while state.history.front().is_some_and(|(at, _)| before.0.saturating_sub(*at) > kept) {
            state.history.pop_front();
        }
        state.adjust(second);
        state.retry_after
    }
}

impl State {
    fn adjust(&mut self, second: u64) {
        let after = self.retry_after;
        let recent = self.history.iter().rev().take_while(|(at, _)| second - at <= after);
        let dropped: u64 = recent.filter(|(at, _)| *at < second).map(|(_, n)| n).sum();
        let settled = self.changed.is_none_or(|at| second - at >= after);
        if settled && dropped >= 3 * after {
            self.retry_after = (after * 2).min(LONGEST);
            self.changed = Some(second);
        } else if dropped < after && after > 1 {
            self.retry_after = after - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn many_refusals_send_clients_away_for_longer() {
        let start = Instant::now();
        let dropped = Dropped::new(start);
        let mut last = 0;
        for second in 0..100 {
            for _ in 0..200 {
                last = dropped.note(start + Duration::from_secs(second));
            }
        }
        assert_eq!(last, LONGEST);
        // One refusal in a long while brings them back, step by step.
        let after = |minutes: u64| dropped.note(start + Duration::from_secs(100 + 60 * minutes));
        assert_eq!((after(1), after(2), after(3)), (31, 30, 29));
    }
}
