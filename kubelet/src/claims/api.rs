//! The messages of drivers, `dra` v1 and v1beta1 and `dra-health` v1alpha1. The older version has all but the share of a
//! device, so that the messages of the newer one serve for both.
//!
//! Source: <https://github.com/kubernetes/kubelet/blob/v0.36.2/pkg/apis/dra/v1/api.proto> and
//! <https://github.com/kubernetes/kubelet/blob/v0.36.2/pkg/apis/dra-health/v1alpha1/api.proto>.

use std::collections::HashMap;

use prost::Message;

/// How a driver is doing its devices are.
pub(super) const WATCH: &str = "/v1alpha1.DRAResourceHealth/NodeWatchResources";
/// The health of a device that works.
pub(super) const HEALTHY: i32 = 1;
/// The health of a device that does not.
pub(super) const UNHEALTHY: i32 = 2;

/// A version of the service that drivers offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    /// Its name among the versions that a plug-in says it has.
    pub name: &'static str,
    pub prepare: &'static str,
    pub unprepare: &'static str,
}

/// The versions that are spoken here.
pub(super) const VERSIONS: [Version; 2] = [
    Version {
        name: "v1.DRAPlugin",
        prepare: "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources",
        unprepare: "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources",
    },
    Version {
        name: "v1beta1.DRAPlugin",
        prepare: "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodePrepareResources",
        unprepare: "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodeUnprepareResources",
    },
];

/// A ResourceClaim.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Claim {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub name: String,
}

/// The claims to prepare, or to unprepare.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Claims {
    #[prost(message, repeated, tag = "1")]
    pub claims: Vec<Claim>,
}

/// What came of preparing, by the uid of the claim.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PrepareResponse {
    #[prost(map = "string, message", tag = "1")]
    pub claims: HashMap<String, Prepared>,
}

/// What came of preparing one claim.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Prepared {
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<Device>,
    #[prost(string, tag = "2")]
    pub error: String,
}

/// A device that a claim has.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Device {
    #[prost(string, repeated, tag = "1")]
    pub request_names: Vec<String>,
    #[prost(string, tag = "2")]
    pub pool_name: String,
    #[prost(string, tag = "3")]
    pub device_name: String,
    #[prost(string, repeated, tag = "4")]
    pub cdi_device_ids: Vec<String>,
    #[prost(string, optional, tag = "5")]
    pub share_id: Option<String>,
}

/// What came of unpreparing, by the uid of the claim.
#[derive(Clone, PartialEq, Message)]
pub(super) struct UnprepareResponse {
    #[prost(map = "string, message", tag = "1")]
    pub claims: HashMap<String, Unprepared>,
}

/// What came of unpreparing one claim.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Unprepared {
    #[prost(string, tag = "1")]
    pub error: String,
}

/// A question that says nothing.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Nothing {}

/// How devices are.
#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchResponse {
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<DeviceHealth>,
}

/// How a device is.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DeviceHealth {
    #[prost(message, optional, tag = "1")]
    pub device: Option<DeviceId>,
    #[prost(int32, tag = "2")]
    pub health: i32,
    /// Seconds since the epoch.
    #[prost(int64, tag = "3")]
    pub last_updated_time: i64,
    /// For how many seconds this counts.
    #[prost(int64, tag = "4")]
    pub health_check_timeout_seconds: i64,
    #[prost(string, tag = "5")]
    pub message: String,
}

/// Which device.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DeviceId {
    #[prost(string, tag = "1")]
    pub pool_name: String,
    #[prost(string, tag = "2")]
    pub device_name: String,
}
