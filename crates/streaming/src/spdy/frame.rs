//! Encoding and decoding of single frames; no state but the header compression contexts.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Error;

/// The version in every control frame.
const VERSION: u16 = 3;
/// Control frames above this size are refused: the biggest legitimate ones are header blocks.
pub(super) const MAX_CONTROL: usize = 256 << 10;
/// `FLAG_FIN`: the sender will send nothing more on the stream.
pub(super) const FIN: u8 = 0x01;
/// `FLAG_UNIDIRECTIONAL` of SYN_STREAM: the receiver may not answer.
pub(super) const UNIDIRECTIONAL: u8 = 0x02;
/// The id of `SETTINGS_MAX_CONCURRENT_STREAMS`.
pub(super) const MAX_CONCURRENT_STREAMS: u32 = 4;
/// The id of `SETTINGS_INITIAL_WINDOW_SIZE`.
pub(super) const INITIAL_WINDOW_SIZE: u32 = 7;

/// Why a stream was reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RstStatus {
    /// 1: a protocol violation on this stream.
    ProtocolError,
    /// 2: a frame for a stream that is not open.
    InvalidStream,
    /// 3: the stream was refused before any of it was processed.
    RefusedStream,
    /// 5: the stream is no longer wanted.
    Cancel,
    /// 7: the peer sent more than its window.
    FlowControlError,
    /// Any other code.
    Other(u32),
}

impl RstStatus {
    pub(super) fn code(self) -> u32 {
        match self {
            Self::ProtocolError => 1,
            Self::InvalidStream => 2,
            Self::RefusedStream => 3,
            Self::Cancel => 5,
            Self::FlowControlError => 7,
            Self::Other(code) => code,
        }
    }

    fn from_code(code: u32) -> Self {
        match code {
            1 => Self::ProtocolError,
            2 => Self::InvalidStream,
            3 => Self::RefusedStream,
            5 => Self::Cancel,
            7 => Self::FlowControlError,
            other => Self::Other(other),
        }
    }
}

/// The eight bytes in front of every frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameHead {
    Control { kind: u16, flags: u8, len: usize },
    Data { stream: u32, flags: u8, len: usize },
}

impl FrameHead {
    pub(super) fn decode(head: [u8; 8]) -> Result<Self, Error> {
        let mut head = &head[..];
        let first = head.get_u32();
        let second = head.get_u32();
        let (flags, len) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
        if first & 0x8000_0000 == 0 {
            return Ok(Self::Data { stream: first, flags, len });
        }
        if ((first >> 16) & 0x7fff) as u16 != VERSION {
            return Err(Error::Protocol("unsupported version"));
        }
        if len > MAX_CONTROL {
            return Err(Error::Protocol("control frame too large"));
        }
        Ok(Self::Control { kind: (first & 0xffff) as u16, flags, len })
    }
}

