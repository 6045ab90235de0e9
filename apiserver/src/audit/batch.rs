//! Events in batches: gathered for a while, and sent at a limited rate.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus::IntCounterVec;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backend::{Output, lost};

/// So many batches are on their way at a time; the next waits, and then the buffer fills.
const IN_FLIGHT: usize = 16;

/// How batches are made.
#[derive(Clone, Debug)]
pub struct Batching {
    /// So many events wait at most.
    pub buffer: usize,
    /// So many events are in a batch at most.
    pub max_size: usize,
    /// A batch with less is sent after this time.
    pub max_wait: Duration,
    /// Batches for each second, and at once.
    pub throttle: Option<(f64, u32)>,
    /// Whether a batch may be sent before the one before has arrived.
    pub parallel: bool,
}

/// A bucket of tokens, one for each batch.
struct Throttle {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Throttle {
    fn new((rate, burst): (f64, u32)) -> Self {
        Self { rate, burst: f64::from(burst), tokens: f64::from(burst), at: Instant::now() }
    }

    /// Takes a token; the time to wait until there is one.
    fn take(&mut self, now: Instant) -> Duration {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + gained).min(self.burst) - 1.0;
        self.at = now;
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(-self.tokens / self.rate).unwrap_or(Duration::MAX)
    }
}

/// Sends batches until `stop`, and then what is left.
pub(super) async fn run(
    batching: &Batching,
    mut events: mpsc::Receiver<Bytes>,
    output: Arc<Output>,
    stop: CancellationToken,
    errors: IntCounterVec,
) {
    let mut throttle = batching.throttle.map(Throttle::new);
    let mut running = JoinSet::new();
    loop {
        let batch = collect(batching, &mut events, &stop).await;
        if batch.is_empty() {
            break;
        }
        if let Some(throttle) = &mut throttle
            && !stop.is_cancelled()
        {
            tokio::time::sleep(throttle.take(Instant::now())).await;
        }
        let (output, errors, parallel) = (output.clone(), errors.clone(), batching.parallel);
        let send = async move {
            let size = batch.len();
            if let Err(why) = output.send(batch).await {
                lost(&errors, output.plugin(), size, &why);
            }
        };
        if !parallel {
            send.await;
            continue;
        }
        while running.len() >= IN_FLIGHT {
            running.join_next().await;
        }
        running.spawn(send);
    }
    let rest = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(super::DRAIN, rest).await.is_err() {
        tracing::warn!("batches of audit events did not arrive before the server stopped");
    }
}

/// The next batch; empty when there will be no more.
async fn collect(
    batching: &Batching,
    events: &mut mpsc::Receiver<Bytes>,
    stop: &CancellationToken,
) -> Vec<Bytes> {
    let mut batch = Vec::new();
    let mut full = None;
    while batch.len() < batching.max_size {
        let due = async {
            match full {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Some(event) => batch.push(event),
                None => break,
            },
            () = due => break,
            () = stop.cancelled(), if !events.is_closed() => events.close(),
        }
        full = full.or_else(|| Instant::now().checked_add(batching.max_wait));
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batching(max_size: usize) -> Batching {
        Batching {
            buffer: 10,
            max_size,
            max_wait: Duration::from_millis(30),
            throttle: None,
            parallel: false,
        }
    }

    #[tokio::test]
    async fn batches_are_full_or_late_or_the_last() {
        let (sender, mut events) = mpsc::channel(10);
        let stop = CancellationToken::new();
        for text in ["a", "b", "c"] {
            sender.send(Bytes::from(text)).await.unwrap();
        }
        let batching = batching(2);
        assert_eq!(collect(&batching, &mut events, &stop).await, ["a", "b"]);
        let began = Instant::now();
        assert_eq!(collect(&batching, &mut events, &stop).await, ["c"]);
        assert!(began.elapsed() >= batching.max_wait);
        sender.send(Bytes::from("d")).await.unwrap();
        stop.cancel();
        assert_eq!(collect(&batching, &mut events, &stop).await, ["d"]);
        assert!(collect(&batching, &mut events, &stop).await.is_empty());
        assert!(sender.send(Bytes::from("e")).await.is_err());
    }

    #[tokio::test]
    async fn the_rate_is_limited_after_a_burst() {
        let mut throttle = Throttle::new((10.0, 2));
        let now = Instant::now();
        let waits: Vec<u128> = (0..4).map(|_| throttle.take(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 100, 200]);
        assert_eq!(throttle.take(now + Duration::from_secs(5)).as_millis(), 0);
    }
}
