//! The health server on port 10256: healthy while no change has been waiting for longer than twice the sync period.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::{object, time};
use http::{Request, Response, StatusCode};
use jiff::Timestamp;
use parking_lot::Mutex;
use serve::Body;
use serve::{json, text};
use tokio::time::Instant;

/// When rules were written last, and since when a change has been waiting. Clones share it.
#[derive(Clone)]
pub(crate) struct Health(Arc<Mutex<State>>, Duration);

struct State {
    updated: Timestamp,
    waiting: Option<Instant>,
    leaving: bool,
}

impl Health {
    pub(crate) fn new(sync_period: Duration) -> Self {
        let state = State { updated: Timestamp::now(), waiting: None, leaving: false };
        Self(Arc::new(Mutex::new(state)), sync_period * 2)
    }

    /// A change came in.
    pub(crate) fn queued(&self) {
        self.0.lock().waiting.get_or_insert_with(Instant::now);
    }

    /// Everything known before `started` is in the kernel.
    pub(crate) fn synced(&self, started: Instant) {
        let mut state = self.0.lock();
        state.updated = Timestamp::now();
        state.waiting = state.waiting.filter(|since| *since > started);
    }

    /// The node is (not) about to be removed.
    pub(crate) fn leaving(&self, leaving: bool) {
        self.0.lock().leaving = leaving;
    }

    /// Whether no change has waited too long.
    pub(crate) fn is_healthy(&self) -> bool {
        self.0.lock().waiting.is_none_or(|since| since.elapsed() < self.1)
    }

    fn respond(&self, path: &str) -> Response<Body> {
        let healthy = self.is_healthy();
        let state = self.0.lock();
        let now = Timestamp::now();
        let updated = time::format(if healthy { now } else { state.updated });
        let mut body = object!({
            "lastUpdated": (updated.as_str()),
            "currentTime": (time::format(now)),
        });
        let fit = match path {
            "/healthz" => {
                body.set(&["nodeEligible"], !state.leaving);
                healthy && !state.leaving
            }
            "/livez" => healthy,
            _ => return text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        body.set(&["status"], object!({"IPv4": {"lastUpdated": (updated), "healthy": (healthy)}}));
        json(if fit { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body.to_json())
    }

    /// Answers a request.
    pub(crate) async fn handle<B>(self, request: Request<B>) -> Result<Response<Body>, Infallible> {
        Ok(self.respond(request.uri().path()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_that_waits_too_long_is_unhealthy() {
        let health = Health::new(Duration::from_secs(30));
        let code = |path| health.respond(path).status().as_u16();
        assert_eq!((code("/healthz"), code("/livez"), code("/x")), (200, 200, 404));
        health.queued();
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(code("/livez"), 200);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((code("/healthz"), code("/livez")), (503, 503));
        health.synced(Instant::now());
        health.leaving(true);
        assert_eq!((code("/healthz"), code("/livez")), (503, 200));
    }
}
