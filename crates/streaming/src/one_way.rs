//! What goes one way through a WebSocket: the log of a container, the events of a watch. Each piece is a message; what the
//! peer sends is not heard.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, frame::coding::CloseCode};

use crate::websocket::{Error, config};

/// The protocol of plain bytes; also what is spoken when the client asks for none.
pub const BINARY: &str = "binary.k8s.io";
/// The protocol of bytes as base64 text.
pub const BINARY_BASE64: &str = "base64.binary.k8s.io";

/// Time for the peer to answer the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Bytes as they are.
    Binary,
    /// Bytes as base64 text.
    Base64,
    /// Text; what is no UTF-8 is replaced.
    Text,
}

impl Form {
    /// What the messages of a protocol for bytes are.
    pub fn of(protocol: &str) -> Self {
        if protocol == BINARY_BASE64 { Form::Base64 } else { Form::Binary }
    }

    fn message(self, piece: Bytes) -> Message {
        match self {
            Form::Binary => Message::Binary(piece),
            Form::Base64 => Message::text(BASE64.encode(&piece)),
            Form::Text => Message::text(String::from_utf8_lossy(&piece).into_owned()),
        }
    }
}

/// Sends the pieces as the server of an upgraded connection, until there are no more or the peer leaves.
pub async fn send<S, E>(io: S, form: Form, pieces: impl Stream<Item = Result<Bytes, E>>) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config())).await;
    let (mut sink, mut heard) = socket.split();
    let mut pieces = std::pin::pin!(pieces);
    loop {
        let piece = tokio::select! {
            piece = pieces.next() => piece,
            message = heard.next() => match message {
                None | Some(Err(_) | Ok(Message::Close(_))) => return Ok(()),
                Some(Ok(_)) => continue,
            },
        };
        let Some(Ok(piece)) = piece else { break };
        if !piece.is_empty() {
            sink.send(form.message(piece)).await?;
        }
    }
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    sink.send(Message::Close(Some(close))).await?;
    // The peer's own close frame ends the connection in good order; one that is silent is not waited for.
    let farewell = async { while let Some(Ok(_)) = heard.next().await {} };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn received(form: Form) -> Vec<Message> {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let pieces = futures::stream::iter([Ok::<_, Error>(Bytes::from_static(b"one\n")), Ok("two".into())]);
        let sending = send(ours, form, pieces);
        let receiving = async {
            let client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
            client.map(|m| m.unwrap()).collect::<Vec<_>>().await
        };
        let (sent, received) = tokio::join!(sending, receiving);
        sent.unwrap();
        received
    }

    #[tokio::test]
    async fn every_piece_is_a_message_and_the_end_is_said() {
        for (form, first) in [
            (Form::Binary, Message::binary(&b"one\n"[..])),
            (Form::Base64, Message::text("b25lCg==")),
            (Form::Text, Message::text("one\n")),
        ] {
            let received = received(form).await;
            assert_eq!(received[0], first);
            assert_eq!(received.len(), 3);
            assert!(received[2].is_close());
        }
    }

    #[tokio::test]
    async fn a_peer_that_leaves_ends_it() {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        drop(theirs);
        let forever = futures::stream::pending::<Result<Bytes, Error>>();
        send(ours, Form::Text, forever).await.unwrap();
    }
}
