//! Graceful shutdown of the node: the machine's shutdown is held up until the pods have ended, those of low priority first.
//!
//! logind is asked for a lock that delays a shutdown, and tells when one begins. `plan` decides who ends when, without
//! looking at anything; `logind` speaks over D-Bus; `state` keeps when it happened last. Without a grace period in the
//! configuration nothing of this runs.

mod logind;
mod node;
mod plan;
mod state;

use std::sync::Arc;
use std::time::Duration;

use ::api::Value;
use async_trait::async_trait;
use jiff::Timestamp;

pub(crate) use node::start;
pub(crate) use plan::{Period, check};
pub(crate) use state::Metrics;

use logind::{Logind, Shutdowns};
use state::State;

/// The reason of pods that ended because of a shutdown.
pub(crate) const REASON: &str = "Terminated";
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// With what pods are turned away meanwhile.
pub(crate) const REFUSED: (&str, &str) = ("NodeShutdown", "Pod was rejected as the node is shutting down.");

/// When to try again after logind could not be reached: first, and at most.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

/// The pods of the node.
#[async_trait]
pub(crate) trait Pods: Send + Sync + 'static {
    /// Those that run or will run.
    fn active(&self) -> Vec<Arc<Value>>;
    /// Makes one end within so many seconds.
    fn end(&self, uid: &str, grace: i64);
    /// Waits until these have ended and let go of their volumes.
    async fn gone(&self, uids: &[String]);
    /// Notes that a shutdown has begun, or has been called off.
    fn note(&self, shutting_down: bool);
}

/// Watches for shutdowns.
pub(crate) struct Manager<P> {
    pods: P,
    periods: Vec<Period>,
    logind: Logind,
    state: State,
}

impl<P: Pods> Manager<P> {
    /// Watches until the process ends.
    async fn run(&self) {
        let mut pause = RETRY_FIRST;
        loop {
            match self.prepare().await {
                Ok((lock, shutdowns)) => {
                    pause = RETRY_FIRST;
                    self.watch(lock, shutdowns).await;
                    tracing::error!("Ended to watching the node for shutdown events");
                }
                Err(error) => tracing::error!(err = %error, "Unable to watch the node for shutdown events"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    /// Has logind wait long enough, and takes the lock.
    async fn prepare(&self) -> logind::Result<(logind::Lock, Shutdowns<'_>)> {
        let session = self.logind.connect().await?;
        session.ensure_delay(plan::requested(&self.periods)).await?;
        // Listening comes first, so that no shutdown that waits for the lock goes unnoticed.
        let shutdowns = session.shutdowns().await?;
        let lock = shutdowns.session().inhibit().await?;
        Ok((lock, shutdowns))
    }

    /// Goes through shutdowns until the connection ends. The lock is let go when the pods have ended, and taken again when
    /// the shutdown was called off.
    async fn watch(&self, lock: logind::Lock, mut shutdowns: Shutdowns<'_>) {
        let mut held = Some(lock);
        while let Some(shutting_down) = shutdowns.next().await {
            tracing::info!(shutting_down, "Shutdown manager detected new shutdown event");
            self.pods.note(shutting_down);
            if shutting_down {
                self.end_all().await;
                drop(held.take());
                tracing::info!(
                    "Shutdown manager completed processing shutdown event, node will shutdown shortly"
                );
                continue;
            }
            match shutdowns.session().inhibit().await {
                Ok(lock) => held = Some(lock),
                Err(error) => tracing::error!(err = %error, "Cannot hold up the next shutdown"),
            }
        }
    }

    async fn end_all(&self) {
        let began = Timestamp::now();
        self.state.note(began, None);
        for group in plan::groups(&self.periods, &self.pods.active()) {
            for (uid, grace) in &group.pods {
                self.pods.end(uid, *grace);
            }
            let uids: Vec<String> = group.pods.into_iter().map(|(uid, _)| uid).collect();
            let limit = Duration::from_secs(group.seconds.unsigned_abs());
            if tokio::time::timeout(limit, self.pods.gone(&uids)).await.is_err() {
                tracing::info!(
                    seconds = group.seconds,
                    priority = group.priority,
                    "Shutdown manager pod killing time out"
                );
            }
        }
        self.state.note(began, Some(Timestamp::now()));
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::bus_config;
