//! Frames for fuzzing: header blocks are compressed in one stream, which no mutation of bytes would keep in order.

use super::frame::FrameHead;
use super::headers::Deflater;

/// Frames with their header blocks compressed; what follows the last whole frame stays as it is.
pub(crate) fn compressed(mut frames: &[u8]) -> Vec<u8> {
    let (mut out, mut deflater) = (Vec::with_capacity(frames.len()), Deflater::new());
    while let Some((head, rest)) = frames.split_first_chunk::<8>() {
        let (kind, len) = match FrameHead::decode(*head) {
            Ok(FrameHead::Control { kind, len, .. }) => (kind, len),
            Ok(FrameHead::Data { len, .. }) => (0, len),
            Err(_) => break,
        };
        let Some((body, after)) = rest.split_at_checked(len) else { break };
        let before_block = match kind {
            1 => 10,
            2 | 8 => 4,
            _ => len,
        };
        let Some((fixed, block)) = body.split_at_checked(before_block) else { break };
        let block = if block.is_empty() {
            Vec::new()
        } else {
            deflater.block(block).expect("any bytes are compressed").to_vec()
        };
        out.extend_from_slice(&head[..5]);
        out.extend_from_slice(&((fixed.len() + block.len()) as u32).to_be_bytes()[1..]);
        out.extend_from_slice(fixed);
        out.extend_from_slice(&block);
        frames = after;
    }
    out.extend_from_slice(frames);
    out
}
