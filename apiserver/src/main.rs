//! The kube-apiserver daemon.

use std::process::ExitCode;

use apiserver::args::Args;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    daemon::main_threaded::<Args, _>("kube-apiserver", async |args, tasks| {
        let config = args.validate()?;
        apiserver::run::run(config, tasks).await
    })
}
