//! Where the registry treats custom resources differently: their defaults, their validation, and the versions they
//! are stored and served in.

use std::borrow::Cow;
use std::sync::Arc;

use api::error::Result;
use api::field::FieldError;
use api::{ApiError, Value};
use schema::Ty;

use super::{Call, ListOptions, from_storage, to_storage};
use crate::custom::{Conversion, Custom};
use crate::storage::{Cache, Event, Held, Snapshot, Stored};

impl Call {
    /// The cache to read after waiting for it: that of a custom resource is another when its definition has changed
    /// meanwhile.
    pub(super) fn cache_now(&self) -> Result<Arc<Cache>> {
        let cache = self.cache()?;
        if !cache.closed().is_cancelled() {
            return Ok(cache);
        }
        let served = self.server.storage.custom().load();
        served.cache(&cache.prefix).cloned().ok_or_else(ApiError::path_not_found)
    }

    /// Fills in absent fields.
    pub fn default_object(&self, object: &mut Value) {
        match &self.row.custom {
            Some(custom) => custom.version().ty.default(object),
            None => (self.row.strategy.default)(object),
        }
    }

    /// What is wrong with an object by the schema of its definition.
    pub(super) fn validate_custom(&self, object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        if let Some(custom) = &self.row.custom {
            let status_alone = self.subresource == "status";
            errors.extend(custom.version().validate(object, old, status_alone, &mut |w| self.warn(w)));
        }
    }

    /// Advice about finalizers of custom resources that are new in an object.
    pub(super) fn warn_of_finalizers(&self, object: &Value, old: Option<&Value>) {
        const BARE: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
        if self.row.custom.is_none() {
            return;
        }
        let before = old.map_or(&[][..], |o| o.array_at(&["metadata", "finalizers"]));
        let added = object.array_at(&["metadata", "finalizers"]).iter().filter(|f| !before.contains(f));
        for name in added.filter_map(Value::as_str).filter(|n| !n.contains('/') && !BARE.contains(n)) {
            let path = if name.contains('.') { " including a path (/)" } else { "" };
            self.warn(format!(
                "metadata.finalizers: {}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers",
                api::field::go_quote(name)
            ));
        }
    }

    /// Nothing is created any more of a resource whose definition is going.
    pub(super) fn check_definition(&self) -> Result<()> {
        if self.row.custom.is_none() {
            return Ok(());
        }
        let served = self.server.storage.custom().load();
        match served.definition(self.row.group, self.row.plural) {
            Some(definition) if definition.terminating => {
                let why = "create not allowed while custom resource definition is terminating";
                Err(ApiError::forbidden(self.row.group, self.row.plural, &self.name, why))
            }
            _ => Ok(()),
        }
    }

    /// A stored object in the version of the call.
    pub(super) async fn view(&self, object: Value) -> Result<Value> {
        let Some(custom) = &self.row.custom else { return Ok(from_storage(&self.row, object)) };
        let mut objects = custom.kind.convert(&self.server.storage, vec![object], custom.version()).await?;
        Ok(objects.pop().unwrap_or_default())
    }

    /// An object of the call in the version that is stored.
    pub(super) async fn stored_form(&self, object: Value) -> Result<Value> {
        let Some(custom) = &self.row.custom else { return Ok(to_storage(&self.row, object)) };
        let mut objects =
            custom.kind.convert(&self.server.storage, vec![object], custom.kind.storage()).await?;
        Ok(objects.pop().unwrap_or_default())
    }

    /// True when a selector has to see objects in the version of the call: only the webhook that converts them knows
    /// what they say there.
    pub(super) fn selects_views(&self, options: &ListOptions) -> bool {
        let by_name = options.fields.terms.iter().all(|t| t.field.starts_with("metadata."));
        let asks = |c: &Custom| matches!(c.kind.conversion, Conversion::Webhook { .. });
        !(by_name && options.labels.is_everything()) && self.row.custom.as_ref().is_some_and(asks)
    }

    /// The part of a snapshot below `prefix` in the version of the call.
    pub(super) async fn snapshot_views(&self, snapshot: &Snapshot, prefix: &str) -> Result<Snapshot> {
        let views = self.views(snapshot.below(prefix).cloned().collect()).await?;
        let objects = views.into_iter().map(|stored| (stored.key.clone(), Held::from(stored))).collect();
        Ok(Snapshot { revision: snapshot.revision, objects })
    }

    /// Changes in the version of the call.
    pub(super) async fn event_views(&self, events: Vec<Event>) -> Result<Vec<Event>> {
        let states = events.iter().flat_map(|e| [&e.new, &e.old, &e.last]).flatten().cloned().collect();
        let mut views = self.views(states).await?.into_iter();
        let mut view = |state: Option<Arc<Stored>>| state.and_then(|_| views.next());
        let show =
            |e: Event| Event { revision: e.revision, new: view(e.new), old: view(e.old), last: view(e.last) };
        Ok(events.into_iter().map(show).collect())
    }

    /// Stored objects in the version of the call; those of built-in resources are left to whoever shows them.
    pub(super) async fn views(&self, items: Vec<Arc<Stored>>) -> Result<Vec<Arc<Stored>>> {
        let Some(custom) = &self.row.custom else { return Ok(items) };
        let version = custom.version();
        let foreign: Vec<usize> = items
            .iter()
            .enumerate()
            .filter(|(_, s)| !says(s, &version.api_version))
            .map(|(i, _)| i)
            .collect();
        if foreign.is_empty() {
            return Ok(items);
        }
        let objects = foreign.iter().map(|i| items[*i].object()).collect();
        let converted = custom.kind.convert(&self.server.storage, objects, version).await?;
        let mut items = items;
        for (i, object) in foreign.into_iter().zip(converted) {
            let (key, revision) = (items[i].key.clone(), items[i].revision);
            items[i] = Arc::new(custom.cache.stored(&key, &object, revision));
        }
        Ok(items)
    }
}

/// True when the object is in that version; custom resources begin with it.
fn says(stored: &Stored, api_version: &str) -> bool {
    let rest = stored.json.strip_prefix(b"{\"apiVersion\":\"");
    rest.and_then(|r| r.strip_prefix(api_version.as_bytes())).is_some_and(|r| r.first() == Some(&b'"'))
}

/// An object of a custom resource in another of its versions, for the fields of managers that use it.
// DIVERGES: no webhook is asked here: fields that only the other version has keep the managers they have.
pub(super) fn at_version<'v>(
    custom: &'v Custom,
    object: &'v Value,
    api_version: &str,
) -> Option<(Cow<'v, Value>, Ty<'v>)> {
    let version = custom.kind.at(api_version)?;
    if object.api_version() == api_version {
        return Some((Cow::Borrowed(object), version.ty.ty()));
    }
    Some((Cow::Owned(custom.kind.rename(object.clone(), version)), version.ty.ty()))
}
