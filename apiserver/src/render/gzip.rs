//! Answers that are compressed on their way to those who accept it.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#compression>.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, stream};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, VARY};
use http::{HeaderMap, Response};
use serve::Body;

/// Objects and lists that are larger are compressed.
const LEAST: usize = 128 << 10;
/// So much is compressed at a time: others have their turn in between.
const PIECE: usize = 256 << 10;

/// True when the client names gzip, in these letters and without a weight.
pub fn is_accepted(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|coding| coding.trim() == "gzip")
}

/// True when it is worth it.
pub fn is_large(bytes: &Bytes) -> bool {
    bytes.len() > LEAST
}

/// Has the answer send these pieces compressed.
pub fn pack(response: &mut Response<Body>, pieces: impl Iterator<Item = Bytes> + Send + 'static) {
    *response.body_mut() = serve::stream(packed(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
}

fn packed(pieces: impl Iterator<Item = Bytes> + Send) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    stream::try_unfold((pieces, Bytes::new(), Some(encoder)), |(mut pieces, mut piece, encoder)| async move {
        let Some(mut encoder) = encoder else { return Ok(None) };
        loop {
            if piece.is_empty() {
                piece = match pieces.next() {
                    Some(next) => next,
                    None => return Ok(Some((encoder.finish()?.into(), (pieces, piece, None)))),
                };
            }
            encoder.write_all(&piece.split_to(PIECE.min(piece.len())))?;
            let out = std::mem::take(encoder.get_mut());
            if !out.is_empty() {
                return Ok(Some((out.into(), (pieces, piece, Some(encoder)))));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn gzip_is_named_among_others() {
        let accepts = |text: &'static str| {
            is_accepted(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(text))]))
        };
        assert!(accepts("gzip") && accepts("deflate, gzip ,br"));
        assert!(!accepts("") && !accepts("gzip;q=1") && !accepts("GZIP") && !accepts("identity"));
        assert!(!is_accepted(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn what_is_packed_is_the_same_when_it_is_unpacked() {
        let noise = (0..3 * PIECE as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8);
        for bytes in [Bytes::from(noise.collect::<Vec<_>>()), Bytes::from(vec![b'a'; 10 * PIECE])] {
            let mut response = Response::new(serve::empty());
            let (first, second) = (bytes.slice(..PIECE + 1), bytes.slice(PIECE + 1..));
            pack(&mut response, [first, second].into_iter());
            assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
            assert_eq!(response.headers()[VARY], "Accept-Encoding");
            let sent = response.into_body().collect().await.unwrap().to_bytes();
            let mut unpacked = Vec::new();
            GzDecoder::new(&sent[..]).read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, bytes);
        }
    }
}
