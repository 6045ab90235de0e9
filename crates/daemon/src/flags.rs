//! Flags as upstream's parser (pflag) takes them, on top of clap's derive.
//!
//! Long flags take their value after `=` or as the next word; booleans stand alone or take `=true`/`=false`; a flag given
//! twice counts once, with its last value; underscores in names are read as dashes; an unknown flag is an error that names it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::str::FromStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Parser};

use crate::logging::LoggingFlags;

/// The parsed flags of a daemon.
pub trait Flags: Parser + Send + 'static {
    /// The logging flags among them.
    fn logging(&self) -> &LoggingFlags;

    /// A word of the command line before it is parsed, for daemons whose flags are written in another style.
    fn word(word: String) -> String {
        word
    }
}

/// What the command line asks for.
pub enum Parsed<A> {
    /// To run with these flags.
    Run(A),
    /// To print this and end well.
    Print(String),
    /// Nothing that can be done: the message for people.
    Refused(String),
}

/// Reads a command line (without the program's name).
pub fn parse<A: Parser>(name: &'static str, words: impl IntoIterator<Item = String>) -> Parsed<A> {
    let mut line = vec![name.to_owned()];
    for word in words {
        match word.as_str() {
            "--version" | "--version=true" => return Parsed::Print(version_line()),
            "--version=raw" => return Parsed::Print(format!("{}\n", crate::KUBERNETES_VERSION)),
            _ => line.push(dashes(word)),
        }
    }
    let matches = command::<A>(name).try_get_matches_from(line);
    match matches.and_then(|mut m| A::from_arg_matches_mut(&mut m)) {
        Ok(args) => Parsed::Run(args),
        Err(e) if e.kind() == ErrorKind::DisplayHelp => Parsed::Print(e.to_string()),
        Err(e) => Parsed::Refused(refusal(&e)),
    }
}

fn command<A: Parser>(name: &'static str) -> clap::Command {
    let command = A::command().name(name).disable_version_flag(true).args_override_self(true);
    command.mut_args(standalone_booleans)
}

/// The flags of a command line that can be read, by name: as they were given, else their defaults; nothing where a flag has
/// none.
pub fn values<A: Parser>(
    name: &'static str,
    words: impl IntoIterator<Item = String>,
) -> BTreeMap<String, Option<String>> {
    let command = command::<A>(name);
    let names: Vec<_> = command
        .get_arguments()
        .filter_map(|arg| Some((arg.get_id().to_string(), arg.get_long()?.to_owned())))
        .filter(|(_, long)| long != "help")
        .collect();
    let line = std::iter::once(name.to_owned()).chain(words.into_iter().map(dashes));
    let Ok(matches) = command.try_get_matches_from(line) else { return BTreeMap::new() };
    let given = |id: &str| {
        let values = matches.try_get_raw(id).ok()??;
        Some(values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(","))
    };
    names.into_iter().map(|(id, long)| (long, given(&id))).collect()
}

fn version_line() -> String {
    format!("Kubernetes {}\n", crate::KUBERNETES_VERSION)
}

/// `--log_dir=x_y` is `--log-dir=x_y`.
fn dashes(word: String) -> String {
    let Some(flag) = word.strip_prefix("--") else { return word };
    match flag.split_once('=') {
        Some((name, value)) => format!("--{}={value}", name.replace('_', "-")),
        None => format!("--{}", flag.replace('_', "-")),
    }
}

/// Turns clap's bare switches into booleans that also take `=false`, and lets values start with a dash.
fn standalone_booleans(arg: Arg) -> Arg {
    if !matches!(arg.get_action(), ArgAction::SetTrue) {
        return if arg.is_positional() { arg } else { arg.allow_hyphen_values(true) };
    }
    let has_default = !arg.get_default_values().is_empty();
    let arg = standing_alone(arg);
    if has_default { arg } else { arg.default_value("false") }
}

/// A flag that is true when it stands alone, and else takes its value after `=`.
fn standing_alone(arg: Arg) -> Arg {
    arg.action(ArgAction::Set).num_args(0..=1).require_equals(true).default_missing_value("true")
}

/// A flag of a table, whose value stays text for now: a `bool` may stand alone, others may be given several times.
pub fn of_kind(name: &'static str, kind: &str, help: String) -> Arg {
    let arg = Arg::new(name).long(name).help(help);
    if kind == "bool" { standing_alone(arg) } else { arg.action(ArgAction::Append) }
}

