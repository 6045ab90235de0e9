//! Field managers: who set which field, kept in `metadata.managedFields`.

use std::borrow::Cow;

use api::error::Result;
use api::{ApiError, Value, object};
use jiff::Timestamp;
use schema::Ty;
use schema::apply::{self, Filter, Request, Versions};

use super::custom::at_version;
use super::{Call, from_storage, schema_of, to_storage};
use crate::resources::{Resource, TABLE};

/// The versions in which a resource is served.
struct Served<'r>(&'r Resource);

impl Versions for Served<'_> {
    fn at<'v>(&'v self, object: &'v Value, api_version: &str) -> Option<(Cow<'v, Value>, Ty<'v>)> {
        if let Some(custom) = &self.0.custom {
            return at_version(custom, object, api_version);
        }
        let rows = || TABLE.rows.iter().filter(|r| r.group == self.0.group && r.plural == self.0.plural);
        let wanted = rows().find(|r| r.api_version() == api_version)?;
        if object.api_version() == api_version {
            return Some((Cow::Borrowed(object), schema_of(wanted)));
        }
        let present = rows().find(|r| r.api_version() == object.api_version())?;
        let converted = from_storage(wanted, to_storage(present, object.clone()));
        Some((Cow::Owned(converted), schema_of(wanted)))
    }
}

/// Upstream keeps no time for managers of a scale, and puts them first.
fn forget_times_of_scales(object: &mut Value) {
    let metadata = object.make_object().entry("metadata").make_object();
    let Some(Value::Array(entries)) = metadata.get_mut("managedFields") else { return };
    for entry in entries.iter_mut().filter(|e| e.str_at(&["subresource"]) == "scale") {
        entry.remove_at(&["time"]);
    }
    entries.sort_by_key(|e| !e.get("time").is_null());
}

impl Call {
    /// Records what the client set in a new object.
    pub(super) fn track_create(&self, object: &mut Value) -> Result<()> {
        if self.write.applying {
            return Ok(());
        }
        self.with_request(|request| apply::track_update(None, object, request));
        Ok(())
    }

    /// Records what the client changed.
    pub(super) fn track_update(&self, old: &Value, new: &mut Value) -> Result<()> {
        if self.write.applying {
            return Ok(());
        }
        self.with_request(|request| {
            apply::track_update(Some(old), new, request);
            apply::keep_times(old, new);
        });
        if self.subresource == "scale" {
            forget_times_of_scales(new);
        }
        Ok(())
    }

    /// Applies a configuration to the live object, none for a new one. The result is decoded and has its managers.
    pub fn apply_patch(&self, live: Option<&Value>, patch: &Value) -> Result<Value> {
        if live.is_none() && !patch.uid().is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                patch.uid()
            );
            return Err(ApiError::conflict(self.row.group, self.row.plural, &self.name, &why));
        }
        let applied = self.with_request(|request| apply::apply(live, patch, self.write.force, request))?;
        let applied = match self.row.custom {
            Some(_) => applied,
            None => {
                schema::patch::convert(applied, self.ty()).map_err(|why| self.not_converted(patch, &why))?
            }
        };
        let mode = super::FieldValidation::Ignore;
        let decoded = schema::decode::normalize(applied, self.ty(), mode);
        let (mut object, _) = decoded.map_err(|why| self.not_converted(patch, &why.to_string()))?;
        self.default_object(&mut object);
        if let Some(live) = live {
            apply::keep_times(live, &mut object);
        }
        if self.subresource == "scale" {
            forget_times_of_scales(&mut object);
        }
        Ok(object)
    }

    /// Gives the fields that `part` has to whom unmanaged objects belong to, if nobody owns any of them: a part that is
    /// applied apart is an object of its own.
    pub fn own_unowned(&self, live: &mut Value, part: &Value) {
        let fields = apply::fields_of(part, self.ty());
        let managed = apply::Managed::decode(live.at(&["metadata", "managedFields"])).unwrap_or_default();
        if managed.iter().any(|(_, entry)| !entry.set.clone().intersection(&fields).is_empty()) {
            return;
        }
        let entry = object!({
            "manager": (apply::BEFORE_FIRST_APPLY), "operation": "Update", "apiVersion": (self.row.api_version()),
            "fieldsType": "FieldsV1", "fieldsV1": (fields.to_value()), "subresource": (self.subresource.as_str()),
        });
        live.make_object().entry("metadata").make_object().entry("managedFields").make_array().push(entry);
    }

    /// What upstream says of an applied object with values that are none of their fields' types.
    fn not_converted(&self, patch: &Value, why: &str) -> ApiError {
        if self.row.custom.is_some() {
            return ApiError::internal(why);
        }
        let kind = format!("{}, Kind={}", self.row.api_version(), self.row.kind);
        let text = format!(
            "failed to convert new object ({}/{}; {kind}) to proper version: unable to convert unstructured object to {kind}: {why}",
            self.namespace,
            patch.name(),
        );
        ApiError::new(http::StatusCode::INTERNAL_SERVER_ERROR, "", &text)
    }

    /// Records what the client set in the body of a subresource with a type of its own.
    pub fn track_body(&self, body: &mut Value, api_version: &str, ty: Ty<'_>) {
        self.with_request_of(api_version, ty, |request| apply::track_update(None, body, request));
    }

    fn with_request<T>(&self, f: impl FnOnce(&Request<'_>) -> T) -> T {
        self.with_request_of(&self.row.api_version(), self.ty(), f)
    }

    fn with_request_of<T>(&self, api_version: &str, ty: Ty<'_>, f: impl FnOnce(&Request<'_>) -> T) -> T {
        let reset = self.reset_fields();
        let versions = Served(&self.row);
        f(&Request {
            manager: &self.write.manager,
            subresource: &self.subresource,
            api_version,
            kind: self.row.kind,
            ty,
            reset: &reset,
            now: Timestamp::now(),
            versions: &versions,
        })
    }

    /// Fields that this write cannot change.
    fn reset_fields(&self) -> Filter {
        if self.subresource == "status" && self.row.built_in() == "servicecidrs" {
            return Filter::exclude(&[&["spec"], &["metadata"]]);
        }
        if let Some(part) = self.row.strategy.part(&self.subresource) {
            return Filter::exclude(part.fixed);
        }
        match self.subresource.as_str() {
            "" if !self.row.strategy.reset.is_empty() => Filter::exclude(self.row.strategy.reset),
            "status" if self.row.built_in() == "pods" => Filter::exclude(&[
                &["spec"],
                &["metadata", "deletionTimestamp"],
                &["metadata", "ownerReferences"],
            ]),
            "status" if self.row.custom.is_some() => Filter::exclude(&[&["spec"], &["metadata"]]),
            "status" => Filter::exclude(&[&["spec"]]),
            "" if self.row.has_status() => Filter::exclude(&[&["status"]]),
            _ => Filter::None,
        }
    }
}
