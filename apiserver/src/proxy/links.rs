//! Links in proxied pages: what begins at the root of the page's server begins below the proxy's path for the client.
//!
//! Source: <https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/>.

use api::error::{ApiError, Result};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzDecoder, GzEncoder};
use futures::StreamExt;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use http::response::Parts;
use http_body_util::{BodyExt, BodyStream};
use lol_html::errors::RewritingError;
use lol_html::send::{HtmlRewriter, Settings};
use lol_html::{MemorySettings, element};
use parking_lot::Mutex;
use serve::{Body, BoxError};
use std::io::Write;
use std::sync::Arc;

/// Elements and their attributes that hold links (HTML 4.01, index of attributes; HTML, attributes).
const LINKS: &str = "a[href], applet[codebase], area[href], audio[src], base[href], blockquote[cite], body[background], \
    button[formaction], command[icon], del[cite], embed[src], form[action], frame[longdesc], frame[src], head[profile], \
    html[manifest], iframe[longdesc], iframe[src], img[longdesc], img[src], img[usemap], input[formaction], input[src], \
    input[usemap], ins[cite], link[href], object[classid], object[codebase], object[data], object[usemap], q[cite], \
    script[src], source[src], video[poster], video[src]";
const ATTRIBUTES: [&str; 15] = [
    "action",
    "background",
    "cite",
    "classid",
    "codebase",
    "data",
    "formaction",
    "href",
    "icon",
    "longdesc",
    "manifest",
    "poster",
    "profile",
    "src",
    "usemap",
];
/// Packed bytes that are unpacked at a time: a small page may unpack to a thousand times its size.
const PIECE: usize = 4 << 10;
/// Bytes that an unfinished tag may take.
const MEMORY_LIMIT: usize = 1 << 20;

/// Where pages are seen.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The path of the proxy, without a slash at its end.
    pub(crate) prefix: String,
    /// Hosts that mean the same server: the one that is proxied, and the one the client asked.
    pub(crate) hosts: [String; 2],
}

impl Place {
    /// A link as the client must see it; none when it may stay.
    fn moved(&self, link: &str) -> Option<String> {
        let absolute = link.split_once("://").map(|(_, rest)| rest).or_else(|| link.strip_prefix("//"));
        let path = match absolute {
            Some(rest) => {
                let (host, path) = rest.split_at(rest.find('/')?);
                self.hosts.iter().any(|h| h == host).then_some(path)?
            }
            None => link.strip_prefix('/').map(|_| link)?,
        };
        match path.starts_with(&self.prefix) {
            true => absolute.map(|_| path.to_owned()),
            false => Some(format!("{}{path}", self.prefix)),
        }
    }

    /// An answer with its links and its redirection moved.
    pub(crate) fn answer(&self, mut head: Parts, body: Body) -> Result<(Parts, Body)> {
        if let Some(location) = head.headers.get(LOCATION).and_then(|v| v.to_str().ok()) {
            if let Some(moved) = self.moved(location) {
                head.headers.insert(LOCATION, HeaderValue::try_from(moved).map_err(ApiError::internal)?);
            }
            return Ok((head, body));
        }
        let text =
            |name| head.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
        let is_page = text(CONTENT_TYPE).split(';').next().is_some_and(|t| t.trim() == "text/html");
        let Some(coding) = Coding::of(text(CONTENT_ENCODING)).filter(|_| is_page) else {
            return Ok((head, body));
        };
        head.headers.remove(CONTENT_LENGTH);
        Ok((head, self.page(body, coding)))
    }

    fn page(&self, body: Body, coding: Coding) -> Body {
        let pieces = BodyStream::new(body)
            .filter_map(|f| std::future::ready(f.map(|f| f.into_data().ok()).transpose()));
        let mut page = Some(Page::new(self.clone(), coding));
        // An empty piece at the end brings out what is held back.
        let ended = futures::stream::once(std::future::ready(Ok(Bytes::new())));
        let moved = pieces.chain(ended).map(move |piece| -> std::result::Result<Bytes, BoxError> {
            let piece = piece?;
            let Some(open) = page.as_mut() else { return Ok(Bytes::new()) };
            if piece.is_empty() {
                return page.take().map_or_else(|| Ok(Bytes::new()), Page::end);
            }
            open.write(&piece)
        });
        http_body_util::StreamBody::new(moved.map(|piece| piece.map(http_body::Frame::data))).boxed_unsync()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Plain,
    Gzip,
    Deflate,
}

impl Coding {
    fn of(name: &str) -> Option<Self> {
        match name {
            "" => Some(Coding::Plain),
            "gzip" => Some(Coding::Gzip),
            "deflate" => Some(Coding::Deflate),
            _ => None,
        }
    }
}

/// Bytes that have come out and were not sent yet.
#[derive(Clone, Default)]
struct Outlet(Arc<Mutex<Vec<u8>>>);

impl Outlet {
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock()).into()
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

type Sink = Box<dyn FnMut(&[u8]) + Send>;

/// A page on its way: unpacked, its links moved, packed again.
struct Page {
    unpack: Unpack,
    /// What the unpacking has brought out.
    plain: Outlet,
    rewriter: HtmlRewriter<'static, Sink>,
    /// What the rewriting has brought out.
    moved: Outlet,
    pack: Pack,
    packed: Outlet,
}

enum Unpack {
    Plain,
    Gzip(GzDecoder<Outlet>),
    Deflate(DeflateDecoder<Outlet>),
}

enum Pack {
    Plain,
    Gzip(GzEncoder<Outlet>),
    Deflate(DeflateEncoder<Outlet>),
}

impl Page {
    fn new(place: Place, coding: Coding) -> Self {
        let (plain, moved, packed) = (Outlet::default(), Outlet::default(), Outlet::default());
        let (unpack, pack) = match coding {
            Coding::Plain => (Unpack::Plain, Pack::Plain),
            Coding::Gzip => (
                Unpack::Gzip(GzDecoder::new(plain.clone())),
                Pack::Gzip(GzEncoder::new(packed.clone(), Compression::fast())),
            ),
            Coding::Deflate => (
                Unpack::Deflate(DeflateDecoder::new(plain.clone())),
                Pack::Deflate(DeflateEncoder::new(packed.clone(), Compression::fast())),
            ),
        };
        let links = element!(LINKS, move |element| {
            for name in ATTRIBUTES {
                if let Some(moved) = element.get_attribute(name).and_then(|link| place.moved(&link)) {
                    element.set_attribute(name, &moved)?;
                }
            }
            Ok(())
        });
        let memory = MemorySettings::new().with_max_allowed_memory_usage(MEMORY_LIMIT);
        let settings =
            Settings::new_send().append_element_content_handler(links).with_memory_settings(memory);
        let sink = moved.clone();
        let sink: Sink = Box::new(move |bytes| sink.0.lock().extend_from_slice(bytes));
        let rewriter = HtmlRewriter::new(settings, sink);
        Self { unpack, plain, rewriter, moved, pack, packed }
    }

