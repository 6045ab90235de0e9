//! Every flag of upstream's kube-apiserver is known: it does something, or is refused with a reason.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use apiserver::args::Args;
use daemon::flags::{Parsed, parse};

/// What upstream prints as help; `--etcd-servers` has no value that asks for nothing.
const REFERENCE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/reference/flags/kube-apiserver.txt");

/// A flag with its type and its default, as far as upstream tells it.
struct Flag {
    name: String,
    kind: String,
    default: Option<String>,
}

fn reference() -> Option<Vec<Flag>> {
    let text = std::fs::read_to_string(Path::new(REFERENCE)).ok()?;
    let line = regex::Regex::new(r"^\s+(?:-\w, )?--([a-z0-9-]+)(?: (\S+))?\s{2,}(.*)$").unwrap();
    let default = regex::Regex::new(r#"\(default "?(.*?)"?\)\s*$"#).unwrap();
    let flags = text.lines().filter_map(|l| line.captures(l)).map(|found| Flag {
        name: found[1].to_owned(),
        kind: found.get(2).map_or("bool", |m| m.as_str()).to_owned(),
        default: default.captures(&found[3]).map(|d| d[1].to_owned()),
    });
    Some(flags.filter(|f| !matches!(f.name.as_str(), "help" | "version" | "etcd-servers")).collect())
}

fn with(words: &[String]) -> Result<Args, String> {
    let needed = ["--etcd-servers=http://127.0.0.1:1".to_owned()];
    match parse::<Args>("kube-apiserver", needed.into_iter().chain(words.iter().cloned())) {
        Parsed::Run(args) => Ok(args),
        Parsed::Print(text) | Parsed::Refused(text) => Err(text),
    }
}

#[test]
fn every_flag_of_upstream_is_known() {
    let Some(flags) = reference() else {
        eprintln!("skipped: there is no {REFERENCE}");
        return;
    };
    assert!(flags.len() > 150, "{}", flags.len());
    for Flag { name, kind, default } in flags {
        let none = match kind.as_str() {
            "bool" => "false",
            "int" | "float" | "float32" | "Level" | "quantity" => "0",
            "duration" => "0s",
            "ip" => "127.0.0.1",
            _ => "",
        };
        let word = format!("--{name}={}", default.as_deref().unwrap_or(none));
        let taken =
            with(std::slice::from_ref(&word)).and_then(|args| args.check().map_err(|e| e.to_string()));
        if let Err(why) = taken {
            assert!(default.is_none() && why.contains("not"), "{word}: {why}");
            assert!(!why.contains("unknown flag"), "{word}: {why}");
        }
    }
}

#[test]
fn what_is_not_supported_is_refused_with_a_reason() {
    for (flag, want) in [
        ("--watch-cache=false", "everything is served from watch caches"),
        ("--no-such-flag", "unknown flag: --no-such-flag"),
        ("--feature-gates=ServiceAccountTokenJTI=false", "locked to true"),
        ("--feature-gates=NoSuchGate=true", "unrecognized feature gate: NoSuchGate"),
    ] {
        let refused = with(&[flag.to_owned()]).and_then(|args| args.check().map_err(|e| e.to_string()));
        let why = refused.err().unwrap();
        assert!(why.contains(want), "{flag}: {why}");
    }
}
