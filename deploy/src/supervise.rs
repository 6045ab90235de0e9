//! Keeps the daemons running where there is no systemd: restarts with back-off, a log per daemon, an orderly end.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, LOGS};
use crate::process::{self, Process};

const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A process that ran this long starts again with the shortest pause.
const STEADY: Duration = Duration::from_secs(30);
/// How long a process may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(20);
/// A log that is larger when its daemon starts is put aside.
const LOG_MAX: u64 = 64 << 20;

/// The supervisor process.
pub fn main() -> ExitCode {
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
        .and_then(|runtime| runtime.block_on(run()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ferrite: {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let cluster = Cluster::load()?.context("there is no cluster on this machine: run ferrite up")?;
    let pid_file = process::supervisor_pid();
    crate::files::write(&pid_file, std::process::id().to_string().as_bytes(), 0o644)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut running = Vec::new();
    for process in process::all(&cluster) {
        let (name, stop) = (process.name, CancellationToken::new());
        let mut task = JoinSet::new();
        task.spawn(keep(process, stop.clone()));
        running.push((name, stop, task));
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // The last that was started is the first to end: nothing outlives what it needs.
    for (name, stop, mut task) in running.into_iter().rev() {
        note(&format!("stopping {name}"));
        stop.cancel();
        while task.join_next().await.is_some() {}
    }
    drop(std::fs::remove_file(&pid_file));
    Ok(())
}

fn note(text: &str) {
    println!("{} {text}", jiff::Timestamp::now());
}

/// Runs a process again and again until `stop`.
async fn keep(process: Process, stop: CancellationToken) {
    let mut pause = BACKOFF_FIRST;
    loop {
        let started = Instant::now();
        match spawn(&process) {
            Ok(mut child) => {
                note(&format!("started {} as process {}", process.name, child.id().unwrap_or(0)));
                tokio::select! {
                    ended = child.wait() => {
                        let how = ended.map_or_else(|e| e.to_string(), |s| s.to_string());
                        note(&format!("{} ended: {how}; see {LOGS}/{}.log", process.name, process.name));
                    }
                    () = stop.cancelled() => return end(child).await,
                }
            }
            Err(e) => note(&format!("cannot start {}: {e:#}", process.name)),
        }
        if started.elapsed() > STEADY {
            pause = BACKOFF_FIRST;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}

fn spawn(process: &Process) -> Result<Child> {
    let log = open_log(process.name)?;
    Command::new(&process.program)
        .args(&process.args)
        .envs(process.env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("running {}", process.program.display()))
}

fn open_log(name: &str) -> Result<File> {
    let path = Path::new(LOGS).join(format!("{name}.log"));
    if path.metadata().is_ok_and(|m| m.len() > LOG_MAX) {
        std::fs::rename(&path, path.with_extension("log.1"))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))
}

async fn end(mut child: Child) {
    let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) else { return };
    if let Err(e) = kill(Pid::from_raw(id), Signal::SIGTERM) {
        note(&format!("process {id} cannot be asked to end: {e}"));
    }
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
        drop(child.kill().await);
    }
}