/// A control frame, its header block still compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Control {
    SynStream {
        stream: u32,
        fin: bool,
        unidirectional: bool,
        block: Bytes,
    },
    SynReply {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    RstStream {
        stream: u32,
        status: RstStatus,
    },
    Settings(Vec<(u32, u32)>),
    Ping(u32),
    GoAway {
        last: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// A kind that this version need not understand.
    Unknown(u16),
}

impl Control {
    pub(super) fn decode(kind: u16, flags: u8, mut body: Bytes) -> Result<Self, Error> {
        let fin = flags & FIN != 0;
        let least = match kind {
            1 => 10,
            3 | 9 | 7 => 8,
            2 | 4 | 6 | 8 => 4,
            _ => 0,
        };
        if body.len() < least {
            return Err(Error::Protocol("control frame too short"));
        }
        Ok(match kind {
            1 => {
                let stream = body.get_u32() & 0x7fff_ffff;
                body.advance(6); // associated stream, priority, credential slot
                Self::SynStream { stream, fin, unidirectional: flags & UNIDIRECTIONAL != 0, block: body }
            }
            2 => Self::SynReply { stream: body.get_u32() & 0x7fff_ffff, fin, block: body },
            3 => {
                let stream = body.get_u32() & 0x7fff_ffff;
                Self::RstStream { stream, status: RstStatus::from_code(body.get_u32()) }
            }
            4 => Self::Settings(decode_settings(body)?),
            6 => Self::Ping(body.get_u32()),
            7 => Self::GoAway { last: body.get_u32() & 0x7fff_ffff },
            8 => Self::Headers { stream: body.get_u32() & 0x7fff_ffff, fin, block: body },
            9 => {
                let stream = body.get_u32() & 0x7fff_ffff;
                Self::WindowUpdate { stream, delta: body.get_u32() & 0x7fff_ffff }
            }
            other => Self::Unknown(other),
        })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::SynStream { stream, fin, unidirectional, block } => {
                let flags = flag(*fin, FIN) | flag(*unidirectional, UNIDIRECTIONAL);
                head(out, 1, flags, 10 + block.len());
                out.put_u32(*stream);
                out.put_u32(0);
                out.put_u16(0);
                out.extend_from_slice(block);
            }
            Self::SynReply { stream, fin, block } => with_block(out, 2, *stream, *fin, block),
            Self::Headers { stream, fin, block } => with_block(out, 8, *stream, *fin, block),
            Self::RstStream { stream, status } => two_words(out, 3, *stream, status.code()),
            Self::Settings(entries) => {
                head(out, 4, 0, 4 + 8 * entries.len());
                out.put_u32(entries.len() as u32);
                for (id, value) in entries {
                    out.put_u32(*id & 0x00ff_ffff);
                    out.put_u32(*value);
                }
            }
            Self::Ping(id) => {
                head(out, 6, 0, 4);
                out.put_u32(*id);
            }
            Self::GoAway { last } => two_words(out, 7, *last, 0),
            Self::WindowUpdate { stream, delta } => two_words(out, 9, *stream, *delta),
            Self::Unknown(kind) => head(out, *kind, 0, 0),
        }
    }
}

fn decode_settings(mut body: Bytes) -> Result<Vec<(u32, u32)>, Error> {
    let count = body.get_u32() as usize;
    if body.len() != count * 8 {
        return Err(Error::Protocol("settings frame of the wrong length"));
    }
    Ok((0..count).map(|_| (body.get_u32() & 0x00ff_ffff, body.get_u32())).collect())
}

/// Writes the head of a data frame of `len` bytes.
pub(super) fn data_head(stream: u32, fin: bool, len: usize) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&stream.to_be_bytes());
    out[4..].copy_from_slice(&(len as u32).to_be_bytes());
    out[4] = flag(fin, FIN);
    out
}

fn flag(on: bool, bit: u8) -> u8 {
    if on { bit } else { 0 }
}

fn head(out: &mut BytesMut, kind: u16, flags: u8, len: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32((u32::from(flags) << 24) | len as u32);
}

fn two_words(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    head(out, kind, 0, 8);
    out.put_u32(first);
    out.put_u32(second);
}

fn with_block(out: &mut BytesMut, kind: u16, stream: u32, fin: bool, block: &Bytes) {
    head(out, kind, flag(fin, FIN), 4 + block.len());
    out.put_u32(stream);
    out.extend_from_slice(block);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_frames_survive_a_round_trip() {
        let block = Bytes::from_static(b"block");
        for frame in [
            Control::SynStream { stream: 1, fin: true, unidirectional: false, block: block.clone() },
            Control::SynReply { stream: 3, fin: false, block: block.clone() },
            Control::RstStream { stream: 5, status: RstStatus::Cancel },
            Control::Settings(vec![(MAX_CONCURRENT_STREAMS, 100), (INITIAL_WINDOW_SIZE, 65536)]),
            Control::Ping(7),
            Control::GoAway { last: 9 },
            Control::Headers { stream: 11, fin: true, block },
            Control::WindowUpdate { stream: 0, delta: 17 },
        ] {
            let mut wire = BytesMut::new();
            frame.encode(&mut wire);
            let head: [u8; 8] = wire.split_to(8)[..].try_into().unwrap();
            let FrameHead::Control { kind, flags, len } = FrameHead::decode(head).unwrap() else {
                panic!("a control frame decoded as data")
            };
            assert_eq!(len, wire.len());
            assert_eq!(Control::decode(kind, flags, wire.freeze()).unwrap(), frame);
        }
    }

    #[test]
    fn short_and_oversized_frames_are_refused() {
        for kind in 1..=9 {
            let decoded = Control::decode(kind, 0, Bytes::new());
            assert!(decoded.is_err() || kind == 5, "kind {kind}");
        }
        assert!(FrameHead::decode([0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]).is_err());
        assert!(FrameHead::decode([0x80, 2, 0, 1, 0, 0, 0, 8]).is_err());
    }
}