    fn write(&mut self, piece: &[u8]) -> std::result::Result<Bytes, BoxError> {
        let mut out = Vec::new();
        for piece in piece.chunks(PIECE) {
            out.extend_from_slice(&self.write_some(piece)?);
        }
        Ok(out.into())
    }

    fn write_some(&mut self, piece: &[u8]) -> std::result::Result<Bytes, BoxError> {
        match &mut self.unpack {
            Unpack::Plain => self.rewriter.write(piece)?,
            Unpack::Gzip(unpack) => {
                unpack.write_all(piece)?;
                self.rewriter.write(&self.plain.take())?;
            }
            Unpack::Deflate(unpack) => {
                unpack.write_all(piece)?;
                self.rewriter.write(&self.plain.take())?;
            }
        }
        let moved = self.moved.take();
        match &mut self.pack {
            Pack::Plain => return Ok(moved),
            Pack::Gzip(pack) => pack.write_all(&moved)?,
            Pack::Deflate(pack) => pack.write_all(&moved)?,
        }
        Ok(self.packed.take())
    }

    fn end(mut self) -> std::result::Result<Bytes, BoxError> {
        match &mut self.unpack {
            Unpack::Plain => {}
            Unpack::Gzip(unpack) => unpack.try_finish()?,
            Unpack::Deflate(unpack) => unpack.try_finish()?,
        }
        self.rewriter.write(&self.plain.take())?;
        self.rewriter.end().map_err(|e: RewritingError| e.to_string())?;
        let moved = self.moved.take();
        match self.pack {
            Pack::Plain => return Ok(moved),
            Pack::Gzip(mut pack) => {
                pack.write_all(&moved)?;
                pack.finish()?;
            }
            Pack::Deflate(mut pack) => {
                pack.write_all(&moved)?;
                pack.finish()?;
            }
        }
        Ok(self.packed.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { prefix: "/p/proxy".to_owned(), hosts: ["10.0.0.1:80".to_owned(), "api:6443".to_owned()] }
    }

    #[test]
    fn links_to_the_same_server_are_moved() {
        for (link, expected) in [
            ("/a", Some("/p/proxy/a")),
            ("/", Some("/p/proxy/")),
            ("a/b", None),
            ("#x", None),
            ("", None),
            ("http://10.0.0.1:80/a?b=c", Some("/p/proxy/a?b=c")),
            ("//api:6443/a", Some("/p/proxy/a")),
            ("https://elsewhere/a", None),
            ("https://10.0.0.1:80", None),
            ("/p/proxy/a", None),
            ("mailto:a@b", None),
        ] {
            assert_eq!(place().moved(link).as_deref(), expected, "{link}");
        }
    }

    async fn through(page: &[u8], coding: &str, cut: usize) -> Vec<u8> {
        let mut head = http::Response::new(()).into_parts().0;
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        head.headers.insert(CONTENT_ENCODING, HeaderValue::from_str(coding).unwrap());
        let pieces: Vec<Bytes> = page.chunks(cut).map(Bytes::copy_from_slice).collect();
        let pieces = futures::stream::iter(pieces.into_iter().map(Ok::<_, std::convert::Infallible>));
        let (_, body) = place().answer(head, serve::stream(pieces)).unwrap();
        body.collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn pages_pass_in_pieces_of_any_size() {
        let page = br#"<!doctype html><a href="/x" class=c>t</a><img src='/i.png'><script src=/s.js></script><p>/x</p>"#;
        let expected = r#"<!doctype html><a href="/p/proxy/x" class=c>t</a><img src="/p/proxy/i.png"><script src="/p/proxy/s.js"></script><p>/x</p>"#;
        for cut in [1, 7, 1000] {
            assert_eq!(String::from_utf8(through(page, "", cut).await).unwrap(), expected);
        }
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(page).unwrap();
        let packed = through(&gzip.finish().unwrap(), "gzip", 5).await;
        let mut plain = GzDecoder::new(Vec::new());
        plain.write_all(&packed).unwrap();
        assert_eq!(String::from_utf8(plain.finish().unwrap()).unwrap(), expected);
        assert_eq!(through(page, "br", 9).await, page, "what cannot be read is not touched");
    }
}
