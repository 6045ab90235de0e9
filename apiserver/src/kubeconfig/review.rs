//! Reviews: documents that a server answers with a status, which holds for a while.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use api::Value;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Remote, RemoteError};

/// How often a review is asked for.
const ATTEMPTS: u32 = 5;
/// Longer keys are not kept.
const KEY_LIMIT: usize = 10_000;

impl Remote {
    /// The status of a review. What may pass by itself is tried again, after pauses of which `pause` is the first.
    ///
    /// # Errors
    /// There is no answer, or it is none to a review.
    pub async fn review(&self, review: &Value, timeout: Duration, pause: Duration) -> Result<Value, String> {
        let (body, mut pause) = (Bytes::from(review.to_json()), pause);
        for attempt in 1.. {
            match self.post(body.clone(), timeout).await {
                Ok(answer) => {
                    let answer =
                        api::json::decode(&answer).map_err(|e| format!("the answer is no JSON: {e}"))?;
                    return Ok(answer.value.get("status").clone());
                }
                Err(e) if attempt >= ATTEMPTS || !passes(&e) => return Err(e.to_string()),
                Err(e) => {
                    let kind = review.kind();
                    tracing::warn!(url = self.url, kind, error = %e, attempt, "a review failed, trying again");
                }
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(1.5);
        }
        unreachable!("the loop ends by returning")
    }
}

/// True for failures that may pass by themselves.
fn passes(error: &RemoteError) -> bool {
    match error {
        RemoteError::Connection { .. } | RemoteError::Timeout(_) => true,
        RemoteError::Status(status) => status.is_server_error() || status.as_u16() == 429,
    }
}

/// Answers that hold for a while, at most so many.
#[derive(Debug)]
pub struct Answers<A> {
    most: usize,
    kept: Mutex<HashMap<Vec<u8>, (A, Instant)>>,
}

impl<A: Clone> Answers<A> {
    /// None yet.
    pub fn new(most: usize) -> Self {
        Self { most, kept: Mutex::default() }
    }

    /// The answer, if it still holds.
    pub fn get(&self, key: &[u8]) -> Option<A> {
        let kept = self.kept.lock();
        kept.get(key).filter(|(_, until)| Instant::now() < *until).map(|(answer, _)| answer.clone())
    }

    /// Keeps an answer for as long as it holds. When there is no room for it, it is forgotten at once.
    pub fn keep(&self, key: Vec<u8>, answer: A, holds: Duration) {
        if holds.is_zero() || key.len() > KEY_LIMIT {
            return;
        }
        let now = Instant::now();
        let mut kept = self.kept.lock();
        if kept.len() >= self.most {
            kept.retain(|_, (_, until)| now < *until);
        }
        if kept.len() < self.most {
            kept.insert(key, (answer, now + holds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_hold_for_their_time_and_have_limits() {
        let answers = Answers::new(2);
        let hour = Duration::from_secs(3600);
        answers.keep(b"a".to_vec(), 1, hour);
        answers.keep(b"zero".to_vec(), 2, Duration::ZERO);
        answers.keep(vec![0; KEY_LIMIT + 1], 3, hour);
        answers.keep(b"b".to_vec(), 4, Duration::from_nanos(1));
        assert_eq!((answers.get(b"a"), answers.get(b"zero"), answers.get(b"b")), (Some(1), None, None));
        // What no longer holds makes room; what holds stays.
        answers.keep(b"c".to_vec(), 5, hour);
        answers.keep(b"d".to_vec(), 6, hour);
        assert_eq!((answers.get(b"a"), answers.get(b"c"), answers.get(b"d")), (Some(1), Some(5), None));
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let status = |code: u16| RemoteError::Status(http::StatusCode::from_u16(code).unwrap());
        assert!(passes(&RemoteError::Timeout(String::new())) && passes(&status(500)) && passes(&status(429)));
        assert!(!passes(&status(403)));
    }
}
