//! What a query asks for, and whether it can be asked.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use api::Value;
use api::field::{self, FieldError};
use jiff::Timestamp;
use regex_syntax::ast::ErrorKind;

const MOST_LINES: i64 = 100_000;
const LONGEST_SERVICE: usize = 256;
const MOST_SERVICES: usize = 4;

/// A query of the logs of services, or of one file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Query {
    pub(super) services: Vec<String>,
    pub(super) files: Vec<String>,
    pub(super) options: Options,
}

/// Which part of a service's log.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Options {
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
    pub(super) tail: Option<i64>,
    /// Which boot of the machine: 0 is this one, -1 the one before it.
    pub(super) boot: Option<i64>,
    pub(super) pattern: String,
}

impl Query {
    /// What the parameters of a request ask for; none when they ask nothing.
    pub(super) fn parse(parameters: &[(String, String)]) -> Result<Option<Self>, String> {
        let all = |name: &'static str| {
            parameters.iter().filter(move |(key, _)| key == name).map(|(_, value)| value)
        };
        let value =
            |name: &'static str| all(name).next().map(String::as_str).filter(|value| !value.is_empty());
        let mut errors = Vec::new();
        let mut query = Self::default();
        for wanted in all("query") {
            if wanted.contains(['/', '\\']) {
                query.files.push(wanted.clone());
            } else if !wanted.trim().is_empty() {
                query.services.push(wanted.clone());
            }
        }
        if all("query").next().is_some() && query.files.is_empty() && query.services.is_empty() {
            let given = Value::Array(all("query").map(|value| value.as_str().into()).collect());
            errors.push(FieldError::invalid(&field::Path::new("query"), given, "query cannot be empty"));
        }
        let mut time = |name: &'static str| {
            let text = value(name)?;
            let time = rfc3339(text);
            if time.is_none() {
                errors.push(FieldError::invalid(&field::Path::new(name), text, "invalid time format"));
            }
            time
        };
        let (since, until) = (time("sinceTime"), time("untilTime"));
        let mut number = |name: &'static str| {
            let text = value(name)?;
            let number = whole(text);
            number.map_err(|why| errors.push(FieldError::invalid(&field::Path::new(name), text, why))).ok()
        };
        let (boot, tail) = (number("boot"), number("tailLines"));
        let pattern = value("pattern").unwrap_or_default().to_owned();
        query.options = Options { since, until, tail, boot, pattern };
        aggregate(&errors)?;
        Ok((query != Self::default()).then_some(query))
    }

    /// Refuses what cannot be answered.
    pub(super) fn check(&self, logs: &Path) -> Result<(), String> {
        let path = field::Path::new("query");
        let mut errors = self.check_services(&path);
        let listed = || Value::Array(self.files.iter().map(|file| file.as_str().into()).collect());
        let of_files = |why: &str| Some(FieldError::invalid(&path, listed(), why));
        errors.extend(match (self.files.as_slice(), self.services.as_slice()) {
            ([], []) => Some(FieldError::required(&path, "cannot be empty with options")),
            ([], _) => None,
            (files, [_, ..]) => {
                let both = format!("[{}], [{}]", files.join(" "), self.services.join(" "));
                Some(FieldError::invalid(&path, both, "cannot specify a file and service"))
            }
            ([_, _, ..], _) => of_files("cannot specify more than one file"),
            (_, _) if self.options != Options::default() => of_files("cannot specify file with options"),
            ([file], _) => {
                open_beneath(logs, file).err().and_then(|error| of_files(&format!("statat {file}: {error}")))
            }
        });
        errors.extend(self.options.check());
        aggregate(&errors)
    }

    fn check_services(&self, path: &field::Path<'_>) -> Vec<FieldError> {
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_.:@".contains(c);
        let wrong = |service: &&String| {
            if service.len() > LONGEST_SERVICE {
                return Some(format!("length must be less than {LONGEST_SERVICE}"));
            }
            (!service.chars().all(safe)).then(|| "input contains unsupported characters".to_owned())
        };
        let wrongs = self.services.iter().filter_map(|service| Some((service, wrong(&service)?)));
        let mut errors: Vec<_> =
            wrongs.map(|(service, why)| FieldError::invalid(path, service.as_str(), why)).collect();
        if self.services.len() > MOST_SERVICES {
            errors.push(FieldError::too_many(path, self.services.len(), MOST_SERVICES));
        }
        errors
    }
}

