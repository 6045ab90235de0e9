//! The log of events: a file that is rotated, or the standard output, written by a thread of its own.

use std::io::Write;

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::rotate::Rotation;

/// So many requests wait for the thread at a time; further ones wait to be heard.
const WAITING: usize = 256;

/// Writes events, each a line.
pub struct LogWriter {
    lines: mpsc::Sender<Lines>,
}

struct Lines {
    events: Vec<Bytes>,
    done: oneshot::Sender<Result<(), String>>,
}

impl LogWriter {
    /// Writes to `target`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(target: impl Write + Send + 'static) -> Result<Self> {
        let (lines, waiting) = mpsc::channel(WAITING);
        std::thread::Builder::new()
            .name("audit-log".to_owned())
            .spawn(move || write(target, waiting))
            .context("starting the thread of the audit log")?;
        Ok(Self { lines })
    }

    /// Writes to the standard output, or to the file that `rotation` keeps.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(rotation: Option<Rotation>) -> Result<Self> {
        match rotation {
            None => Self::start(std::io::stdout()),
            Some(rotation) => Self::start(rotation.open()?),
        }
    }

    /// Writes events and waits until they are written.
    pub(super) async fn write(&self, events: Vec<Bytes>) -> Result<(), String> {
        let (done, written) = oneshot::channel();
        let ended = || "the thread of the audit log has ended".to_owned();
        self.lines.send(Lines { events, done }).await.map_err(|_| ended())?;
        written.await.map_err(|_| ended())?
    }
}

fn write(mut target: impl Write, mut waiting: mpsc::Receiver<Lines>) {
    while let Some(Lines { events, done }) = waiting.blocking_recv() {
        let mut result = Ok(());
        for event in events {
            if let Err(e) = target.write_all(&event).and_then(|()| target.flush()) {
                result = Err(e.to_string());
            }
        }
        // Who does not wait any more is not told.
        let _ = done.send(result);
    }
}
