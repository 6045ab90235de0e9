//! Deleting: at once, after a grace period, or when the last finalizer is gone.

use api::error::Result;
use api::{ApiError, Value, object};
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};

use super::options::{DeleteOptions, Propagation};
use super::settle::{Current, Next};
use super::{Call, ListOptions};
use crate::admission;
use crate::custom::controller;
use crate::kinds::is_system_class;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Resources whose deletion answers with the object.
const RETURNS_OBJECT: [&str; 18] = [
    "namespaces",
    "persistentvolumes",
    "persistentvolumeclaims",
    "pods",
    "podtemplates",
    "resourcequotas",
    "services",
    "serviceaccounts",
    "deviceclasses",
    "resourceclaims",
    "resourceclaimtemplates",
    "resourceslices",
    "csidrivers",
    "csinodes",
    "storageclasses",
    "volumeattachments",
    "volumeattributesclasses",
    "devicetaintrules",
];

/// What became of a deletion.
pub struct Deleted {
    /// What the client is told: the object, or a status.
    pub answer: Value,
    /// True when the object is gone, false when it waits for something.
    pub gone: bool,
}

impl Call {
    /// Deletes an object.
    pub async fn delete(&self, options: &DeleteOptions) -> Result<Deleted> {
        self.remove(options, true).await
    }

    /// Deletes an object without asking admission, which has been asked about what it is part of.
    pub async fn delete_admitted(&self, options: &DeleteOptions) -> Result<Deleted> {
        self.remove(options, false).await
    }

    async fn remove(&self, options: &DeleteOptions, asks: bool) -> Result<Deleted> {
        let mut current = self.attempt().await?;
        let (object, gone) = loop {
            let next = self.decide(&current, options, asks).await;
            if let Some(done) = self.settle(&mut current, next).await? {
                break done;
            }
        };
        // A dry run removes nothing, but answers as if it had.
        let gone = gone || (self.write.dry_run && !object.is_terminating());
        if gone && !self.write.dry_run {
            self.server.allocators.release(self, &object).await;
        }
        let object = self.view(object).await?;
        let answer = if gone && !RETURNS_OBJECT.contains(&self.row.built_in()) {
            self.success(&object)
        } else {
            object
        };
        Ok(Deleted { answer, gone })
    }

    async fn decide(&self, current: &Current, options: &DeleteOptions, asks: bool) -> Result<Next> {
        let old = self.view(current.object.clone()).await?;
        self.check_preconditions(&old, options)?;
        if self.row.built_in() == "priorityclasses" && is_system_class(&self.name) {
            let why = "this is a system priority class and cannot be deleted";
            return Err(ApiError::forbidden(self.row.group, self.row.plural, &self.name, why));
        }
        if asks {
            admission::delete(self, &old).await?;
        }
        Ok(self.doomed(current, options))
    }

    /// [`Call::delete`], for use within another write.
    pub fn delete_within<'a>(&'a self, options: &'a DeleteOptions) -> BoxFuture<'a, Result<Deleted>> {
        Box::pin(self.delete(options))
    }

    /// The status that tells of a success.
    pub fn success(&self, object: &Value) -> Value {
        let mut details = object!({"name": (object.name())});
        if !self.row.group.is_empty() {
            details.set(&["group"], self.row.group);
        }
        details.set(&["kind"], self.row.plural);
        details.set(&["uid"], object.uid());
        object!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
    }

