//! Running a command in a container: the streams, their numbers and names, and the translation between transports.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;

use crate::spdy::{self, Headers, Session, Stream, StreamReader, StreamWriter};
use crate::websocket::{self, ChannelReader, ChannelWriter, Frame};

/// The SPDY protocol versions, the most wanted first. All have the same streams; version 3 adds the resize stream and
/// version 4 a `Status` on the error stream.
pub const SPDY_PROTOCOLS: [&str; 4] =
    ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// The WebSocket protocols that [`translate`] serves.
pub const WEBSOCKET_PROTOCOLS: [&str; 5] =
    [websocket::V5, websocket::V4, websocket::V4_BASE64, websocket::V1, websocket::V1_BASE64];

/// The channel of standard input.
pub const STDIN: u8 = 0;
/// The channel of standard output.
pub const STDOUT: u8 = 1;
/// The channel of standard error.
pub const STDERR: u8 = 2;
/// The channel of the final status.
pub const ERROR: u8 = 3;
/// The channel of terminal sizes, as JSON `{"Width":80,"Height":24}`.
pub const RESIZE: u8 = 4;

/// The most that a status may be long.
const MAX_STATUS: usize = 64 << 10;
/// How often the upstream is asked whether it is still there.
const PING_PERIOD: Duration = Duration::from_secs(5);

/// Which streams a command has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    /// Standard input is wanted.
    pub stdin: bool,
    /// Standard output is wanted.
    pub stdout: bool,
    /// Standard error is wanted; with a terminal there is none.
    pub stderr: bool,
    /// A terminal is wanted.
    pub tty: bool,
}

impl Streams {
    /// Reads the query parameters `stdin`, `stdout`, `stderr` and `tty` (or the kubelet's `input`, `output`, `error`).
    pub fn from_query(query: &str) -> Self {
        let mut streams = Self::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let on = matches!(value, "1" | "true" | "t" | "T" | "TRUE" | "True");
            match name {
                "stdin" | "input" => streams.stdin |= on,
                "stdout" | "output" => streams.stdout |= on,
                "stderr" | "error" => streams.stderr |= on,
                "tty" => streams.tty |= on,
                _ => {}
            }
        }
        streams.stderr &= !streams.tty;
        streams
    }
}

/// The SPDY streams of a command, seen from the client.
pub struct SpdyCommand {
    /// Ends with a JSON `Status`.
    pub error: StreamReader,
    /// Standard input.
    pub stdin: Option<StreamWriter>,
    /// Standard output.
    pub stdout: Option<StreamReader>,
    /// Standard error.
    pub stderr: Option<StreamReader>,
    /// Terminal sizes.
    pub resize: Option<StreamWriter>,
}

impl SpdyCommand {
    /// Opens the streams of a command.
    pub async fn open(session: &Session, streams: Streams) -> Result<Self, spdy::Error> {
        let error = reader(open(session, "error").await?).await?;
        let stdin = match streams.stdin {
            true => Some(open(session, "stdin").await?.writer),
            false => None,
        };
        let stdout = match streams.stdout {
            true => Some(reader(open(session, "stdout").await?).await?),
            false => None,
        };
        let stderr = match streams.stderr {
            true => Some(reader(open(session, "stderr").await?).await?),
            false => None,
        };
        let resize = match streams.tty {
            true => Some(open(session, "resize").await?.writer),
            false => None,
        };
        Ok(Self { error, stdin, stdout, stderr, resize })
    }
}

async fn open(session: &Session, kind: &str) -> Result<Stream, spdy::Error> {
    session.open(Headers::new([("streamtype", kind)])).await
}

/// The reading half of a stream on which this end has nothing to say.
async fn reader(mut stream: Stream) -> Result<StreamReader, spdy::Error> {
    stream.writer.finish().await?;
    Ok(stream.reader)
}

/// The session settings for the connection to the upstream of [`translate`].
pub fn upstream_config() -> spdy::Config {
    spdy::Config { ping_period: Some(PING_PERIOD), ..spdy::Config::default() }
}

