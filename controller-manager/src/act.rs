//! The actions that plans are made of, and how they are carried out.

use std::time::Duration;

use api::Value;
use client::events::Kind;
use client::{DeleteOptions, Error, Next, Patch, Resource};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::context::Context;

/// Creations and deletions at a time, at most.
const AT_ONCE: usize = 10;

/// One thing to do.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Create the object.
    Create(Resource, Value, Option<Note>),
    /// Delete the object, if it still is the one with that uid.
    Delete(Resource, Value, DeleteOptions, Option<Note>),
    /// Replace the object.
    Update(Resource, Value),
    /// Replace the object's status. The object must be whole, as must that of an `Update`: what is missing would go.
    UpdateStatus(Resource, Value),
    /// Patch the object, or a subresource of it.
    Patch(Resource, Value, &'static str, Patch, Value),
    /// Record an event about the object.
    Event(Value, Kind, &'static str, String),
    /// Look again after this time.
    Later(Duration),
}

/// Events that tell about a creation or deletion. `{}` in a message stands for the object's name.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    /// The object the events are about.
    pub(crate) about: Value,
    /// Reason and message when it is done.
    pub(crate) done: (&'static str, String),
    /// Reason and start of the message when it failed; the error follows.
    pub(crate) failed: (&'static str, String),
}

impl Note {
    /// `SuccessfulCreate`/`FailedCreate` of a pod.
    pub(crate) fn pod_created(about: &Value) -> Self {
        Self {
            about: head(about),
            done: ("SuccessfulCreate", "Created pod: {}".to_owned()),
            failed: ("FailedCreate", "Error creating: ".to_owned()),
        }
    }

    /// `SuccessfulDelete`/`FailedDelete` of a pod.
    pub(crate) fn pod_deleted(about: &Value) -> Self {
        Self {
            about: head(about),
            done: ("SuccessfulDelete", "Deleted pod: {}".to_owned()),
            failed: ("FailedDelete", "Error deleting: ".to_owned()),
        }
    }
}

/// Type and metadata of an object: enough to name it.
pub(crate) fn head(object: &Value) -> Value {
    api::object!({
        "apiVersion": (object.api_version()),
        "kind": (object.kind()),
        "metadata": {
            "namespace": (object.namespace()), "name": (object.name()), "uid": (object.uid()),
            "resourceVersion": (object.resource_version()),
        },
    })
}

impl Action {
    /// Deletes an object by its uid.
    pub(crate) fn delete(resource: Resource, object: &Value) -> Self {
        Action::Delete(resource, head(object), DeleteOptions::uid(object.uid()), None)
    }

    /// Merges into an object.
    pub(crate) fn merge(resource: Resource, object: &Value, patch: Value) -> Self {
        Action::Patch(resource, head(object), "", Patch::Merge, patch)
    }

    fn is_parallel(&self) -> bool {
        matches!(self, Action::Create(..) | Action::Delete(..))
    }
}

impl Context {
    /// Carries out a plan in order; neighbouring creations and deletions at the same time, and none further once one failed.
    pub(crate) async fn apply(&self, actions: Vec<Action>) -> anyhow::Result<Next> {
        let mut next = Next::Done;
        let mut actions = actions.into_iter().peekable();
        while let Some(action) = actions.next() {
            if let Action::Later(delay) = action {
                next = match next {
                    Next::After(sooner) if sooner <= delay => next,
                    _ => Next::After(delay),
                };
                continue;
            }
            let mut batch = vec![action];
            while batch[0].is_parallel() && actions.peek().is_some_and(Action::is_parallel) {
                batch.extend(actions.next());
            }
            self.apply_batch(batch).await?;
        }
        Ok(next)
    }

    /// One at first, and the more at once the more has been done: what cannot be done is tried but once. What has begun is
    /// waited for also after a failure, since nobody knows what comes of a request that is cut off.
    async fn apply_batch(&self, batch: Vec<Action>) -> anyhow::Result<()> {
        let mut waiting = batch.into_iter();
        let mut running = FuturesUnordered::new();
        let (mut at_once, mut written, mut failure) = (1, Vec::new(), None);
        loop {
            if failure.is_none() {
                let free = at_once - running.len();
                running.extend(waiting.by_ref().take(free).map(|action| self.apply_one(action)));
            }
            match running.next().await {
                None => break,
                Some(Ok(write)) => {
                    written.extend(write);
                    at_once = AT_ONCE.min(at_once + 1);
                }
                Some(Err(e)) => failure = failure.or(Some(e)),
            }
        }
        for (resource, revision) in written {
            if let Some(cache) = self.informers.of(&resource) {
                cache.caught_up(&revision).await;
            }
        }
        failure.map_or(Ok(()), |e| Err(e.into()))
    }

    /// Does one thing; returns the revision it left, for caches to reach.
    async fn apply_one(&self, action: Action) -> Result<Option<(Resource, String)>, Error> {
        let (resource, result, note) = match action {
            Action::Create(resource, object, note) => {
                let result = self.client.create(&resource, object.namespace(), &object).await;
                (resource, result, note)
            }
            Action::Delete(resource, object, options, note) => {
                let result = self.client.delete(&resource, object.namespace(), object.name(), &options).await;
                match result {
                    // Gone, or another one of the same name: either way this one is no more.
                    Err(e) if e.is_not_found() || e.is_conflict() => return Ok(None),
                    Ok(answer) => {
                        self.tell(note, Ok(object.name()));
                        let revision = answer.resource_version().to_owned();
                        return Ok(Some((resource, revision)));
                    }
                    Err(e) => (resource, Err(e), note),
                }
            }
            Action::Update(resource, object) => {
                let result = self.client.update(&resource, &object).await;
                (resource, result, None)
            }
            Action::UpdateStatus(resource, object) => {
                let result = self.client.update_status(&resource, &object).await;
                (resource, result, None)
            }
            Action::Patch(resource, object, subresource, kind, patch) => {
                let target = (object.namespace(), object.name(), subresource);
                let result = self.client.patch(&resource, target, kind, &patch).await;
                (resource, result, None)
            }
            Action::Event(about, kind, reason, message) => {
                self.recorder.event(&about, kind, reason, message);
                return Ok(None);
            }
            Action::Later(_) => return Ok(None),
        };
        match result {
            Ok(answer) => {
                self.tell(note, Ok(answer.name()));
                let revision = answer.resource_version().to_owned();
                Ok(Some((resource, revision)))
            }
            // Nothing can be created in a namespace that goes away, and nothing needs to be.
            Err(e) if e.is_namespace_terminating() => Ok(None),
            Err(e) => {
                self.tell(note, Err(&e));
                Err(e)
            }
        }
    }

    fn tell(&self, note: Option<Note>, result: Result<&str, &Error>) {
        let Some(note) = note else { return };
        match result {
            Ok(name) => {
                let (reason, message) = note.done;
                self.recorder.normal(&note.about, reason, message.replace("{}", name));
            }
            Err(e) => {
                let (reason, message) = note.failed;
                self.recorder.warning(&note.about, reason, message + &e.message());
            }
        }
    }
}
