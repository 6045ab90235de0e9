//! The local-path-provisioner daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::main("local-path-provisioner", local_path::run)
}
