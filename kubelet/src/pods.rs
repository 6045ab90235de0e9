//! Pods: one actor for each, which compares what is wanted with what runs and takes the next step.
//!
//! - `manager` knows the actors; `relist` wakes those whose containers changed; `traces` finds what is left of pods;
//! - `actor` is the loop of one pod, with `start`, `image_volumes`, `mounts`, `stop` and `report` as its hands;
//! - `echo` knows what the actor's own reports come back as;
//! - `plan`, `preemption`, `resize`, `status`, `resources`, `swap`, `sandbox` and `container` decide, and touch nothing.

mod actor;
pub(crate) mod admission;
pub(crate) mod amounts;
pub(crate) mod backoff;
pub(crate) mod container;
mod echo;
mod hooks;
mod image_volumes;
pub(crate) mod manager;
mod mounts;
pub(crate) mod needs;
pub(crate) mod observed;
pub(crate) mod plan;
mod preemption;
mod relist;
mod report;
mod resize;
pub(crate) mod resources;
pub(crate) mod sandbox;
mod security;
pub(crate) mod spec;
mod start;
pub(crate) mod static_pods;
pub(crate) mod status;
mod stop;
pub(crate) mod swap;
pub(crate) mod traces;
mod words;

pub(crate) use manager::Manager;
