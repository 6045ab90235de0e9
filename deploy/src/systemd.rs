//! The daemons as units: where systemd runs, it keeps them running.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cluster::Cluster;
use crate::files;
use crate::process::{self, Process};

/// Units hide the homes of users, so the daemons cannot stay where they were built.
const PROGRAMS: &str = "/usr/local/bin";
const UNITS: &str = "/etc/systemd/system";
const FLAGS: &str = "/etc/ferrite";

/// Whether this machine is run by systemd.
pub fn is_here() -> bool {
    Path::new("/run/systemd/system").exists()
}

fn unit(process: &Process) -> String {
    format!("ferrite-{}.service", process.name)
}

/// A program of ours where its unit looks for it; none for programs of the system.
fn installed(process: &Process) -> Option<PathBuf> {
    process.program.is_absolute().then(|| Path::new(PROGRAMS).join(process.name))
}

/// Installs and starts a unit for each daemon, and restarts those that have changed.
pub fn start(cluster: &Cluster) -> Result<()> {
    let (mut units, mut changed) = (Vec::new(), Vec::new());
    for process in process::all(cluster) {
        if install(&process)? {
            changed.push(unit(&process));
        }
        units.push(unit(&process));
    }
    systemctl(&["daemon-reload"], &[])?;
    systemctl(&["enable", "--quiet"], &units)?;
    if !changed.is_empty() {
        systemctl(&["restart"], &changed)?;
    }
    systemctl(&["start"], &units)
}

/// Puts program, flags and unit in their places; true when one of them was another before.
fn install(process: &Process) -> Result<bool> {
    let mut environment = format!("FLAGS={}\n", process.args.join(" "));
    for (name, value) in &process.env {
        environment.push_str(&format!("{name}={value}\n"));
    }
    let flags = Path::new(FLAGS).join(format!("{}.env", process.name));
    let mut changed = files::write(&flags, environment.as_bytes(), 0o600)?;
    let source = Path::new("systemd").join(unit(process));
    let text = std::fs::read(&source).with_context(|| format!("reading {}", source.display()))?;
    changed |= files::write(&Path::new(UNITS).join(unit(process)), &text, 0o644)?;
    if let Some(place) = installed(process) {
        let program = std::fs::read(&process.program)
            .with_context(|| format!("the binary {} is missing", process.program.display()))?;
        changed |= files::write(&place, &program, 0o755)?;
    }
    Ok(changed)
}

/// Stops the units and removes what [`start`] installed.
pub fn stop(cluster: &Cluster) {
    let processes = process::all(cluster);
    let units: Vec<String> = processes.iter().rev().map(unit).collect();
    if let Err(e) = systemctl(&["disable", "--quiet", "--now"], &units) {
        eprintln!("{e:#}");
    }
    for process in &processes {
        let unit = Path::new(UNITS).join(unit(process));
        for path in installed(process).into_iter().chain([unit]) {
            if path.exists()
                && let Err(e) = std::fs::remove_file(&path)
            {
                eprintln!("not removed: {}: {e}", path.display());
            }
        }
    }
    if let Err(e) = systemctl(&["daemon-reload"], &[]) {
        eprintln!("{e:#}");
    }
}

fn systemctl(words: &[&str], units: &[String]) -> Result<()> {
    let status = Command::new("systemctl").args(words).args(units).status().context("running systemctl")?;
    if !status.success() {
        bail!("systemctl {} failed: {status}; see journalctl -u 'ferrite-*'", words.join(" "));
    }
    Ok(())
}
