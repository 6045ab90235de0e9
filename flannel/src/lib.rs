//! flanneld: the pod network between nodes.
//!
//! Every node's pod range comes from its Node (`spec.podCIDR`). Nodes tell one another how to be reached by upstream's
//! annotations, so nodes of both kinds can share a network. `peers::plan`, a pure function, says which routes (and for VXLAN
//! which neighbours) this node needs; `net` brings the kernel there by netlink. What the CNI plugin needs to know is in
//! `/run/flannel/subnet.env`.
//!
//! Deliberately not here: the etcd subnet manager, backends other than vxlan and host-gw, IPv6.

mod args;
mod config;
mod net;
mod peers;
pub mod plugin;
mod rules;
mod run;

pub use args::Args;
pub use run::run;
