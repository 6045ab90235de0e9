//! `dra_manager_state`: which claims are prepared, for which pods, with which devices, in upstream's format.

use std::collections::{BTreeMap, BTreeSet};

use ::api::Value;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::api;
use super::names::base;

/// A claim's namespace and name.
pub(super) type Key = (String, String);
/// All claims that pods of the node use.
pub(super) type Known = BTreeMap<Key, Info>;

/// A claim that pods of the node use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Info {
    #[serde(rename = "ClaimUID")]
    pub uid: String,
    #[serde(rename = "ClaimName")]
    pub name: String,
    pub namespace: String,
    /// The pods' uids.
    #[serde(rename = "PodUIDs", with = "go_set")]
    pub pods: BTreeSet<String>,
    /// All drivers that have a part in the claim, even those without devices.
    #[serde(rename = "DriverState", deserialize_with = "or_default")]
    pub drivers: BTreeMap<String, Driver>,
    /// All drivers have done their part while this process runs.
    #[serde(skip)]
    pub prepared: bool,
}

/// The part of a driver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Driver {
    #[serde(with = "go_list")]
    pub devices: Vec<Device>,
}

/// A device as its driver described it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Device {
    pub pool_name: String,
    pub device_name: String,
    #[serde(rename = "ShareID")]
    pub share_id: Option<String>,
    /// The requests that it is for; all when there are none.
    #[serde(with = "go_list")]
    pub request_names: Vec<String>,
    #[serde(rename = "CDIDeviceIDs", with = "go_list")]
    pub cdi_ids: Vec<String>,
}

impl From<api::Device> for Device {
    fn from(device: api::Device) -> Self {
        Self {
            pool_name: device.pool_name,
            device_name: device.device_name,
            share_id: device.share_id,
            request_names: device.request_names,
            cdi_ids: device.cdi_device_ids,
        }
    }
}

impl Device {
    /// Whether the device is for a request; an empty one stands for all of the claim.
    pub(super) fn serves(&self, request: &str) -> bool {
        request.is_empty()
            || self.request_names.is_empty()
            || self.request_names.iter().any(|own| base(own) == base(request))
    }
}

impl Info {
    /// What is to be done about a claim; an error is a sentence.
    pub(super) fn of(claim: &Value) -> Result<Self, String> {
        let allocation = claim.at(&["status", "allocation"]);
        if allocation.is_null() {
            return Err("not allocated".to_owned());
        }
        let results = allocation.array_at(&["devices", "results"]).iter();
        Ok(Self {
            uid: claim.uid().to_owned(),
            name: claim.name().to_owned(),
            namespace: claim.namespace().to_owned(),
            pods: BTreeSet::new(),
            drivers: results
                .map(|result| (result.str_at(&["driver"]).to_owned(), Driver::default()))
                .collect(),
            prepared: false,
        })
    }

    pub(super) fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    pub(super) fn as_message(&self) -> api::Claim {
        api::Claim { namespace: self.namespace.clone(), uid: self.uid.clone(), name: self.name.clone() }
    }

    /// The names of the devices for a request, for the runtime.
    pub(super) fn cdi_ids<'i>(&'i self, request: &'i str) -> impl Iterator<Item = &'i String> {
        let devices = self.drivers.values().flat_map(|driver| &driver.devices);
        devices.filter(move |device| device.serves(request)).flat_map(|device| &device.cdi_ids)
    }
}

const KIND: &str = "DRACheckpoint";
const API_VERSION: &str = "checkpoint.dra.kubelet.k8s.io/v1";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    /// JSON of [`Data`].
    data: String,
    checksum: u32,
}

#[derive(Serialize, Deserialize)]
struct Data {
    kind: String,
    #[serde(rename = "apiVersion")]
    api_version: String,
    #[serde(rename = "ClaimInfoStateList", with = "go_list")]
    claims: Vec<Info>,
}

/// The text of the file.
pub(super) fn encode(known: &Known) -> serde_json::Result<String> {
    let claims = known.values().cloned().collect();
    let data = Data { kind: KIND.to_owned(), api_version: API_VERSION.to_owned(), claims };
    let data = serde_json::to_string(&data)?;
    serde_json::to_string(&File { checksum: crc32(data.as_bytes()), data })
}

/// What the file says; an error is a sentence.
pub(super) fn decode(text: &str) -> Result<Known, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if crc32(file.data.as_bytes()) != file.checksum {
        return Err("checkpoint is corrupted".to_owned());
    }
    let data: Data = serde_json::from_str(&file.data).map_err(|error| error.to_string())?;
    Ok(data.claims.into_iter().map(|info| (info.key(), info)).collect())
}

/// The checksum of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

