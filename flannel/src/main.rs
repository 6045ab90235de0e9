//! The flanneld binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::main("flanneld", flannel::run)
}
