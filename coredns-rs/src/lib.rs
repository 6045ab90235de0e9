//! coredns-rs: the cluster's DNS server, configured by a Corefile.
//!
//! A [`zone::Zone`] is a server block of the Corefile; a question goes to the block with the longest matching name and there,
//! in CoreDNS' own order, through hosts, kubernetes and forward (behind a cache). Answers for Services come from
//! [`cluster::answer`], a pure function over what the informers hold.
//!
//! Deliberately not here: plug-ins other than errors, log, health, ready, kubernetes, hosts, prometheus, forward, cache, loop,
//! reload and loadbalance (refused), zone transfers, DNSSEC, DNS over TLS and HTTPS.

mod args;
mod cache;
mod cluster;
mod corefile;
mod forward;
mod handler;
mod hosts;
mod records;
mod run;
mod zone;

pub use args::Args;
pub use run::run;
