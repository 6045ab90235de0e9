//! The reading task of a session.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::mpsc;

use super::frame::{self, Control, FrameHead, RstStatus};
use super::headers::Inflater;
use super::session::{DEFAULT_WINDOW, Out, Shared};
use super::stream::{CHUNK, Stream};
use super::{Error, Headers};

/// Reads frames and hands them to the streams.
pub(super) struct Reader {
    shared: Arc<Shared>,
    accepted: mpsc::Sender<Stream>,
    max_streams: usize,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, accepted: mpsc::Sender<Stream>, max_streams: usize) -> Self {
        Self { shared, accepted, max_streams }
    }

    /// Reads until the connection ends.
    pub(super) async fn run(self, io: impl AsyncRead + Unpin) {
        let frames = self.read_frames(BufReader::with_capacity(CHUNK, io));
        let ended = tokio::select! {
            ended = frames => ended,
            () = self.shared.closed.cancelled() => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(error = &error as &dyn std::error::Error, "SPDY connection ended");
        }
        self.shared.close();
    }

    async fn read_frames(&self, mut io: impl AsyncRead + Unpin) -> Result<(), Error> {
        let mut inflater = Inflater::new();
        loop {
            let mut head = [0; 8];
            match io.read_exact(&mut head).await {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            };
            match FrameHead::decode(head)? {
                FrameHead::Data { stream, flags, len } => {
                    self.data(&mut io, stream, len).await?;
                    if flags & frame::FIN != 0 {
                        self.shared.remote_closed(stream);
                    }
                }
                FrameHead::Control { kind, flags, len } => {
                    let mut body = vec![0; len];
                    io.read_exact(&mut body).await?;
                    let control = Control::decode(kind, flags, body.into())?;
                    self.control(control, &mut inflater).await?;
                }
            }
        }
    }

    /// Hands the payload of a data frame to its stream, piece by piece.
    async fn data(&self, io: &mut (impl AsyncRead + Unpin), stream: u32, len: usize) -> Result<(), Error> {
        let target = self.shared.table.lock().streams.get(&stream).and_then(|entry| entry.data.clone());
        let mut left = len;
        while left > 0 {
            let mut chunk = vec![0; left.min(CHUNK)];
            io.read_exact(&mut chunk).await?;
            left -= chunk.len();
            self.credit_session(chunk.len() as u32);
            if let Some(target) = &target {
                // Waiting here holds up the whole connection: the peer ignored the window of this stream.
                let _ = target.send(Ok(chunk.into())).await;
            }
        }
        Ok(())
    }

    /// Gives the bytes straight back to the window of the session: each stream has its own bound.
    fn credit_session(&self, n: u32) {
        let total = self.shared.session_received.fetch_add(n, Ordering::Relaxed) + n;
        if total >= DEFAULT_WINDOW as u32 / 2 {
            let update = Control::WindowUpdate { stream: 0, delta: total };
            if self.shared.commands.try_send(Out::Control(update)).is_ok() {
                self.shared.session_received.fetch_sub(total, Ordering::Relaxed);
            }
        }
    }

    async fn control(&self, control: Control, inflater: &mut Inflater) -> Result<(), Error> {
        match control {
            Control::SynStream { stream, fin, unidirectional, block } => {
                let headers = inflater.inflate(&block)?;
                self.open(stream, fin, unidirectional, headers).await?;
            }
            Control::SynReply { stream, fin, block } => {
                inflater.inflate(&block)?;
                self.reply(stream, Ok(()));
                if fin {
                    self.shared.remote_closed(stream);
                }
            }
            Control::Headers { stream, fin, block } => {
                inflater.inflate(&block)?;
                if fin {
                    self.shared.remote_closed(stream);
                }
            }
            Control::RstStream { stream, status } => self.reset(stream, status),
            Control::Settings(entries) => self.settings(&entries),
            Control::Ping(id) if self.shared.is_mine(id) => {
                if let Some(waiter) = self.shared.table.lock().pings.remove(&id) {
                    let _ = waiter.send(());
                }
            }
            Control::Ping(id) => self.send(Out::Control(Control::Ping(id))).await?,
            Control::GoAway { .. } => self.shared.table.lock().remote_gone = true,
            Control::WindowUpdate { stream, delta } => self.window_update(stream, delta),
            Control::Unknown(_) => {}
        }
        Ok(())
    }

    async fn send(&self, out: Out) -> Result<(), Error> {
        self.shared.commands.send(out).await.map_err(|_| Error::Closed)
    }

    async fn open(&self, id: u32, fin: bool, unidirectional: bool, headers: Headers) -> Result<(), Error> {
        let opened = {
            let mut table = self.shared.table.lock();
            if self.shared.is_mine(id) || id <= table.last_accepted {
                return Err(Error::Protocol("stream id out of order"));
            }
            table.last_accepted = id;
            if table.local_gone || table.streams.len() >= self.max_streams {
                None
            } else {
                Some(self.shared.register(&mut table, id, None).into_stream(&self.shared, headers))
            }
        };
        let Some(stream) = opened else {
            let refusal = Control::RstStream { stream: id, status: RstStatus::RefusedStream };
            return self.send(Out::Control(refusal)).await;
        };
        if fin {
            self.shared.remote_closed(id);
        }
        if unidirectional {
            self.shared.local_closed(id);
        } else {
            self.send(Out::SynReply { stream: id }).await?;
        }
        // The queue is as long as the stream limit; when nobody accepts any more, the stream is dropped.
        let _ = self.accepted.try_send(stream);
        Ok(())
    }

    fn reply(&self, stream: u32, result: Result<(), RstStatus>) {
        let waiter = self.shared.table.lock().streams.get_mut(&stream).and_then(|entry| entry.reply.take());
        if let Some(waiter) = waiter {
            let _ = waiter.send(result);
        }
    }

    fn reset(&self, stream: u32, status: RstStatus) {
        self.reply(stream, Err(status));
        let Some(entry) = self.shared.table.lock().streams.remove(&stream) else { return };
        entry.window.wake();
        if let Some(data) = entry.data {
            // A full queue keeps what it has; the reader then sees a plain end.
            let _ = data.try_send(Err(status));
        }
    }

    fn settings(&self, entries: &[(u32, u32)]) {
        for (id, value) in entries {
            if *id == frame::INITIAL_WINDOW_SIZE {
                let new = i64::from(*value);
                let old = self.shared.peer_window.swap(new, Ordering::Relaxed);
                for entry in self.shared.table.lock().streams.values() {
                    entry.window.add(new - old);
                }
                self.shared.peer_flow.store(true, Ordering::Relaxed);
            }
        }
    }

    fn window_update(&self, stream: u32, delta: u32) {
        if stream == 0 {
            self.shared.window.add(i64::from(delta));
        } else if let Some(entry) = self.shared.table.lock().streams.get(&stream) {
            entry.window.add(i64::from(delta));
        }
    }
}
