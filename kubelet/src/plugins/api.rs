//! The messages by which plug-ins make themselves known, `pluginregistration` v1.
//!
//! Source: <https://github.com/kubernetes/kubelet/blob/v0.36.2/pkg/apis/pluginregistration/v1/api.proto>.

use prost::Message;

/// What a plug-in is.
pub(crate) const INFO: &str = "/pluginregistration.Registration/GetInfo";
/// What came of its registration.
pub(crate) const NOTIFY: &str = "/pluginregistration.Registration/NotifyRegistrationStatus";

/// Nothing.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Nothing {}

/// What a plug-in is, and where it answers.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Info {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub endpoint: String,
    #[prost(string, repeated, tag = "4")]
    pub versions: Vec<String>,
}

/// Whether the plug-in has been taken, or else why not.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Registered {
    #[prost(bool, tag = "1")]
    pub registered: bool,
    #[prost(string, tag = "2")]
    pub error: String,
}
