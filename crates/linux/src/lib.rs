//! What the node's daemons ask of Linux: packet rules, connection tracking, mounts, control groups, huge pages,
//! network namespaces, and facts about the machine.
//!
//! Invariants: nothing here knows a Kubernetes object; every function does what it says or returns an error that names
//! the path or command; parsers are pure and tested with fixtures. The only crate of the workspace that may hold
//! `unsafe` code (it needs none so far: `nix` and `rustix` wrap every call it makes).

pub mod cgroup;
pub mod conntrack;
pub mod facts;
pub mod hugepages;
pub mod iptables;
pub mod mount;
pub mod netns;
