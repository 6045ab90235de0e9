//! A SPDY connection: a reading and a writing task over shared stream state.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::frame::{self, Control, FrameHead, RstStatus};
use super::headers::{Deflater, Inflater};
use super::stream::{CHUNK, QUEUE, Stream, StreamReader, StreamWriter, WINDOW, Window};
use super::{Error, Headers};

/// The window that both ends start with by the draft.
const DEFAULT_WINDOW: i64 = 64 << 10;

/// Limits of a session.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// How many streams the peer may have open at once; more are refused.
    pub max_streams: usize,
    /// How long to wait for the answer to a new stream.
    pub open_timeout: Duration,
    /// Send a ping this often and end the session when it is not answered within the same time again.
    pub ping_period: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_streams: 256, open_timeout: Duration::from_secs(30), ping_period: None }
    }
}

/// What the writing task is told to send.
pub(super) enum Out {
    Control(Control),
    SynStream { stream: u32, headers: Headers, fin: bool },
    SynReply { stream: u32 },
    Data { stream: u32, fin: bool, data: Bytes },
}

struct Entry {
    data: Option<mpsc::Sender<Result<Bytes, RstStatus>>>,
    reply: Option<oneshot::Sender<Result<(), RstStatus>>>,
    window: Arc<Window>,
    local_done: bool,
    remote_done: bool,
}

#[derive(Default)]
struct Table {
    streams: HashMap<u32, Entry>,
    next_id: u32,
    last_accepted: u32,
    pings: HashMap<u32, oneshot::Sender<()>>,
    next_ping: u32,
    remote_gone: bool,
    local_gone: bool,
}

/// What both tasks and all streams of a connection share.
pub(super) struct Shared {
    pub(super) commands: mpsc::Sender<Out>,
    pub(super) closed: CancellationToken,
    pub(super) window: Window,
    table: Mutex<Table>,
    /// The initial window of new streams, as the peer's settings have it; negative until it shows that it keeps windows.
    peer_window: AtomicI64,
    peer_flow: AtomicBool,
    session_received: AtomicU32,
    server: bool,
}

impl Shared {
    pub(super) fn is_open(&self, id: u32) -> bool {
        !self.closed.is_cancelled() && self.table.lock().streams.contains_key(&id)
    }

    pub(super) fn peer_keeps_windows(&self) -> bool {
        self.peer_flow.load(Ordering::Relaxed)
    }

    /// Drops all state of a stream.
    pub(super) fn forget(&self, id: u32) {
        if let Some(entry) = self.table.lock().streams.remove(&id) {
            entry.window.wake();
        }
    }

    /// Notes that this end sends nothing more.
    pub(super) fn local_closed(&self, id: u32) {
        let mut table = self.table.lock();
        if let Some(entry) = table.streams.get_mut(&id) {
            entry.local_done = true;
            if entry.remote_done {
                table.streams.remove(&id);
            }
        }
    }

    /// Nobody reads the stream any more: what still comes is thrown away.
    pub(super) fn reader_dropped(&self, id: u32) {
        if let Some(entry) = self.table.lock().streams.get_mut(&id) {
            entry.data = None;
        }
    }

    fn remote_closed(&self, id: u32) {
        let mut table = self.table.lock();
        if let Some(entry) = table.streams.get_mut(&id) {
            entry.remote_done = true;
            entry.data = None;
            if entry.local_done {
                table.streams.remove(&id);
            }
        }
    }

    fn is_mine(&self, id: u32) -> bool {
        id.is_multiple_of(2) == self.server
    }

    fn register(
        &self,
        table: &mut Table,
        id: u32,
        reply: Option<oneshot::Sender<Result<(), RstStatus>>>,
    ) -> Parts {
        let (data, receiver) = mpsc::channel(QUEUE);
        let window = Arc::new(Window::new(self.peer_window.load(Ordering::Relaxed)));
        let entry =
            Entry { data: Some(data), reply, window: window.clone(), local_done: false, remote_done: false };
        table.streams.insert(id, entry);
        Parts { id, receiver, window }
    }

