//! The process of a pod's sandbox: holds its namespaces until it is told to end, and reaps what is left behind.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

fn main() {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    if let Err(e) = signals.thread_block() {
        eprintln!("pause: cannot block signals: {e}");
        return;
    }
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                while !matches!(
                    waitpid(None, Some(WaitPidFlag::WNOHANG)),
                    Ok(WaitStatus::StillAlive) | Err(_)
                ) {}
            }
            Ok(_) => return,
            Err(_) => {}
        }
    }
}