/// A truth value in one of the spellings that Go's `strconv.ParseBool` takes; nothing for any other text.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn refusal(e: &clap::Error) -> String {
    let context = |kind| match e.get(kind) {
        Some(ContextValue::String(s)) => s.as_str(),
        _ => "",
    };
    match e.kind() {
        ErrorKind::UnknownArgument => match context(ContextKind::InvalidArg) {
            word if word.starts_with('-') => {
                format!("unknown flag: {}", word.split_once('=').map_or(word, |(n, _)| n))
            }
            word => format!("unexpected argument {word:?}"),
        },
        _ => {
            let text = e.to_string();
            let text = text.trim_start_matches("error: ");
            text.split("\n\n").next().unwrap_or(text).trim().to_owned()
        }
    }
}

/// A map given as `k=v,k=v`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValues(pub BTreeMap<String, String>);

impl FromStr for KeyValues {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let pairs = text.split(',').filter(|p| !p.trim().is_empty()).map(|pair| {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| format!("{pair} must be formatted as key=value"))?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        });
        pairs.collect::<Result<_, String>>().map(Self)
    }
}

/// A file path or other text where upstream's empty text means "not set".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(pub String);

impl FromStr for Text {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl Text {
    /// The text, unless it is empty.
    pub fn get(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(self.0.as_str())
    }
}

/// Refuses a flag whose behaviour is not supported, when it is set to something other than its default.
pub fn unsupported(flag: &str, is_default: bool) -> Result<(), String> {
    if is_default { Ok(()) } else { Err(format!("--{flag} is not supported with this value")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GoDuration;

    #[derive(Parser)]
    struct Args {
        #[arg(long, default_value_t = true)]
        leader_elect: bool,
        #[arg(long)]
        profiling: bool,
        #[arg(long, default_value = "15s")]
        lease_duration: GoDuration,
        #[arg(long, value_delimiter = ',')]
        controllers: Vec<String>,
        #[arg(long, default_value = "")]
        labels: KeyValues,
        #[command(flatten)]
        logging: LoggingFlags,
    }

    fn run(words: &[&str]) -> Args {
        match parse::<Args>("x", words.iter().map(|w| (*w).to_owned())) {
            Parsed::Run(args) => args,
            Parsed::Print(t) | Parsed::Refused(t) => panic!("{t}"),
        }
    }

    #[test]
    fn booleans_stand_alone_or_take_a_value() {
        let a = run(&[]);
        assert!(a.leader_elect && !a.profiling);
        let a = run(&["--leader-elect=false", "--profiling"]);
        assert!(!a.leader_elect && a.profiling);
        let a = run(&["--leader_elect", "--profiling=true", "--profiling=false"]);
        assert!(a.leader_elect && !a.profiling);
    }

    #[test]
    fn values_come_after_a_space_or_an_equals_sign() {
        let a = run(&[
            "--lease-duration",
            "1m",
            "--controllers=*,-job",
            "--controllers",
            "x",
            "-v=4",
            "--labels=a=b,c=",
        ]);
        assert_eq!(a.lease_duration, GoDuration::from_secs(60));
        assert_eq!(a.controllers, ["*", "-job", "x"]);
        assert_eq!(a.logging.v, 4);
        assert_eq!(a.labels.0["a"], "b");
        assert_eq!(run(&["--v", "2"]).logging.v, 2);
    }

    #[test]
    fn an_unknown_flag_is_named() {
        let refused = |words: &[&str]| match parse::<Args>("x", words.iter().map(|w| (*w).to_owned())) {
            Parsed::Refused(t) => t,
            _ => panic!("accepted {words:?}"),
        };
        assert_eq!(refused(&["--no-such=1"]), "unknown flag: --no-such");
        assert_eq!(refused(&["stray"]), "unexpected argument \"stray\"");
        assert!(refused(&["--lease-duration=x"]).contains("lease-duration"));
    }

    #[test]
    fn flags_are_shown_as_they_were_given_or_else_by_their_defaults() {
        let words = ["--lease_duration=1m", "--controllers=a,b", "--controllers=c", "--profiling"];
        let values = values::<Args>("x", words.map(str::to_owned));
        let value = |name: &str| values[name].as_deref();
        assert_eq!(value("lease-duration"), Some("1m"));
        assert_eq!((value("leader-elect"), value("profiling")), (Some("true"), Some("true")));
        assert_eq!((value("controllers"), value("v")), (Some("a,b,c"), Some("0")));
        assert!(!values.contains_key("help"));
    }

    #[test]
    fn version_prints_as_upstream() {
        let Parsed::Print(t) = parse::<Args>("x", ["--version".to_owned()]) else { panic!() };
        assert_eq!(t, "Kubernetes v1.36.2\n");
    }
}