impl Options {
    fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut refuse = |name: &'static str, value: Value, why: &str| {
            errors.push(FieldError::invalid(&field::Path::new(name), value, why));
        };
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since > until
        {
            refuse("untilTime", until.to_string().into(), "must be after `sinceTime`");
        }
        if let Some(boot) = self.boot.filter(|boot| *boot > 0) {
            refuse("boot", boot.into(), "must be less than 1");
        }
        if let Some(tail) = self.tail.filter(|tail| !(0..=MOST_LINES).contains(tail)) {
            refuse("tailLines", tail.into(), &format!("must be between 0 and {MOST_LINES}, inclusive"));
        }
        if let Err(error) = regex_syntax::parse(&self.pattern) {
            let why = format!("error parsing regexp: {}", complaint(&self.pattern, &error));
            refuse("pattern", self.pattern.as_str().into(), &why);
        }
        errors
    }
}

/// What is wrong with a pattern, on one line; of what people get wrong most often, in Go's words.
fn complaint(pattern: &str, error: &regex_syntax::Error) -> String {
    let error = match error {
        regex_syntax::Error::Parse(error) => error,
        regex_syntax::Error::Translate(error) => return error.kind().to_string(),
        other => return other.to_string(),
    };
    let rest = pattern.get(error.span().start.offset..).unwrap_or_default();
    let first = |count| rest.chars().take(count).collect();
    let (what, part): (_, String) = match error.kind() {
        ErrorKind::GroupUnopened => ("unexpected )", pattern.to_owned()),
        ErrorKind::GroupUnclosed => ("missing closing )", pattern.to_owned()),
        ErrorKind::ClassUnclosed => ("missing closing ]", rest.to_owned()),
        ErrorKind::RepetitionMissing => ("missing argument to repetition operator", first(1)),
        ErrorKind::EscapeUnexpectedEof => ("trailing backslash at end of expression", String::new()),
        ErrorKind::EscapeUnrecognized => ("invalid escape sequence", first(2)),
        other => return other.to_string(),
    };
    format!("{what}: `{part}`")
}

/// Several errors as one, as upstream's aggregates print: each once.
fn aggregate(errors: &[FieldError]) -> Result<(), String> {
    let mut seen = HashSet::new();
    let texts: Vec<_> = errors.iter().map(ToString::to_string).filter(|t| seen.insert(t.clone())).collect();
    match texts.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}

/// A time; what else our parser of times would take is none.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let dated = text.as_bytes().get(10) == Some(&b'T') && !text.contains([' ', '[']);
    dated.then(|| api::time::parse(text)).flatten()
}

fn whole(text: &str) -> Result<i64, String> {
    text.parse().map_err(|error: std::num::ParseIntError| {
        let why = match error.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.Atoi: parsing {}: {why}", field::go_quote(text))
    })
}

/// Opens what a query names, which no symbolic link leads out of the folder of logs. Errors read as upstream's.
// DIVERGES: upstream takes a leading slash, with which its documentation writes these paths, for one that leads out.
pub(super) fn open_beneath(logs: &Path, path: &str) -> Result<std::os::fd::OwnedFd, NotOpened> {
    let opened = linux::mount::open_beneath(logs, Path::new(path.trim_start_matches('/')));
    opened.map_err(NotOpened)
}

/// Why something below a folder cannot be opened.
#[derive(Debug)]
pub(super) struct NotOpened(pub(super) io::Error);

impl std::fmt::Display for NotOpened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.raw_os_error().map(nix::errno::Errno::from_raw) {
            Some(nix::errno::Errno::EXDEV) => f.write_str("path escapes from parent"),
            Some(errno) => f.write_str(&errno.desc().to_lowercase()),
            None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Option<Query>, String> {
        Query::parse(&crate::server::pairs(Some(query)))
    }

