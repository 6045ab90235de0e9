//! The messages between the kubelet and device plug-ins, `v1beta1`.
//!
//! Source: <https://github.com/kubernetes/kubelet/blob/v0.36.2/pkg/apis/deviceplugin/v1beta1/api.proto>.

use std::collections::HashMap;

use prost::Message;

/// The one version of the protocol.
pub(crate) const VERSION: &str = "v1beta1";
/// The health of a device that can be used.
pub(crate) const HEALTHY: &str = "Healthy";

/// Where plug-ins make themselves known.
pub(crate) const REGISTER: &str = "/v1beta1.Registration/Register";
/// What a plug-in wants to be asked.
pub(crate) const OPTIONS: &str = "/v1beta1.DevicePlugin/GetDevicePluginOptions";
/// The devices, now and whenever they change.
pub(crate) const LIST_AND_WATCH: &str = "/v1beta1.DevicePlugin/ListAndWatch";
/// Which of several devices a plug-in would take.
pub(crate) const PREFERRED: &str = "/v1beta1.DevicePlugin/GetPreferredAllocation";
/// What a container needs in order to use devices.
pub(crate) const ALLOCATE: &str = "/v1beta1.DevicePlugin/Allocate";
/// A container that uses devices is about to start.
pub(crate) const PRE_START: &str = "/v1beta1.DevicePlugin/PreStartContainer";

/// Nothing.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

/// What a plug-in wants to be asked.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Options {
    #[prost(bool, tag = "1")]
    pub pre_start_required: bool,
    #[prost(bool, tag = "2")]
    pub get_preferred_allocation_available: bool,
}

/// A plug-in makes itself known.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RegisterRequest {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, tag = "2")]
    pub endpoint: String,
    #[prost(string, tag = "3")]
    pub resource_name: String,
    #[prost(message, optional, tag = "4")]
    pub options: Option<Options>,
}

/// The devices of a plug-in.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListAndWatchResponse {
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<Device>,
}

/// One device.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Device {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub health: String,
    #[prost(message, optional, tag = "3")]
    pub topology: Option<TopologyInfo>,
}

/// Where a device is.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TopologyInfo {
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<NumaNode>,
}

/// A node of memory and processors.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct NumaNode {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// Which of these devices would be best?
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PreferredRequest {
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<ContainerPreferredRequest>,
}

/// The devices to choose from, those that are chosen already, and how many there are to be in all.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContainerPreferredRequest {
    #[prost(string, repeated, tag = "1")]
    pub available: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub must_include: Vec<String>,
    #[prost(int32, tag = "3")]
    pub size: i32,
}

/// The devices that would be best.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PreferredResponse {
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<DeviceIds>,
}

/// Devices by their ids: in several messages the one field that there is.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeviceIds {
    #[prost(string, repeated, tag = "1")]
    pub ids: Vec<String>,
}

/// Containers are to get these devices.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AllocateRequest {
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<DeviceIds>,
}

/// What the containers need for that.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AllocateResponse {
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Allocated>,
}

/// What a container needs in order to use its devices.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Allocated {
    #[prost(map = "string, string", tag = "1")]
    pub envs: HashMap<String, String>,
    #[prost(message, repeated, tag = "2")]
    pub mounts: Vec<Mount>,
    #[prost(message, repeated, tag = "3")]
    pub devices: Vec<DeviceSpec>,
    #[prost(map = "string, string", tag = "4")]
    pub annotations: HashMap<String, String>,
    #[prost(message, repeated, tag = "5")]
    pub cdi_devices: Vec<CdiDevice>,
}

/// A device by its name in the Container Device Interface.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CdiDevice {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// A path of the host that the container sees.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Mount {
    #[prost(string, tag = "1")]
    pub container_path: String,
    #[prost(string, tag = "2")]
    pub host_path: String,
    #[prost(bool, tag = "3")]
    pub read_only: bool,
}

/// A device of the host that the container sees.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeviceSpec {
    #[prost(string, tag = "1")]
    pub container_path: String,
    #[prost(string, tag = "2")]
    pub host_path: String,
    #[prost(string, tag = "3")]
    pub permissions: String,
}
