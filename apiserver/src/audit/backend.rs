//! Where events go, and whether requests wait for it.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Auditor;
use super::batch::{self, Batching};
use super::event::{Format, Record};
use super::log::LogWriter;
use super::policy::{Level, Stage};
use super::webhook::Sender;

/// Who waits for an event to be written.
#[derive(Clone, Debug)]
pub enum Mode {
    /// Nobody: events are gathered and written in batches.
    Batch(Batching),
    /// The request, which goes on when that fails.
    Blocking,
    /// The request, which is refused when its beginning cannot be recorded.
    BlockingStrict,
}

/// What is done with large events.
#[derive(Clone, Copy, Debug)]
pub struct Truncation {
    /// Larger events lose their bodies, and are dropped when that does not help. In bytes.
    pub max_event: usize,
}

/// What events are written to.
pub enum Output {
    /// A file, or the standard output.
    Log(LogWriter),
    /// A server.
    Webhook(Box<Sender>),
}

impl Output {
    /// Writes events.
    ///
    /// # Errors
    /// They are lost, all or some.
    pub(super) async fn send(&self, events: Vec<Bytes>) -> Result<(), String> {
        match self {
            Output::Log(log) => log.write(events).await,
            Output::Webhook(sender) => sender.send(&events).await,
        }
    }

    pub(super) fn plugin(&self) -> &'static str {
        match self {
            Output::Log(_) => "log",
            Output::Webhook(_) => "webhook",
        }
    }
}

/// One place where events go.
pub struct Backend {
    format: Format,
    truncation: Option<Truncation>,
    strict: bool,
    output: Arc<Output>,
    queue: Option<Queue>,
}

/// Events on their way to the batches.
struct Queue {
    batching: Batching,
    sender: mpsc::Sender<Bytes>,
    receiver: Mutex<Option<mpsc::Receiver<Bytes>>>,
}

/// Reports events that are lost.
pub(super) fn lost(errors: &IntCounterVec, plugin: &str, events: usize, why: &str) {
    errors.with_label_values(&[plugin]).inc_by(events as u64);
    tracing::error!(plugin, events, why, "audit events are lost");
}

impl Backend {
    /// Writes events to `output`.
    pub fn new(output: Output, format: Format, truncation: Option<Truncation>, mode: Mode) -> Self {
        let strict = matches!(mode, Mode::BlockingStrict);
        let queue = match mode {
            Mode::Batch(batching) => {
                // What does not fit is dropped: requests never wait for it.
                let (sender, receiver) = mpsc::channel(batching.buffer);
                Some(Queue { batching, sender, receiver: Mutex::new(Some(receiver)) })
            }
            Mode::Blocking | Mode::BlockingStrict => None,
        };
        Self { format, truncation, strict, output: Arc::new(output), queue }
    }

    /// Writes batches until `stop`, and then what is left.
    pub(super) async fn run(&self, stop: CancellationToken, errors: &IntCounterVec) {
        let Some(queue) = &self.queue else { return };
        let Some(receiver) = queue.receiver.lock().take() else { return };
        batch::run(&queue.batching, receiver, self.output.clone(), stop, errors.clone()).await;
    }

    /// The event as this backend writes it; none when it is too large.
    fn render(&self, record: &Record, stage: Stage, at: Timestamp, errors: &IntCounterVec) -> Option<Bytes> {
        let Some(limit) = self.truncation else { return Some(record.write(stage, at, self.format, false)) };
        for truncated in [false, true] {
            if truncated && record.level < Level::Request {
                break;
            }
            // The size is that of the JSON, whatever is written.
            let json = if self.format == Format::Legacy { Format::Json } else { self.format };
            let event = record.write(stage, at, json, truncated);
            if event.len() <= limit.max_event {
                return Some(match self.format {
                    Format::Legacy => record.write(stage, at, Format::Legacy, truncated),
                    Format::Json | Format::Item => event,
                });
            }
        }
        lost(errors, "truncate", 1, "event is too large even after truncating");
        None
    }

    async fn deliver(&self, event: Bytes, errors: &IntCounterVec) -> bool {
        if let Some(queue) = &self.queue {
            if let Err(e) = queue.sender.try_send(event) {
                let why = match e {
                    mpsc::error::TrySendError::Full(_) => "audit buffer queue blocked",
                    mpsc::error::TrySendError::Closed(_) => "audit backend shut down",
                };
                lost(errors, "buffered", 1, why);
            }
            return true;
        }
        match self.output.send(vec![event]).await {
            Ok(()) => true,
            Err(why) => {
                lost(errors, self.output.plugin(), 1, &why);
                !self.strict
            }
        }
    }
}

impl Auditor {
    /// The event of a stage, as each backend writes it.
    pub(super) fn render(&self, record: &Record, stage: Stage, at: Timestamp) -> Vec<Option<Bytes>> {
        self.metrics.events.inc();
        self.backends.iter().map(|b| b.render(record, stage, at, &self.metrics.errors)).collect()
    }

    /// Hands events to the backends they were written for; false when one that insists could not take its own.
    pub(super) async fn deliver(&self, events: Vec<Option<Bytes>>) -> bool {
        let mut all = true;
        for (backend, event) in self.backends.iter().zip(events) {
            if let Some(event) = event {
                all &= backend.deliver(event, &self.metrics.errors).await;
            }
        }
        all
    }
}
