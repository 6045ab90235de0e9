//! A custom resource in all its versions, as its definition describes it.

use std::sync::{Arc, LazyLock};

use api::Value;
use compact_str::CompactString;
use tokio_util::sync::CancellationToken;

use super::conversion::Conversion;
use super::{Custom, JsonPath, Version, compare_versions};
use crate::kinds::{StatusMetadata, Strategy};
use crate::resources::{Resource, Row, Subresource, interned};
use crate::storage::{Cache, Reading};

static STRATEGY: LazyLock<Strategy> = LazyLock::new(|| Strategy {
    generation: true,
    unconditional_update: false,
    status_metadata: StatusMetadata::Managers,
    ..Strategy::NEUTRAL
});

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const PART_VERBS: [&str; 3] = ["get", "patch", "update"];

/// A custom resource in all its versions.
pub struct CustomKind {
    /// API group.
    pub group: &'static str,
    /// Name in paths.
    pub plural: &'static str,
    /// Kind of the objects.
    pub kind: &'static str,
    /// Kind of lists of them.
    pub list_kind: String,
    /// All versions, in the order in which clients prefer them.
    pub versions: Vec<Version>,
    /// Place of the version that is stored.
    pub storage: usize,
    /// How objects come from one version to another.
    pub conversion: Conversion,
    /// Paths of the selectable fields of all versions.
    fields: Vec<JsonPath>,
}

impl CustomKind {
    /// Reads a definition that has been validated.
    pub fn new(definition: &Value) -> Self {
        let spec = definition.get("spec");
        let names = definition.at(&["status", "acceptedNames"]);
        let group = interned(spec.str_at(&["group"]));
        let kind = interned(names.str_at(&["kind"]));
        let preserve = spec.get("preserveUnknownFields").as_bool() == Some(true);
        let mut specs: Vec<&Value> = spec.array_at(&["versions"]).iter().collect();
        specs.sort_by(|a, b| compare_versions(a.str_at(&["name"]), b.str_at(&["name"])));
        let storage = specs.iter().position(|v| v.get("storage").as_bool() == Some(true)).unwrap_or(0);
        let (mut fields, mut labels) = (Vec::new(), Vec::<String>::new());
        let mut versions = Vec::with_capacity(specs.len());
        for spec in specs {
            let mut version = Version::new(group, kind, preserve, spec);
            for path in spec.array_at(&["selectableFields"]).iter().map(|f| f.str_at(&["jsonPath"])) {
                let label = path.trim_start_matches('.').to_owned();
                let known = labels.iter().position(|l| *l == label);
                let at = match (known, JsonPath::parse(path)) {
                    (Some(at), _) => at,
                    (None, Ok(path)) => {
                        fields.push(path);
                        labels.push(label.clone());
                        labels.len() - 1
                    }
                    (None, Err(_)) => continue,
                };
                version.fields.push((label, at));
            }
            versions.push(version);
        }
        Self {
            group,
            plural: interned(spec.at(&["names", "plural"]).as_str().unwrap_or_default()),
            kind,
            list_kind: names.str_at(&["listKind"]).to_owned(),
            versions,
            storage,
            conversion: Conversion::new(spec.get("conversion")),
            fields,
        }
    }

    /// The version that says it is `api_version`.
    pub fn at(&self, api_version: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.api_version == api_version)
    }

    /// The version that is stored.
    pub fn storage(&self) -> &Version {
        &self.versions[self.storage]
    }

    /// Where the objects are kept in etcd, below the prefix of the cluster.
    pub fn prefix(&self) -> String {
        format!("{}/{}", self.group, self.plural)
    }

    /// The rows of all versions, with a new cache.
    pub fn rows(self: &Arc<Self>, definition: &Value) -> (Arc<Cache>, Vec<Row>) {
        let cache = Arc::new(Cache::new(&self.prefix(), self.clone(), CancellationToken::new()));
        let names = definition.at(&["status", "acceptedNames"]);
        let texts = |key: &str| -> Vec<&'static str> {
            names.array_at(&[key]).iter().filter_map(Value::as_str).map(interned).collect()
        };
        let namespaced = definition.str_at(&["spec", "scope"]) == "Namespaced";
        let rows = self.versions.iter().enumerate().map(|(at, version)| {
            Arc::new(Resource {
                group: self.group,
                version: version.name,
                plural: self.plural,
                singular: names.str_at(&["singular"]).to_owned(),
                kind: self.kind,
                namespaced,
                verbs: VERBS.to_vec(),
                short_names: texts("shortNames"),
                categories: texts("categories"),
                subresources: subresources(self.kind, version),
                prefix: None,
                store: None,
                strategy: &STRATEGY,
                custom: Some(Custom { kind: self.clone(), cache: cache.clone(), version: at }),
            })
        });
        let rows = rows.collect();
        (cache, rows)
    }
}

fn subresources(kind: &'static str, version: &Version) -> Vec<Subresource> {
    let mut out = Vec::new();
    if version.has_status {
        out.push(Subresource { name: "status", group_version: None, kind, verbs: PART_VERBS.to_vec() });
    }
    if version.scale.is_some() {
        let group_version = Some(("autoscaling", "v1"));
        out.push(Subresource { name: "scale", group_version, kind: "Scale", verbs: PART_VERBS.to_vec() });
    }
    out
}

impl Reading for CustomKind {
    fn read(&self, bytes: &[u8]) -> Option<Value> {
        let object = api::json::decode(bytes).ok()?.value;
        Some(self.read_again(object))
    }

    fn write(&self, object: &Value) -> Vec<u8> {
        object.to_json()
    }

    fn resource(&self) -> (&str, &str) {
        (self.group, self.plural)
    }

    fn fields(&self, object: &Value) -> Box<[CompactString]> {
        self.fields
            .iter()
            .map(|path| path.find(object).first().map_or_else(CompactString::default, |v| text(v)))
            .collect()
    }
}

impl CustomKind {
    /// An object in the version it is stored in, in order. What was stored before the schema changed is pruned and gets the
    /// defaults of today's; metadata that is no longer valid is dropped.
    pub fn read_again(&self, object: Value) -> Value {
        let Some(version) = self.at(object.api_version()) else { return object };
        let mut object = version.ty.read_stored(object);
        if object.at(&["metadata", "generation"]).as_i64().unwrap_or(0) <= 0 {
            object.set(&["metadata", "generation"], 1);
            object.make_object().entry("metadata").make_object().sort_keys();
        }
        object
    }
}

/// A value as Go prints it.
fn text(value: &Value) -> CompactString {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => CompactString::default(),
        other => other.to_string().into(),
    }
}
