//! kube-apiserver: the REST and watch API over etcd.
//!
//! The story, in the order of a request: [`http`] is the chain that every request passes; [`fairness`] says when it is
//! its turn, [`handlers`] where it goes; [`registry`] reads and writes objects of any kind; [`admission`] changes or refuses writes; [`storage`] is etcd
//! behind a watch cache. What there is to serve is data: [`resources`] is the table of rows, [`kinds`] what a kind does
//! beyond the generic, the `schema` crate what its objects look like; [`custom`] is the same for what users define.
//! [`discovery`], [`openapi`] and [`table`] are
//! derived from these. [`authn`] and [`authz`] say who may, [`audit`] records who did; [`proxy`] hands streams through to
//! kubelets, [`aggregation`] requests to the servers of other groups.
//!
//! Invariants: no handler is written for one kind; an object is encoded once and its bytes are served many times; a
//! write is one guarded transaction; a panic costs one request.

pub mod admission;
pub mod aggregation;
pub mod allocate;
pub mod args;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod config;
pub mod config_file;
pub mod custom;
pub mod discovery;
mod egress;
pub mod fairness;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod handlers;
pub mod http;
pub mod kinds;
pub mod kubeconfig;
pub mod metrics;
pub mod negotiate;
pub mod openapi;
pub mod peers;
pub mod proxy;
pub mod registry;
pub mod render;
pub mod request;
pub mod resources;
pub mod run;
pub mod runtime_config;
pub mod server;
pub mod starting;
pub mod storage;
pub mod table;
pub mod webhook;
mod websocket;
