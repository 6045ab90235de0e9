//! The HTTP side of every daemon: a TLS accept loop for any service, health and metrics endpoints, who the caller is, and
//! an HTTPS client for calls to webhooks, aggregated servers and kubelets.
//!
//! Invariants: one TLS stack (rustls on ring); connections, handshakes and request heads are bounded in number or time;
//! a client certificate is asked for but judged by the [`Authenticator`], not by the handshake, so that other credentials
//! still count; certificates are read again when their files change. Upstream behaviour mirrored: `k8s.io/apiserver`'s
//! secure serving and health endpoints.

mod accept;
pub mod authn;
mod body;
mod diagnostics;
pub mod flags;
mod gather;
pub mod health;
pub mod metrics;
pub mod outbound;
pub mod tls;
pub mod x509;
pub mod zpages;

pub use accept::{Limits, PeerCertificates, RemoteAddr, Server, apart};
pub use authn::{Authenticator, Authorizer, Guard, User};
pub use body::{Body, BoxError, empty, full, json, stream, text};
pub use diagnostics::Diagnostics;
pub use gather::Gather;
pub use health::{Endpoints, Health};
pub use tls::Tls;
