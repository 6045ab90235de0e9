//! One SPDY stream: a reading and a writing half, each with its own end.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::frame::{Control, RstStatus};
use super::session::{Out, Shared};
use super::{Error, Headers};

/// The most that one data frame carries.
pub(super) const CHUNK: usize = 32 << 10;
/// How many received chunks a stream holds before its connection is held up.
pub(super) const QUEUE: usize = 16;
/// The receive window that is announced: the queue when every frame is full.
pub(super) const WINDOW: u32 = (CHUNK * QUEUE) as u32;

/// The credit that the peer has given for sending.
pub(super) struct Window {
    credit: Mutex<i64>,
    changed: Notify,
}

impl Window {
    pub(super) fn new(credit: i64) -> Self {
        Self { credit: Mutex::new(credit), changed: Notify::new() }
    }

    pub(super) fn add(&self, delta: i64) {
        *self.credit.lock() += delta;
        self.changed.notify_waiters();
    }

    /// Wakes those who wait, for instance because the stream is closed.
    pub(super) fn wake(&self) {
        self.changed.notify_waiters();
    }
}

/// A bidirectional stream of a [`super::Session`].
pub struct Stream {
    /// The headers it was opened with.
    pub headers: Headers,
    /// What the peer sends.
    pub reader: StreamReader,
    /// What is sent to the peer.
    pub writer: StreamWriter,
}

impl Stream {
    /// The stream's number on the wire.
    pub fn id(&self) -> u32 {
        self.writer.id
    }
}

/// The receiving half of a stream.
pub struct StreamReader {
    pub(super) id: u32,
    pub(super) data: mpsc::Receiver<Result<Bytes, RstStatus>>,
    pub(super) shared: Arc<Shared>,
    /// Bytes handed out since the last window update.
    pub(super) consumed: u32,
}

impl StreamReader {
    /// The next bytes, or `None` when the peer has closed its half or the whole connection is gone.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, Error> {
        match self.data.recv().await {
            None => Ok(None),
            Some(Err(status)) => Err(Error::Reset(status)),
            Some(Ok(chunk)) => {
                self.consumed += chunk.len() as u32;
                if self.consumed >= WINDOW / 2 {
                    let update = Control::WindowUpdate { stream: self.id, delta: self.consumed };
                    // A full queue only postpones the update to the next chunk.
                    if self.shared.commands.try_send(Out::Control(update)).is_ok() {
                        self.consumed = 0;
                    }
                }
                Ok(Some(chunk))
            }
        }
    }

    /// Everything up to the end of the stream, at most `limit` bytes; what is beyond is dropped.
    pub async fn read_to_end(&mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(chunk) = self.recv().await? {
            let room = limit.saturating_sub(all.len()).min(chunk.len());
            all.extend_from_slice(&chunk[..room]);
        }
        Ok(all)
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.data.close();
        self.shared.reader_dropped(self.id);
    }
}

/// The sending half of a stream.
pub struct StreamWriter {
    pub(super) id: u32,
    pub(super) shared: Arc<Shared>,
    pub(super) window: Arc<Window>,
    pub(super) finished: bool,
}

impl StreamWriter {
    /// Sends bytes, waiting for room in the connection and, where the peer keeps one, in the window.
    pub async fn send(&mut self, mut data: Bytes) -> Result<(), Error> {
        while !data.is_empty() {
            let allowed = self.wait_for_credit(data.len().min(CHUNK)).await?;
            let chunk = data.split_to(allowed);
            self.push(chunk, false).await?;
        }
        Ok(())
    }

    /// Closes this half; the other stays open.
    pub async fn finish(&mut self) -> Result<(), Error> {
        if self.finished {
            return Ok(());
        }
        self.finished = true;
        let sent = self.push(Bytes::new(), true).await;
        self.shared.local_closed(self.id);
        sent
    }

    /// Gives the stream up in both directions.
    pub fn reset(&mut self, status: RstStatus) {
        self.finished = true;
        self.shared.forget(self.id);
        // A full queue means that the connection is stuck anyway: closing the session ends the stream too.
        let _ = self.shared.commands.try_send(Out::Control(Control::RstStream { stream: self.id, status }));
    }

    async fn push(&self, data: Bytes, fin: bool) -> Result<(), Error> {
        let out = Out::Data { stream: self.id, fin, data };
        self.shared.commands.send(out).await.map_err(|_| Error::Closed)
    }

    /// Takes up to `wanted` bytes out of the stream's and the session's windows.
    async fn wait_for_credit(&self, wanted: usize) -> Result<usize, Error> {
        loop {
            let stream_changed = self.window.changed.notified();
            let session_changed = self.shared.window.changed.notified();
            tokio::pin!(stream_changed, session_changed);
            stream_changed.as_mut().enable();
            session_changed.as_mut().enable();
            if !self.shared.is_open(self.id) {
                return Err(Error::Closed);
            }
            if !self.shared.peer_keeps_windows() {
                return Ok(wanted);
            }
            {
                let mut stream = self.window.credit.lock();
                let mut session = self.shared.window.credit.lock();
                let allowed = (wanted as i64).min(*stream).min(*session);
                if allowed > 0 {
                    *stream -= allowed;
                    *session -= allowed;
                    return Ok(allowed as usize);
                }
            }
            tokio::select! {
                () = stream_changed => {}
                () = session_changed => {}
                () = self.shared.closed.cancelled() => return Err(Error::Closed),
            }
        }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if !self.finished {
            let out = Out::Data { stream: self.id, fin: true, data: Bytes::new() };
            let _ = self.shared.commands.try_send(out);
            self.shared.local_closed(self.id);
        }
    }
}
