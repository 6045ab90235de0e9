//! What functions are called with, and which function a name is.

use std::collections::HashMap;
use std::sync::Arc;

use ::regex::Regex;

use crate::value::{EvalError, List, Outcome, Val};

/// A function over values.
pub(crate) type Builtin = for<'a> fn(&mut Call<'_>, &[Val<'a>]) -> Outcome<'a>;

/// Longest text that a function makes, in bytes. DIVERGES: upstream has no limit but the memory.
const MAX_TEXT: usize = 16 << 20;
/// Longest list that a function makes; more does not fit a request.
const MAX_LIST: usize = 2_000_000;
/// Most patterns that are kept compiled during one evaluation.
const MAX_PATTERNS: usize = 64;

/// Patterns compiled during one evaluation, so that a loop compiles each once.
#[derive(Debug, Default)]
pub(crate) struct Patterns(HashMap<Box<str>, Arc<Regex>>);

/// What a function may know of its call.
pub(crate) struct Call<'c> {
    /// The overload, if it is known before the values are.
    pub(crate) overload: &'static str,
    pub(crate) patterns: &'c mut Patterns,
}

impl Call<'_> {
    /// The compiled pattern.
    pub(crate) fn pattern(&mut self, text: &str) -> Result<Arc<Regex>, String> {
        if let Some(known) = self.patterns.0.get(text) {
            return Ok(known.clone());
        }
        let compiled = Arc::new(super::regex::compile(text)?);
        if self.patterns.0.len() >= MAX_PATTERNS {
            self.patterns.0.clear();
        }
        self.patterns.0.insert(text.into(), compiled.clone());
        Ok(compiled)
    }
}

/// The error of a function that is called with values of the wrong types.
pub(crate) fn no_overload<'a>() -> Outcome<'a> {
    Err(EvalError::no_overload())
}

/// An error of a function.
pub(crate) fn fail<'a>(message: impl Into<Arc<str>>) -> Outcome<'a> {
    Err(EvalError::new(message))
}

/// Text as a value, unless it is too long.
pub(crate) fn text<'a>(text: impl Into<String>) -> Outcome<'a> {
    let text = text.into();
    fits(text.len())?;
    Ok(Val::string(text))
}

/// Refuses to make text that is too long.
pub(crate) fn fits(bytes: usize) -> Result<(), EvalError> {
    if bytes > MAX_TEXT { Err(EvalError::new("string is too long")) } else { Ok(()) }
}

/// Refuses to make a list that is too long.
pub(crate) fn list_fits(items: usize) -> Result<(), EvalError> {
    if items > MAX_LIST { Err(EvalError::new("list is too long")) } else { Ok(()) }
}

/// The items of a list argument.
pub(crate) fn items<'a>(list: &List<'a>) -> Result<Vec<Val<'a>>, EvalError> {
    list.to_vec()
}

/// The function called `name`.
pub(crate) fn builtin(name: &str) -> Option<Builtin> {
    [
        super::standard::find,
        super::convert::find,
        super::time::find,
        super::strings::find,
        super::lists::find,
        super::optional::find,
        super::regex::find,
        super::url::find,
        super::quantity::find,
        super::net::find,
        super::formats::find,
        super::semver::find,
        super::authz::find,
    ]
    .into_iter()
    .find_map(|find| find(name))
}
