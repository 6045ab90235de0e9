//! Bytes that are written one after the other, sent together: they wait for as long as there come more.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As much is gathered before it is sent.
const FULL: usize = 64 << 10;
/// So much at once is sent as it is: there is nothing to win by gathering it.
const LARGE: usize = 16 << 10;

/// A stream of bytes that sends what was written before it is read from again, or at the first flush before which nothing
/// was added.
///
/// A flush that finds more than the last one wakes its task, and is ready. It is for those who read and flush whenever they
/// are polled, as connections of HTTP/2 do, and write a frame at a time.
pub struct Gather<I> {
    io: I,
    written: BytesMut,
    /// How much had been written at the last flush.
    seen: usize,
}

impl<I: AsyncWrite + Unpin> Gather<I> {
    /// Nothing is written yet.
    pub fn new(io: I) -> Self {
        Self { io, written: BytesMut::new(), seen: 0 }
    }

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
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.written.is_empty()
            && let Poll::Ready(Err(e)) = self.poll_send(cx)
        {
            return Poll::Ready(Err(e));
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Gather<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: usize = parts.iter().map(|part| part.len()).sum();
        if all >= LARGE || self.written.len() + all > FULL {
            ready!(self.poll_empty(cx))?;
        }
        if all >= LARGE {
            return Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        }
        parts.iter().for_each(|part| self.written.extend_from_slice(part));
        Poll::Ready(Ok(all))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.written.len() > self.seen {
            self.seen = self.written.len();
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A stream that counts how often it is written to.
    struct Counted {
        io: DuplexStream,
        writes: usize,
    }

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_read(cx, buffer)
        }
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
        assert_eq!(ours.io.writes, 0);
        ours.flush().await.unwrap();
        assert_eq!(ours.io.writes, 1);
        ours.flush().await.unwrap();
        ours.write_all(b"e").await.unwrap();
        assert_eq!(ours.io.writes, 1);
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
    async fn who_waits_for_an_answer_has_sent_what_it_answers() {
        let (mut ours, mut theirs) = gather(1 << 20);
        ours.write_all(b"question").await.unwrap();
        ours.flush().await.unwrap();
        assert!(futures::poll!(std::pin::pin!(ours.read_u8())).is_pending());
        let mut read = [0; 8];
        theirs.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"question");
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
