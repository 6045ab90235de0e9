//! kube-proxy: makes Services work on this node by packet rules (iptables mode).
//!
//! Informers keep trimmed Services, EndpointSlices and our own Node. Whenever one changes, [`rules::plan`], a pure function,
//! makes the whole rule set; [`sync`] writes the chains that differ from what was written last, in one transaction of
//! `iptables-restore --noflush`. A canary chain shows that somebody flushed the rules, and once an hour everything is written
//! anyway. Chains and rules are upstream's, name by name, so that one daemon can follow the other without breaking a connection.
//!
//! Deliberately not here: the ipvs and nftables modes (refused), and upstream's nfacct counters.
//! Bridged pod traffic only meets these rules with `net.bridge.bridge-nf-call-iptables=1`, which the bootstrap sets.

mod args;
mod config;
mod conntrack;
mod endpoint;
mod health;
mod metrics;
mod node_ports;
mod rules;
mod run;
mod service;
mod sync;
mod sysctl;
mod topology;

pub use args::Args;
pub use run::run;
