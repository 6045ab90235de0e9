//! Creating and changing objects.

use std::borrow::Cow;

use api::error::Result;
use api::field::FieldError;
use api::{ApiError, Value, names};
use futures::future::BoxFuture;
use jiff::Timestamp;

use super::settle::Next;
use super::{Call, set_type, to_storage};
use crate::admission::{self, Operation};
use crate::allocate::Allocated;
use crate::kinds::{drop_disabled, validate_metadata, validate_metadata_update};
use crate::resources::{Resource, TABLE};

/// How often a generated name is tried before giving up.
const GENERATE_ATTEMPTS: usize = 8;

impl Call {
    /// Creates an object that was decoded in the row's version. A name is made for it, if need be, after admission has
    /// changed it.
    pub async fn create(&self, mut object: Value) -> Result<Value> {
        self.check_definition()?;
        self.check_namespace(&mut object)?;
        self.stamp(&mut object);
        self.default_object(&mut object);
        self.track_create(&mut object)?;
        admission::mutate(self, Operation::Create, &mut object, None).await?;
        self.drop_repeated_owners(&mut object, " after mutating admission happens");
        self.default_object(&mut object);
        if self.row.has_status() && !self.row.strategy.keeps_status {
            self.clear_status(&mut object);
        }
        let start = object.str_at(&["metadata", "generateName"]).to_owned();
        if !object.name().is_empty() || start.is_empty() {
            return self.create_named(object).await;
        }
        for _ in 1..GENERATE_ATTEMPTS {
            let mut copy = object.clone();
            copy.set(&["metadata", "name"], names::generate(&start));
            match self.create_named(copy).await {
                Err(e) if e.reason() == "AlreadyExists" => {}
                result => return result,
            }
        }
        object.set(&["metadata", "name"], names::generate(&start));
        self.create_named(object).await
    }

    async fn create_named(&self, mut object: Value) -> Result<Value> {
        let mut allocated = Allocated::default();
        let result = match self.server.allocators.allocate(self, &mut object, None, &mut allocated).await {
            Ok(()) => match self.admit_new(object).await {
                Ok(object) => self.insert(object).await,
                Err(e) => Err(e),
            },
            Err(e) => Err(e),
        };
        if result.is_ok() {
            allocated.keep(self).await;
        } else {
            allocated.release(self).await;
        }
        result
    }

    /// Prepares and checks a new object.
    async fn admit_new(&self, mut object: Value) -> Result<Value> {
        let strategy = self.row.strategy;
        (strategy.requested_by)(&mut object, &self.user);
        drop_disabled(&self.row, &mut object, None);
        (strategy.prepare_create)(&mut object);
        if strategy.generation {
            object.set(&["metadata", "generation"], 1);
        }
        let mut object = self.ordered(object)?;
        let mut errors = Vec::new();
        validate_metadata(&self.row, &object, &mut errors);
        self.check_devices(&object, None, &mut errors);
        (strategy.validate)(&self.checked(&object), &mut errors);
        self.validate_custom(&object, None, &mut errors);
        self.refuse_invalid(&object, &errors)?;
        for warning in (strategy.warn)(&object) {
            self.warn(warning);
        }
        self.warn_of_finalizers(&object, None);
        admission::validate(self, Operation::Create, Some(&object), None).await?;
        self.forget_empty(&mut object);
        Ok(object)
    }

