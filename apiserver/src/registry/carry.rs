//! What a change cannot change: whose object it is, what only the server says, and the parts that other requests write.

use api::error::Result;
use api::field::{FieldError, Path};
use api::{ApiError, Value};

use super::Call;
use crate::kinds::StatusMetadata;

impl Call {
    /// The object must be the one of the request.
    pub fn check_name(&self, object: &Value) -> Result<()> {
        let (name, asked) = (object.name(), &self.name);
        if name.is_empty() {
            let why = format!(
                "the name of the object ({asked} based on URL) was undeterminable: name must be provided"
            );
            return Err(ApiError::bad_request(why));
        }
        if name != asked {
            let why = format!("the name of the object ({name}) does not match the name on the URL ({asked})");
            return Err(ApiError::bad_request(why));
        }
        Ok(())
    }

    /// The object that is replaced must be the one that a client means by its uid, if it names one.
    pub fn check_uid(&self, new: &Value, old: &Value) -> Result<()> {
        let (wanted, found) = (new.uid(), old.uid());
        if wanted.is_empty() || wanted == found {
            return Ok(());
        }
        let prefix = self.cache()?.prefix.clone();
        // A dry run does not know where etcd's prefix is.
        let key = match self.write.dry_run {
            true => format!("/{prefix}/{}", self.key()),
            false => self.server.storage.etcd().full_key(&prefix, &self.key()),
        };
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
        );
        Err(ApiError::conflict(self.row.group, self.row.plural, &self.name, &why))
    }

    /// The object must be the one that the client read.
    pub(super) fn check_identity(&self, new: &Value, revision: i64) -> Result<()> {
        self.check_name(new)?;
        match new.resource_version() {
            "" | "0" if !self.row.strategy.unconditional_update => {
                let metadata = Path::new("metadata");
                let why = "must be specified for an update";
                let error = FieldError::invalid(&metadata.child("resourceVersion"), 0, why);
                Err(ApiError::invalid(self.row.group, self.row.plural, &self.name, &[error]))
            }
            "" | "0" => Ok(()),
            v if v == revision.to_string() => Ok(()),
            v if v.parse::<u64>().is_err() => Err(unreadable_version(v)),
            _ => Err(ApiError::stale(self.row.group, self.row.plural, &self.name)),
        }
    }

    /// What a client cannot change about an object's metadata.
    pub(super) fn carry_over(&self, old: &Value, new: &mut Value) {
        let before = old.get("metadata");
        let metadata = new.make_object().entry("metadata").make_object();
        metadata.insert("name", self.name.as_str());
        if metadata.get("uid").is_none_or(Value::is_empty) {
            metadata.insert("uid", before.get("uid"));
        }
        for field in ["creationTimestamp", "generation", "resourceVersion"] {
            match before.get(field) {
                Value::Null => {
                    metadata.remove(field);
                }
                value => {
                    metadata.insert(field, value);
                }
            }
        }
        // What says that it ends cannot be taken away; that it cannot be added either is found by the validation.
        if !before.get("deletionTimestamp").is_null() {
            metadata.insert("deletionTimestamp", before.get("deletionTimestamp"));
        }
        if metadata.get("deletionGracePeriodSeconds").is_none_or(Value::is_null)
            && !before.get("deletionGracePeriodSeconds").is_null()
        {
            metadata.insert("deletionGracePeriodSeconds", before.get("deletionGracePeriodSeconds"));
        }
    }

    /// Each write keeps what others are to write.
    pub(super) fn scope_to_subresource(&self, old: &Value, new: &mut Value) {
        self.scope_to_status(old, new);
        if let Some(part) = self.row.strategy.part(&self.subresource) {
            (part.prepare)(new, old);
        }
    }

    /// The object and its status are written apart.
    pub(super) fn scope_to_status(&self, old: &Value, new: &mut Value) {
        if !self.row.has_status() {
            return;
        }
        if self.subresource == "status" {
            let status = new.get("status").clone();
            let metadata = new.get("metadata").clone();
            *new = old.clone();
            new.set(&["status"], status);
            match self.row.strategy.status_metadata {
                StatusMetadata::Managers => {
                    put_or_remove(new, "managedFields", metadata.get("managedFields"));
                }
                StatusMetadata::All => new.set(&["metadata"], metadata),
                StatusMetadata::AllBut(kept) => {
                    new.set(&["metadata"], metadata);
                    put_or_remove(new, kept, old.at(&["metadata", kept]));
                }
            }
        } else if self.row.strategy.part(&self.subresource).is_none() && self.subresource != "resize" {
            match old.get("status") {
                Value::Null => {
                    new.make_object().remove("status");
                }
                status => new.set(&["status"], status),
            }
        }
    }

    /// Counts a change of the desired state.
    pub(super) fn count_generation(&self, old: &Value, mut new: Value) -> Value {
        if !self.row.strategy.generation || self.subresource == "status" {
            return new;
        }
        let status_counts = self.row.custom.is_some() && !self.row.has_status();
        let desired = |o: &Value| {
            let mut o = o.clone();
            let beside: Vec<_> = self
                .row
                .strategy
                .desired_metadata
                .iter()
                .map(|field| o.remove_at(&["metadata", field]).filter(|v| !v.is_empty()))
                .collect();
            let map = o.make_object();
            for field in ["metadata", "kind", "apiVersion"] {
                map.remove(field);
            }
            if !status_counts {
                map.remove("status");
            }
            (o, beside)
        };
        if desired(old) != desired(&new) {
            let generation = old.at(&["metadata", "generation"]).as_i64().unwrap_or(0);
            new.set(&["metadata", "generation"], generation + 1);
        }
        new
    }

    /// True when nothing keeps a terminating object any more.
    pub(super) fn is_finished(&self, object: &Value) -> bool {
        let waits = object.at(&["metadata", "deletionGracePeriodSeconds"]).as_i64().unwrap_or(0) > 0;
        let namespace_waits =
            self.row.built_in() == "namespaces" && !object.array_at(&["spec", "finalizers"]).is_empty();
        object.is_terminating()
            && !waits
            && !namespace_waits
            && object.array_at(&["metadata", "finalizers"]).is_empty()
    }
}

/// What upstream's storage says of a resourceVersion that is no number.
fn unreadable_version(version: &str) -> ApiError {
    let quoted = api::field::go_quote(version);
    let why = format!("strconv.ParseUint: parsing {quoted}: invalid syntax");
    ApiError::new(http::StatusCode::INTERNAL_SERVER_ERROR, "", &why)
}

fn put_or_remove(object: &mut Value, field: &str, value: &Value) {
    if value.is_null() {
        object.remove_at(&["metadata", field]);
    } else {
        object.set(&["metadata", field], value);
    }
}
