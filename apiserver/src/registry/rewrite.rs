//! What subresources, reviews and the server itself need beside the chain of ordinary writes.

use api::error::Result;
use api::field::FieldError;
use api::{ApiError, Value};

use super::Call;
use super::settle::Next;
use crate::admission::{self, Operation};

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
    pub async fn rewrite(&self, change: impl Fn(&mut Value) -> Result<()> + Send + Sync) -> Result<Value> {
        let mut current = self.attempt().await?;
        loop {
            let mut object = current.object.clone();
            let next = change(&mut object).and_then(|()| self.canonical(object));
            let next = next.map(|o| if self.is_finished(&o) { Next::Remove(o) } else { Next::Put(o) });
            if let Some((object, _)) = self.settle(&mut current, next).await? {
                return Ok(object);
            }
        }
    }

    /// Changes the pod that `binding` means by `assign`, whose refusal is a conflict.
    pub async fn bind(
        &self,
        binding: &Value,
        assign: impl Fn(&mut Value) -> std::result::Result<(), String> + Send + Sync,
    ) -> Result<()> {
        let mut current = self.attempt().await?;
        loop {
            let mut pod = current.object.clone();
            let refused = |why: String| ApiError::conflict("", "pods/binding", &self.name, &why);
            let assigned = self.check_uid(binding, &pod).and_then(|()| assign(&mut pod).map_err(refused));
            let next = assigned.and_then(|()| self.canonical(pod).map(Next::Put));
            if self.settle(&mut current, next).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Records what the client set in a review, which is never stored.
    pub fn track_review(&self, review: &mut Value) -> Result<()> {
        self.track_create(review)
    }

    /// Refuses a review with findings; upstream does not say of what kind it is.
    pub fn refuse_review(&self, errors: &[FieldError]) -> Result<()> {
        if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(self.row.group, "", "", errors)) }
    }
}
