//! What every daemon needs before its first line of own work: flags as upstream's parser takes them, logging as
//! upstream writes it, signals, and supervised tasks.
//!
//! A daemon's `main.rs` is one call:
//!
//! ```no_run
//! #[derive(clap::Parser)]
//! struct Args {
//!     /// Address to listen on.
//!     #[arg(long, default_value = "127.0.0.1:8080")]
//!     listen: String,
//!     #[command(flatten)]
//!     logging: daemon::LoggingFlags,
//! }
//! impl daemon::Flags for Args {
//!     fn logging(&self) -> &daemon::LoggingFlags {
//!         &self.logging
//!     }
//! }
//! fn main() -> std::process::ExitCode {
//!     daemon::main::<Args, _>("exampled", async |args, tasks| {
//!         tracing::info!(listen = args.listen, "Starting");
//!         let stop = tasks.token();
//!         tasks.critical("server", async move {
//!             stop.cancelled().await;
//!             Ok(())
//!         });
//!         Ok(())
//!     })
//! }
//! ```
//!
//! Invariants: no task runs unnamed or unwatched; the end of a critical task ends the process with exit code 1; SIGTERM
//! and SIGINT cancel the one token, and what has not ended within the drain time is dropped; a second signal exits at once.

pub mod config;
pub mod duration;
pub mod features;
pub mod fixed;
pub mod flags;
pub mod leader_election;
pub mod logging;
mod run;
mod tasks;

pub use duration::GoDuration;
pub use flags::{Flags, KeyValues};
pub use leader_election::LeaderElectionFlags;
pub use logging::LoggingFlags;
pub use run::{main, main_threaded};
pub use tasks::Tasks;

/// The Kubernetes version whose behaviour every component follows.
pub const KUBERNETES_VERSION: &str = "v1.36.2";

/// The name of this host; empty when the kernel does not tell.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