    #[test]
    fn parameters_are_read() {
        let query =
            parse("query=a&query=b&tailLines=5&boot=-1&pattern=x.y&sinceTime=2026-01-02T03:04:05%2B01:00");
        let query = query.unwrap().unwrap();
        assert_eq!(query.services, ["a", "b"]);
        let options = query.options;
        assert_eq!((options.tail, options.boot, options.pattern.as_str()), (Some(5), Some(-1), "x.y"));
        assert_eq!(options.since.unwrap().to_string(), "2026-01-02T02:04:05Z");
        assert_eq!(parse("query=/a.log").unwrap().unwrap().files, ["/a.log"]);
        assert_eq!(parse("other=1"), Ok(None));
    }

    #[test]
    fn what_cannot_be_read_is_told_in_upstreams_words() {
        for (query, why) in [
            ("query=", r#"query: Invalid value: [""]: query cannot be empty"#),
            ("query=+&query", r#"query: Invalid value: [" ",""]: query cannot be empty"#),
            ("query=a&sinceTime=1", r#"sinceTime: Invalid value: "1": invalid time format"#),
            (
                "query=a&untilTime=2026-01-02+03:04:05Z",
                r#"untilTime: Invalid value: "2026-01-02 03:04:05Z": invalid time format"#,
            ),
            (
                "query=a&boot=x&tailLines=99999999999999999999",
                "[boot: Invalid value: \"x\": strconv.Atoi: parsing \"x\": invalid syntax, tailLines: Invalid value: \
                 \"99999999999999999999\": strconv.Atoi: parsing \"99999999999999999999\": value out of range]",
            ),
        ] {
            assert_eq!(parse(query).unwrap_err(), why, "{query}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_told_in_upstreams_words() {
        let logs = tempfile::tempdir().unwrap();
        std::fs::write(logs.path().join("a.log"), "").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", logs.path().join("out")).unwrap();
        let long = "a".repeat(257);
        let too_long = format!("query: Invalid value: {long:?}: length must be less than 256");
        for (query, why) in [
            ("query=/a.log", ""),
            ("query=./a.log", ""),
            ("query=a&query=b&query=c&query=d", ""),
            ("boot=0", "query: Required value: cannot be empty with options"),
            (
                "query=/a&query=/b&query=c",
                "query: Invalid value: \"[/a /b], [c]\": cannot specify a file and service",
            ),
            ("query=/a&query=/b", "query: Invalid value: [\"/a\",\"/b\"]: cannot specify more than one file"),
            (
                "query=/a.log&tailLines=1",
                "query: Invalid value: [\"/a.log\"]: cannot specify file with options",
            ),
            ("query=./none", "query: Invalid value: [\"./none\"]: statat ./none: no such file or directory"),
            ("query=../x", "query: Invalid value: [\"../x\"]: statat ../x: path escapes from parent"),
            ("query=./out", "query: Invalid value: [\"./out\"]: statat ./out: path escapes from parent"),
            ("query=a;b", "query: Invalid value: \"a;b\": input contains unsupported characters"),
            (&format!("query={long}"), &too_long),
            ("query=a&query=b&query=c&query=d&query=e", "query: Too many: 5: must have at most 4 items"),
            ("query=a&boot=1", "boot: Invalid value: 1: must be less than 1"),
            ("query=a&tailLines=-1", "tailLines: Invalid value: -1: must be between 0 and 100000, inclusive"),
            (
                "query=a&pattern=(",
                "pattern: Invalid value: \"(\": error parsing regexp: missing closing ): `(`",
            ),
            (
                "query=a&pattern=x[",
                "pattern: Invalid value: \"x[\": error parsing regexp: missing closing ]: `[`",
            ),
            (
                "query=a&sinceTime=2026-01-02T00:00:00Z&untilTime=2026-01-01T00:00:00Z",
                "untilTime: Invalid value: \"2026-01-01T00:00:00Z\": must be after `sinceTime`",
            ),
        ] {
            let checked = parse(query).unwrap().unwrap().check(logs.path());
            assert_eq!(checked.err().unwrap_or_default(), why, "{query}");
        }
    }
}
