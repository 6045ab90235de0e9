//! `cpu_manager_state`: who has which processors, in upstream's format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::State;
use crate::checkpoint::{self, Dump};
use crate::managers::cpuset::CpuSet;

/// The name of the file in the kubelet's folder.
pub(crate) const FILE: &str = "cpu_manager_state";

type Entries = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    policy_name: String,
    #[serde(rename = "defaultCpuSet", alias = "defaultCPUSet")]
    default_cpu_set: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: Entries,
    checksum: u64,
}

/// The names of the type that is hashed, and of its entries: what upstream writes, what its v1.36 may have written, and
/// what it wrote long ago, when containers were known by their ids.
const TYPES: [(&str, &str); 3] = [
    ("*state.CPUManagerCheckpoint", "map[string]map[string]string"),
    ("*state.CPUManagerCheckpointV2", "map[string]map[string]string"),
    ("*state.CPUManagerCheckpoint", "map[string]string"),
];

impl File {
    fn checksum(&self, (kind, entries): (&'static str, &'static str)) -> u64 {
        let text = |text: &String| Dump::Text(text.clone());
        let containers = |containers: &BTreeMap<String, String>| {
            let all = containers.iter().map(|(name, cpus)| (text(name), text(cpus)));
            Dump::Map("map[string]string", Some(all.collect()))
        };
        let pods = self.entries.iter().map(|(pod, inner)| (text(pod), containers(inner)));
        let fields = vec![
            ("PolicyName", text(&self.policy_name)),
            ("DefaultCPUSet", text(&self.default_cpu_set)),
            ("Entries", Dump::Map(entries, Some(pods.collect()))),
            ("Checksum", Dump::Number("checksum.Checksum", 0)),
        ];
        checkpoint::checksum(&Dump::Struct(kind, fields).print())
    }

    fn is_intact(&self) -> bool {
        self.checksum == 0 || TYPES.into_iter().any(|kind| self.checksum(kind) == self.checksum)
    }
}

/// The text of the file.
pub(crate) fn encode(policy: &str, state: &State) -> Result<String, String> {
    let containers = |containers: &BTreeMap<String, CpuSet>| {
        containers.iter().map(|(name, cpus)| (name.clone(), cpus.to_string())).collect()
    };
    let mut file = File {
        policy_name: policy.to_owned(),
        default_cpu_set: state.shared.to_string(),
        entries: state.pods.iter().map(|(pod, inner)| (pod.clone(), containers(inner))).collect(),
        checksum: 0,
    };
    file.checksum = file.checksum(TYPES[0]);
    serde_json::to_string(&file).map_err(|error| error.to_string())
}

/// What a file holds, if it is one of this policy.
pub(crate) fn decode(text: &str, policy: &str) -> Result<State, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if !file.is_intact() {
        return Err("checkpoint is corrupted".to_owned());
    }
    if file.policy_name != policy {
        return Err(format!(
            "configured policy {policy:?} differs from state checkpoint policy {:?}",
            file.policy_name
        ));
    }
    let shared = file.default_cpu_set.parse();
    let shared = shared.map_err(|error: String| {
        format!("could not parse default cpu set {:?}: {error}", file.default_cpu_set)
    })?;
    let mut state = State { shared, ..State::default() };
    for (pod, containers) in file.entries {
        for (container, text) in containers {
            let cpus = text.parse().map_err(|error: String| {
                format!("could not parse cpuset {text:?} for container {container:?} in pod {pod:?}: {error}")
            })?;
            state.pods.entry(pod.clone()).or_default().insert(container, cpus);
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_upstream_are_read_and_written_alike() {
        let text = r#"{"policyName":"none","defaultCpuSet":"1-3","entries":{"pod":{"container1":"4-6","container2":"1-3"}},"checksum":3610638499}"#;
        let state = decode(text, "none").unwrap();
        assert_eq!(state.shared.to_string(), "1-3");
        assert_eq!(state.of("pod", "container1").unwrap().to_string(), "4-6");
        assert_eq!(encode("none", &state).unwrap(), text);
        let old = decode(r#"{"policyName":"none","defaultCPUSet":"1-3","checksum":1694838852}"#, "none");
        assert_eq!(old.unwrap().shared.to_string(), "1-3");
    }

    #[test]
    fn files_that_cannot_be_used_are_refused_in_upstreams_words() {
        for (fields, message) in [
            (r#""defaultCpuSet":"4-6","entries":{},"checksum":1337"#, "checkpoint is corrupted"),
            (
                r#""defaultCpuSet":"1.3","entries":{},"checksum":3021697696"#,
                "could not parse default cpu set \"1.3\": strconv.Atoi: parsing \"1.3\": invalid syntax",
            ),
            (
                r#""defaultCpuSet":"1-3","entries":{"pod":{"container1":"4-6","container2":"asd"}},"checksum":962272150"#,
                "could not parse cpuset \"asd\" for container \"container2\" in pod \"pod\": strconv.Atoi: parsing \"asd\": invalid syntax",
            ),
        ] {
            let text = format!(r#"{{"policyName":"none",{fields}}}"#);
            assert_eq!(decode(&text, "none").unwrap_err(), message);
        }
        let other = r#"{"policyName":"other","defaultCpuSet":"1-3","entries":{},"checksum":1394507217}"#;
        let message = "configured policy \"none\" differs from state checkpoint policy \"other\"";
        assert_eq!(decode(other, "none").unwrap_err(), message);
        assert!(decode("{", "none").is_err());
    }
}
