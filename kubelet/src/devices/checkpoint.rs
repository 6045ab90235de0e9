//! `kubelet_internal_checkpoint`: which container has which devices, in upstream's format.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::api::Allocated;
use super::state::{Given, Pods};
use crate::checkpoint::{self, Dump};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: Data,
    checksum: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    pod_device_entries: Option<Vec<Entry>>,
    registered_devices: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    container_name: String,
    resource_name: String,
    #[serde(rename = "DeviceIDs")]
    device_ids: Option<BTreeMap<i64, Vec<String>>>,
    /// The plug-in's answer, as base64.
    alloc_resp: Option<String>,
}

impl Data {
    fn dump(&self) -> Result<Dump, String> {
        let entries = match &self.pod_device_entries {
            Some(entries) => Some(entries.iter().map(Entry::dump).collect::<Result<_, _>>()?),
            None => None,
        };
        let named = |(name, ids): (&String, &Vec<String>)| (Dump::Text(name.clone()), Dump::texts(ids));
        let registered = self.registered_devices.as_ref().map(|all| all.iter().map(named).collect());
        let fields = vec![
            ("PodDeviceEntries", Dump::List("[]checkpoint.PodDevicesEntry", entries)),
            ("RegisteredDevices", Dump::Map("map[string][]string", registered)),
        ];
        Ok(Dump::Struct("checkpoint.checkpointData", fields))
    }
}

impl Entry {
    fn response(&self) -> Result<Option<Vec<u8>>, String> {
        let decode = |text: &String| STANDARD.decode(text).map_err(|error| error.to_string());
        self.alloc_resp.as_ref().map(decode).transpose()
    }

    fn dump(&self) -> Result<Dump, String> {
        let text = |text: &String| Dump::Text(text.clone());
        let by_node =
            |(node, ids): (&i64, &Vec<String>)| (Dump::Number("int64", (*node).into()), Dump::texts(ids));
        let ids = self.device_ids.as_ref().map(|ids| ids.iter().map(by_node).collect());
        let bytes =
            |bytes: Vec<u8>| bytes.into_iter().map(|byte| Dump::Number("uint8", byte.into())).collect();
        let fields = vec![
            ("PodUID", text(&self.pod_uid)),
            ("ContainerName", text(&self.container_name)),
            ("ResourceName", text(&self.resource_name)),
            ("DeviceIDs", Dump::Map("checkpoint.DevicesPerNUMA", ids)),
            ("AllocResp", Dump::List("[]uint8", self.response()?.map(bytes))),
        ];
        Ok(Dump::Struct("checkpoint.PodDevicesEntry", fields))
    }
}

/// The text of the file.
pub(super) fn encode(pods: &Pods, registered: BTreeMap<String, Vec<String>>) -> Result<String, String> {
    let mut entries = Vec::new();
    for (uid, containers) in pods {
        for (container, resources) in containers {
            for (resource, given) in resources {
                entries.push(Entry {
                    pod_uid: uid.clone(),
                    container_name: container.clone(),
                    resource_name: resource.clone(),
                    device_ids: Some(given.devices.clone()),
                    alloc_resp: Some(STANDARD.encode(given.response.encode_to_vec())),
                });
            }
        }
    }
    let data = Data {
        pod_device_entries: Some(entries).filter(|entries| !entries.is_empty()),
        registered_devices: Some(registered),
    };
    let checksum = checkpoint::checksum(&data.dump()?.print());
    serde_json::to_string(&File { data, checksum }).map_err(|error| error.to_string())
}

/// What a file holds: the devices of containers, and the names of resources that were known.
pub(super) fn decode(text: &str) -> Result<(Pods, Vec<String>), String> {
    let File { data, checksum } = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if checkpoint::checksum(&data.dump()?.print()) != checksum {
        return Err("checkpoint is corrupted".to_owned());
    }
    let mut pods = Pods::new();
    for entry in data.pod_device_entries.unwrap_or_default() {
        let response = entry.response()?.unwrap_or_default();
        let response = match Allocated::decode(response.as_slice()) {
            Ok(response) => response,
            Err(error) => {
                tracing::error!(pod = entry.pod_uid, err = %error, "Cannot read what a device plug-in answered");
                continue;
            }
        };
        let given = Given { devices: entry.device_ids.unwrap_or_default(), response };
        let containers = pods.entry(entry.pod_uid).or_default();
        containers.entry(entry.container_name).or_default().insert(entry.resource_name, given);
    }
    Ok((pods, data.registered_devices.unwrap_or_default().into_keys().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What upstream has written.
    const UPSTREAM: &str = r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u1","ContainerName":"c1","ResourceName":"example.com/gpu","DeviceIDs":{"-1":["d1","d2"],"0":["d3"],"10":["d5"]},"AllocResp":"CgcKAWESAmJj"}],"RegisteredDevices":{"a.example.com/x":[],"example.com/gpu":["d1","d3"]}},"Checksum":3568109083}"#;
    const EMPTY: &str = r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":3467439661}"#;

    #[test]
    fn files_of_upstream_are_read_and_written_alike() {
        let (pods, names) = decode(UPSTREAM).unwrap();
        assert_eq!(names, ["a.example.com/x", "example.com/gpu"]);
        let given = &pods["u1"]["c1"]["example.com/gpu"];
        assert_eq!(given.devices[&-1], ["d1", "d2"]);
        assert_eq!(given.response.envs["a"], "bc");
        let registered =
            [("a.example.com/x", vec![]), ("example.com/gpu", vec!["d1".to_owned(), "d3".to_owned()])];
        let registered = registered.map(|(name, ids)| (name.to_owned(), ids)).into();
        assert_eq!(encode(&pods, registered).unwrap(), UPSTREAM);
        assert_eq!(encode(&Pods::new(), BTreeMap::new()).unwrap(), EMPTY);
    }

    #[test]
    fn a_broken_file_is_refused() {
        assert_eq!(decode(&UPSTREAM.replace("d5", "d6")).unwrap_err(), "checkpoint is corrupted");
        assert!(decode("{}").is_err());
    }
}
