//! Container logs: reading the runtime's files, and rotating them.

mod read;
mod rotate;

pub(crate) use read::{Options, follow};
pub(crate) use rotate::run as rotate;
