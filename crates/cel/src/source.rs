//! The text of an expression, places in it, and the messages about them in the form of cel-go.

use std::fmt;

/// How many messages are kept about one expression.
const MAX_ISSUES: usize = 100;
/// Longer lines are not shown under a message.
const MAX_SNIPPET: usize = 16384;

/// One message about a place in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Line, from 1; none when the message is about the whole expression.
    pub line: Option<u32>,
    /// Column in code points, from 0.
    pub column: u32,
    /// What is wrong.
    pub message: String,
}

/// Everything that is wrong with an expression; displays as cel-go does, with the line and a caret under each message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issues {
    list: Vec<Issue>,
    omitted: usize,
    lines: Vec<String>,
}

impl Issues {
    /// The messages in order of their places.
    pub fn list(&self) -> &[Issue] {
        &self.list
    }
}

impl std::error::Error for Issues {}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, issue) in self.list.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            let Some(line) = issue.line else {
                write!(f, "ERROR: <input>:-1:0: {}", issue.message)?;
                continue;
            };
            if self.lines.iter().all(String::is_empty) {
                // Nothing has no place.
                write!(f, "ERROR: <input>:{line}:0: {}", issue.message)?;
                continue;
            }
            write!(f, "ERROR: <input>:{line}:{}: {}", issue.column + 1, issue.message)?;
            let snippet = self.lines.get(line as usize - 1).map_or("", String::as_str);
            if snippet.len() <= MAX_SNIPPET {
                write_snippet(f, &snippet.replace('\t', " "), issue.column as usize)?;
            }
        }
        if self.omitted > 0 {
            write!(f, "\n{} more errors were truncated", self.omitted)?;
        }
        Ok(())
    }
}

/// Characters of several bytes get wide dots, so that the caret stays below its place.
fn write_snippet(f: &mut fmt::Formatter<'_>, line: &str, column: usize) -> fmt::Result {
    write!(f, "\n | {line}\n | ")?;
    let mut chars = line.chars();
    for c in chars.by_ref().take(column) {
        f.write_str(if c.len_utf8() > 1 { "\u{ff0e}" } else { "." })?;
    }
    f.write_str(if chars.next().is_some_and(|c| c.len_utf8() > 1) { "\u{ff3e}" } else { "^" })
}

/// Collects messages about one expression; places are offsets in code points.
#[derive(Debug)]
pub(crate) struct Reporter {
    line_starts: Vec<u32>,
    lines: Vec<String>,
    list: Vec<Issue>,
    omitted: usize,
}

impl Reporter {
    pub(crate) fn new(text: &str) -> Self {
        let lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
        let mut start = 0;
        let line_starts = lines
            .iter()
            .map(|line| {
                let this = start;
                start += line.chars().count() as u32 + 1;
                this
            })
            .collect();
        Self { line_starts, lines, list: Vec::new(), omitted: 0 }
    }

    /// Reports a message about the place `offset`.
    pub(crate) fn at(&mut self, offset: u32, message: impl Into<String>) {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let column = offset - self.line_starts[line - 1];
        self.push(Issue { line: Some(line as u32), column, message: message.into() });
    }

    /// Reports a message about the whole expression.
    pub(crate) fn overall(&mut self, message: impl Into<String>) {
        self.push(Issue { line: None, column: 0, message: message.into() });
    }

    fn push(&mut self, issue: Issue) {
        if self.list.len() < MAX_ISSUES {
            self.list.push(issue);
        } else {
            self.omitted += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The messages, if there are any.
    pub(crate) fn finish(mut self) -> Result<(), Issues> {
        if self.list.is_empty() {
            return Ok(());
        }
        self.list.sort_by_key(|issue| (issue.line, issue.column));
        Err(Issues { list: self.list, omitted: self.omitted, lines: self.lines })
    }
}
