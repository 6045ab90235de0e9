//! SPDY/3.1 (the 2013 draft) as Kubernetes uses it: bidirectional streams over one upgraded connection.
//!
//! DIVERGES from the draft where the Go peers do: they never send `WINDOW_UPDATE` and ignore windows, so the send
//! window is honoured only towards a peer that has shown (by `SETTINGS` or `WINDOW_UPDATE`) that it keeps one.
//! Towards the others the bounded receive queue of a stream pushes back through the connection itself.

mod frame;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod headers;
mod reader;
mod session;
mod stream;
mod writer;

pub use frame::RstStatus;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzz::compressed;
pub use headers::Headers;
pub use session::{Config, Session};
pub use stream::{Stream, StreamReader, StreamWriter};

/// What can go wrong on a SPDY connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection broke or was closed by the peer.
    #[error("the SPDY connection is closed")]
    Closed,
    /// Reading or writing the underlying connection failed.
    #[error("the connection below SPDY failed")]
    Io(#[from] std::io::Error),
    /// The peer violated the protocol.
    #[error("SPDY protocol error: {0}")]
    Protocol(&'static str),
    /// The peer refused or reset the stream.
    #[error("the stream was reset by the peer ({0:?})")]
    Reset(RstStatus),
    /// The peer answered neither a stream nor a ping in time.
    #[error("the SPDY peer did not answer in time")]
    Timeout,
    /// The peer announced that it takes no more streams.
    #[error("the SPDY peer is going away")]
    GoingAway,
}