    fn close(&self) {
        self.closed.cancel();
        let mut table = self.table.lock();
        for entry in table.streams.values() {
            entry.window.wake();
        }
        table.streams.clear();
        table.pings.clear();
        self.window.wake();
    }
}

struct Parts {
    id: u32,
    receiver: mpsc::Receiver<Result<Bytes, RstStatus>>,
    window: Arc<Window>,
}

impl Parts {
    fn into_stream(self, shared: &Arc<Shared>, headers: Headers) -> Stream {
        Stream {
            headers,
            reader: StreamReader { id: self.id, data: self.receiver, shared: shared.clone(), consumed: 0 },
            writer: StreamWriter {
                id: self.id,
                shared: shared.clone(),
                window: self.window,
                finished: false,
            },
        }
    }
}

/// One end of a SPDY connection. Dropping it ends the connection and all its streams.
pub struct Session {
    shared: Arc<Shared>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Stream>>,
    config: Config,
    tasks: JoinSet<()>,
}

impl Session {
    /// The end that dialled.
    pub fn client(io: impl AsyncRead + AsyncWrite + Send + 'static, config: Config) -> Self {
        Self::start(io, config, false)
    }

    /// The end that was dialled.
    pub fn server(io: impl AsyncRead + AsyncWrite + Send + 'static, config: Config) -> Self {
        Self::start(io, config, true)
    }

    fn start(io: impl AsyncRead + AsyncWrite + Send + 'static, config: Config, server: bool) -> Self {
        // Full: senders wait, which is what bounds the connection's memory.
        let (commands, outgoing) = mpsc::channel(32);
        // Full: further streams are refused; the stream limit makes that unlikely.
        let (accepted, incoming) = mpsc::channel(config.max_streams.max(1));
        let first = if server { 2 } else { 1 };
        let table = Table { next_id: first, next_ping: first, ..Table::default() };
        let shared = Arc::new(Shared {
            commands,
            closed: CancellationToken::new(),
            window: Window::new(DEFAULT_WINDOW),
            table: Mutex::new(table),
            peer_window: AtomicI64::new(DEFAULT_WINDOW),
            peer_flow: AtomicBool::new(false),
            session_received: AtomicU32::new(0),
            server,
        });
        let (read, write) = tokio::io::split(io);
        let mut tasks = JoinSet::new();
        tasks.spawn(write_loop(write, outgoing, shared.clone(), config.max_streams));
        let reader = Reader { shared: shared.clone(), accepted, max_streams: config.max_streams };
        tasks.spawn(reader.run(read));
        if let Some(period) = config.ping_period {
            tasks.spawn(keep_alive(shared.clone(), period));
        }
        Self { shared, incoming: tokio::sync::Mutex::new(incoming), config, tasks }
    }

    /// Opens a stream and waits until the peer has accepted it.
    pub async fn open(&self, headers: Headers) -> Result<Stream, Error> {
        let shared = &self.shared;
        let permit = shared.commands.reserve().await.map_err(|_| Error::Closed)?;
        let (sender, reply) = oneshot::channel();
        let parts = {
            // The id is taken and queued under one lock, because ids must rise on the wire.
            let mut table = shared.table.lock();
            if table.remote_gone {
                return Err(Error::GoingAway);
            }
            if shared.closed.is_cancelled() {
                return Err(Error::Closed);
            }
            let id = table.next_id;
            table.next_id += 2;
            let parts = shared.register(&mut table, id, Some(sender));
            permit.send(Out::SynStream { stream: id, headers: headers.clone(), fin: false });
            parts
        };
        let stream = parts.into_stream(shared, headers);
        match tokio::time::timeout(self.config.open_timeout, reply).await {
            Err(_) => Err(Error::Timeout),
            Ok(Err(_)) => Err(Error::Closed),
            Ok(Ok(Err(status))) => Err(Error::Reset(status)),
            Ok(Ok(Ok(()))) => Ok(stream),
        }
    }

