//! The kube-scheduler binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::main("kube-scheduler", scheduler::run)
}
