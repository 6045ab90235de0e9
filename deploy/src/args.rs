//! The command line.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

/// A Kubernetes cluster on this machine.
#[derive(Debug, Parser)]
#[command(name = "ferrite", version)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts a single-node cluster, or completes one that is there.
    Up(UpOptions),
    /// Stops the cluster and removes what it made on this machine.
    Down {
        /// Also remove its data: etcd, volumes, images, certificates.
        #[arg(long)]
        purge: bool,
    },
    /// Writes container images of the daemons, as archives that `ctr images import` and `podman load` read.
    Images {
        /// Where the daemons are; the folder of this program by default.
        #[arg(long)]
        bin_dir: Option<PathBuf>,
        /// Where the archives go.
        folder: PathBuf,
    },
    /// Keeps the daemons running; `up` starts it where there is no systemd.
    #[command(hide = true)]
    Supervise,
}

/// Options of `up`.
#[derive(Clone, Debug, ClapArgs)]
pub struct UpOptions {
    /// Where the daemons are; the folder of this program by default.
    #[arg(long)]
    pub bin_dir: Option<PathBuf>,
    /// Where the add-on manifests are.
    #[arg(long, default_value = "deploy/addons")]
    pub addons: PathBuf,
    /// Address of this node; that of the default route by default.
    #[arg(long)]
    pub node_ip: Option<Ipv4Addr>,
    /// Name of this node; the host's name by default.
    #[arg(long)]
    pub node_name: Option<String>,
}