    /// The version of the object that is checked.
    fn checked<'o>(&self, object: &'o Value) -> Cow<'o, Value> {
        match self.row.strategy.checks_stored {
            true => Cow::Owned(to_storage(&self.row, object.clone())),
            false => Cow::Borrowed(object),
        }
    }

    /// What the server says of a new object, whatever the client said.
    fn stamp(&self, object: &mut Value) {
        let uid = names::new_uid();
        let now = api::time::format(Timestamp::now());
        self.forget_system_fields(object);
        let metadata = object.make_object().entry("metadata").make_object();
        metadata.insert("uid", uid);
        metadata.insert("creationTimestamp", now);
    }

    /// Drops what only the server says of an object.
    pub fn forget_system_fields(&self, object: &mut Value) {
        let metadata = object.make_object().entry("metadata").make_object();
        for field in
            ["uid", "creationTimestamp", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"]
        {
            metadata.remove(field);
        }
    }

    fn clear_status(&self, object: &mut Value) {
        object.make_object().remove("status");
    }

    /// The object as it is stored: with its members in order, and zero values as upstream writes them.
    pub(super) fn canonical(&self, object: Value) -> Result<Value> {
        let mut object = self.ordered(object)?;
        self.forget_empty(&mut object);
        Ok(object)
    }

    /// Upstream keeps objects of its own kinds in a form that knows no empty lists.
    fn forget_empty(&self, object: &mut Value) {
        if self.row.custom.is_none() {
            schema::decode::forget_empty(object, self.ty());
        }
    }

    /// The object with its members in order.
    fn ordered(&self, mut object: Value) -> Result<Value> {
        set_type(&mut object, &self.row);
        let read = match &self.row.custom {
            Some(custom) => custom.version().ty.arrange(object),
            None => schema::decode::normalize(object, self.ty(), super::FieldValidation::Ignore).map(|r| r.0),
        };
        read.map_err(ApiError::internal)
    }

    /// The object with its defaults, as it is shown.
    pub fn whole(&self, mut object: Value) -> Value {
        self.default_object(&mut object);
        self.canonical(object.clone()).unwrap_or(object)
    }

    /// Puts a decoded object into the namespace of the request, or refuses the one it names.
    pub fn check_namespace(&self, object: &mut Value) -> Result<()> {
        if !self.row.namespaced {
            // A namespace on an object of the cluster is dropped, as upstream does.
            object.remove_at(&["metadata", "namespace"]);
            return Ok(());
        }
        let given = object.namespace();
        if !given.is_empty() && given != self.namespace {
            let why = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(ApiError::bad_request(why));
        }
        object.set(&["metadata", "namespace"], self.namespace.as_str());
        Ok(())
    }

    pub(super) fn refuse_invalid(&self, object: &Value, errors: &[FieldError]) -> Result<()> {
        match errors {
            [] => Ok(()),
            _ => {
                let row = self.row.store.filter(|_| self.row.strategy.checks_stored);
                let row: &Resource = row.map_or(&self.row, |s| TABLE.storage_row(s));
                Err(ApiError::invalid(row.group, row.kind, object.name(), errors))
            }
        }
    }

    /// Changes an object: `change` gets it in the row's version and returns the new one, decoded. It is called again
    /// whenever the object turns out to be another than thought.
    pub async fn update(&self, change: impl Fn(&Value) -> Result<Value> + Send + Sync) -> Result<Value> {
        let mut current = self.attempt().await?;
        loop {
            let old = self.view(current.object.clone()).await?;
            let mut allocated = Allocated::default();
            let next = match change(&old) {
                Ok(new) => self.advance(old, new, current.revision, &mut allocated).await,
                Err(e) => Err(e),
            };
            let settled = self.settle(&mut current, next).await;
            let Ok(Some((object, removed))) = settled else {
                allocated.release(self).await;
                settled?;
                continue;
            };
            allocated.keep(self).await;
            if removed {
                self.server.allocators.release(self, &object).await;
            }
            return self.view(object).await;
        }
    }

    /// [`Call::update`], for use within another write.
    pub fn update_within<'a>(
        &'a self,
        change: impl Fn(&Value) -> Result<Value> + Send + Sync + 'a,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(self.update(change))
    }

    /// [`Call::create`], for use within another write.
    pub fn create_within(&self, object: Value) -> BoxFuture<'_, Result<Value>> {
        Box::pin(self.create(object))
    }

    /// Everything between a changed object and its write.
    async fn advance(
        &self,
        old: Value,
        mut new: Value,
        revision: i64,
        allocated: &mut Allocated,
    ) -> Result<Next> {
        self.check_identity(&new, revision)?;
        self.check_namespace(&mut new)?;
        self.carry_over(&old, &mut new);
        self.default_object(&mut new);
        self.scope_to_status(&old, &mut new);
        self.track_update(&old, &mut new)?;
        admission::mutate(self, Operation::Update, &mut new, Some(&old)).await?;
        self.drop_repeated_owners(&mut new, " after mutating admission happens");
        self.default_object(&mut new);
        self.scope_to_subresource(&old, &mut new);
        self.server.allocators.allocate(self, &mut new, Some(&old), allocated).await?;
        let stored = self.admit_change(old, new).await?;
        Ok(if self.is_finished(&stored) { Next::Remove(stored) } else { Next::Put(stored) })
    }

    /// Prepares and checks a changed object, and returns what is to be stored.
    async fn admit_change(&self, old: Value, mut new: Value) -> Result<Value> {
        let strategy = self.row.strategy;
        drop_disabled(&self.row, &mut new, Some(&old));
        if self.subresource == "status" {
            (strategy.prepare_status)(&mut new, &old);
        } else if strategy.part(&self.subresource).is_none() {
            (strategy.prepare_update)(&mut new, &old);
        }
        let new = self.canonical(new)?;
        let new = self.count_generation(&old, new);
        let mut errors = Vec::new();
        validate_metadata_update(&self.row, &self.subresource, &new, &old, &mut errors);
        self.validate_change(&self.checked(&new), &self.checked(&old), &mut errors);
        self.validate_custom(&new, Some(&old), &mut errors);
        self.refuse_invalid(&new, &errors)?;
        if self.subresource.is_empty() {
            self.warn_of_finalizers(&new, Some(&old));
            let advice = match strategy.warn_change {
                Some(warn) => warn(&new, &old),
                None => (strategy.warn)(&new),
            };
            for warning in advice {
                self.warn(warning);
            }
        }
        admission::validate(self, Operation::Update, Some(&new), Some(&old)).await?;
        self.stored_form(new).await
    }

    fn validate_change(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        let strategy = self.row.strategy;
        self.check_devices(new, Some(old), errors);
        if matches!(self.subresource.as_str(), "" | "scale") {
            if strategy.changes_first {
                (strategy.validate_update)(new, old, errors);
            }
            if strategy.revalidates {
                (strategy.validate)(new, errors);
            }
            if !strategy.changes_first {
                (strategy.validate_update)(new, old, errors);
            }
        }
        if let Some(part) = strategy.part(&self.subresource) {
            (part.validate)(new, old, errors);
        }
    }

    /// Drops owners that are named twice, and tells the client `when` they were found.
    pub fn drop_repeated_owners(&self, object: &mut Value, when: &str) {
        let Some(owners) = object.at_mut(&["metadata", "ownerReferences"]).and_then(Value::as_array_mut)
        else {
            return;
        };
        let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
        let mut repeated = Vec::new();
        for owner in owners.drain(..) {
            match kept.contains(&owner) {
                true => repeated.push(owner.str_at(&["uid"]).to_owned()),
                false => kept.push(owner),
            }
        }
        *owners = kept;
        if !repeated.is_empty() {
            self.warn(format!(
                ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
                repeated.join(", ")
            ));
        }
    }
}
