//! The messages of the node service of CSI v1.
//!
//! Source: <https://github.com/container-storage-interface/spec/blob/v1.12.0/csi.proto>.

use std::collections::HashMap;

use prost::{Message, Oneof};

pub(super) const CAPABILITIES: &str = "/csi.v1.Node/NodeGetCapabilities";
pub(super) const INFO: &str = "/csi.v1.Node/NodeGetInfo";
pub(super) const STAGE: &str = "/csi.v1.Node/NodeStageVolume";
pub(super) const UNSTAGE: &str = "/csi.v1.Node/NodeUnstageVolume";
pub(super) const PUBLISH: &str = "/csi.v1.Node/NodePublishVolume";
pub(super) const UNPUBLISH: &str = "/csi.v1.Node/NodeUnpublishVolume";
pub(super) const STATS: &str = "/csi.v1.Node/NodeGetVolumeStats";
pub(super) const EXPAND: &str = "/csi.v1.Node/NodeExpandVolume";

/// A map of texts.
pub(super) type Strings = HashMap<String, String>;

/// Nothing.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Nothing {}

/// What a driver can do.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CapabilitiesResponse {
    #[prost(message, repeated, tag = "1")]
    pub capabilities: Vec<ServiceCapability>,
}

/// One thing that it can do.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ServiceCapability {
    #[prost(message, optional, tag = "1")]
    pub rpc: Option<Rpc>,
}

/// By number: see [`Capability`].
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Rpc {
    #[prost(int32, tag = "1")]
    pub kind: i32,
}

/// What a driver may be able to do on a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Capability {
    Stage = 1,
    Stats = 2,
    Expand = 3,
    SingleNodeMultiWriter = 5,
    MountGroup = 6,
}

/// How a driver calls this node.
#[derive(Clone, PartialEq, Message)]
pub(super) struct InfoResponse {
    #[prost(string, tag = "1")]
    pub node_id: String,
    #[prost(int64, tag = "2")]
    pub max_volumes: i64,
    #[prost(message, optional, tag = "3")]
    pub topology: Option<Topology>,
}

/// From where volumes can be reached.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Topology {
    #[prost(map = "string, string", tag = "1")]
    pub segments: Strings,
}

/// How a volume is used.
#[derive(Clone, PartialEq, Message)]
pub(super) struct VolumeCapability {
    #[prost(oneof = "AccessType", tags = "1, 2")]
    pub kind: Option<AccessType>,
    #[prost(message, optional, tag = "3")]
    pub mode: Option<AccessMode>,
}

/// As a device or as a folder.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum AccessType {
    #[prost(message, tag = "1")]
    Block(Nothing),
    #[prost(message, tag = "2")]
    Mount(MountVolume),
}

/// How a folder is mounted.
#[derive(Clone, PartialEq, Message)]
pub(super) struct MountVolume {
    #[prost(string, tag = "1")]
    pub fs_type: String,
    #[prost(string, repeated, tag = "2")]
    pub flags: Vec<String>,
    #[prost(string, tag = "3")]
    pub group: String,
}

/// By how many, and for what.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct AccessMode {
    #[prost(int32, tag = "1")]
    pub mode: i32,
}

/// Make a volume ready on this node.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StageRequest {
    #[prost(string, tag = "1")]
    pub volume_id: String,
    #[prost(map = "string, string", tag = "2")]
    pub publish_context: Strings,
    #[prost(string, tag = "3")]
    pub staging_path: String,
    #[prost(message, optional, tag = "4")]
    pub capability: Option<VolumeCapability>,
    #[prost(map = "string, string", tag = "5")]
    pub secrets: Strings,
    #[prost(map = "string, string", tag = "6")]
    pub volume_context: Strings,
}

/// A volume and a path of it: nothing more is said in order to take it away again.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Place {
    #[prost(string, tag = "1")]
    pub volume_id: String,
    #[prost(string, tag = "2")]
    pub path: String,
    /// Only where figures are asked for.
    #[prost(string, tag = "3")]
    pub staging_path: String,
}

/// Show a volume to a pod.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PublishRequest {
    #[prost(string, tag = "1")]
    pub volume_id: String,
    #[prost(map = "string, string", tag = "2")]
    pub publish_context: Strings,
    #[prost(string, tag = "3")]
    pub staging_path: String,
    #[prost(string, tag = "4")]
    pub target_path: String,
    #[prost(message, optional, tag = "5")]
    pub capability: Option<VolumeCapability>,
    #[prost(bool, tag = "6")]
    pub read_only: bool,
    #[prost(map = "string, string", tag = "7")]
    pub secrets: Strings,
    #[prost(map = "string, string", tag = "8")]
    pub volume_context: Strings,
}

/// How full a volume is.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StatsResponse {
    #[prost(message, repeated, tag = "1")]
    pub usage: Vec<Usage>,
    #[prost(message, optional, tag = "2")]
    pub condition: Option<Condition>,
}

/// Figures in bytes (unit 1) or files (unit 2).
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Usage {
    #[prost(int64, tag = "1")]
    pub available: i64,
    #[prost(int64, tag = "2")]
    pub total: i64,
    #[prost(int64, tag = "3")]
    pub used: i64,
    #[prost(int32, tag = "4")]
    pub unit: i32,
}

/// Whether something is wrong with a volume.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Condition {
    #[prost(bool, tag = "1")]
    pub abnormal: bool,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Make use of a volume that has grown.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExpandRequest {
    #[prost(string, tag = "1")]
    pub volume_id: String,
    #[prost(string, tag = "2")]
    pub volume_path: String,
    #[prost(message, optional, tag = "3")]
    pub range: Option<CapacityRange>,
    #[prost(string, tag = "4")]
    pub staging_path: String,
    #[prost(message, optional, tag = "5")]
    pub capability: Option<VolumeCapability>,
    #[prost(map = "string, string", tag = "6")]
    pub secrets: Strings,
}

/// Bytes, at least.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct CapacityRange {
    #[prost(int64, tag = "1")]
    pub required: i64,
    #[prost(int64, tag = "2")]
    pub limit: i64,
}

/// What it has grown to.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct ExpandResponse {
    #[prost(int64, tag = "1")]
    pub capacity: i64,
}
