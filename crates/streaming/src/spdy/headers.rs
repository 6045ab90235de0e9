//! Header blocks: name-value pairs under zlib with the dictionary of the SPDY/3 draft.
//!
//! Each direction of a connection is one zlib stream, so blocks must be coded in the order they are on the wire.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Error;

const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
/// The most that one header block may inflate to.
const MAX_BLOCK: usize = 256 << 10;
/// The most headers that a stream may have; Kubernetes uses three.
const MAX_HEADERS: u32 = 256;

/// The headers of a stream; names are lower case, as the draft demands. Values of one name stay joined by NUL, as they are
/// on the wire: a copy of the name for each of them would let a small block take a lot of memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Headers from name-value pairs; names are lower-cased.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect())
    }

    /// The first value of a header, or an empty string.
    pub fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map_or("", |(_, v)| v.split('\0').next().unwrap_or_default())
    }

    fn encode(&self) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_u32(self.0.len() as u32);
        for (name, value) in &self.0 {
            for text in [name, value] {
                out.put_u32(text.len() as u32);
                out.extend_from_slice(text.as_bytes());
            }
        }
        out
    }

    fn decode(mut block: Bytes) -> Result<Self, Error> {
        let count = take_u32(&mut block)?;
        if count > MAX_HEADERS {
            return Err(Error::Protocol("too many headers"));
        }
        let pairs = (0..count).map(|_| Ok((take_text(&mut block)?, take_text(&mut block)?)));
        pairs.collect::<Result<_, _>>().map(Self)
    }
}

fn take_u32(block: &mut Bytes) -> Result<u32, Error> {
    if block.len() < 4 {
        return Err(Error::Protocol("truncated header block"));
    }
    Ok(block.get_u32())
}

fn take_text(block: &mut Bytes) -> Result<String, Error> {
    let len = take_u32(block)? as usize;
    if block.len() < len {
        return Err(Error::Protocol("truncated header block"));
    }
    String::from_utf8(block.split_to(len).to_vec()).map_err(|_| Error::Protocol("header is not UTF-8"))
}

/// The compressing end of a connection.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::new(6), true);
        compress.set_dictionary(DICTIONARY).expect("a fresh compressor takes a dictionary");
        Self(compress)
    }

    pub(super) fn deflate(&mut self, headers: &Headers) -> Result<Bytes, Error> {
        self.block(&headers.encode())
    }

    pub(super) fn block(&mut self, plain: &[u8]) -> Result<Bytes, Error> {
        let mut out = Vec::with_capacity(plain.len() + 64);
        let start = self.0.total_in();
        loop {
            let used = (self.0.total_in() - start) as usize;
            let room = out.capacity() - out.len();
            if room < 32 {
                out.reserve(256);
            }
            let before = out.len();
            self.0
                .compress_vec(&plain[used..], &mut out, FlushCompress::Sync)
                .map_err(|_| Error::Protocol("cannot compress headers"))?;
            let done = (self.0.total_in() - start) as usize == plain.len();
            if done && (out.len() < out.capacity() || out.len() == before) {
                return Ok(out.into());
            }
        }
    }
}

/// The decompressing end of a connection.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn inflate(&mut self, block: &[u8]) -> Result<Headers, Error> {
        let mut out = Vec::with_capacity(1024);
        let start = self.0.total_in();
        let mut used = 0;
        while used < block.len() || out.len() == out.capacity() {
            if out.len() == out.capacity() {
                if out.len() >= MAX_BLOCK {
                    return Err(Error::Protocol("header block too large"));
                }
                out.reserve(out.len().max(1024));
            }
            let before = (used, out.len());
            match self.0.decompress_vec(&block[used..], &mut out, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(Error::Protocol("header compression ended")),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(|_| Error::Protocol("foreign dictionary"))?;
                    used = (self.0.total_in() - start) as usize;
                    continue;
                }
                Err(_) => return Err(Error::Protocol("corrupt header block")),
            }
            used = (self.0.total_in() - start) as usize;
            if before == (used, out.len()) {
                break;
            }
        }
        Headers::decode(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_survive_a_round_trip_through_one_stream() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        let long = "x".repeat(100_000);
        for headers in [
            Headers::new([("streamType", "error")]),
            Headers::default(),
            Headers::new([("streamtype", "data"), ("port", "80"), ("requestid", "0")]),
            Headers::new([("a", long.as_str())]),
            Headers::new([("streamType", "stdin")]),
        ] {
            let block = deflater.deflate(&headers).unwrap();
            assert_eq!(inflater.inflate(&block).unwrap(), headers);
        }
    }

    #[test]
    fn a_block_that_inflates_without_end_is_refused() {
        let bomb = "y".repeat(2 << 20);
        let block = Deflater::new().deflate(&Headers::new([("a", bomb.as_str())])).unwrap();
        assert!(block.len() < 10_000);
        assert!(Inflater::new().inflate(&block).is_err());
    }

    #[test]
    fn values_of_one_name_take_no_more_memory_than_the_block() {
        let (name, values) = ("n".repeat(100 << 10), "v".to_owned() + &"\0".repeat(100 << 10));
        let block = Deflater::new().deflate(&Headers::new([(&*name, &*values)])).unwrap();
        let headers = Inflater::new().inflate(&block).unwrap();
        assert_eq!(headers.get(&name), "v");
        assert_eq!(headers.0.len(), 1);
        let many = Headers::new((0..300).map(|_| ("a", "b")));
        let block = Deflater::new().deflate(&many).unwrap();
        assert!(Inflater::new().inflate(&block).is_err());
    }

    #[test]
    fn garbage_is_refused() {
        assert!(Inflater::new().inflate(b"not zlib at all").is_err());
        assert!(Headers::decode(Bytes::from_static(&[0, 0, 0, 1, 0, 0, 0, 9, 1])).is_err());
    }
}
