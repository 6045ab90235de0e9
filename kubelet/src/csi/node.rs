//! What the API server is told about drivers: the CSINode, and the node's annotation and labels.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Map, Value, object};
use client::resource::{CSI_NODES, NODES};
use client::{DeleteOptions, Patch};

use super::Csi;
use super::api::InfoResponse;

/// The drivers' names for the node, as JSON.
const NODE_ID: &str = "csi.volume.kubernetes.io/nodeid";
/// Objects that others change at the same time are tried so often, after growing pauses.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(140);

/// Something to tell the API server.
enum Change<'a> {
    /// That there is a CSINode.
    Present,
    /// On the node: the driver's name for it, or none any more, and labels.
    Marked(&'a str, Option<&'a str>, &'a BTreeMap<&'a str, &'a str>),
    /// In the CSINode: the driver, or none any more.
    Listed(&'a str, Option<&'a Value>),
}

impl Csi {
    /// Makes the node's CSINode if there is none yet.
    pub(crate) async fn initialize(&self) -> Result<(), String> {
        self.tell(Change::Present).await
    }

    /// Tells that a driver is here.
    pub(super) async fn install(&self, name: &str, info: &InfoResponse) -> Result<(), String> {
        if info.node_id.is_empty() {
            return Err("error adding CSI driver node info: driverNodeID must not be empty".to_owned());
        }
        let segments = info.topology.iter().flat_map(|topology| &topology.segments);
        let topology = segments.map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let marked = self.tell(Change::Marked(name, Some(&info.node_id), &topology)).await;
        marked.map_err(|why| format!("error updating Node object with CSI driver node info: {why}"))?;
        let entry = entry(name, info, &topology);
        let listed = self.tell(Change::Listed(name, Some(&entry))).await;
        listed.map_err(|why| format!("error updating CSINode object with CSI driver node info: {why}"))
    }

    /// Tells that a driver is gone.
    pub(super) async fn uninstall(&self, name: &str) -> Result<(), String> {
        let listed = self.tell(Change::Listed(name, None)).await;
        listed.map_err(|why| format!("error uninstalling CSI driver from CSINode object {why}"))?;
        let marked = self.tell(Change::Marked(name, None, &BTreeMap::new())).await;
        marked.map_err(|why| format!("error removing CSI driver node info from Node object {why}"))
    }

    async fn tell(&self, change: Change<'_>) -> Result<(), String> {
        let _turn = self.node_turn.lock().await;
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            if self.try_to_tell(&change).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.try_to_tell(&change).await
    }

    async fn try_to_tell(&self, change: &Change<'_>) -> Result<(), String> {
        match *change {
            Change::Present => self.csi_node().await.map(drop),
            Change::Marked(name, id, topology) => self.mark_node(name, id, topology).await,
            Change::Listed(name, entry) => self.list_driver(name, entry).await,
        }
    }

    /// The CSINode, made when it is missing; one of an older node of this name goes first.
    async fn csi_node(&self) -> Result<Value, String> {
        let text = |error: client::Error| error.message();
        let name = self.node_name.as_str();
        let node = self.client.get(&NODES, "", name).await.map_err(text)?;
        if let Some(found) = self.client.get_opt(&CSI_NODES, "", name).await.map_err(text)? {
            let mut owners = found.array_at(&["metadata", "ownerReferences"]).iter();
            if owners.any(|owner| owner.str_at(&["kind"]) == "Node" && owner.str_at(&["uid"]) == node.uid()) {
                return Ok(found);
            }
            let options = DeleteOptions::uid(found.uid());
            self.client.delete(&CSI_NODES, "", name, &options).await.map_err(text)?;
            return Err(format!("CSINode {name:?} was owned by different node, deleted it"));
        }
        let csi_node = object!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSINode",
            "metadata": {"name": name, "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": name, "uid": (node.uid())},
            ]},
            "spec": {"drivers": []},
        });
        self.client.create(&CSI_NODES, "", &csi_node).await.map_err(text)
    }

    async fn list_driver(&self, name: &str, entry: Option<&Value>) -> Result<(), String> {
        let mut csi_node = self.csi_node().await?;
        let mut drivers = csi_node.array_at(&["spec", "drivers"]).to_vec();
        let before = drivers.iter().find(|driver| driver.str_at(&["name"]) == name).cloned();
        if before.as_ref() == entry {
            return Ok(());
        }
        drivers.retain(|driver| driver.str_at(&["name"]) != name);
        drivers.extend(entry.cloned());
        csi_node.set(&["spec", "drivers"], Value::Array(drivers));
        self.client.update(&CSI_NODES, &csi_node).await.map(drop).map_err(|error| error.message())
    }

    /// Puts the driver's name for the node into the annotation, or takes it out, and sets labels.
    async fn mark_node(
        &self,
        name: &str,
        id: Option<&str>,
        topology: &BTreeMap<&str, &str>,
    ) -> Result<(), String> {
        let text = |error: client::Error| error.message();
        let node = self.client.get(&NODES, "", &self.node_name).await.map_err(text)?;
        let Some(patch) = marks(&node, name, id, topology)? else { return Ok(()) };
        let path = ("", self.node_name.as_str(), "");
        self.client.patch(&NODES, path, Patch::Merge, &patch).await.map(drop).map_err(text)
    }
}

