//! So many a second, and a number of them at once.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket that holds so many tokens at most and is filled at a rate, as upstream limits clients.
#[derive(Debug)]
pub struct Bucket {
    per_second: f64,
    burst: f64,
    /// What is in it; less than none when tokens were promised.
    left: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket; none where there is no limit, which is when nothing is filled in.
    pub fn new(per_second: f64, burst: u32) -> Option<Self> {
        let burst = f64::from(burst);
        (per_second > 0.0).then(|| Self { per_second, burst, left: burst, at: Instant::now() })
    }

    fn fill(&mut self) {
        let now = Instant::now();
        self.left = (self.left + (now - self.at).as_secs_f64() * self.per_second).min(self.burst);
        self.at = now;
    }

    /// Takes a token; false when there is none.
    pub fn take(&mut self) -> bool {
        self.fill();
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }

    /// Takes a token, and says how long it is until there is one.
    pub fn promise(&mut self) -> Duration {
        self.fill();
        self.left -= 1.0;
        Duration::from_secs_f64((-self.left).max(0.0) / self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_are_as_many_at_once_as_fit_and_then_as_many_as_are_filled_in() {
        let mut bucket = Bucket::new(4.0, 2).unwrap();
        assert_eq!([(); 3].map(|()| bucket.take()), [true, true, false]);
        tokio::time::advance(Duration::from_millis(249)).await;
        assert!(!bucket.take());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!([(); 2].map(|()| bucket.take()), [true, false]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!([(); 3].map(|()| bucket.take()), [true, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn promised_ones_come_one_after_the_other() {
        let mut bucket = Bucket::new(10.0, 1).unwrap();
        assert_eq!([(); 3].map(|()| bucket.promise().as_millis()), [0, 100, 200]);
        tokio::time::advance(Duration::from_millis(150)).await;
        assert!(!bucket.take());
        assert_eq!(bucket.promise().as_millis(), 150);
    }

    #[test]
    fn nothing_filled_in_is_no_limit() {
        assert!(Bucket::new(0.0, 10).is_none());
    }
}