    /// The next stream that the peer opens, already answered; `None` when the connection is over.
    pub async fn accept(&self) -> Option<Stream> {
        self.incoming.lock().await.recv().await
    }

    /// Sends a ping and waits for its answer.
    pub async fn ping(&self) -> Result<(), Error> {
        ping(&self.shared).await
    }

    /// Tells the peer to open no more streams. Those that are open go on.
    pub async fn go_away(&self) -> Result<(), Error> {
        let last = {
            let mut table = self.shared.table.lock();
            table.local_gone = true;
            table.last_accepted
        };
        let frame = Out::Control(Control::GoAway { last });
        self.shared.commands.send(frame).await.map_err(|_| Error::Closed)
    }

    /// Sends what is queued, then ends the connection; gives up on a peer that takes nothing for ten seconds.
    pub async fn shutdown(mut self) {
        self.shared.closed.cancel();
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(10), drained).await;
    }

    /// Waits until the connection is over.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.close();
    }
}

async fn ping(shared: &Shared) -> Result<(), Error> {
    let (sender, answered) = oneshot::channel();
    let id = {
        let mut table = shared.table.lock();
        let id = table.next_ping;
        table.next_ping = table.next_ping.wrapping_add(2);
        table.pings.insert(id, sender);
        id
    };
    shared.commands.send(Out::Control(Control::Ping(id))).await.map_err(|_| Error::Closed)?;
    tokio::select! {
        answer = answered => answer.map_err(|_| Error::Closed),
        () = shared.closed.cancelled() => Err(Error::Closed),
    }
}

async fn keep_alive(shared: Arc<Shared>, period: Duration) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            () = shared.closed.cancelled() => return,
        }
        // A peer that drowns us in data answers late: be patient, but not for ever.
        if !matches!(tokio::time::timeout(period * 6, ping(&shared)).await, Ok(Ok(()))) {
            return shared.close();
        }
    }
}

async fn write_loop(
    mut io: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Out>,
    shared: Arc<Shared>,
    max_streams: usize,
) {
    let mut deflater = Deflater::new();
    let mut buffer = BytesMut::new();
    let settings =
        vec![(frame::MAX_CONCURRENT_STREAMS, max_streams as u32), (frame::INITIAL_WINDOW_SIZE, WINDOW)];
    Control::Settings(settings).encode(&mut buffer);
    loop {
        if io.write_all(&buffer).await.is_err() || io.flush().await.is_err() {
            break;
        }
        buffer.clear();
        let next = tokio::select! {
            next = outgoing.recv() => next,
            () = shared.closed.cancelled() => {
                outgoing.close();
                outgoing.recv().await
            }
        };
        let Some(mut next) = next else { break };
        loop {
            if encode(next, &mut deflater, &mut buffer).is_err() {
                return shared.close();
            }
            if buffer.len() >= CHUNK {
                break;
            }
            match outgoing.try_recv() {
                Ok(more) => next = more,
                Err(_) => break,
            }
        }
    }
    let _ = io.shutdown().await;
    shared.close();
}

fn encode(out: Out, deflater: &mut Deflater, buffer: &mut BytesMut) -> Result<(), Error> {
    match out {
        Out::Control(control) => control.encode(buffer),
        Out::SynStream { stream, headers, fin } => {
            let block = deflater.deflate(&headers)?;
            Control::SynStream { stream, fin, unidirectional: false, block }.encode(buffer);
        }
        Out::SynReply { stream } => {
            let block = deflater.deflate(&Headers::default())?;
            Control::SynReply { stream, fin: false, block }.encode(buffer);
        }
        Out::Data { stream, fin, data } => {
            buffer.extend_from_slice(&frame::data_head(stream, fin, data.len()));
            buffer.extend_from_slice(&data);
        }
    }
    Ok(())
}

struct Reader {
    shared: Arc<Shared>,
    accepted: mpsc::Sender<Stream>,
    max_streams: usize,
}

impl Reader {
    async fn run(self, io: impl AsyncRead + Unpin) {
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
