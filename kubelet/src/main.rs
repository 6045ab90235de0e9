//! The `kubelet` binary; the story is in the library part of the crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::main::<kubelet::Args, _>("kubelet", kubelet::run)
}
