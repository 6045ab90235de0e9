//! The `channel.k8s.io` protocols: several byte streams in one WebSocket, each message prefixed by its channel.
//!
//! In the binary forms the first byte is the channel; in the `base64.` forms the message is text, the channel an ASCII
//! digit and the rest base64. Version 5 adds a close signal: channel 255 followed by the channel that ends.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

/// `channel.k8s.io`, unversioned: version 1.
pub const V1: &str = "channel.k8s.io";
/// Version 1 as base64 text.
pub const V1_BASE64: &str = "base64.channel.k8s.io";
/// Version 4: the error channel carries a `Status`, channel 4 resizes the terminal.
pub const V4: &str = "v4.channel.k8s.io";
/// Version 4 as base64 text.
pub const V4_BASE64: &str = "v4.base64.channel.k8s.io";
/// Version 5: version 4 with the close signal.
pub const V5: &str = "v5.channel.k8s.io";
/// A SPDY/3.1 connection for port forwarding inside a WebSocket.
pub const PORT_FORWARD_TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// The channel of the close signal in version 5.
const CLOSE: u8 = 255;
/// The largest message that is taken.
const MAX_MESSAGE: usize = 16 << 20;

/// One message of a channel protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of a channel; may be empty.
    Data {
        /// The channel.
        channel: u8,
        /// Its bytes.
        data: Bytes,
    },
    /// Version 5: the sender is done with this channel.
    Close {
        /// The channel.
        channel: u8,
    },
}

/// How frames are written by the negotiated protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    base64: bool,
    close_signal: bool,
    plain_status: bool,
}

impl Encoding {
    /// The encoding of a protocol by its name.
    pub fn of(protocol: &str) -> Self {
        Self {
            base64: protocol.contains("base64"),
            close_signal: protocol == V5,
            plain_status: [V1, V1_BASE64].contains(&protocol),
        }
    }

    pub(crate) fn encode(self, frame: Frame) -> Option<Message> {
        let (channel, data) = match frame {
            Frame::Data { channel, data } => (channel, data),
            Frame::Close { channel } if self.close_signal => (CLOSE, Bytes::copy_from_slice(&[channel])),
            Frame::Close { .. } => return None,
        };
        if self.base64 {
            let mut text = String::with_capacity(1 + data.len() * 4 / 3 + 4);
            text.push(char::from(b'0'.wrapping_add(channel)));
            BASE64.encode_string(&data, &mut text);
            return Some(Message::text(text));
        }
        let mut out = BytesMut::with_capacity(1 + data.len());
        out.put_u8(channel);
        out.extend_from_slice(&data);
        Some(Message::binary(out.freeze()))
    }

    pub(crate) fn decode(self, message: Message) -> Result<Option<Frame>, Error> {
        let mut bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            _ => return Ok(None),
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        let first = bytes.split_to(1)[0];
        if self.base64 {
            if !first.is_ascii() {
                return Err(Error::Malformed("a channel is no character"));
            }
            let channel = first.wrapping_sub(b'0');
            let data = BASE64.decode(&bytes).map_err(|_| Error::Malformed("invalid base64"))?.into();
            return Ok(Some(Frame::Data { channel, data }));
        }
        if self.close_signal && first == CLOSE {
            let channel = *bytes.first().ok_or(Error::Malformed("close signal without a channel"))?;
            return Ok(Some(Frame::Close { channel }));
        }
        Ok(Some(Frame::Data { channel: first, data: bytes }))
    }
}

/// What can go wrong on a channel connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The WebSocket below failed.
    #[error("the WebSocket failed")]
    WebSocket(#[from] Box<tungstenite::Error>),
    /// A message does not fit the protocol.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
}

impl From<tungstenite::Error> for Error {
    fn from(error: tungstenite::Error) -> Self {
        Self::WebSocket(Box::new(error))
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}

/// The limits of every WebSocket of this crate.
pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .read_buffer_size(32 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_MESSAGE + (1 << 20))
}

/// The receiving half of a channel connection.
pub struct ChannelReader<S> {
    messages: SplitStream<WebSocketStream<S>>,
    encoding: Encoding,
}

/// The sending half of a channel connection.
pub struct ChannelWriter<S> {
    messages: SplitSink<WebSocketStream<S>, Message>,
    encoding: Encoding,
}

/// Speaks a channel protocol as the server of an already upgraded connection.
pub async fn server<S>(io: S, protocol: &str) -> (ChannelReader<S>, ChannelWriter<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    start(io, Role::Server, protocol).await
}

/// Speaks a channel protocol as the client of an already upgraded connection.
pub async fn client<S>(io: S, protocol: &str) -> (ChannelReader<S>, ChannelWriter<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    start(io, Role::Client, protocol).await
}

async fn start<S>(io: S, role: Role, protocol: &str) -> (ChannelReader<S>, ChannelWriter<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let socket = WebSocketStream::from_raw_socket(io, role, Some(config())).await;
    let (sink, stream) = socket.split();
    let encoding = Encoding::of(protocol);
    (ChannelReader { messages: stream, encoding }, ChannelWriter { messages: sink, encoding })
}

