//! The kube-controller-manager binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::main("kube-controller-manager", controller_manager::run)
}
