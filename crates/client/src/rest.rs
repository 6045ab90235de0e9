//! Requests on object values.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Map, Value, object};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use kube::client::Body;

use crate::error::{Error, Result, optional};
use crate::metrics::{self, Asked};
use crate::resource::Resource;
use crate::service_account::ServiceAccount;
use crate::transport::Transport;

/// Time for any request but a watch.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to the API server; clones share it.
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
    identity: Option<Arc<ServiceAccount>>,
}

/// Kinds of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patch {
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, which knows lists with keys.
    Strategic,
    /// RFC 6902.
    Json,
}

/// What becomes of the objects that an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted after it.
    Background,
    /// They are deleted before it.
    Foreground,
    /// They stay.
    Orphan,
}

/// Conditions and manner of a deletion.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Only the object with this uid.
    pub uid: Option<String>,
    /// Only the object at this revision.
    pub resource_version: Option<String>,
    /// Seconds to end gracefully; the object's own when none.
    pub grace_period: Option<u32>,
    /// What becomes of owned objects; the resource's default when none.
    pub propagation: Option<Propagation>,
}

impl DeleteOptions {
    /// Only the object with this uid.
    pub fn uid(uid: &str) -> Self {
        Self { uid: Some(uid.to_owned()), ..Self::default() }
    }

    fn to_value(&self) -> Value {
        let mut body = object!({"kind": "DeleteOptions", "apiVersion": "v1"});
        let mut preconditions = Map::new();
        if let Some(uid) = &self.uid {
            preconditions.push("uid", uid.into());
        }
        if let Some(rv) = &self.resource_version {
            preconditions.push("resourceVersion", rv.into());
        }
        if !preconditions.is_empty() {
            body.set(&["preconditions"], preconditions);
        }
        if let Some(grace) = self.grace_period {
            body.set(&["gracePeriodSeconds"], grace);
        }
        if let Some(propagation) = self.propagation {
            body.set(&["propagationPolicy"], format!("{propagation:?}"));
        }
        body
    }
}

/// What a list is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Label selector.
    pub labels: String,
    /// Field selector.
    pub fields: String,
    /// Objects a page; zero for all at once.
    pub limit: u32,
    /// Where the page before ended.
    pub continue_token: String,
    /// Revision to read at; empty for the latest.
    pub resource_version: String,
}

impl ListOptions {
    /// Narrowed by labels.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { labels: selector.into(), ..Self::default() }
    }

    /// Narrowed by fields.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { fields: selector.into(), ..Self::default() }
    }

    pub(crate) fn query(&self) -> String {
        let limit = if self.limit == 0 { String::new() } else { self.limit.to_string() };
        query(&[
            ("labelSelector", &self.labels),
            ("fieldSelector", &self.fields),
            ("limit", &limit),
            ("continue", &self.continue_token),
            ("resourceVersion", &self.resource_version),
        ])
    }
}

/// `?a=b&c=d` of the pairs with a value, percent-encoded.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (key, value) in pairs.iter().filter(|(_, v)| !v.is_empty()) {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(key);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

impl Client {
    pub(crate) fn new(transport: Transport) -> Self {
        Self { transport: Arc::new(transport), identity: None }
    }

    /// This connection (made without credentials) with the identity of a service account.
    pub fn acting_as(&self, identity: Arc<ServiceAccount>) -> Self {
        Self { transport: self.transport.clone(), identity: Some(identity) }
    }

    /// Sends a request and returns the answer's head, with the body still to come. Statuses of 400 and more are errors.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>> {
        if let Some(identity) = &self.identity {
            let bearer = format!("Bearer {}", Box::pin(identity.token()).await?);
            let bearer = HeaderValue::from_str(&bearer).map_err(|e| Error::Config(e.to_string()))?;
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        let kube = self.transport.current().await;
        let asked = Asked::of(self.transport.server(), request.method());
        let response = kube.send(request).await;
        asked.answered(response.as_ref().ok().map(Response::status));
        let response = response.map_err(|e| Error::transport(self.transport.server(), &e))?;
        let code = response.status();
        if code.as_u16() < 400 {
            return Ok(response);
        }
        let bytes = self.collect(response.into_body()).await?;
        Err(Error::Api(failure(code, &bytes)))
    }

    async fn collect(&self, body: Body) -> Result<Vec<u8>> {
        let bytes = body.collect().await.map_err(|e| Error::transport(self.transport.server(), &e))?;
        Ok(bytes.to_bytes().into())
    }

