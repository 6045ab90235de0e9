//! The endpoints every daemon has: health, metrics and the configuration in force.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use prometheus::Registry;
use tower::Service;

use crate::authn::{Attributes, Guard};
use crate::body::{Body, json, text};
use crate::health::Health;
use crate::metrics;

/// What the endpoints answer from.
#[derive(Clone)]
pub struct Diagnostics {
    /// Checks behind `/healthz`, `/livez` and `/readyz`.
    pub health: Health,
    /// What `/metrics` shows.
    pub metrics: Registry,
    /// The JSON document `/configz` shows, if any.
    pub configz: Option<Arc<str>>,
    /// Who may see it; none for a listener that is open to all who reach it.
    pub guard: Option<Guard>,
}

impl Diagnostics {
    /// Answers one request.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body> {
        let (parts, _) = request.into_parts();
        if let Some(guard) = &self.guard {
            let attributes = Attributes::path(&parts.method, parts.uri.path());
            if let Err(refusal) = guard.check(&parts, &attributes).await {
                return refusal;
            }
        }
        if let Some(response) = self.health.respond(&parts.uri).await {
            return response;
        }
        match (parts.uri.path(), &self.configz) {
            ("/metrics", _) => metrics::respond(&self.metrics),
            ("/configz", Some(config)) => json(StatusCode::OK, config.to_string()),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    /// These endpoints as a service for [`crate::Server::serve`].
    pub fn service(
        self,
    ) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static {
        let this = Arc::new(self);
        tower::service_fn(move |request| {
            let this = Arc::clone(&this);
            async move { Ok(this.handle(request).await) }
        })
    }
}
