//! From the command line to the exit code.

use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use crate::flags::{self, Flags, Parsed};
use crate::tasks::Tasks;

/// How long tasks may take to end after a signal.
const DRAIN: Duration = Duration::from_secs(30);

/// Stack of a thread, of which only what is used takes memory. Documents of clients nest, and so do calls of those who read
/// them: an overflow would end the daemon.
const STACK: usize = 8 << 20;

/// Runs a daemon on one thread: parses flags, sets up logging, calls `setup`, which starts tasks and returns, and waits for
/// their end or a signal. Exit code 0 after a signal or when all tasks ended well, 1 otherwise.
pub fn main<A, S>(name: &'static str, setup: S) -> ExitCode
where
    A: Flags,
    S: AsyncFnOnce(A, Tasks) -> anyhow::Result<()>,
{
    start(name, Builder::new_current_thread(), setup)
}

/// Like [`main`], on as many threads as the machine has processors.
pub fn main_threaded<A, S>(name: &'static str, setup: S) -> ExitCode
where
    A: Flags,
    S: AsyncFnOnce(A, Tasks) -> anyhow::Result<()>,
{
    start(name, Builder::new_multi_thread(), setup)
}

fn start<A, S>(name: &'static str, mut runtime: Builder, setup: S) -> ExitCode
where
    A: Flags,
    S: AsyncFnOnce(A, Tasks) -> anyhow::Result<()>,
{
    let args = match flags::parse::<A>(name, std::env::args().skip(1).map(A::word)) {
        Parsed::Run(args) => args,
        Parsed::Print(text) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Parsed::Refused(why) => {
            eprintln!("Error: {why}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(why) = args.logging().init() {
        eprintln!("Error: {why}");
        return ExitCode::FAILURE;
    }
    let runtime = match runtime.enable_all().thread_name(name).thread_stack_size(STACK).build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("Error: cannot start the runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(supervise(args, setup));
    // Blocking work (a name look-up, a slow disk) must not hold up the end.
    runtime.shutdown_background();
    code
}

async fn supervise<A, S>(args: A, setup: S) -> ExitCode
where
    S: AsyncFnOnce(A, Tasks) -> anyhow::Result<()>,
{
    let tasks = Tasks::new();
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        error!("Cannot listen for signals");
        return ExitCode::FAILURE;
    };
    let mut signalled = async || {
        tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" }
    };
    let token = tasks.token();
    let work = async {
        setup(args, tasks.clone()).await?;
        tasks.ended().await;
        anyhow::Ok(())
    };
    tokio::pin!(work);
    let result = tokio::select! {
        result = &mut work => result,
        signal = signalled() => {
            info!(signal, "Shutting down");
            let lingering = tokio::time::sleep(tasks.ask());
            tokio::select! {
                result = &mut work => result,
                signal = signalled() => Err(anyhow::anyhow!("{signal} again while shutting down")),
                () = token.cancelled() => drain(&mut work, &mut signalled).await,
                () = lingering => {
                    tasks.cancel();
                    drain(&mut work, &mut signalled).await
                }
            }
        }
        () = token.cancelled() => drain(&mut work, &mut signalled).await,
    };
    match (result, tasks.failure()) {
        (Ok(()), None) => ExitCode::SUCCESS,
        (Ok(()), Some(_)) => ExitCode::FAILURE,
        (Err(e), _) => {
            error!(err = format!("{e:#}"), "Cannot run");
            eprintln!("Error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for the work to end, but no longer than the drain time or the next signal.
async fn drain(
    work: impl Future<Output = anyhow::Result<()>>,
    signalled: &mut impl AsyncFnMut() -> &'static str,
) -> anyhow::Result<()> {
    tokio::select! {
        result = work => result,
        signal = signalled() => anyhow::bail!("{signal} again while shutting down"),
        () = tokio::time::sleep(DRAIN) => anyhow::bail!("tasks did not end within {} s", DRAIN.as_secs()),
    }
}
