//! Sends events to a server, which a kubeconfig file names.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::kubeconfig::Remote;

/// How long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a batch is sent before it is given up.
const ATTEMPTS: u32 = 5;

/// Sends events.
pub struct Sender {
    remote: Remote,
    backoff: Duration,
}

impl Sender {
    /// Sends to `remote`; waits for `backoff` after the first failure, and longer after each further one.
    pub fn new(remote: Remote, backoff: Duration) -> Self {
        Self { remote, backoff }
    }

    /// Sends events as one list.
    pub(super) async fn send(&self, events: &[Bytes]) -> Result<(), String> {
        let body = list(events);
        let mut pause = self.backoff;
        for attempt in 1.. {
            match self.remote.post(body.clone(), TIMEOUT).await {
                Ok(_) => return Ok(()),
                Err(e) if attempt == ATTEMPTS => return Err(e.to_string()),
                Err(e) => tracing::warn!(error = %e, attempt, "audit events could not be sent, trying again"),
            }
            let jitter = 1.0 + rand::random::<f64>() * 0.2;
            tokio::time::sleep(pause.mul_f64(jitter)).await;
            pause = pause.mul_f64(1.5);
        }
        unreachable!("the loop ends by returning")
    }
}

fn list(events: &[Bytes]) -> Bytes {
    let size: usize = events.iter().map(|e| e.len() + 1).sum();
    let mut out = BytesMut::with_capacity(size + 80);
    out.extend_from_slice(br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#);
    for (i, event) in events.iter().enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        out.extend_from_slice(event);
    }
    out.extend_from_slice(b"]}");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_sent_as_a_list() {
        let bytes = list(&[Bytes::from("{\"a\":1}"), Bytes::from("{}")]);
        let list = api::json::decode(&bytes).unwrap().value;
        assert_eq!(list.kind(), "EventList");
        assert_eq!(list.array_at(&["items"]).len(), 2);
    }
}
