//! List, then watch from there; list again when history is gone.

use std::collections::HashSet;
use std::time::Duration;

use api::{ApiError, Value};
use futures::TryStreamExt;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use kube::client::Body;
use rand::Rng;
use serde::Deserialize;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

use crate::error::{Error, Result};
use crate::informer::{Sink, Source};
use crate::rest::{Client, ListOptions, query};

const PAGE: u32 = 500;
/// Longest line of a watch: an object cannot be larger in etcd, and its JSON form not by more than this.
const LINE: usize = 16 * 1024 * 1024;
const BACKOFF_FIRST: Duration = Duration::from_millis(800);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

pub(crate) const LIST_METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const WATCH_METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Feeds the sink for ever.
pub(crate) async fn run<T: Send + Sync + 'static>(client: &Client, source: &Source, sink: Sink<'_, T>) {
    let mut revision = None;
    let mut backoff = BACKOFF_FIRST;
    loop {
        let step = match revision.take() {
            None => list(client, source, &sink).await,
            Some(from) => watch(client, source, &sink, from).await,
        };
        match step {
            Ok(next) => {
                revision = next;
                backoff = BACKOFF_FIRST;
                continue;
            }
            Err(e) if e.is_expired() => {}
            // Not served (yet, or any more): then there are none.
            Err(e) if e.is_not_found() => {
                sink.listed(&HashSet::new());
                backoff = BACKOFF_MAX;
            }
            Err(e) => sink.failed(&e, &source.resource),
        }
        let jitter = rand::rng().random_range(1.0..2.0);
        tokio::time::sleep(backoff.mul_f64(jitter)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Reads everything; returns the revision to watch from.
async fn list<T: Send + Sync + 'static>(
    client: &Client,
    source: &Source,
    sink: &Sink<'_, T>,
) -> Result<Option<String>> {
    let mut keys = HashSet::new();
    // Revision 0 is whatever the server has in memory: cheap, and the watch catches up.
    let mut options = ListOptions {
        labels: source.labels.clone(),
        fields: source.fields.clone(),
        limit: PAGE,
        resource_version: "0".to_owned(),
        ..ListOptions::default()
    };
    let accept = if source.metadata_only { LIST_METADATA } else { "application/json" };
    loop {
        let path = source.resource.collection(&source.namespace) + &options.query();
        let media = (accept, "application/json");
        let bytes = client.bytes(http::Method::GET, &path, media, Vec::new()).await?;
        let mut page: Value = serde_json::from_slice(&bytes).map_err(Error::Malformed)?;
        drop(bytes);
        let items = page.at_mut(&["items"]).map(Value::take).unwrap_or_default();
        if let Value::Array(items) = items {
            for mut item in items {
                // Items of a list carry no type of their own.
                if item.kind().is_empty() {
                    item.set(&["apiVersion"], source.resource.api_version());
                    item.set(&["kind"], source.resource.kind.as_ref());
                }
                keys.insert(sink.object(item, false));
            }
        }
        options.continue_token = page.str_at(&["metadata", "continue"]).to_owned();
        options.resource_version.clear();
        if options.continue_token.is_empty() {
            let revision = page.str_at(&["metadata", "resourceVersion"]);
            sink.listed(&keys);
            sink.reached(revision);
            return Ok(Some(revision.to_owned()));
        }
    }
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

/// Follows changes until the server ends the watch; returns the revision reached.
async fn watch<T: Send + Sync + 'static>(
    client: &Client,
    source: &Source,
    sink: &Sink<'_, T>,
    from: String,
) -> Result<Option<String>> {
    let seconds = rand::rng().random_range(300..600);
    let path = source.resource.collection(&source.namespace)
        + &query(&[
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("labelSelector", &source.labels),
            ("fieldSelector", &source.fields),
            ("resourceVersion", &from),
            ("timeoutSeconds", &seconds.to_string()),
        ]);
    let accept = if source.metadata_only { WATCH_METADATA } else { "application/json" };
    let request = Request::get(path)
        .header(header::ACCEPT, accept)
        .body(Body::empty())
        .map_err(|e| Error::Config(e.to_string()))?;
    let response = client.send(request).await?;
    let pieces = response.into_body().into_data_stream().map_err(std::io::Error::other);
    let lines = FramedRead::new(StreamReader::new(pieces), LinesCodec::new_with_max_length(LINE));
    tokio::pin!(lines);
    let mut revision = from;
    // A connection that died without a word shows by the server not ending the watch when it should.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds + 30);
    loop {
        let line = match tokio::time::timeout_at(deadline, lines.try_next()).await {
            Err(_) => return Ok(Some(revision)),
            Ok(Err(e)) => {
                tracing::debug!(resource = %source.resource.plural, err = %e, "Watch broke off");
                return Ok(Some(revision));
            }
            Ok(Ok(None)) => return Ok(Some(revision)),
            Ok(Ok(Some(line))) => line,
        };
        let event: Event = serde_json::from_str(&line).map_err(Error::Malformed)?;
        if event.kind == "ERROR" {
            let code = event.object.get("code").as_i64().and_then(|c| u16::try_from(c).ok());
            let code = code.and_then(|c| StatusCode::from_u16(c).ok());
            let code = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Err(Error::Api(ApiError::from_value(code, &event.object)));
        }
        event.object.resource_version().clone_into(&mut revision);
        if event.kind != "BOOKMARK" {
            sink.object(event.object, event.kind == "DELETED");
        }
        sink.reached(&revision);
    }
}
