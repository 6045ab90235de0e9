//! What API servers keep in etcd for each other and show to nobody: allocated ports, who is alive. Keys and forms are
//! upstream's, so that servers of both kinds can share a cluster.

use api::error::Result;
use api::{ApiError, Value};
use schema::{Ty, proto};

use super::etcd::range_end;
use super::{Outcome, Precondition, Storage};

/// A kind of records.
pub struct Record {
    /// What configurations of encryption call them.
    pub resource: &'static str,
    /// The kind of core/v1 that they are.
    pub kind: &'static str,
    /// Where they are, below the prefix of the cluster.
    pub prefix: &'static str,
}

impl Record {
    fn ty(&self) -> Ty<'static> {
        schema::kind("", "v1", self.kind).expect("records are of built-in kinds")
    }

    async fn read(&self, storage: &Storage, key: &str, bytes: &[u8]) -> Result<Value> {
        let opened = storage.encryption.open(("", self.resource), key, bytes).await;
        let (bytes, _) = opened.map_err(ApiError::internal)?;
        let decoded = match bytes.starts_with(&proto::MAGIC) {
            true => proto::decode_object(&bytes, |_, _| Some(self.ty())).ok().flatten(),
            false => api::json::decode(&bytes).ok().map(|d| d.value),
        };
        decoded.ok_or_else(|| ApiError::internal(format!("{key} in etcd is no {}", self.kind)))
    }

    /// The record called `name`, and the revision of its last change.
    ///
    /// # Errors
    /// etcd does not answer, or holds something else there.
    pub async fn get(&self, storage: &Storage, name: &str) -> Result<Option<(Value, i64)>> {
        let key = storage.etcd.full_key(self.prefix, name);
        match storage.etcd.get(&key).await? {
            Some(kv) => Ok(Some((self.read(storage, &key, &kv.value).await?, kv.revision))),
            None => Ok(None),
        }
    }

    /// All records of the kind; those that are none are left out.
    ///
    /// # Errors
    /// etcd does not answer.
    pub async fn list(&self, storage: &Storage) -> Result<Vec<Value>> {
        let start = storage.etcd.full_key(self.prefix, "");
        let end = range_end(start.as_bytes());
        let (kvs, _, _) = storage.etcd.page(start.into_bytes(), end, 0).await?;
        let mut records = Vec::with_capacity(kvs.len());
        for kv in kvs {
            let key = String::from_utf8_lossy(kv.key());
            match self.read(storage, &key, kv.value()).await {
                Ok(record) => records.push(record),
                Err(e) => tracing::warn!(error = %e, "a record is left out"),
            }
        }
        Ok(records)
    }

    /// Writes a record if the precondition holds; it goes with its lease, if it has one.
    ///
    /// # Errors
    /// etcd does not answer.
    pub async fn put(
        &self,
        storage: &Storage,
        name: &str,
        guard: Precondition,
        fields: &Value,
        lease: Option<i64>,
    ) -> Result<Outcome> {
        let key = storage.etcd.full_key(self.prefix, name);
        let mut record = api::object!({"kind": (self.kind), "apiVersion": "v1"});
        for (field, value) in fields.as_object().into_iter().flat_map(|m| m.iter()) {
            record.set(&[field], value);
        }
        let bytes = proto::encode_object(&record, self.ty());
        let bytes = storage.encryption.seal(("", self.resource), &key, bytes).map_err(ApiError::internal)?;
        storage.etcd.put(&key, guard, bytes, lease).await
    }

    /// Removes a record, if it is there.
    ///
    /// # Errors
    /// etcd does not answer.
    pub async fn remove(&self, storage: &Storage, name: &str) -> Result<()> {
        while let Some((_, revision)) = self.get(storage, name).await? {
            let key = storage.etcd.full_key(self.prefix, name);
            if let Outcome::Done(_) = storage.etcd.delete(&key, Precondition::Revision(revision)).await? {
                break;
            }
        }
        Ok(())
    }
}