    /// The object must be the one that is meant.
    pub fn check_preconditions(&self, old: &Value, options: &DeleteOptions) -> Result<()> {
        let refuse = |what: &str, wanted: &str, found: &str, happened: &str| {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have been {happened}"
            );
            // Both views of events are those of the core group here.
            let group = if self.row.built_in() == "events" { "" } else { self.row.group };
            Err(ApiError::conflict(group, self.row.kind, &self.name, &why))
        };
        if self.row.built_in() == "namespaces" {
            return self.check_namespace_meant(old, options);
        }
        match (&options.uid, &options.resource_version) {
            (Some(uid), _) if uid != old.uid() => refuse("UID", uid, old.uid(), "deleted and then recreated"),
            (_, Some(version)) if version != old.resource_version() => {
                refuse("ResourceVersion", version, old.resource_version(), "modified")
            }
            _ => Ok(()),
        }
    }

    /// Namespaces say in words of their own that they are not those that were meant.
    fn check_namespace_meant(&self, old: &Value, options: &DeleteOptions) -> Result<()> {
        let wrong = [
            ("UID", &options.uid, old.uid()),
            ("ResourceVersion", &options.resource_version, old.resource_version()),
        ];
        for (what, wanted, found) in wrong {
            if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
                let why = format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
                );
                return Err(ApiError::conflict(self.row.group, self.row.plural, &self.name, &why));
            }
        }
        Ok(())
    }

    /// The object on its way out.
    fn doomed(&self, current: &Current, options: &DeleteOptions) -> Next {
        let mut object = current.object.clone();
        if self.row.built_in() == "customresourcedefinitions" && !object.is_terminating() {
            return Next::Put(controller::begin_cleanup(object));
        }
        let grace = self.grace(&object, options);
        self.set_propagation(&mut object, options);
        let waits_for_finalizers = !object.array_at(&["metadata", "finalizers"]).is_empty()
            || (self.row.built_in() == "namespaces" && !object.array_at(&["spec", "finalizers"]).is_empty());
        let at_once = grace == 0 && !waits_for_finalizers;
        // Pods are told to end even when they have no time for it.
        let graceful = self.row.built_in() == "pods";
        if at_once && (object.is_terminating() || !graceful) {
            if object.is_terminating() {
                object.set(&["metadata", "deletionGracePeriodSeconds"], 0);
            }
            return Next::Remove(object);
        }
        let now = Timestamp::now();
        let left = object.at(&["metadata", "deletionGracePeriodSeconds"]).as_i64();
        // A second deletion can shorten the wait, never lengthen it.
        if left.is_none_or(|left| grace < left) && !(object.is_terminating() && left.is_none()) {
            let since = object
                .at(&["metadata", "deletionTimestamp"])
                .as_str()
                .and_then(api::time::parse)
                .map(|t| t - SignedDuration::from_secs(left.unwrap_or(0)));
            let end = since.unwrap_or(now) + SignedDuration::from_secs(grace);
            object.set(&["metadata", "deletionTimestamp"], api::time::format(end.max(now)));
            if self.row.built_in() != "namespaces" {
                object.set(&["metadata", "deletionGracePeriodSeconds"], grace);
            }
            let counts = self.row.strategy.generation;
            if let Some(generation) =
                object.at(&["metadata", "generation"]).as_i64().filter(|_| counts && left.is_none())
            {
                object.set(&["metadata", "generation"], generation + 1);
            }
        }
        if self.row.built_in() == "namespaces" {
            object.set(&["status", "phase"], "Terminating");
        }
        let (Ok(object) | Err(object)) = self.canonical_storage(object);
        if at_once { Next::Remove(object) } else { Next::Put(object) }
    }

    /// The object in order again; as it was, should that fail.
    fn canonical_storage(&self, object: Value) -> std::result::Result<Value, Value> {
        if let Some(custom) = &self.row.custom {
            // What is stored stays in its version.
            return Ok(custom.kind.read_again(object));
        }
        let view = super::from_storage(&self.row, object.clone());
        self.canonical(view).map(|v| super::to_storage(&self.row, v)).map_err(|_| object)
    }

    /// How long the object has to end by itself: only pods that run somewhere get time.
    fn grace(&self, object: &Value, options: &DeleteOptions) -> i64 {
        if self.row.built_in() != "pods" {
            return 0;
        }
        let default = object.at(&["spec", "terminationGracePeriodSeconds"]).as_i64().unwrap_or(30);
        let asked = options.grace.unwrap_or(default);
        let phase = object.str_at(&["status", "phase"]);
        let ended = matches!(phase, "Failed" | "Succeeded");
        let placed = !object.str_at(&["spec", "nodeName"]).is_empty();
        match asked {
            _ if !placed || ended => 0,
            n if n < 0 => 1,
            n => n,
        }
    }

    fn set_propagation(&self, object: &mut Value, options: &DeleteOptions) {
        if self.row.built_in() == "events" {
            // Nothing depends on events.
            return;
        }
        let Some(policy) = options
            .propagation
            .or_else(|| self.row.strategy.orphans_by_default.then_some(Propagation::Orphan))
        else {
            return;
        };
        let finalizers =
            object.make_object().entry("metadata").make_object().entry("finalizers").make_array();
        finalizers.retain(|f| !matches!(f.as_str(), Some(ORPHAN | FOREGROUND)));
        match policy {
            Propagation::Orphan => finalizers.push(ORPHAN.into()),
            Propagation::Foreground => finalizers.push(FOREGROUND.into()),
            Propagation::Background => {}
        }
        if finalizers.is_empty() {
            object.remove_at(&["metadata", "finalizers"]);
        }
    }

    /// Deletes all selected objects and answers with them and the metadata of their list.
    pub async fn delete_collection(
        &self,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<(Vec<Value>, Value)> {
        // They are taken page by page, and a page is of exactly the revision that is asked for.
        let mut list = list.clone();
        list.exact |= list.at_least();
        let page = self.list(&list).await?;
        let metadata = page.metadata();
        let mut deleted = Vec::new();
        for stored in page.items {
            let object = super::from_storage(&self.row, stored.object());
            let mut one = self.internal(&self.row, object.namespace(), object.name());
            one.user = self.user.clone();
            one.verb = self.verb;
            one.warnings = self.warnings.clone();
            match one.delete(options).await {
                Ok(_) => deleted.push(object),
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e),
            }
        }
        Ok((deleted, metadata))
    }
}
