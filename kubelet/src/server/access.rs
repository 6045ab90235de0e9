//! Which permission a request needs: one on the node object's subresources.

use http::request::Parts;
use http::{Method, Response};
use serve::authn::Attributes;
use serve::{Body, Guard};

/// Lets a request pass or returns the refusal.
pub(super) async fn check(guard: &Guard, request: &Parts, node: &str) -> Result<(), Response<Body>> {
    let mut refusal = None;
    for &subresource in subresources(request.uri.path()) {
        let attributes = Attributes {
            verb: verb(&request.method).to_owned(),
            resource: "nodes".to_owned(),
            subresource: subresource.to_owned(),
            name: node.to_owned(),
            ..Attributes::default()
        };
        match guard.check(request, &attributes).await {
            Ok(_) => return Ok(()),
            Err(response) => refusal = Some(response),
        }
    }
    Err(refusal.unwrap_or_else(|| serve::text(http::StatusCode::FORBIDDEN, "Forbidden")))
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// The subresources any of which is enough: the precise one first (KEP-2862), then the one that opens everything.
fn subresources(path: &str) -> &'static [&'static str] {
    match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        "statusz" => &["statusz"],
        "flagz" => &["configz"],
        "configz" => &["configz", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "pods" | "runningpods" => &["pods", "proxy"],
        _ => &["proxy"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_permission() {
        for (path, expected) in [
            ("/stats/summary", "stats"),
            ("/metrics/resource", "metrics"),
            ("/exec/ns/p/c", "proxy"),
            ("/pods", "pods"),
            ("/statusz", "statusz"),
            ("/flagz", "configz"),
            ("/anything", "proxy"),
        ] {
            assert_eq!(subresources(path)[0], expected, "{path}");
        }
        assert_eq!(verb(&Method::POST), "create");
    }
}
