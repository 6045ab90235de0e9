//! The client side of the API for every daemon but the apiserver: connections from kubeconfig files, requests on plain object
//! values, shared informers, work queues, leader election, events, and delegated authentication and authorization.
//!
//! Invariants: one HTTP/2 connection carries everything a daemon asks for; an informer keeps what its `trim` function makes
//! of an object and nothing else; a work queue never handles one key twice at a time; failed requests are told apart by
//! [`Error`]'s methods, never by their text. Objects are [`api::Value`] trees: what is read and written back keeps fields that
//! this program does not know.

mod connect;
pub mod delegated;
mod error;
pub mod events;
mod informer;
pub mod lease;
pub mod metrics;
mod queue;
mod rate;
mod reflector;
pub mod resource;
mod rest;
mod service_account;
mod store;
mod transport;

pub use connect::{Connection, connect, nowhere};
pub use error::{Error, Result};
pub use events::Recorder;
pub use informer::{Change, Informer};
pub use queue::{Next, Queue};
pub use rate::Bucket;
pub use resource::Resource;
pub use rest::{Client, DeleteOptions, ListOptions, Patch, Propagation};
pub use service_account::ServiceAccount;
pub use store::{Key, Store};
