//! The processes that are measured, as `/proc` shows them (proc_pid_stat(5), proc_pid_status(5)).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};

use crate::clients::Clients;
use crate::report::Report;

/// Time that a server may take to become ready.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Units of CPU time per second: USER_HZ, which Linux fixes at 100 for what it shows to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// A server's process and those that work for it.
#[derive(Debug)]
pub(crate) struct Server {
    server: u32,
    all: Vec<u32>,
    /// Set when it was started here: it ends with this value.
    _started: Option<Child>,
}

impl Server {
    /// Processes that run already: ids with commas between, the server's first.
    pub(crate) fn running(pids: &str) -> Result<Self> {
        let all = parse(pids)?;
        let server = *all.first().context("no process id of the server")?;
        let this = Self { server, all, _started: None };
        this.cpu()?;
        Ok(this)
    }

    /// Starts a server and waits until it is ready.
    pub(crate) async fn start(
        command: &str,
        others: &str,
        clients: &Clients,
        report: &mut Report,
    ) -> Result<Self> {
        let begun = Instant::now();
        let child = Command::new("sh").arg("-c").arg(format!("exec {command}")).kill_on_drop(true).spawn()?;
        let server = child.id().context("the server ended at once")?;
        let all = std::iter::once(server).chain(parse(others)?).collect();
        let mut this = Self { server, all, _started: Some(child) };
        while !clients.ready().await {
            ensure!(
                begun.elapsed() < READY_LIMIT,
                "the server is not ready after {} s",
                READY_LIMIT.as_secs()
            );
            if let Some(child) = &mut this._started
                && let Some(status) = child.try_wait()?
            {
                anyhow::bail!("the server ended before it was ready: {status}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        report.time("start to ready", begun.elapsed());
        Ok(this)
    }

    /// CPU time that all processes have used.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.all.iter().try_fold(Duration::ZERO, |sum, pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .with_context(|| format!("reading the CPU time of process {pid}"))?;
            Ok(sum + cpu_time(&stat).with_context(|| format!("reading the CPU time of process {pid}"))?)
        })
    }

    /// Resident memory of the server, in megabytes of 2^20 bytes.
    pub(crate) fn resident(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: f64 = line.trim().trim_end_matches("kB").trim_end().parse()?;
        Ok(kilobytes / 1024.0)
    }
}

fn parse(pids: &str) -> Result<Vec<u32>> {
    let pids = pids.split(',').filter(|p| !p.is_empty());
    pids.map(|p| p.parse().with_context(|| format!("{p:?} is not a process id"))).collect()
}

/// User and system time of a line of `/proc/PID/stat`. The command's name may hold anything but ends with the last
/// parenthesis.
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some(Duration::from_secs_f64((ticks()? + ticks()?) / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 9 10 11";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_time("7 (x) S 1"), None);
    }

    #[test]
    fn this_process_is_measured() {
        let server = Server::running(&std::process::id().to_string()).unwrap();
        assert!(server.resident().unwrap() > 0.5);
        server.cpu().unwrap();
        assert!(Server::running("").is_err());
        assert!(Server::running("1,x").is_err());
    }
}