/// The patch of a node on which a driver is, or is no more; none when there is nothing to change.
fn marks(
    node: &Value,
    name: &str,
    id: Option<&str>,
    topology: &BTreeMap<&str, &str>,
) -> Result<Option<Value>, String> {
    let text = node.annotation(NODE_ID).unwrap_or_default();
    let mut ids: BTreeMap<String, String> = match text {
        "" => BTreeMap::new(),
        text => serde_json::from_str(text).map_err(|error| {
            format!("failed to parse node's {NODE_ID:?} annotation value ({text:?}) err={error}")
        })?,
    };
    let before = ids.clone();
    match id {
        Some(id) => drop(ids.insert(name.to_owned(), id.to_owned())),
        None => drop(ids.remove(name)),
    }
    let mut labels = Map::new();
    for (key, value) in topology {
        match node.label(key) {
            Some(current) if current != *value => {
                return Err(format!(
                    "detected topology value collision: driver reported {key:?}:{value:?} but existing label is {key:?}:{current:?}"
                ));
            }
            Some(_) => {}
            None => labels.push(*key, (*value).into()),
        }
    }
    if ids == before && labels.is_empty() {
        return Ok(None);
    }
    let shown = match ids.is_empty() {
        true => Value::Null,
        false => serde_json::to_string(&ids).map_err(|error| error.to_string())?.into(),
    };
    let mut annotations = Map::new();
    annotations.push(NODE_ID, shown);
    Ok(Some(object!({"metadata": {
        "resourceVersion": (node.str_at(&["metadata", "resourceVersion"])),
        "annotations": (Value::Object(annotations)),
        "labels": (Value::Object(labels)),
    }})))
}

/// The driver in the CSINode.
fn entry(name: &str, info: &InfoResponse, topology: &BTreeMap<&str, &str>) -> Value {
    let keys = topology.keys().map(|key| Value::from(*key)).collect::<Vec<_>>();
    let mut entry = object!({"name": name, "nodeID": (info.node_id.as_str())});
    entry.set(&["topologyKeys"], if keys.is_empty() { Value::Null } else { Value::Array(keys) });
    match info.max_volumes {
        0 => {}
        1.. => entry.set(&["allocatable"], object!({"count": (info.max_volumes.min(i64::from(i32::MAX)))})),
        wrong => tracing::error!(driver = name, limit = wrong, "Invalid attach limit of a CSI driver"),
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_marked_on_the_node_and_taken_off() {
        let node = object!({"metadata": {
            "resourceVersion": "5",
            "labels": {"zone": "a"},
            "annotations": {"csi.volume.kubernetes.io/nodeid": "{\"x.io\":\"n\"}"},
        }});
        let patch = marks(&node, "y.io", Some("m"), &[("zone", "a"), ("rack", "1")].into()).unwrap().unwrap();
        let ids = patch.at(&["metadata", "annotations", NODE_ID]).as_str().unwrap();
        assert_eq!(ids, r#"{"x.io":"n","y.io":"m"}"#);
        assert_eq!(patch.at(&["metadata", "labels"]), &object!({"rack": "1"}));
        assert_eq!(marks(&node, "x.io", Some("n"), &BTreeMap::new()), Ok(None));
        let gone = marks(&node, "x.io", None, &BTreeMap::new()).unwrap().unwrap();
        assert!(gone.at(&["metadata", "annotations", NODE_ID]).is_null());
        assert_eq!(
            marks(&node, "x.io", Some("n"), &[("zone", "b")].into()).unwrap_err(),
            "detected topology value collision: driver reported \"zone\":\"b\" but existing label is \"zone\":\"a\""
        );
    }

    #[test]
    fn a_csi_node_has_limits_and_topology() {
        let mut info = InfoResponse { node_id: "n".to_owned(), max_volumes: 1 << 40, topology: None };
        let shown = entry("x.io", &info, &[("zone", "a")].into());
        assert_eq!(shown.at(&["allocatable", "count"]).as_i64(), Some(i64::from(i32::MAX)));
        assert_eq!(shown.get("topologyKeys"), &object!(["zone"]));
        info.max_volumes = -1;
        assert!(entry("x.io", &info, &BTreeMap::new()).get("allocatable").is_null());
    }
}