impl<S: AsyncRead + AsyncWrite + Unpin> ChannelReader<S> {
    /// The next frame, or `None` when the peer has closed the connection. Pings are answered on the way.
    pub async fn recv(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            match self.messages.next().await {
                None | Some(Ok(Message::Close(_))) => return Ok(None),
                Some(Ok(message)) => {
                    if let Some(frame) = self.encoding.decode(message)? {
                        return Ok(Some(frame));
                    }
                }
                Some(Err(tungstenite::Error::ConnectionClosed)) => return Ok(None),
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ChannelWriter<S> {
    /// Sends the bytes of a channel.
    pub async fn send(&mut self, channel: u8, data: Bytes) -> Result<(), Error> {
        self.frame(Frame::Data { channel, data }).await
    }

    /// Sends the outcome of a command, a `Status` in JSON, on the error channel. Version 1 is told nothing of a success, and
    /// of a failure the message alone.
    pub async fn send_status(&mut self, channel: u8, status: Bytes) -> Result<(), Error> {
        if !self.encoding.plain_status {
            return self.send(channel, status).await;
        }
        let read: serde_json::Value = serde_json::from_slice(&status).unwrap_or_default();
        match read["message"].as_str() {
            _ if read["status"] == "Success" => Ok(()),
            Some(message) => self.send(channel, Bytes::copy_from_slice(message.as_bytes())).await,
            None => self.send(channel, status).await,
        }
    }

    /// Says that a channel ends; does nothing below version 5, which has no way to say it.
    pub async fn close_channel(&mut self, channel: u8) -> Result<(), Error> {
        self.frame(Frame::Close { channel }).await
    }

    async fn frame(&mut self, frame: Frame) -> Result<(), Error> {
        match self.encoding.encode(frame) {
            Some(message) => Ok(self.messages.send(message).await?),
            None => Ok(()),
        }
    }

    /// Ends the connection in good order.
    pub async fn close(&mut self) -> Result<(), Error> {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        match self.messages.send(Message::Close(Some(frame))).await {
            Ok(()) | Err(tungstenite::Error::ConnectionClosed) => Ok(()),
            // The peer was faster: its close frame is answered already.
            Err(tungstenite::Error::Protocol(ProtocolError::SendAfterClosing)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_a_round_trip_in_every_protocol() {
        for protocol in [V1, V1_BASE64, V4, V4_BASE64, V5] {
            let encoding = Encoding::of(protocol);
            for data in ["", "hello", "\0\u{1}\u{2}"] {
                let frame = Frame::Data { channel: 2, data: Bytes::copy_from_slice(data.as_bytes()) };
                let message = encoding.encode(frame.clone()).unwrap();
                assert_eq!(encoding.decode(message).unwrap(), Some(frame), "{protocol}");
            }
        }
    }

    #[test]
    fn only_version_five_signals_the_end_of_a_channel() {
        let close = Frame::Close { channel: 0 };
        assert_eq!(Encoding::of(V5).encode(close.clone()), Some(Message::binary(vec![255, 0])));
        assert_eq!(Encoding::of(V5).decode(Message::binary(vec![255, 0])).unwrap(), Some(close.clone()));
        assert_eq!(Encoding::of(V4).encode(close), None);
        assert!(Encoding::of(V5).decode(Message::binary(vec![255])).is_err());
        let data = Encoding::of(V4).decode(Message::binary(vec![255, 0])).unwrap();
        assert_eq!(data, Some(Frame::Data { channel: 255, data: Bytes::from_static(&[0]) }));
    }

    #[test]
    fn base64_channels_are_ascii_digits() {
        let frame = Frame::Data { channel: 1, data: Bytes::from_static(b"hi") };
        assert_eq!(Encoding::of(V4_BASE64).encode(frame), Some(Message::text("1aGk=")));
        assert!(Encoding::of(V4_BASE64).decode(Message::text("1***")).is_err());
        assert!(Encoding::of(V4_BASE64).decode(Message::binary(vec![0xb8])).is_err());
    }

    #[tokio::test]
    async fn version_1_is_told_of_failures_alone() {
        let failure = Bytes::from_static(br#"{"status":"Failure","message":"no"}"#);
        let success = Bytes::from_static(br#"{"status":"Success"}"#);
        for (protocol, expected) in
            [(V1, vec![Bytes::from_static(b"no")]), (V4, vec![success.clone(), failure.clone()])]
        {
            let (ours, theirs) = tokio::io::duplex(1 << 10);
            let (_reader, mut writer) = server(ours, protocol).await;
            let (mut reader, _writer) = client(theirs, protocol).await;
            writer.send_status(3, success.clone()).await.unwrap();
            writer.send_status(3, failure.clone()).await.unwrap();
            for data in expected {
                assert_eq!(reader.recv().await.unwrap(), Some(Frame::Data { channel: 3, data }));
            }
        }
    }
}
