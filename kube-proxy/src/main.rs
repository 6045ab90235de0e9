//! The kube-proxy binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::main("kube-proxy", kube_proxy::run)
}
