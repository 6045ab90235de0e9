//! What an API server costs: CPU time, latency and resident memory of the requests that clusters make most, for one server,
//! or for two with the ratios of the first to the second.
//!
//! The load goes to objects in a namespace of its own, which is deleted at the end. It should be an otherwise idle server:
//! CPU time is that of whole processes. The Pods name a scheduler that does not exist and stay pending.
//!
//! With `--node` it is a kubelet that is measured, by Pods that run on its node.

mod clients;
mod node;
mod process;
mod report;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::clients::Clients;
use crate::process::Server;
use crate::report::Report;

/// Measures one API server, or compares two.
#[derive(Clone, Debug, Parser)]
#[command(name = "benchmark")]
struct Args {
    /// How to reach the server with all rights; given twice, the first is compared to the second.
    #[arg(long, required = true, num_args = 1)]
    kubeconfig: Vec<PathBuf>,
    /// Process ids of the server, and after commas of what works for it (its etcd): memory is the first one's, CPU time
    /// that of all. One for each kubeconfig, unless they are started here.
    #[arg(long)]
    pid: Vec<String>,
    /// Shell commands that start the servers, one for each kubeconfig, to be measured from their beginning; they are
    /// ended again. `--pid` then names what else works for them.
    #[arg(long)]
    start: Vec<String>,
    /// Pods to create.
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// Connections that send at once.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Single Pods to read.
    #[arg(long, default_value_t = 10_000)]
    gets: usize,
    /// Times each list is read.
    #[arg(long, default_value_t = 20)]
    lists: usize,
    /// Watches open at once.
    #[arg(long, default_value_t = 200)]
    watchers: usize,
    /// Events for each of them.
    #[arg(long, default_value_t = 500)]
    events: usize,
    /// The node whose kubelet is measured, instead of an API server; `--pid` is the kubelet's.
    #[arg(long, default_value = "")]
    node: String,
    /// An image on the node with the command sleep.
    #[arg(long, default_value = "")]
    image: String,
    /// How many Pods are started on the node at once, one number after the other.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    at_once: Vec<usize>,
    /// Seconds for which running Pods are left alone to see what they cost.
    #[arg(long, default_value_t = 60)]
    idle: u64,
}

impl Args {
    /// The servers, started if need be.
    async fn server(&self, which: usize, report: &mut Report) -> Result<(Server, Clients)> {
        let clients = Clients::open(&self.kubeconfig[which], self.clients).await?;
        let others = self.pid.get(which).map(String::as_str).unwrap_or_default();
        let server = match self.start.get(which) {
            Some(command) => Server::start(command, others, &clients, report).await?,
            None => Server::running(others)?,
        };
        Ok((server, clients))
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(&args)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("benchmark: {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    ensure!(args.kubeconfig.len() <= 2, "two servers can be compared, not {}", args.kubeconfig.len());
    ensure!(
        args.start.len().max(args.pid.len()) == args.kubeconfig.len(),
        "each --kubeconfig needs a --pid or a --start"
    );
    ensure!(
        [args.pods, args.clients, args.gets, args.lists, args.watchers, args.events].iter().all(|n| *n > 0),
        "nothing can be measured with a count of zero"
    );
    ensure!(args.node.is_empty() == args.image.is_empty(), "--node and --image need each other");
    ensure!(args.node.is_empty() || args.start.is_empty(), "the kubelet of --node has to run already");
    let mut reports = Vec::new();
    for (which, kubeconfig) in args.kubeconfig.iter().enumerate() {
        eprintln!("measuring the server of {}", kubeconfig.display());
        let mut report = Report::default();
        let (server, clients) = args.server(which, &mut report).await?;
        let namespace = clients.make_namespace().await?;
        let measured = if args.node.is_empty() {
            steps::all(args, &server, &clients, &namespace, &mut report).await
        } else {
            node::all(args, &server, &clients, &namespace, &mut report).await
        };
        let cleaned = clients.clear(&namespace).await;
        measured.with_context(|| format!("measuring the server of {}", kubeconfig.display()))?;
        cleaned.context("removing what was measured with")?;
        reports.push(report);
    }
    print!("{}", report::table(&reports));
    Ok(())
}
