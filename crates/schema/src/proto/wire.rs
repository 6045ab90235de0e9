//! The wire format: tags, varints, lengths.

use super::Error;

pub(crate) fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// A field with a varint; negative numbers take ten bytes.
pub(crate) fn int(out: &mut Vec<u8>, number: u32, n: i64) {
    varint(out, u64::from(number) << 3);
    varint(out, n as u64);
}

pub(crate) fn double(out: &mut Vec<u8>, number: u32, n: f64) {
    varint(out, u64::from(number) << 3 | 1);
    out.extend(n.to_le_bytes());
}

pub(crate) fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    varint(out, u64::from(number) << 3 | 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

/// A field with a message that `write` writes.
pub(crate) fn nested(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    varint(out, u64::from(number) << 3 | 2);
    let start = out.len();
    // Most messages are shorter than 128 bytes: one byte for the length is reserved, more are made when needed.
    out.push(0);
    write(out);
    let len = out.len() - start - 1;
    if len < 0x80 {
        out[start] = len as u8;
    } else {
        let mut prefix = Vec::with_capacity(5);
        varint(&mut prefix, len as u64);
        out.splice(start..=start, prefix);
    }
}

/// The value of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Error> {
        match self {
            Field::Bytes(b) => Ok(b),
            _ => Err(Error::Malformed("wrong wire type, expected bytes")),
        }
    }

    pub(super) fn str(self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Error::Malformed("string is not UTF-8"))
    }

    pub(super) fn int(self) -> Result<i64, Error> {
        match self {
            Field::Varint(n) => Ok(n as i64),
            _ => Err(Error::Malformed("wrong wire type, expected varint")),
        }
    }

    pub(super) fn double(self) -> Result<f64, Error> {
        match self {
            Field::Fixed64(b) => Ok(f64::from_le_bytes(b)),
            _ => Err(Error::Malformed("wrong wire type, expected double")),
        }
    }
}

/// Reads the fields of a message.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, Error> {
        let mut out = 0u64;
        for shift in (0..70).step_by(7) {
            let (first, rest) = self.0.split_first().ok_or(Error::Truncated)?;
            self.0 = rest;
            if shift == 63 && *first > 1 {
                break;
            }
            out |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(out);
            }
        }
        Err(Error::Malformed("integer overflow"))
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], Error> {
        let n = usize::try_from(n).map_err(|_| Error::Truncated)?;
        let (head, rest) = self.0.split_at_checked(n).ok_or(Error::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    /// The next field with its number; none at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u32, Field<'a>)>, Error> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Error::Malformed("illegal tag"))?;
        if number == 0 {
            return Err(Error::Malformed("illegal tag 0"));
        }
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(self.take(8)?.try_into().map_err(|_| Error::Truncated)?),
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(len)?)
            }
            5 => {
                self.take(4)?;
                Field::Fixed32
            }
            _ => return Err(Error::Malformed("illegal wireType")),
        };
        Ok(Some((number, field)))
    }
}
