//! Every flag of upstream's kubelet is known: it does something, or is refused with a reason.

use std::path::Path;

use daemon::flags::{Parsed, parse};
use kubelet::{Args, config::Config};

/// What upstream prints as help.
const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/reference/flags/kubelet.txt");

fn with(word: &str) -> Result<Config, String> {
    match parse::<Args>("kubelet", [word.to_owned()]) {
        Parsed::Run(args) => Config::load(&args).map_err(|error| format!("{error:#}")),
        Parsed::Print(text) | Parsed::Refused(text) => Err(text),
    }
}

#[test]
fn every_flag_of_upstream_is_known() {
    let Some(flags) = testing::flags::reference(Path::new(REFERENCE)) else {
        eprintln!("skipped: there is no {REFERENCE}");
        return;
    };
    assert!(flags.len() > 140, "{}", flags.len());
    for flag in flags {
        let word = flag.word();
        let expected = flag.default.is_some();
        if let Err(why) = with(&word) {
            assert!(!expected, "{word}: {why}");
            assert!(!why.contains("unknown flag"), "{word}: {why}");
        }
    }
}

#[test]
fn what_is_not_supported_is_refused_with_a_reason() {
    for (word, want) in [
        ("--no-such-flag", "unknown flag: --no-such-flag"),
        ("--lock-file=/run/lock", "there is no lock file"),
        ("--runonce", "runOnce: true is not supported"),
        ("--max-pods=many", "invalid argument \"many\" for --max-pods"),
        ("--feature-gates=NoSuchGate=true", "unrecognized feature gate: NoSuchGate"),
        ("--image-gc-high-threshold=101", "imageGCHighThresholdPercent"),
        ("--tls-min-version=VersionTLS11", "TLS 1.2 is the oldest version"),
        ("--tls-cipher-suites=NO_SUCH", "Cipher suite NO_SUCH not supported"),
        ("--cloud-provider=own", "only \"external\" is"),
    ] {
        let why = with(word).err().unwrap_or_default();
        assert!(why.contains(want), "{word}: {why}");
    }
}

#[test]
fn a_flag_reaches_the_configuration() {
    let config = with("--max-pods=7").map(|config| config.file.max_pods);
    assert_eq!(config, Ok(7));
}
