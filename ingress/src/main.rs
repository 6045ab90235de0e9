//! The ingress-controller daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::main_threaded("ingress-controller", ingress::run)
}