/// Why a translated command ended without a status from the upstream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no upstream.
    #[error("{0}")]
    Unreached(String),
    /// The upstream's SPDY connection failed.
    #[error("the connection to the container runtime failed")]
    Upstream(#[from] spdy::Error),
    /// The client's WebSocket failed.
    #[error("the connection to the client failed")]
    Client(#[from] websocket::Error),
    /// The client left before the command had ended.
    #[error("the client closed the connection")]
    ClientGone,
    /// The upstream ended without a status.
    #[error("the connection to the container was lost before the command's status arrived")]
    NoStatus,
}

/// Serves a WebSocket client (versions 1, 4 and 5) from a SPDY upstream that speaks version 4 (KEP-4006), once it is there.
///
/// Returns the status that the client was sent. Upstream failures reach the client as a `Status` too, and so does why there is
/// no upstream.
pub async fn translate<S>(
    client: (ChannelReader<S>, ChannelWriter<S>),
    upstream: impl Future<Output = Result<Session, String>>,
    streams: Streams,
) -> Result<Bytes, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, writer) = client;
    let writer = Mutex::new(writer);
    greet(&writer, streams).await?;
    let session = upstream.await.map_err(Error::Unreached);
    let outcome = match &session {
        Ok(session) => run(&mut reader, &writer, session, streams).await,
        Err(error) => Err(Error::Unreached(error.to_string())),
    };
    let told = tell(reader, writer, &outcome).await;
    if let Ok(session) = session {
        session.shutdown().await;
    }
    told.and(outcome)
}

async fn run<S>(
    reader: &mut ChannelReader<S>,
    writer: &Mutex<ChannelWriter<S>>,
    session: &Session,
    streams: Streams,
) -> Result<Bytes, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let command = SpdyCommand::open(session, streams).await?;
    pump(reader, writer, command).await
}

/// Tells a client that is still there how it ended.
async fn tell<S>(
    mut reader: ChannelReader<S>,
    writer: Mutex<ChannelWriter<S>>,
    outcome: &Result<Bytes, Error>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let status = match outcome {
        Ok(status) => status.clone(),
        Err(Error::Client(_) | Error::ClientGone) => return Ok(()),
        Err(error) => internal_error(error),
    };
    let mut writer = writer.into_inner();
    writer.send_status(ERROR, status).await?;
    writer.close().await?;
    // The client's own close frame ends the connection in good order; one that is silent is not waited for.
    let farewell = async { while let Ok(Some(_)) = reader.recv().await {} };
    let _ = tokio::time::timeout(Duration::from_secs(2), farewell).await;
    Ok(())
}

/// An empty message on the lowest channel that is written, by which clients know that the connection stands.
async fn greet<S>(writer: &Mutex<ChannelWriter<S>>, streams: Streams) -> Result<(), websocket::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let lowest = match streams {
        Streams { stdout: true, .. } => STDOUT,
        Streams { stderr: true, .. } => STDERR,
        _ => ERROR,
    };
    writer.lock().await.send(lowest, Bytes::new()).await
}

async fn pump<S>(
    client: &mut ChannelReader<S>,
    writer: &Mutex<ChannelWriter<S>>,
    command: SpdyCommand,
) -> Result<Bytes, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let SpdyCommand { mut error, stdin, stdout, stderr, resize } = command;
    let output = async {
        tokio::try_join!(copy_out(stdout, writer, STDOUT), copy_out(stderr, writer, STDERR), async {
            // A reset after the status is how some servers end their streams.
            let mut status = Vec::new();
            while let Ok(Some(chunk)) = error.recv().await {
                let room = MAX_STATUS.saturating_sub(status.len()).min(chunk.len());
                status.extend_from_slice(&chunk[..room]);
            }
            Ok(status)
        })
    };
    let input = copy_in(client, stdin, resize);
    tokio::pin!(output, input);
    let status = tokio::select! {
        output = &mut output => output?.2,
        gone = &mut input => return Err(gone),
    };
    // DIVERGES: an upstream that vanishes without a status is a failure here, a success in the original.
    if status.is_empty() { Err(Error::NoStatus) } else { Ok(status.into()) }
}