    /// Sends a request with an optional JSON body and reads the answer. `accept` names the media type to ask for.
    pub async fn bytes(
        &self,
        method: Method,
        path: &str,
        (accept, content_type): (&str, &str),
        body: Vec<u8>,
    ) -> Result<Vec<u8>> {
        let (verb, size) = (method.clone(), body.len());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, accept)
            .header(header::CONTENT_TYPE, content_type)
            .body(Body::from(body))
            .map_err(|e| Error::Config(e.to_string()))?;
        let exchange = async { self.collect(self.send(request).await?.into_body()).await };
        let timed_out = |_| Error::Timeout(TIMEOUT.as_secs());
        let answer = tokio::time::timeout(TIMEOUT, exchange).await.map_err(timed_out)??;
        metrics::exchanged(self.transport.server(), &verb, (size, answer.len()));
        Ok(answer)
    }

    /// Sends a request whose body and answer are object values.
    pub async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        const JSON: &str = "application/json";
        let body = body.map(Value::to_json).unwrap_or_default();
        parse(&self.bytes(method, path, (JSON, JSON), body).await?)
    }

    /// Reads an object.
    pub async fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Value> {
        self.request(Method::GET, &resource.path(namespace, name, ""), None).await
    }

    /// Reads an object; none when it is not there.
    pub async fn get_opt(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Option<Value>> {
        optional(self.get(resource, namespace, name).await)
    }

    /// Reads a page of a collection: the list object.
    pub async fn list(&self, resource: &Resource, namespace: &str, options: &ListOptions) -> Result<Value> {
        let path = resource.collection(namespace) + &options.query();
        self.request(Method::GET, &path, None).await
    }

    /// Reads a page of a collection, of each object its metadata alone.
    pub async fn list_metadata(
        &self,
        resource: &Resource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Value> {
        let path = resource.collection(namespace) + &options.query();
        let media = (crate::reflector::LIST_METADATA, "application/json");
        parse(&self.bytes(Method::GET, &path, media, Vec::new()).await?)
    }

    /// Reads all objects of a collection.
    pub async fn items(
        &self,
        resource: &Resource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Vec<Value>> {
        let mut options = ListOptions { limit: 500, ..options.clone() };
        let mut items = Vec::new();
        loop {
            let mut page = self.list(resource, namespace, &options).await?;
            if let Some(more) = page.at_mut(&["items"]).and_then(Value::as_array_mut) {
                items.append(more);
            }
            options.continue_token = page.str_at(&["metadata", "continue"]).to_owned();
            if options.continue_token.is_empty() {
                return Ok(items);
            }
        }
    }

    /// Creates an object.
    pub async fn create(&self, resource: &Resource, namespace: &str, object: &Value) -> Result<Value> {
        self.request(Method::POST, &resource.collection(namespace), Some(object)).await
    }

    /// Replaces an object.
    pub async fn update(&self, resource: &Resource, object: &Value) -> Result<Value> {
        self.update_part(resource, "", object).await
    }

    /// Replaces the status of an object.
    pub async fn update_status(&self, resource: &Resource, object: &Value) -> Result<Value> {
        self.update_part(resource, "status", object).await
    }

    /// Replaces a subresource of an object.
    pub async fn update_part(&self, resource: &Resource, subresource: &str, object: &Value) -> Result<Value> {
        let path = resource.path(object.namespace(), object.name(), subresource);
        self.request(Method::PUT, &path, Some(object)).await
    }

    /// Creates a subresource of an object, such as a pod's binding or eviction.
    pub async fn create_part(
        &self,
        resource: &Resource,
        (namespace, name, subresource): (&str, &str, &str),
        object: &Value,
    ) -> Result<Value> {
        self.request(Method::POST, &resource.path(namespace, name, subresource), Some(object)).await
    }

    /// Patches an object, or (with a subresource) a part of it.
    pub async fn patch(
        &self,
        resource: &Resource,
        (namespace, name, subresource): (&str, &str, &str),
        kind: Patch,
        patch: &Value,
    ) -> Result<Value> {
        let content_type = match kind {
            Patch::Merge => "application/merge-patch+json",
            Patch::Strategic => "application/strategic-merge-patch+json",
            Patch::Json => "application/json-patch+json",
        };
        let path = resource.path(namespace, name, subresource);
        let media = ("application/json", content_type);
        parse(&self.bytes(Method::PATCH, &path, media, patch.to_json()).await?)
    }

    /// Applies a configuration of a part of an object, as its manager and whoever else has set its fields.
    pub async fn apply_part(
        &self,
        resource: &Resource,
        (namespace, name, subresource): (&str, &str, &str),
        manager: &str,
        configuration: &Value,
    ) -> Result<Value> {
        let path =
            format!("{}?fieldManager={manager}&force=true", resource.path(namespace, name, subresource));
        let media = ("application/json", "application/apply-patch+yaml");
        parse(&self.bytes(Method::PATCH, &path, media, configuration.to_json()).await?)
    }

    /// Deletes an object. The answer is the object (when it is not gone at once) or a `Status`.
    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Value> {
        let path = resource.path(namespace, name, "");
        self.request(Method::DELETE, &path, Some(&options.to_value())).await
    }

    /// Deletes the objects of a collection.
    pub async fn delete_collection(
        &self,
        resource: &Resource,
        namespace: &str,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Value> {
        let path = resource.collection(namespace) + &list.query();
        self.request(Method::DELETE, &path, Some(&options.to_value())).await
    }
}

fn parse(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(Error::Malformed)
}

/// The error of an answer: its `Status`, or its text.
fn failure(code: StatusCode, bytes: &[u8]) -> ApiError {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(status) if status.kind() == "Status" => ApiError::from_value(code, &status),
        _ => {
            let text: String = String::from_utf8_lossy(bytes).trim().chars().take(500).collect();
            ApiError::new(code, "", if text.is_empty() { code.to_string() } else { text })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        let options = ListOptions { labels: "a=b,c in (d)".to_owned(), limit: 5, ..ListOptions::default() };
        assert_eq!(options.query(), "?labelSelector=a%3Db%2Cc%20in%20%28d%29&limit=5");
        assert_eq!(ListOptions::default().query(), "");
    }

    #[test]
    fn failures_are_told_apart() {
        let status = ApiError::stale("", "pods", "x");
        let e = Error::Api(failure(status.code(), &status.to_value().to_json()));
        assert!(e.is_conflict() && !e.is_already_exists());
        let e = Error::Api(failure(StatusCode::NOT_FOUND, b"404 page not found\n"));
        assert!(e.is_not_found());
        assert_eq!(e.message(), "404 page not found");
    }
}
