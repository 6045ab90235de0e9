//! What upstream's daemons print as help.

use std::path::Path;

/// A flag of a daemon.
pub struct Flag {
    /// Its name.
    pub name: String,
    /// Its type as the help names it; `bool` when it names none.
    pub kind: String,
    /// Its default, as far as the help tells it.
    pub default: Option<String>,
}

impl Flag {
    /// The flag with its default, or with what stands for nothing in its type.
    pub fn word(&self) -> String {
        let none = match self.kind.as_str() {
            "bool" => "false",
            "int" | "int32" | "float" | "float32" | "Level" | "quantity" => "0",
            "duration" => "0s",
            "ip" => "127.0.0.1",
            _ => "",
        };
        let value = self.default.as_deref().unwrap_or(none);
        // Lists are printed in brackets, and given without.
        let value = if self.kind == "strings" { value.trim_matches(['[', ']']) } else { value };
        format!("--{}={value}", self.name)
    }
}

/// The flags in a recorded help text; none when there is no such file.
pub fn reference(path: &Path) -> Option<Vec<Flag>> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.lines().filter_map(flag).filter(|f| !matches!(f.name.as_str(), "help" | "version")).collect())
}

/// `      --name type     what it does (default "x")`, with a short name in front for some.
fn flag(line: &str) -> Option<Flag> {
    let line = line.strip_prefix(' ')?.trim_start();
    let line = line.split_once(", --").map_or(line, |(short, _)| &line[short.len() + 2..]);
    let (head, help) = line.strip_prefix("--")?.split_once("  ")?;
    let (name, kind) = head.split_once(' ').unwrap_or((head, "bool"));
    let end = "(default ";
    let default = help.trim().rfind(end).map(|at| {
        let rest = &help.trim()[at + end.len()..];
        let rest = rest.split_once(") (").map_or(rest, |(value, _)| value);
        rest.trim_end_matches(')').trim_matches('"').to_owned()
    });
    Some(Flag { name: name.to_owned(), kind: kind.to_owned(), default })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_help_are_read() {
        for (line, expected) in [
            (
                "      --port int32        The port. (default 10250) (DEPRECATED: use the file.)",
                Some("--port=10250"),
            ),
            ("      --name string       A name. (default \"a b\")", Some("--name=a b")),
            ("      --switch            On or off.", Some("--switch=false")),
            ("      --list strings      Some. (default [a,b])", Some("--list=a,b")),
            ("  -v, --v Level           number for the log level", Some("--v=0")),
            ("Usage:", None),
        ] {
            assert_eq!(flag(line).map(|flag| flag.word()).as_deref(), expected, "{line}");
        }
    }
}
