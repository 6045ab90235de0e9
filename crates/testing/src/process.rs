//! Processes, and the ports that they listen on.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A port of this machine that nothing listens on now.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Asks again and again until the answer is true.
///
/// # Errors
/// It was not true in time.
pub fn wait_until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + limit;
    while !is_so() {
        if Instant::now() > end {
            bail!("not in {limit:?}: {what}");
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A process whose output is kept in a file. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; what it prints goes to the file `log`.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn start<S: AsRef<std::ffi::OsStr>>(program: &str, arguments: &[S], log: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {program}, which the tests need"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Ends the process at once, without a chance to clean up.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the process to end.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn terminate(&self) -> Result<()> {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        anyhow::ensure!(sent.success(), "kill: {sent}");
        Ok(())
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// True while the process runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the process to end by itself, and returns its exit code.
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub fn exit_code(&mut self, limit: Duration) -> Result<Option<i32>> {
        wait_until("the process ends", limit, || !self.is_running()).with_context(|| self.output())?;
        Ok(self.child.wait()?.code())
    }

    /// What the process printed so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts an etcd with its data below `dir`, and returns it with its client port.
///
/// # Errors
/// It is not installed, or does not answer.
pub fn etcd(dir: &Path) -> Result<(Process, u16)> {
    let (client, peer) = (free_port()?, free_port()?);
    let client_url = format!("http://127.0.0.1:{client}");
    let peer_url = format!("http://127.0.0.1:{peer}");
    let arguments = [
        format!("--data-dir={}", dir.join("etcd").display()),
        format!("--listen-client-urls={client_url}"),
        format!("--advertise-client-urls={client_url}"),
        format!("--listen-peer-urls={peer_url}"),
        format!("--initial-advertise-peer-urls={peer_url}"),
        format!("--initial-cluster=default={peer_url}"),
    ];
    let mut process = Process::start("etcd", &arguments, &dir.join("etcd.log"))?;
    wait_until("etcd listens", Duration::from_secs(20), || {
        !process.is_running() || TcpStream::connect((Ipv4Addr::LOCALHOST, client)).is_ok()
    })?;
    if !process.is_running() {
        bail!("etcd ended: {}", process.output());
    }
    Ok((process, client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_tell_how_they_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut process =
            Process::start("sh", &["-c", "echo said; exit 3"], &dir.path().join("log")).unwrap();
        assert_eq!(process.exit_code(Duration::from_secs(5)).unwrap(), Some(3));
        assert_eq!(process.output(), "said\n");
        assert!(Process::start("no-such-program", &[""], &dir.path().join("log")).is_err());
    }

    #[test]
    fn waiting_ends() {
        assert!(wait_until("never", Duration::from_millis(60), || false).is_err());
        assert!(wait_until("at once", Duration::ZERO, || true).is_ok());
    }
}
