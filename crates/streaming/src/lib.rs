//! The streaming protocols below `kubectl exec`, `attach` and `port-forward`, both ends of each.
//!
//! - [`spdy`]: SPDY/3.1 over any upgraded connection, with the k8s rule that a stream is announced by headers;
//! - [`websocket`]: the `channel.k8s.io` protocols, versions 1 to 5, binary and base64;
//! - [`remote_command`]: the names shared by both, and the translation of a WebSocket client to a SPDY upstream
//!   (KEP-4006: container runtimes speak SPDY/3.1 only, clients prefer WebSocket);
//! - [`one_way`]: logs and watches as messages of a WebSocket;
//! - [`port_forward`]: port forwarding over SPDY, and SPDY tunnelled inside a WebSocket;
//! - [`upgrade`]: the handshakes, and an upgrade handed through to another server byte by byte.
//!
//! Invariants: every buffer and queue is bounded; a peer that floods a stream which nobody reads blocks its own
//! connection and nothing else; no task outlives the session that started it.
//! This crate knows nothing of authentication, of TLS or of the API's objects.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod one_way;
pub mod port_forward;
pub mod remote_command;
pub mod spdy;
pub mod upgrade;
pub mod websocket;
