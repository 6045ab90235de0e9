//! The parameters of a policy: objects that a binding names or selects.

use std::sync::Arc;

use api::selector::LabelSelector;
use api::{ApiError, Value};

use crate::registry::{from_storage, set_type};
use crate::resources::Row;
use crate::storage::{Cache, Storage, Stored};

/// `paramKind` of a policy.
pub(super) struct ParamKind {
    group: String,
    version: String,
    kind: String,
}

impl ParamKind {
    pub(super) fn new(kind: &Value) -> Option<Self> {
        let api_version = kind.get("apiVersion").as_str()?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = kind.str_at(&["kind"]).to_owned();
        Some(Self { group: group.to_owned(), version: version.to_owned(), kind })
    }

    /// The resource whose objects are of the kind.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn resource(&self, storage: &Storage) -> Result<Row, String> {
        let is = |row: &&Row| {
            row.is_stored() && row.group == self.group && row.version == self.version && row.kind == self.kind
        };
        let built_in = storage.served().rows.iter().find(is).cloned();
        built_in.or_else(|| storage.custom().load().rows().iter().find(is).cloned()).ok_or_else(|| {
            let Self { group, version, kind } = self;
            format!("failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind}'")
        })
    }
}

/// The objects that `reference` of a binding means, for a request in `namespace`.
///
/// # Errors
/// What is wrong with the reference, in the words of upstream; or that a missing parameter denies.
pub(super) async fn collect(
    storage: &Storage,
    row: &Row,
    reference: &Value,
    namespace: &str,
) -> Result<Vec<Value>, String> {
    let cache: Arc<Cache> = match (&row.custom, row.store) {
        (Some(custom), _) => custom.cache.clone(),
        (None, Some(store)) => storage.cache(store).clone(),
        (None, None) => return Err("the resource has no objects".to_owned()),
    };
    let given = reference.str_at(&["namespace"]);
    let home = match (row.namespaced, given) {
        (false, "") => "",
        (false, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
        (true, "") if namespace.is_empty() => {
            let why =
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(why.to_owned());
        }
        (true, "") => namespace,
        (true, given) => given,
    };
    let found: Vec<Arc<Stored>> = match reference.str_at(&["name"]) {
        "" => {
            let selector = LabelSelector::from_object(reference.get("selector"))?;
            let selector = selector.ok_or("one of name or selector must be provided")?;
            let prefix = if row.namespaced { format!("{home}/") } else { String::new() };
            let snapshot = cache.snapshot();
            let selected = |s: &&Arc<Stored>| selector.matches(|key| s.label(key));
            snapshot.below(&prefix).filter(selected).cloned().collect()
        }
        name => cache.get(&row.key(home, name)).into_iter().collect(),
    };
    if found.is_empty() && reference.str_at(&["parameterNotFoundAction"]) == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    let objects: Vec<Value> = found.iter().map(|s| s.object()).collect();
    let Some(custom) = &row.custom else {
        let view = |object: Value| {
            let mut object = from_storage(row, object);
            set_type(&mut object, row);
            object
        };
        return Ok(objects.into_iter().map(view).collect());
    };
    let converted = custom.kind.convert(storage, objects, custom.version()).await;
    converted.map_err(|e: ApiError| e.status().message.clone())
}
