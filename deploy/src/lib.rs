//! `ferrite`: brings a whole cluster up on one machine and takes it down again.
//!
//! `up` goes through steps that are each harmless to repeat: certificates ([`pki`]), configuration ([`config`]), system
//! images ([`image`]), processes ([`process`], kept running by [`supervise`] or by [`systemd`]), add-ons ([`addons`]).
//! `down` removes what they made ([`down`]).
//!
//! Invariants: secrets are written with mode 0600; nothing that exists and is still good is made anew; every wait has a
//! bound and says what it waits for. Mirrors kubeadm's file layout below `/etc/kubernetes`.

pub mod addons;
pub mod args;
pub mod cluster;
pub mod config;
pub mod down;
pub mod files;
pub mod image;
pub mod pki;
pub mod process;
pub mod supervise;
pub mod systemd;
pub mod up;
