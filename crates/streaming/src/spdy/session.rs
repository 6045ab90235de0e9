//! A SPDY connection: a reading and a writing task over shared stream state.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::frame::{Control, RstStatus};
use super::reader::Reader;
use super::stream::{QUEUE, Stream, StreamReader, StreamWriter, Window};
use super::{Error, Headers, writer};

/// The window that both ends start with by the draft.
pub(super) const DEFAULT_WINDOW: i64 = 64 << 10;

/// Limits of a session.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// How many streams the peer may have open at once; more are refused.
    pub max_streams: usize,
    /// How long to wait for the answer to a new stream, or for one that must follow another.
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

pub(super) struct Entry {
    pub(super) data: Option<mpsc::Sender<Result<Bytes, RstStatus>>>,
    pub(super) reply: Option<oneshot::Sender<Result<(), RstStatus>>>,
    pub(super) window: Arc<Window>,
    local_done: bool,
    remote_done: bool,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) streams: HashMap<u32, Entry>,
    next_id: u32,
    pub(super) last_accepted: u32,
    pub(super) pings: HashMap<u32, oneshot::Sender<()>>,
    next_ping: u32,
    pub(super) remote_gone: bool,
    pub(super) local_gone: bool,
}

/// What both tasks and all streams of a connection share.
pub(super) struct Shared {
    pub(super) commands: mpsc::Sender<Out>,
    pub(super) closed: CancellationToken,
    pub(super) window: Window,
    pub(super) table: Mutex<Table>,
    /// The initial window of new streams, as the peer's settings have it; negative until it shows that it keeps windows.
    pub(super) peer_window: AtomicI64,
    pub(super) peer_flow: AtomicBool,
    pub(super) session_received: AtomicU32,
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

    pub(super) fn remote_closed(&self, id: u32) {
        let mut table = self.table.lock();
        if let Some(entry) = table.streams.get_mut(&id) {
            entry.remote_done = true;
            entry.data = None;
            if entry.local_done {
                table.streams.remove(&id);
            }
        }
    }

    pub(super) fn is_mine(&self, id: u32) -> bool {
        id.is_multiple_of(2) == self.server
    }

    pub(super) fn register(
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

    pub(super) fn close(&self) {
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

pub(super) struct Parts {
    id: u32,
    receiver: mpsc::Receiver<Result<Bytes, RstStatus>>,
    window: Arc<Window>,
}

impl Parts {
    pub(super) fn into_stream(self, shared: &Arc<Shared>, headers: Headers) -> Stream {
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
        tasks.spawn(writer::run(write, outgoing, shared.clone(), config.max_streams));
        let reader = Reader::new(shared.clone(), accepted, config.max_streams);
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

    /// [`Session::accept`] of a stream that the peer owes.
    pub(crate) async fn accept_soon(&self) -> Result<Option<Stream>, Error> {
        let patience = self.config.open_timeout;
        tokio::time::timeout(patience, self.accept()).await.map_err(|_| Error::Timeout)
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
