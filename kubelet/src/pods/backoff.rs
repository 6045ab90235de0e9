//! Pauses that grow with every failure: 10 s, doubled up to the longest (5 minutes), forgotten after 10 minutes without one.

use std::collections::HashMap;

const SECOND: i64 = 1_000_000_000;
const FIRST: i64 = 10 * SECOND;
const LONGEST: i64 = 300 * SECOND;
const FORGOTTEN: i64 = 600 * SECOND;

/// The pauses of a pod's containers or images, by name. Times are nanoseconds since the epoch.
#[derive(Debug, Clone)]
pub(crate) struct Backoffs {
    entries: HashMap<String, Entry>,
    longest: i64,
}

impl Default for Backoffs {
    fn default() -> Self {
        Self::up_to(LONGEST)
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    delay: i64,
    last: i64,
}

impl Backoffs {
    /// Pauses that grow up to another longest one, in nanoseconds.
    pub(crate) fn up_to(longest: i64) -> Self {
        Self { entries: HashMap::new(), longest }
    }

    /// The pause that follows a failure at `since`: its length and its end. None after the first failure.
    pub(crate) fn pause(&self, name: &str, since: i64) -> Option<(i64, i64)> {
        let entry = self.entries.get(name)?;
        if since - entry.last > FORGOTTEN {
            return None;
        }
        Some((entry.delay, since + entry.delay))
    }

    /// Notes another try at `now`.
    pub(crate) fn crashed(&mut self, name: &str, now: i64) {
        let delay = match self.entries.get(name) {
            Some(entry) if now - entry.last <= FORGOTTEN => (entry.delay * 2).min(self.longest),
            _ => FIRST.min(self.longest),
        };
        self.entries.insert(name.to_owned(), Entry { delay, last: now });
    }

    /// When the last failure was.
    pub(crate) fn last(&self, name: &str) -> Option<i64> {
        self.entries.get(name).map(|entry| entry.last)
    }

    /// Forgets what was noted.
    pub(crate) fn succeeded(&mut self, name: &str) {
        self.entries.remove(name);
    }
}

/// A length of time as Go prints it, for messages: `10s`, `2m40s`.
pub(crate) fn go_duration(nanoseconds: i64) -> String {
    let length = std::time::Duration::from_nanos(nanoseconds.max(0).unsigned_abs());
    daemon::GoDuration(length).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes_and_are_forgotten_after_ten() {
        let mut backoffs = Backoffs::default();
        assert_eq!(backoffs.pause("c", 0), None);
        let mut now = 0;
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            backoffs.crashed("c", now);
            let (delay, until) = backoffs.pause("c", now).unwrap();
            assert_eq!(delay, expected * SECOND);
            now = until;
        }
        assert_eq!(backoffs.pause("c", now + 700 * SECOND), None);
        backoffs.crashed("c", now + 700 * SECOND);
        assert_eq!(backoffs.pause("c", now + 700 * SECOND).unwrap().0, 10 * SECOND);
        backoffs.succeeded("c");
        assert_eq!(backoffs.pause("c", now), None);
    }

    #[test]
    fn the_longest_pause_can_be_set() {
        let mut backoffs = Backoffs::up_to(15 * SECOND);
        for expected in [10, 15, 15] {
            backoffs.crashed("c", 0);
            assert_eq!(backoffs.pause("c", 0).unwrap().0, expected * SECOND);
        }
    }

    #[test]
    fn lengths_print_as_go_does() {
        assert_eq!(go_duration(160 * SECOND), "2m40s");
        assert_eq!(go_duration(10 * SECOND), "10s");
    }
}
