//! The CNI plugin `flannel`: hands over to `bridge` (or another plugin) with what flanneld wrote about this node.

use std::process::ExitCode;

fn main() -> ExitCode {
    flannel::plugin::main()
}
