//! How much of the processors is used, from one question to the next.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Two looks closer than this say nothing about a rate.
const LEAST: Duration = Duration::from_secs(1);
/// What nobody asked about in this time is forgotten.
const MOST: Duration = Duration::from_secs(600);

/// The last look at something.
struct Look {
    at: Instant,
    used: u64,
    rate: Option<u64>,
}

/// The last looks at groups and containers, by their names.
#[derive(Default)]
pub(crate) struct Rates(Mutex<HashMap<String, Look>>);

impl Rates {
    /// The processors' nanoseconds that are used in a second, when so many have been used in all. Nothing at the first look.
    pub(super) fn of(&self, name: &str, used: u64, now: Instant) -> Option<u64> {
        let mut looks = self.0.lock();
        let Some(last) = looks.get_mut(name) else {
            looks.insert(name.to_owned(), Look { at: now, used, rate: None });
            return None;
        };
        let passed = now.duration_since(last.at);
        if passed >= LEAST {
            // What counts less than before has begun anew.
            let spent = used.checked_sub(last.used);
            let rate = spent.map(|spent| (spent as f64 / passed.as_secs_f64()) as u64);
            *last = Look { at: now, used, rate };
        }
        last.rate
    }

    /// Forgets what nobody has asked about for long.
    pub(super) fn clear(&self, now: Instant) {
        self.0.lock().retain(|_, look| now.duration_since(look.at) < MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_was_used_since_the_last_look() {
        let (rates, start) = (Rates::default(), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        for (time, used, expected) in [
            (0, 1_000_000_000, None),
            // Too soon.
            (500, 1_100_000_000, None),
            (2000, 2_000_000_000, Some(500_000_000)),
            (2900, 2_900_000_000, Some(500_000_000)),
            (4000, 2_000_000_000, Some(0)),
            // It has begun anew.
            (6000, 1, None),
            (8000, 3, Some(1)),
        ] {
            assert_eq!(rates.of("g", used, at(time)), expected, "{time}");
        }
        assert_eq!(rates.of("other", 5, at(8000)), None);
        rates.clear(at(8000));
        assert_eq!(rates.of("g", 3, at(10_000)), Some(0));
        rates.clear(at(700_000));
        assert_eq!(rates.of("g", 3, at(700_001)), None);
    }
}
