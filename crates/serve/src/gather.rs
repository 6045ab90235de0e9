//! Bytes that are written one after the other, sent together: they wait for as long as there come more.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As much is gathered before it is sent.
const FULL: usize = 64 << 10;
/// So much at once is sent as it is: there is nothing to win by gathering it.
const LARGE: usize = 16 << 10;

/// A stream of bytes that keeps what is written until [`Gather::poll_send`]; flushing does nothing.
pub(super) struct Gather<I>(Arc<Mutex<Inner<I>>>);

struct Inner<I> {
    io: I,
    written: BytesMut,
    /// How much had been written when it was last asked whether to send it.
    seen: usize,
}

impl<I> Clone for Gather<I> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I: AsyncWrite + Unpin> Inner<I> {
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.written.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.written.advance(sent),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(cx))?;
        // An idle connection keeps no room.
        self.written = BytesMut::new();
        self.seen = 0;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_send_settled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.written.len() > self.seen {
            self.seen = self.written.len();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.poll_send(cx)
    }
}

impl<I: AsyncWrite + Unpin> Gather<I> {
    pub(super) fn new(io: I) -> Self {
        Self(Arc::new(Mutex::new(Inner { io, written: BytesMut::new(), seen: 0 })))
    }

    /// Sends what was written once nothing was added between two calls; ready when all of it is out.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_send_settled(cx)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Gather<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Gather<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        let all: usize = parts.iter().map(|part| part.len()).sum();
        if all >= LARGE || inner.written.len() + all > FULL {
            ready!(inner.poll_empty(cx))?;
        }
        if all >= LARGE {
            return Pin::new(&mut inner.io).poll_write_vectored(cx, parts);
        }
        parts.iter().for_each(|part| inner.written.extend_from_slice(part));
        Poll::Ready(Ok(all))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_send(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A stream that counts how often it is written to.
    struct Counted {
        io: DuplexStream,
        writes: usize,
    }

    impl AsyncWrite for Counted {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, b: &[u8]) -> Poll<io::Result<usize>> {
            self.writes += 1;
            Pin::new(&mut self.io).poll_write(cx, b)
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_flush(cx)
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_shutdown(cx)
        }
    }

    fn gather(room: usize) -> (Gather<Counted>, DuplexStream) {
        let (io, other) = duplex(room);
        (Gather::new(Counted { io, writes: 0 }), other)
    }

    #[tokio::test]
    async fn what_is_written_goes_out_at_once_and_in_order() {
        let (mut ours, mut theirs) = gather(1 << 20);
        for part in ["a", "bc", "d"] {
            ours.write_all(part.as_bytes()).await.unwrap();
            ours.flush().await.unwrap();
        }
        assert!(futures::poll!(poll_fn(|cx| ours.poll_send(cx))).is_pending());
        ours.write_all(b"e").await.unwrap();
        assert!(futures::poll!(poll_fn(|cx| ours.poll_send(cx))).is_pending());
        assert_eq!(ours.0.lock().io.writes, 0);
        poll_fn(|cx| ours.poll_send(cx)).await.unwrap();
        assert_eq!(ours.0.lock().io.writes, 1);
        let large = vec![b'x'; LARGE];
        ours.write_all(b"f").await.unwrap();
        ours.write_all(&large).await.unwrap();
        ours.write_all(b"g").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut read = Vec::new();
        drop(ours);
        theirs.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, [&b"abcdef"[..], &large, b"g"].concat());
    }

    #[tokio::test]
    async fn who_does_not_read_is_not_written_to_without_end() {
        let (mut ours, theirs) = gather(1000);
        let part = [0; 1000];
        let mut taken = 0;
        while let Poll::Ready(Ok(n)) = futures::poll!(std::pin::pin!(ours.write(&part))) {
            taken += n;
            assert!(taken <= 2 * FULL);
        }
        assert!(taken >= FULL - part.len());
        drop(theirs);
        assert!(ours.shutdown().await.is_err());
    }
}
