//! kube-scheduler: finds a node for every pod that has none.
//!
//! One loop takes the most important waiting pod, filters and scores the nodes, assumes the pod on the best one and lets a task
//! of its own bind it (volumes first). All decisions are made on [`cluster::Cluster`], a picture of nodes and pods kept by
//! watching, in which assumed pods already count. A pod that fits nowhere waits until something happens that could help it.
//!
//! Invariants: decisions are synchronous functions over the picture and never wait for the network; a pod is in exactly one
//! place of the [`queue::Queue`], or assumed, or bound. Mirrored are upstream's default plug-ins, weights and sentences; not here
//! are other profiles' plug-in lists, extenders, device claims and pod groups.

mod args;
mod cluster;
mod config;
mod filter;
mod metrics;
mod pod;
mod preempt;
mod queue;
mod relations;
mod run;
mod schedule;
mod score;
mod volumes;

pub use args::Args;
pub use run::run;
