//! Connections to the server, and the requests that are measured.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::{Client, Connection};
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

const JSON: (&str, &str) = ("application/json", "application/json");

/// Connections that send at the same time, each its own.
pub(crate) struct Clients(Vec<Client>);

impl Clients {
    /// Makes as many connections; nothing is sent yet.
    pub(crate) async fn open(kubeconfig: &Path, count: usize) -> Result<Self> {
        let connection = Connection::from_path(&kubeconfig.to_string_lossy(), "benchmark");
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(client::connect(&connection).await?);
        }
        Ok(Self(clients))
    }

    /// The connection of the n-th request.
    pub(crate) fn nth(&self, n: usize) -> &Client {
        &self.0[n % self.0.len()]
    }

    /// True when the server says that it is ready.
    pub(crate) async fn ready(&self) -> bool {
        matches!(self.nth(0).bytes(Method::GET, "/readyz", JSON, Vec::new()).await, Ok(body) if body == b"ok")
    }

    /// A namespace of its own, where Pods may be created at once.
    pub(crate) async fn make_namespace(&self) -> Result<String> {
        let name = format!("benchmark-{}", uuid::Uuid::new_v4().simple());
        self.post("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await?;
        let account = json!({"metadata": {"name": "default"}});
        // A controller may have been quicker.
        match self.post(&format!("/api/v1/namespaces/{name}/serviceaccounts"), &account).await {
            Err(e) if !e.to_string().contains("already exists") => Err(e),
            _ => Ok(name),
        }
    }

    /// Deletes the namespace and, without waiting for a controller, what was made in it.
    pub(crate) async fn clear(&self, namespace: &str) -> Result<()> {
        for kind in ["pods?gracePeriodSeconds=0", "configmaps"] {
            self.send(Method::DELETE, &format!("/api/v1/namespaces/{namespace}/{kind}"), Vec::new()).await?;
        }
        self.send(Method::DELETE, &format!("/api/v1/namespaces/{namespace}"), Vec::new()).await?;
        Ok(())
    }

    /// Sends an object, by the first connection.
    pub(crate) async fn post(&self, path: &str, object: &Value) -> Result<Vec<u8>> {
        self.send(Method::POST, path, object.to_string().into_bytes()).await
    }

    /// Sends a request without a body, by the first connection.
    pub(crate) async fn request(&self, method: Method, path: &str) -> Result<Vec<u8>> {
        self.send(method, path, Vec::new()).await
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Vec<u8>> {
        Ok(self.nth(0).bytes(method, path, JSON, body).await?)
    }

    /// Sends requests, each connection one after the other, all connections at once, and returns how long each took.
    pub(crate) async fn all(
        &self,
        count: usize,
        request: impl Fn(usize) -> (Method, String, Vec<u8>),
    ) -> Result<Vec<Duration>> {
        let next = std::cell::Cell::new(0);
        let workers = self.0.iter().map(|client| {
            let (next, request) = (&next, &request);
            async move {
                let mut took = Vec::new();
                while next.get() < count {
                    let (method, path, body) = request(next.replace(next.get() + 1));
                    let begun = Instant::now();
                    client.bytes(method, &path, JSON, body).await.with_context(|| path.clone())?;
                    took.push(begun.elapsed());
                }
                anyhow::Ok(took)
            }
        });
        Ok(futures::future::try_join_all(workers).await?.concat())
    }

    /// Opens the n-th watch: the answer's body, whose head has been read.
    pub(crate) async fn watch(&self, n: usize, path: &str) -> Result<Body> {
        let request = Request::builder().uri(path).header(http::header::ACCEPT, JSON.0).body(Body::empty())?;
        Ok(self.nth(n).send(request).await?.into_body())
    }
}

/// Reads events of a watch, one per line, for as long as `seen`, which is told of each, wants more.
pub(crate) async fn events(mut body: Body, mut seen: impl FnMut(&[u8]) -> bool) -> Result<()> {
    let (mut line, mut more) = (Vec::new(), true);
    while more {
        let frame = body.frame().await.context("a watch ended")??;
        let Some(data) = frame.data_ref() else { continue };
        for piece in data.split_inclusive(|b| *b == b'\n') {
            line.extend_from_slice(piece);
            if line.ends_with(b"\n") {
                more &= seen(&line);
                line.clear();
            }
        }
    }
    Ok(())
}
