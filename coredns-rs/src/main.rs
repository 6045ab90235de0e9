//! The coredns-rs binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::main("coredns-rs", coredns_rs::run)
}
