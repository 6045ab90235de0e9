//! What tests of daemons share: processes that end with the test, free ports, a public key infrastructure to throw away,
//! and a client that sends exactly what it is told.
//!
//! Invariant: whatever a test starts is gone when its value is dropped, also when the test fails.

mod corpus;
pub mod flags;
mod http;
mod pki;
mod process;

pub use corpus::{Target, replay};
pub use http::{Client, Lines, Response};
pub use pki::Pki;
pub use process::{Process, etcd, free_port, wait_until};
