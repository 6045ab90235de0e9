//! `metadata.managedFields`.

use std::collections::BTreeMap;

use api::{Map, Value};
use compact_str::CompactString;

use super::set::Set;

/// How a manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Everything else.
    Update,
}

impl Operation {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// What tells managers apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManagerId {
    /// Name.
    pub manager: CompactString,
    /// How it wrote.
    pub operation: Operation,
    /// `group/version` it wrote in; empty for appliers, who are the same in all versions.
    pub api_version: CompactString,
    /// Subresource; empty for the object itself.
    pub subresource: CompactString,
}

/// What one manager owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The fields.
    pub set: Set,
    /// `group/version` they are meant in.
    pub api_version: CompactString,
    /// When it last changed something, as written; empty if it never did.
    pub time: CompactString,
}

/// The managers of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managed(pub(super) BTreeMap<ManagerId, Entry>);

impl Managed {
    /// True without managers.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The managers and what they own.
    pub fn iter(&self) -> impl Iterator<Item = (&ManagerId, &Entry)> {
        self.0.iter()
    }

    /// Reads `metadata.managedFields`; null gives none.
    pub fn decode(entries: &Value) -> Result<Self, String> {
        let mut managed = BTreeMap::new();
        for (i, entry) in entries.as_array().into_iter().flatten().enumerate() {
            let text = |key: &str| CompactString::from(entry.str_at(&[key]));
            let operation = match entry.str_at(&["operation"]) {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err("operation must be `Apply` or `Update`".into()),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err("apiVersion must not be empty".into());
            }
            match entry.str_at(&["fieldsType"]) {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {i}")),
                other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {i}")),
            }
            let id = ManagerId {
                manager: text("manager"),
                operation,
                api_version: if operation == Operation::Apply { "".into() } else { api_version.clone() },
                subresource: text("subresource"),
            };
            let set =
                Set::from_value(entry.get("fieldsV1")).map_err(|e| format!("error decoding set: {e}"))?;
            managed.insert(id, Entry { set, api_version, time: text("time") });
        }
        Ok(Self(managed))
    }

    /// As `metadata.managedFields`: appliers first, then by time and name.
    pub fn encode(&self) -> Value {
        let mut sorted: Vec<(&ManagerId, &Entry)> = self.0.iter().collect();
        sorted.sort_by(|(a, x), (b, y)| {
            (a.operation, seconds(&x.time), &a.manager, &x.api_version, &a.subresource).cmp(&(
                b.operation,
                seconds(&y.time),
                &b.manager,
                &y.api_version,
                &b.subresource,
            ))
        });
        Value::Array(sorted.into_iter().map(|(id, entry)| encode_entry(id, entry)).collect())
    }

    /// At most this many managers that update are kept apart; the oldest are then put together.
    const MAX_UPDATERS: usize = 10;

    /// Puts the oldest updaters of each version together when there are too many.
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<ManagerId> =
            self.0.keys().filter(|id| id.operation == Operation::Update).cloned().collect();
        let mut left = updaters.len();
        updaters.sort_by_key(|id| (seconds(&self.0[id].time), id.clone()));
        let mut first_of: BTreeMap<CompactString, ManagerId> = BTreeMap::new();
        for id in updaters {
            if left <= Self::MAX_UPDATERS {
                return;
            }
            let version = self.0[&id].api_version.clone();
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, id);
                continue;
            };
            let bucket = ManagerId {
                manager: "ancient-changes".into(),
                operation: Operation::Update,
                api_version: version,
                subresource: "".into(),
            };
            if !self.0.contains_key(&bucket)
                && let Some(entry) = self.0.remove(first)
            {
                self.0.insert(bucket.clone(), entry);
            }
            let Some(entry) = self.0.remove(&id) else { continue };
            left -= 1;
            let into = self.0.entry(bucket).or_insert_with(|| Entry { set: Set::default(), ..entry.clone() });
            into.set = entry.set.union(&into.set);
            into.time = entry.time;
        }
    }
}

/// Seconds since 1970 of a time as written; zero for none.
fn seconds(time: &str) -> i64 {
    api::time::parse(time).map_or(0, |t| t.as_second())
}

fn encode_entry(id: &ManagerId, entry: &Entry) -> Value {
    let mut map = Map::with_capacity(7);
    let mut text = |key: &str, value: &str| {
        if !value.is_empty() {
            map.push(key, value.into());
        }
    };
    text("manager", &id.manager);
    text("operation", id.operation.as_str());
    text("apiVersion", &entry.api_version);
    text("time", &entry.time);
    text("fieldsType", "FieldsV1");
    map.push("fieldsV1", entry.set.to_value());
    if !id.subresource.is_empty() {
        map.push("subresource", id.subresource.as_str().into());
    }
    Value::Object(map)
}
