//! The objects of a request in the versions that rules name, and what is made of them there.

use std::borrow::Cow;

use api::error::Result;
use api::{ApiError, Value};
use schema::Ty;
use schema::decode::Mode;

use super::Request;
use crate::registry::{from_storage, schema_of, to_storage};
use crate::resources::Row;

impl Request<'_> {
    /// The other resources that have the same objects.
    pub(super) fn equivalents(&self) -> Vec<Row> {
        let (row, part) = (&self.call.row, self.call.subresource.as_str());
        let rows: Vec<Row> = if row.custom.is_some() {
            let served = self.call.server.storage.custom().load();
            served.definition(row.group, row.plural).map(|d| d.rows.clone()).unwrap_or_default()
        } else {
            let same = |r: &&Row| r.store.is_some() && r.store == row.store;
            self.call.server.storage.served().rows.iter().filter(same).cloned().collect()
        };
        let other = |r: &Row| (r.group, r.version, r.plural) != (row.group, row.version, row.plural);
        let serves = |r: &Row| part.is_empty() || r.subresource(part).is_some();
        rows.into_iter().filter(|r| other(r) && serves(r)).collect()
    }

    /// The objects as `row` shows them.
    ///
    /// # Errors
    /// When a webhook that converts does not.
    pub(in crate::admission) async fn seen_as(
        &self,
        row: &Row,
    ) -> Result<(Option<Cow<'_, Value>>, Option<Cow<'_, Value>>)> {
        Ok((self.convert(self.object.as_deref(), row).await?, self.convert(self.old.as_deref(), row).await?))
    }

    async fn convert<'v>(&self, object: Option<&'v Value>, row: &Row) -> Result<Option<Cow<'v, Value>>> {
        let Some(object) = object else { return Ok(None) };
        let own = &self.call.row;
        if (row.group, row.version) == (own.group, own.version) || self.call.subresource == "scale" {
            return Ok(Some(Cow::Borrowed(object)));
        }
        let Some(custom) = &row.custom else {
            return Ok(Some(Cow::Owned(from_storage(row, to_storage(own, object.clone())))));
        };
        let storage = &self.call.server.storage;
        let mut converted = custom.kind.convert(storage, vec![object.clone()], custom.version()).await?;
        Ok(converted.pop().map(Cow::Owned))
    }

    /// An object that `row` shows as the resource of the request does.
    ///
    /// # Errors
    /// When a webhook that converts does not.
    async fn seen_from(&self, row: &Row, object: Value) -> Result<Value> {
        let own = &self.call.row;
        if (row.group, row.version) == (own.group, own.version) {
            return Ok(object);
        }
        let Some(custom) = &own.custom else { return Ok(from_storage(own, to_storage(row, object))) };
        let storage = &self.call.server.storage;
        let mut converted = custom.kind.convert(storage, vec![object], custom.version()).await?;
        Ok(converted.pop().unwrap_or_default())
    }

    /// The subresource, where its bodies are not objects of the resource but of a kind of their own.
    fn body(&self, row: &Row) -> Option<(&'static str, &'static str, &'static str)> {
        let sub = row.subresource(&self.call.subresource).filter(|s| s.kind != row.kind)?;
        let (group, version) = sub.group_version.unwrap_or((row.group, row.version));
        Some((group, version, sub.kind))
    }

    /// The type of the objects of the request, as `row` shows them.
    pub(in crate::admission) fn ty<'r>(&self, row: &'r Row) -> Ty<'r> {
        match self.body(row) {
            Some((group, version, kind)) => {
                schema::kind(group, version, kind).expect("every body of a subresource has a schema")
            }
            None => schema_of(row),
        }
    }

    /// What becomes of `whole`, the object that is written, when `row` is to show it as `changed`.
    ///
    /// # Errors
    /// When it does not fit its type, or, with [`Mode::Strict`], has members that its type does not know.
    pub(in crate::admission) async fn taken(
        &self,
        whole: &Value,
        row: &Row,
        changed: Value,
        mode: Mode,
    ) -> Result<Value> {
        let changed = self.decode(row, changed, mode)?;
        let own = &self.call.row;
        if self.call.subresource == "scale" {
            let mut whole = whole.clone();
            let replicas = changed.at(&["spec", "replicas"]).as_i64().unwrap_or(0);
            match own.custom.as_ref().and_then(|c| c.version().scale.as_ref()) {
                Some(scale) => scale.set(&mut whole, replicas),
                None => whole.set(&["spec", "replicas"], replicas),
            }
            return Ok(whole);
        }
        let mut taken = if (row.group, row.version) == (own.group, own.version) {
            changed
        } else {
            self.decode(own, self.seen_from(row, changed).await?, Mode::Ignore)?
        };
        if self.body(own).is_none() {
            self.call.default_object(&mut taken);
        }
        Ok(taken)
    }

    fn decode(&self, row: &Row, object: Value, mode: Mode) -> Result<Value> {
        let read = match &row.custom {
            Some(custom) if self.body(row).is_none() => custom.version().ty.decode(object, mode),
            _ => schema::decode::normalize(object, self.ty(row), mode),
        };
        let (object, findings) = read.map_err(ApiError::internal)?;
        if mode == Mode::Strict && !findings.is_empty() {
            let all: Vec<String> = findings.into_iter().map(|f| f.0).collect();
            return Err(ApiError::internal(format!("strict decoding error: {}", all.join(", "))));
        }
        Ok(object)
    }
}
