//! Every flag of upstream's kube-apiserver is known: it does something, or is refused with a reason.

use std::path::Path;

use apiserver::args::Args;
use daemon::flags::{Parsed, parse};

/// What upstream prints as help; `--etcd-servers` has no value that asks for nothing.
const REFERENCE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/reference/flags/kube-apiserver.txt");

fn with(words: &[String]) -> Result<Args, String> {
    let needed = ["--etcd-servers=http://127.0.0.1:1".to_owned()];
    match parse::<Args>("kube-apiserver", needed.into_iter().chain(words.iter().cloned())) {
        Parsed::Run(args) => Ok(args),
        Parsed::Print(text) | Parsed::Refused(text) => Err(text),
    }
}

#[test]
fn every_flag_of_upstream_is_known() {
    let Some(mut flags) = testing::flags::reference(Path::new(REFERENCE)) else {
        eprintln!("skipped: there is no {REFERENCE}");
        return;
    };
    flags.retain(|flag| flag.name != "etcd-servers");
    assert!(flags.len() > 150, "{}", flags.len());
    for flag in flags {
        let word = flag.word();
        let taken =
            with(std::slice::from_ref(&word)).and_then(|args| args.check().map_err(|e| e.to_string()));
        if let Err(why) = taken {
            assert!(flag.default.is_none() && why.contains("not"), "{word}: {why}");
            assert!(!why.contains("unknown flag"), "{word}: {why}");
        }
    }
}

#[test]
fn the_table_of_fixed_flags_is_in_order() {
    assert_eq!(daemon::fixed::check_table::<apiserver::args::Fixed>(), Ok(()));
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