async fn copy_out<S>(
    from: Option<StreamReader>,
    to: &Mutex<ChannelWriter<S>>,
    channel: u8,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(mut from) = from else { return Ok(()) };
    while let Ok(Some(chunk)) = from.recv().await {
        to.lock().await.send(channel, chunk).await?;
    }
    Ok(())
}

/// Feeds the command until the client leaves, and says why.
async fn copy_in<S>(
    from: &mut ChannelReader<S>,
    mut stdin: Option<StreamWriter>,
    mut resize: Option<StreamWriter>,
) -> Error
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        // A stream that the command no longer reads is no reason to end: its output and status still come.
        let sent = match from.recv().await {
            Err(error) => return error.into(),
            Ok(None) => return Error::ClientGone,
            Ok(Some(Frame::Data { channel: STDIN, data })) => send(&mut stdin, data).await,
            Ok(Some(Frame::Data { channel: RESIZE, data })) => send(&mut resize, data).await,
            Ok(Some(Frame::Close { channel: STDIN })) => finish(&mut stdin).await,
            Ok(Some(_)) => Ok(()),
        };
        if let Err(error) = sent {
            tracing::debug!(error = &error as &dyn std::error::Error, "input for the command is dropped");
        }
    }
}

async fn send(stream: &mut Option<StreamWriter>, data: Bytes) -> Result<(), spdy::Error> {
    match stream {
        Some(stream) => stream.send(data).await,
        None => Ok(()),
    }
}

async fn finish(stream: &mut Option<StreamWriter>) -> Result<(), spdy::Error> {
    match stream.take() {
        Some(mut stream) => stream.finish().await,
        None => Ok(()),
    }
}

fn internal_error(error: &Error) -> Bytes {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        why = format!("{why}: {cause}");
        source = cause.source();
    }
    // In the order, and with what is escaped, of Go's encoder.
    let quoted = |text: &str| {
        let text = serde_json::Value::from(text).to_string();
        text.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
    };
    let (told, cause) = (quoted(&format!("Internal error occurred: {why}")), quoted(&why));
    format!(
        r#"{{"metadata":{{}},"status":"Failure","message":{told},"reason":"InternalError","details":{{"causes":[{{"message":{cause}}}]}},"code":500}}"#
    )
    .into()
}

/// A command as its server sees it: all the streams the client was to open.
pub struct ServedCommand {
    /// Takes the final status.
    pub error: StreamWriter,
    /// Standard input.
    pub stdin: Option<StreamReader>,
    /// Standard output.
    pub stdout: Option<StreamWriter>,
    /// Standard error.
    pub stderr: Option<StreamWriter>,
    /// Terminal sizes.
    pub resize: Option<StreamReader>,
}

/// Waits for the client of a SPDY session to open every stream of a command, within `patience`.
pub async fn serve_spdy(
    session: &Session,
    streams: Streams,
    patience: Duration,
) -> Result<ServedCommand, spdy::Error> {
    tokio::time::timeout(patience, collect(session, streams)).await.map_err(|_| spdy::Error::Timeout)?
}

async fn collect(session: &Session, streams: Streams) -> Result<ServedCommand, spdy::Error> {
    let (mut error, mut stdin, mut stdout, mut stderr, mut resize) = (None, None, None, None, None);
    loop {
        let done = error.is_some()
            && stdin.is_some() == streams.stdin
            && stdout.is_some() == streams.stdout
            && stderr.is_some() == streams.stderr
            && resize.is_some() == streams.tty;
        if let (true, Some(error)) = (done, error.take_if(|_| done)) {
            return Ok(ServedCommand { error, stdin, stdout, stderr, resize });
        }
        let stream = session.accept().await.ok_or(spdy::Error::Closed)?;
        match stream.headers.get("streamtype").to_owned().as_str() {
            "error" => error = Some(stream.writer),
            "stdin" => stdin = Some(stream.reader),
            "stdout" => stdout = Some(stream.writer),
            "stderr" => stderr = Some(stream.writer),
            "resize" => resize = Some(stream.reader),
            _ => return Err(spdy::Error::Protocol("unknown stream type")),
        }
    }
}
