//! Pages that are handed through with their links moved.

use bytes::Bytes;
use futures::executor::block_on;
use futures::stream;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::BodyExt;

use crate::proxy::links::Place;

/// The bytes of a page that comes in pieces of a size; none when it ends early.
fn through(page: &[u8], coding: &'static str, size: usize) -> Option<Bytes> {
    let hosts = ["10.0.0.1:80".to_owned(), "api:6443".to_owned()];
    let place = Place { prefix: "/p/proxy".to_owned(), hosts };
    let answer = http::Response::builder().header(CONTENT_TYPE, "text/html").header(CONTENT_ENCODING, coding);
    let (head, ()) = answer.body(()).expect("these are headers").into_parts();
    let pieces: Vec<_> =
        page.chunks(size).map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece))).collect();
    let (_, body) = place.answer(head, serve::stream(stream::iter(pieces))).expect("there is no redirection");
    block_on(body.collect()).ok().map(http_body_util::Collected::to_bytes)
}

/// A page after a byte for its coding: however it is cut, the client sees the same.
pub fn pages(data: &[u8]) {
    let Some((how, page)) = data.split_first() else { return };
    match how % 3 {
        0 => assert_eq!(through(page, "", 1 << 20), through(page, "", 7)),
        n => {
            let _ = through(page, ["gzip", "deflate"][usize::from(n) - 1], 100);
        }
    }
}