fn or_default<'d, D: Deserializer<'d>, T: Default + Deserialize<'d>>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// Lists as Go writes them: null when they are empty.
mod go_list {
    use super::*;

    pub(super) fn serialize<S: Serializer, T: Serialize>(list: &[T], to: S) -> Result<S::Ok, S::Error> {
        (!list.is_empty()).then_some(list).serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>, T: Deserialize<'d>>(
        from: D,
    ) -> Result<Vec<T>, D::Error> {
        or_default(from)
    }
}

/// Sets as Go has them: maps to nothing.
mod go_set {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Nothing {}

    pub(super) fn serialize<S: Serializer>(set: &BTreeSet<String>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(set.iter().map(|item| (item, Nothing {})))
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<BTreeSet<String>, D::Error> {
        let map: BTreeMap<String, Nothing> = or_default(from)?;
        Ok(map.into_keys().collect())
    }
}

#[cfg(test)]
mod tests {
    use ::api::object;

    use super::*;

    fn info() -> Info {
        let claim = object!({
            "metadata": {"name": "c", "namespace": "n", "uid": "1"},
            "status": {"allocation": {"devices": {"results": [
                {"driver": "a.example.com", "request": "r"}, {"driver": "b.example.com", "request": "s/sub"},
            ]}}},
        });
        let mut info = Info::of(&claim).unwrap();
        info.pods.insert("p".to_owned());
        let device = Device {
            pool_name: "pool".to_owned(),
            device_name: "dev".to_owned(),
            share_id: None,
            request_names: vec!["r".to_owned()],
            cdi_ids: vec!["example.com/d=1".to_owned()],
        };
        let rest = Device {
            request_names: vec!["s/sub".to_owned()],
            cdi_ids: vec!["example.com/d=2".to_owned()],
            ..device.clone()
        };
        info.drivers.insert("a.example.com".to_owned(), Driver { devices: vec![device] });
        info.drivers.insert("b.example.com".to_owned(), Driver { devices: vec![rest] });
        info
    }

    #[test]
    fn the_file_is_as_upstream_writes_it() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let mut info = info();
        info.drivers.insert("b.example.com".to_owned(), Driver::default());
        let known: Known = [(info.key(), info)].into();
        let text = encode(&known).unwrap();
        let data = r#"{\"kind\":\"DRACheckpoint\",\"apiVersion\":\"checkpoint.dra.kubelet.k8s.io/v1\",\"ClaimInfoStateList\":[{\"ClaimUID\":\"1\",\"ClaimName\":\"c\",\"Namespace\":\"n\",\"PodUIDs\":{\"p\":{}},\"DriverState\":{\"a.example.com\":{\"Devices\":[{\"PoolName\":\"pool\",\"DeviceName\":\"dev\",\"ShareID\":null,\"RequestNames\":[\"r\"],\"CDIDeviceIDs\":[\"example.com/d=1\"]}]},\"b.example.com\":{\"Devices\":null}}}]}"#;
        assert!(text.starts_with(&format!("{{\"Data\":\"{data}\",\"Checksum\":")), "{text}");
        assert_eq!(decode(&text).unwrap(), known);
        assert_eq!(decode(&text.replace("pool", "poor")).unwrap_err(), "checkpoint is corrupted");
        assert!(decode("{").is_err());
    }

    #[test]
    fn a_file_of_an_older_kubelet_without_shares_is_read() {
        let data = r#"{"kind":"DRACheckpoint","apiVersion":"checkpoint.dra.kubelet.k8s.io/v1","ClaimInfoStateList":[{"ClaimUID":"1","ClaimName":"c","Namespace":"n","PodUIDs":null,"DriverState":{"d":{"Devices":[{"PoolName":"p","DeviceName":"x"}]}}}]}"#;
        let file = File { checksum: crc32(data.as_bytes()), data: data.to_owned() };
        let known = decode(&serde_json::to_string(&file).unwrap()).unwrap();
        let info = &known[&("n".to_owned(), "c".to_owned())];
        assert_eq!(info.drivers["d"].devices[0].device_name, "x");
        assert!(info.pods.is_empty() && !info.prepared);
    }

    #[test]
    fn a_container_gets_the_devices_of_the_requests_that_it_names() {
        let info = info();
        for (request, expected) in [
            ("", &["example.com/d=1", "example.com/d=2"][..]),
            ("r", &["example.com/d=1"]),
            ("s", &["example.com/d=2"]),
            ("s/sub", &["example.com/d=2"]),
            ("t", &[]),
        ] {
            assert_eq!(info.cdi_ids(request).collect::<Vec<_>>(), expected, "{request}");
        }
        assert_eq!(Info::of(&object!({"status": {}})).unwrap_err(), "not allocated");
    }
}
