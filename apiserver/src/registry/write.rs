//! Creating and changing objects.

use std::borrow::Cow;

use api::error::Result;
use api::field::{FieldError, Path};
use api::{ApiError, Value, names};
use futures::future::BoxFuture;
use jiff::Timestamp;

use super::convert::differs;
use super::{Call, set_type, to_storage};
use crate::admission::{self, Operation};
use crate::allocate::Allocated;
use crate::kinds::{drop_disabled, validate_metadata, validate_metadata_update};
use crate::resources::{Resource, TABLE};
use crate::storage::{KeyValue, Outcome, Precondition, set_resource_version};

/// How often a generated name is tried before giving up.
const GENERATE_ATTEMPTS: usize = 8;

/// What an update makes of an object.
pub(super) enum Next {
    /// It is written.
    Put(Value),
    /// It is removed; this is its last state.
    Remove(Value),
}

/// An object as it is now, in its storage version.
pub(super) struct Current {
    /// The object, with its resourceVersion.
    pub object: Value,
    /// Revision of its last change.
    pub revision: i64,
    fresh: bool,
    /// It would be stored differently now. Only known of what was read from etcd.
    stale: bool,
}

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
        let mode = super::FieldValidation::Ignore;
        let read = match &self.row.custom {
            Some(custom) => custom.version().ty.decode(object, mode),
            None => schema::decode::normalize(object, self.ty(), mode),
        };
        Ok(read.map_err(ApiError::internal)?.0)
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

    async fn insert(&self, mut object: Value) -> Result<Value> {
        let storage = &self.server.storage;
        let cache = self.cache()?;
        let key = self.row.key(object.namespace(), object.name());
        if self.write.dry_run {
            storage.catch_up().await?;
            if cache.get(&key).is_some() {
                return Err(ApiError::already_exists(self.row.group, self.row.plural, object.name()));
            }
            return Ok(object);
        }
        let lease = self.lease().await?;
        let full = storage.etcd().full_key(&cache.prefix, &key);
        let mut stored = self.stored_form(object.clone()).await?;
        stored.remove_at(&["metadata", "resourceVersion"]);
        let reads_back = self.reads_back();
        match storage.put(&cache, &full, Precondition::Absent, stored, reads_back, lease).await? {
            Outcome::Done(revision) => {
                set_resource_version(&mut object, revision);
                Ok(object)
            }
            Outcome::Changed(there) => {
                let mut error = ApiError::already_exists(self.row.group, self.row.plural, object.name());
                let there = match there {
                    Some(kv) => self.decoded(kv).await.ok(),
                    None => None,
                };
                let terminating = there.is_some_and(|current| current.object.is_terminating());
                if terminating {
                    let text = format!("object is being deleted: {}", error.status().message);
                    error.status_mut().message = text;
                }
                Err(error)
            }
        }
    }

    /// Whether what is written is read as the same object, whenever that is: no version is made into another, and no
    /// schema changes.
    fn reads_back(&self) -> bool {
        self.row.custom.is_none() && !differs(&self.row)
    }

    /// Reads an object from the cache, or from etcd when `fresh`.
    async fn current(&self, fresh: bool) -> Result<Current> {
        let storage = &self.server.storage;
        let cache = self.cache()?;
        let key = self.key();
        if !fresh && let Some(stored) = cache.get(&key) {
            let (object, revision) = (stored.object(), stored.revision);
            return Ok(Current { object, revision, fresh: false, stale: false });
        }
        let kv = storage.etcd().get(&storage.etcd().full_key(&cache.prefix, &key)).await?;
        self.decoded(kv.ok_or_else(|| self.not_found())?).await
    }

    async fn decoded(&self, kv: KeyValue) -> Result<Current> {
        let (storage, cache) = (&self.server.storage, self.cache()?);
        let full = storage.etcd().full_key(&cache.prefix, &self.key());
        let opened = storage.open(&cache, &full, &kv.value).await;
        let (value, stale) = opened.map_err(ApiError::internal)?;
        let read = cache.read(&value, kv.revision);
        let object = read.ok_or_else(|| ApiError::internal("etcd holds something that is no object"))?;
        let stale = stale || cache.is_outdated(&value);
        Ok(Current { object, revision: kv.revision, fresh: true, stale })
    }

    /// Begins to change the object.
    pub(super) async fn attempt(&self) -> Result<Current> {
        self.current(false).await
    }

    /// Writes what a change made of `current`. Returns the object as written, and true when it was removed; or none when
    /// the object turned out to be another, which is in `current` now, and the change must be made again.
    pub(super) async fn settle(
        &self,
        current: &mut Current,
        next: Result<Next>,
    ) -> Result<Option<(Value, bool)>> {
        let next = match next {
            // What went wrong may be due to an old copy.
            Err(e) => return if self.refresh(current).await? { Ok(None) } else { Err(e) },
            Ok(next) => next,
        };
        let storage = &self.server.storage;
        let full = storage.etcd().full_key(&self.cache()?.prefix, &self.key());
        let guard = Precondition::Revision(current.revision);
        let (mut object, outcome, removed) = match next {
            Next::Put(object) | Next::Remove(object) if self.write.dry_run => {
                return Ok(Some((object, false)));
            }
            Next::Put(object) => {
                let bare = without_version(&object);
                if bare == without_version(&current.object) {
                    if self.refresh(current).await? {
                        return Ok(None);
                    }
                    if !current.stale {
                        return Ok(Some((current.object.clone(), false)));
                    }
                }
                let lease = self.lease().await?;
                let reads_back = self.reads_back();
                let outcome = storage.put(&*self.cache()?, &full, guard, bare, reads_back, lease).await?;
                (object, outcome, false)
            }
            Next::Remove(object) => (object, storage.etcd().delete(&full, guard).await?, true),
        };
        match outcome {
            Outcome::Done(revision) => {
                set_resource_version(&mut object, revision);
                Ok(Some((object, removed)))
            }
            Outcome::Changed(Some(kv)) => {
                *current = self.decoded(kv).await?;
                Ok(None)
            }
            Outcome::Changed(None) => Err(self.not_found()),
        }
    }

    /// Makes sure that `current` is what etcd has; true when it was not.
    async fn refresh(&self, current: &mut Current) -> Result<bool> {
        if current.fresh {
            return Ok(false);
        }
        let newer = self.current(true).await?;
        let changed = newer.revision != current.revision;
        *current = newer;
        Ok(changed)
    }

    /// The lease of objects that do not live for ever.
    async fn lease(&self) -> Result<Option<i64>> {
        match self.row.strategy.ttl {
            Some(_) => self.server.storage.etcd().shared_lease(self.server.config.event_ttl).await.map(Some),
            None => Ok(None),
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
        self.scope_to_subresource(&old, &mut new);
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
    fn check_identity(&self, new: &Value, revision: i64) -> Result<()> {
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
    fn carry_over(&self, old: &Value, new: &mut Value) {
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

    /// The object and its status are written apart: each write keeps the other part.
    fn scope_to_subresource(&self, old: &Value, new: &mut Value) {
        if self.row.has_status() {
            self.scope_to_status(old, new);
        }
        if let Some(part) = self.row.strategy.part(&self.subresource) {
            (part.prepare)(new, old);
        }
    }

    fn scope_to_status(&self, old: &Value, new: &mut Value) {
        if self.subresource == "status" {
            let status = new.get("status").clone();
            let metadata = new.get("metadata").clone();
            *new = old.clone();
            new.set(&["status"], status);
            let keeps_metadata = matches!(
                self.row.plural,
                "apiservices"
                    | "flowschemas"
                    | "prioritylevelconfigurations"
                    | "resourceclaims"
                    | "servicecidrs"
                    | "storageversionmigrations"
                    | "validatingadmissionpolicies"
                    | "volumeattachments"
            );
            if self.row.custom.is_some() || keeps_metadata {
                put_or_remove(new, "managedFields", metadata.get("managedFields"));
                return;
            }
            new.set(&["metadata"], metadata);
            let kept = match self.row.plural {
                "deployments" => "labels",
                "pods" => "ownerReferences",
                _ => return,
            };
            put_or_remove(new, kept, old.at(&["metadata", kept]));
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
    fn count_generation(&self, old: &Value, mut new: Value) -> Value {
        if !self.row.strategy.generation || self.subresource == "status" {
            return new;
        }
        let status_counts = self.row.custom.is_some() && !self.row.has_status();
        let desired = |o: &Value| {
            let mut o = o.clone();
            let annotations = o.remove_at(&["metadata", "annotations"]);
            let labels = o.remove_at(&["metadata", "labels"]).filter(|l| !l.is_empty());
            let map = o.make_object();
            for field in ["metadata", "kind", "apiVersion"] {
                map.remove(field);
            }
            if !status_counts {
                map.remove("status");
            }
            let counts = |plural: &str| self.row.built_in() == plural;
            (o, annotations.filter(|_| counts("deployments")), labels.filter(|_| counts("endpointslices")))
        };
        if desired(old) != desired(&new) {
            let generation = old.at(&["metadata", "generation"]).as_i64().unwrap_or(0);
            new.set(&["metadata", "generation"], generation + 1);
        }
        new
    }

    /// True when nothing keeps a terminating object any more.
    fn is_finished(&self, object: &Value) -> bool {
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

fn without_version(object: &Value) -> Value {
    let mut object = object.clone();
    object.remove_at(&["metadata", "resourceVersion"]);
    object
}

fn put_or_remove(object: &mut Value, field: &str, value: &Value) {
    if value.is_null() {
        object.remove_at(&["metadata", field]);
    } else {
        object.set(&["metadata", field], value);
    }
}

/// What subresources and reviews need beside the chain of ordinary writes.
impl Call {
    /// Writes what finalizes a namespace; without any left it is removed.
    pub async fn finalize_namespace(&self, finalizers: &Value) -> Result<Value> {
        let mut current = self.attempt().await?;
        loop {
            let next = self.finalized(&current.object, finalizers).await;
            let next = next.map(|o| if self.is_finished(&o) { Next::Remove(o) } else { Next::Put(o) });
            if let Some((object, _)) = self.settle(&mut current, next).await? {
                return Ok(object);
            }
        }
    }

    async fn finalized(&self, old: &Value, finalizers: &Value) -> Result<Value> {
        let mut new = old.clone();
        if finalizers.is_empty() {
            new.remove_at(&["spec", "finalizers"]);
        } else {
            new.set(&["spec", "finalizers"], finalizers);
        }
        self.track_update(old, &mut new)?;
        admission::mutate(self, Operation::Update, &mut new, Some(old)).await?;
        let new = self.canonical(new)?;
        admission::validate(self, Operation::Update, Some(&new), Some(old)).await?;
        Ok(new)
    }

    /// A change by the server itself, beside the chain of ordinary writes: what is finished then is removed.
    pub async fn rewrite(&self, change: impl Fn(&mut Value) + Send + Sync) -> Result<Value> {
        let mut current = self.attempt().await?;
        loop {
            let mut object = current.object.clone();
            change(&mut object);
            let next = self.canonical(object);
            let next = next.map(|o| if self.is_finished(&o) { Next::Remove(o) } else { Next::Put(o) });
            if let Some((object, _)) = self.settle(&mut current, next).await? {
                return Ok(object);
            }
        }
    }

    /// Changes a pod by `assign`, whose refusal is a conflict.
    pub async fn bind(
        &self,
        assign: impl Fn(&mut Value) -> std::result::Result<(), String> + Send + Sync,
    ) -> Result<()> {
        let mut current = self.attempt().await?;
        loop {
            let mut pod = current.object.clone();
            let assigned = assign(&mut pod);
            let next = assigned
                .map_err(|why| ApiError::conflict("", "pods/binding", &self.name, &why))
                .and_then(|()| self.canonical(pod).map(Next::Put));
            if self.settle(&mut current, next).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Records what the client set in a review, which is never stored.
    pub fn track_review(&self, review: &mut Value) -> Result<()> {
        self.track_create(review)
    }

    /// Refuses a review with findings.
    pub fn refuse_review(&self, review: &Value, errors: &[FieldError]) -> Result<()> {
        self.refuse_invalid(review, errors)
    }
}
