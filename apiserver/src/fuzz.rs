//! What holds for any bytes. Built for tests and for fuzzing alone; the corpora are in `fuzz/corpus`.
//!
//! Inputs of several parts have lines of three dashes between them.

mod access;
mod objects;
mod pages;
mod requests;

pub use access::{certificates, configurations, tokens};
pub use objects::{definitions, objects, stored};
pub use pages::pages;
pub use requests::{decoding, requests};

/// The parts of an input.
fn parts<const N: usize>(data: &[u8]) -> Option<[&str; N]> {
    std::str::from_utf8(data).ok()?.split("\n---\n").collect::<Vec<_>>().try_into().ok()
}

/// A document in JSON.
fn document(text: &str) -> Option<api::Value> {
    api::json::decode(text.as_bytes()).ok().map(|d| d.value)
}

#[test]
fn committed_inputs_hold() {
    testing::replay(&[
        ("requests", requests),
        ("decoding", decoding),
        ("objects", objects),
        ("stored", stored),
        ("definitions", definitions),
        ("tokens", tokens),
        ("certificates", certificates),
        ("configurations", configurations),
        ("pages", pages),
    ]);
}
