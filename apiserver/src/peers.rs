//! The API servers of one cluster, as clients and each other see them.

pub mod identity;
pub mod own_service;

pub use own_service::OwnService;
