//! Named, supervised tasks under one cancellation token.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A task that ran this long before failing starts over with the first back-off.
const BACKOFF_RESET: Duration = Duration::from_secs(60);

/// Starts tasks and knows what became of them. Clones share everything.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Inner>);

#[derive(Default)]
struct Inner {
    tracker: TaskTracker,
    token: CancellationToken,
    asked: CancellationToken,
    linger: Mutex<Duration>,
    failure: Mutex<Option<String>>,
}

enum Outcome {
    Ended,
    Failed(String),
}

/// Runs a task to its end; a panic is a failure like any other.
async fn outcome(task: impl Future<Output = anyhow::Result<()>>) -> Outcome {
    match AssertUnwindSafe(task).catch_unwind().await {
        Ok(Ok(())) => Outcome::Ended,
        Ok(Err(e)) => Outcome::Failed(format!("{e:#}")),
        Err(_) => Outcome::Failed("panicked".to_owned()),
    }
}

impl Tasks {
    /// No tasks yet, and a fresh token.
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that is cancelled when the process is to end.
    pub fn token(&self) -> CancellationToken {
        self.0.token.clone()
    }

    /// The token that is cancelled when the process is asked to end, before its tasks are.
    pub fn asked(&self) -> CancellationToken {
        self.0.asked.clone()
    }

    /// Lets tasks go on for a while after the process has been asked to end by a signal, so that others notice before.
    pub fn linger(&self, time: Duration) {
        *self.0.linger.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }

    /// The process is asked to end; returns for how long tasks go on.
    pub(crate) fn ask(&self) -> Duration {
        self.0.asked.cancel();
        *self.0.linger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks every task to end.
    pub fn cancel(&self) {
        self.0.asked.cancel();
        self.0.token.cancel();
    }

    /// Runs a task the process cannot live without: its end before cancellation, good or bad, ends the process with exit code 1.
    pub fn critical(
        &self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let this = self.clone();
        self.0.tracker.spawn(async move {
            let outcome = outcome(task).await;
            match outcome {
                Outcome::Failed(why) => this.fail(name, &why),
                Outcome::Ended if !this.0.token.is_cancelled() => this.fail(name, "ended unexpectedly"),
                Outcome::Ended => {}
            }
        });
    }

    fn fail(&self, name: &str, why: &str) {
        error!(task = name, err = why, "Critical task failed");
        let mut failure = self.0.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| format!("{name}: {why}"));
        drop(failure);
        self.0.token.cancel();
    }

    /// Runs a task again, with growing pauses, whenever it fails; a good end is an end. When the daemon stops it is dropped
    /// where it waits.
    pub fn restarting<F, T>(&self, name: &'static str, mut make: F)
    where
        F: FnMut() -> T + Send + 'static,
        T: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let token = self.token();
        self.0.tracker.spawn(async move {
            let mut pause = BACKOFF_FIRST;
            loop {
                let started = tokio::time::Instant::now();
                let outcome = tokio::select! {
                    outcome = outcome(make()) => outcome,
                    () = token.cancelled() => return,
                };
                let Outcome::Failed(why) = outcome else { return };
                if started.elapsed() > BACKOFF_RESET {
                    pause = BACKOFF_FIRST;
                }
                warn!(task = name, err = why, "Task failed and will be restarted");
                tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(BACKOFF_MAX);
            }
        });
    }

    /// Runs a task whose failure is logged and otherwise concerns nobody.
    pub fn plain(&self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.0.tracker.spawn(async move {
            if let Outcome::Failed(why) = outcome(task).await {
                error!(task = name, err = why, "Task failed");
            }
        });
    }

    /// What the first critical task failed with.
    pub fn failure(&self) -> Option<String> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until all tasks have ended.
    pub async fn ended(&self) {
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_critical_task_cancels_all() {
        for (result, want) in
            [(Ok(()), "a: ended unexpectedly"), (Err(anyhow::anyhow!("no port")), "a: no port")]
        {
            let tasks = Tasks::new();
            let token = tasks.token();
            tasks.plain("b", async move {
                token.cancelled().await;
                Ok(())
            });
            tasks.critical("a", async move { result });
            tasks.ended().await;
            assert_eq!(tasks.failure().as_deref(), Some(want));
        }
    }

    #[tokio::test]
    async fn a_restarting_task_that_waits_does_not_hold_up_the_end() {
        let tasks = Tasks::new();
        tasks.restarting("a", std::future::pending::<anyhow::Result<()>>);
        tasks.token().cancel();
        tasks.ended().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarting_task_survives_panics_and_errors() {
        let tasks = Tasks::new();
        let mut runs = 0;
        tasks.restarting("a", move || {
            runs += 1;
            let run = runs;
            async move {
                match run {
                    1 => panic!("first"),
                    2 => Err(anyhow::anyhow!("second")),
                    _ => Ok(()),
                }
            }
        });
        tasks.ended().await;
        assert_eq!(tasks.failure(), None);
    }
}
