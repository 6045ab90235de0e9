//! Container logs: reading the runtime's files, rotating them, and linking to them by the names of their containers.

mod links;
mod read;
mod rotate;

pub(crate) use links::{DIR as LINKS, Names, make as link, remove as unlink, sweep as sweep_links};
pub(crate) use read::{Options, follow};
pub(crate) use rotate::run as rotate;
