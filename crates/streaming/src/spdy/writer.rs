//! The writing task of a session: it alone compresses headers, in the order of the wire.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::frame::{self, Control};
use super::headers::Deflater;
use super::session::{Out, Shared};
use super::stream::{CHUNK, WINDOW};
use super::{Error, Headers};

/// Writes what is queued until the session is closed and the queue is empty.
pub(super) async fn run(
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
