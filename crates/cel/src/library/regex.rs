//! Regular expressions: linear in time, and limited in size.

use ::regex::{Error, Regex, RegexBuilder};

/// Largest compiled pattern, in bytes.
const MAX_COMPILED: usize = 1 << 20;
/// Deepest nesting of groups.
const MAX_NESTING: u32 = 200;

/// Compiles a pattern.
pub(crate) fn compile(pattern: &str) -> Result<Regex, Error> {
    // Go's `\z` is the end of the text there and here; `\Q..\E` and `\C` are not known here.
    RegexBuilder::new(pattern).size_limit(MAX_COMPILED).nest_limit(MAX_NESTING).build()
}
