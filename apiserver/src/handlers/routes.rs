//! The paths and methods of built-in resources, as the router of upstream knows them: what it does not find, does not
//! take, or cannot answer is refused before anything is read of the request.

use api::ApiError;
use api::error::Result;
use http::{HeaderMap, Method};

use super::method_not_allowed;
use super::patch::Kind;
use crate::negotiate;
use crate::request::RequestInfo;
use crate::resources::Resource;

/// Refuses what no route of the resource stands for.
pub(super) fn check(row: &Resource, info: &RequestInfo, method: &Method, headers: &HeaderMap) -> Result<()> {
    let verbs = verbs(row, info);
    if verbs.is_empty() {
        return Err(ApiError::path_not_found());
    }
    let Some(verb) = verbs.iter().find(|verb| methods(verb, &info.subresource).contains(method)) else {
        return Err(method_not_allowed());
    };
    // Patches have routes by what they are sent as, except those that are handed on.
    if *verb == "patch" && info.subresource != "proxy" {
        Kind::of(headers)?;
    }
    check_accept(negotiate::accept(headers), &negotiate::produced(verb, &info.subresource))
}

/// Refuses a header that accepts none of what a route answers in.
pub(super) fn check_accept(accept: &str, produced: &[&str]) -> Result<()> {
    match negotiate::is_routed(accept, produced) {
        true => Ok(()),
        false => Err(ApiError::no_representation(produced)),
    }
}

/// The verbs of the path.
fn verbs<'r>(row: &'r Resource, info: &RequestInfo) -> Vec<&'r str> {
    let of = |wanted: &[&str]| row.verbs.iter().copied().filter(|v| wanted.contains(v)).collect();
    let in_namespace = match row.plural {
        // A namespace is in itself, as far as paths go.
        "namespaces" => info.to_one && info.namespace == info.name,
        _ => !info.namespace.is_empty(),
    };
    let misplaced = match row.plural {
        "namespaces" => !info.namespace.is_empty() && !in_namespace,
        _ => in_namespace && !row.namespaced,
    };
    let elsewhere = row.namespaced && !in_namespace;
    if misplaced || (elsewhere && info.to_one) {
        return Vec::new();
    }
    if info.is_watch_path() {
        return of(&["watch"]);
    }
    if !info.subresource.is_empty() {
        let deeper = !info.rest.is_empty() && info.subresource != "proxy";
        let sub = row.subresource(&info.subresource).filter(|_| !deeper);
        return sub.map_or_else(Vec::new, |s| s.verbs.clone());
    }
    match (info.to_one, elsewhere) {
        (true, _) => of(&["get", "update", "patch", "delete"]),
        (false, true) => of(&["list"]),
        (false, false) => of(&["list", "create", "deletecollection"]),
    }
}

/// The methods of a verb. What is proxied may be asked for more.
fn methods(verb: &str, subresource: &str) -> &'static [Method] {
    match verb {
        "get" if subresource == "proxy" => &[Method::GET, Method::HEAD, Method::OPTIONS],
        "get" | "list" | "watch" => &[Method::GET],
        "create" => &[Method::POST],
        "update" => &[Method::PUT],
        "patch" => &[Method::PATCH],
        "delete" | "deletecollection" => &[Method::DELETE],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Query;
    use crate::resources::TABLE;

    fn check(method: Method, path: &str, accept: &str, want: u16) {
        let info = RequestInfo::new(&method, path, &Query::default());
        let row = TABLE.find(&info.group, &info.version, &info.resource).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(http::header::ACCEPT, accept.parse().unwrap());
        let got = super::check(row, &info, &method, &headers).map_or_else(|e| e.code().as_u16(), |()| 200);
        assert_eq!(got, want, "{method} {path} {accept}");
    }

    #[test]
    fn requests_find_their_routes() {
        use Method as M;
        check(M::GET, "/api/v1/pods", "", 200);
        check(M::GET, "/api/v1/watch/pods", "", 200);
        check(M::POST, "/api/v1/watch/pods", "", 405);
        check(M::HEAD, "/api/v1/pods", "", 405);
        check(M::POST, "/api/v1/pods", "", 405);
        check(M::POST, "/api/v1/bindings", "", 404);
        check(M::GET, "/api/v1/pods/a", "", 404);
        check(M::GET, "/api/v1/namespaces/a/pods/b", "", 200);
        check(M::POST, "/api/v1/namespaces/a/pods/b", "", 405);
        check(M::POST, "/api/v1/namespaces/a/bindings/b", "", 404);
        check(M::GET, "/api/v1/namespaces/a/pods/b/nope", "", 404);
        check(M::GET, "/api/v1/namespaces/a/pods/b/status/c", "", 404);
        check(M::OPTIONS, "/api/v1/namespaces/a/pods/b/proxy/c", "", 200);
        check(M::GET, "/api/v1/namespaces/a/nodes", "", 404);
        check(M::GET, "/api/v1/namespaces/a/namespaces", "", 404);
        check(M::GET, "/api/v1/namespaces/a", "", 200);
        check(M::DELETE, "/api/v1/namespaces", "", 405);
        check(M::GET, "/api/v1/nodes/a", "application/*", 406);
        check(M::PATCH, "/api/v1/nodes/a", "application/*", 415);
        check(M::PATCH, "/api/v1/nodes/a/proxy", "application/*", 200);
        check(M::GET, "/api/v1/nodes", "application/json;stream=watch", 200);
        check(M::GET, "/api/v1/namespaces/a/pods/b/log", "text/plain", 200);
        check(M::GET, "/api/v1/namespaces/a/pods/b/status", "text/plain", 406);
    }
}
