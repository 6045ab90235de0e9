//! What a request asks for, read from its method, path and query.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris>.

use std::collections::HashMap;

use api::ApiError;
use api::error::Result;
use http::Method;

use crate::authz::Selectors;

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestInfo {
    /// True for requests of the API (`/api`, `/apis`) that name a resource.
    pub is_resource: bool,
    /// The path as it came.
    pub path: String,
    /// API verb, or the HTTP method in lower case when no resource is asked for.
    pub verb: &'static str,
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace; empty for requests of the cluster.
    pub namespace: String,
    /// Plural name of the resource.
    pub resource: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
    /// Name of the object; empty for collections, unless a selector asks for one name.
    pub name: String,
    /// True when the path leads to an object.
    pub to_one: bool,
    /// What follows the subresource, as for `proxy`.
    pub rest: String,
    /// Which of many objects are asked for.
    pub selectors: Selectors,
    watch_path: bool,
}

impl RequestInfo {
    /// Reads a request.
    pub fn new(method: &Method, path: &str, query: &Query) -> Self {
        let mut info = Self { path: path.to_owned(), verb: lower(method), ..Self::default() };
        let plain = decoded(path);
        let segments: Vec<&str> = plain.trim_matches('/').split('/').collect();
        let after = match segments.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => return info,
        };
        info.is_resource = true;
        let mut after = after.to_vec();
        // The verb as a first segment: the deprecated way to watch, and the even older proxy.
        let watch_path = after.first() == Some(&"watch") && after.len() > 1;
        if watch_path {
            after.remove(0);
            info.watch_path = true;
        }
        info.locate(&after);
        info.to_one = !info.name.is_empty();
        info.verb = info.api_verb(method, query, watch_path);
        if matches!(info.verb, "list" | "watch" | "deletecollection") {
            info.selectors = Selectors::read(query.get("fieldSelector"), query.get("labelSelector"));
            // A selector for one name authorizes like a request for it.
            let one = info.selectors.fields.iter().find(|t| t.equal && t.field == "metadata.name");
            if let Some(term) = one.filter(|_| info.name.is_empty()) {
                info.name.clone_from(&term.value);
            }
        }
        info
    }

    fn locate(&mut self, segments: &[&str]) {
        let rest = match segments {
            ["namespaces", namespace, resource, rest @ ..]
                if !(self.group.is_empty() && matches!(*resource, "status" | "finalize")) =>
            {
                self.namespace = (*namespace).to_owned();
                self.resource = (*resource).to_owned();
                rest
            }
            ["namespaces", namespace, rest @ ..] if self.group.is_empty() => {
                self.resource = "namespaces".to_owned();
                self.namespace = (*namespace).to_owned();
                self.name = (*namespace).to_owned();
                self.subresource = rest.first().copied().unwrap_or_default().to_owned();
                return;
            }
            [resource, rest @ ..] => {
                self.resource = (*resource).to_owned();
                rest
            }
            [] => return,
        };
        self.name = rest.first().copied().unwrap_or_default().to_owned();
        self.subresource = rest.get(1).copied().unwrap_or_default().to_owned();
        self.rest = self.rest_of(rest.get(2..).unwrap_or_default());
    }

    /// What follows the subresource, as it came: who it is handed on to decodes it.
    fn rest_of(&self, segments: &[&str]) -> String {
        let raw: Vec<&str> = self.path.trim_matches('/').split('/').collect();
        let raw = raw.get(raw.len().saturating_sub(segments.len())..).unwrap_or_default();
        let same = raw.iter().zip(segments).all(|(raw, plain)| decoded(raw) == *plain);
        if same { raw.join("/") } else { segments.join("/") }
    }

    fn api_verb(&self, method: &Method, query: &Query, watch_path: bool) -> &'static str {
        match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if self.name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            Method::GET | Method::HEAD if watch_path => "watch",
            Method::GET | Method::HEAD if self.name.is_empty() => {
                if query.is_true("watch") {
                    "watch"
                } else {
                    "list"
                }
            }
            Method::GET | Method::HEAD => "get",
            _ => "",
        }
    }

    /// True when the path itself, and not the query, says to watch.
    pub fn is_watch_path(&self) -> bool {
        self.watch_path
    }

    /// True when the path is that of a verb of old, without what it is for.
    pub fn is_verb_alone(&self) -> bool {
        self.is_resource
            && self.name.is_empty()
            && matches!(self.resource.as_str(), "watch" | "proxy")
            && self.path.trim_end_matches('/').ends_with(self.resource.as_str())
    }

    /// True for streams, which no deadline ends.
    pub fn is_long_running(&self) -> bool {
        self.verb == "watch"
            || (self.is_resource
                && matches!(self.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy"))
    }
}

fn lower(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

fn decoded(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

/// The query of a request; keys may repeat.
#[derive(Clone, Debug, Default)]
pub struct Query {
    values: HashMap<String, Vec<String>>,
}

impl Query {
    /// Reads the part of a URL after the question mark. Pairs that cannot be decoded are left out, and those with a
    /// semicolon, as Go's servers do.
    pub fn parse(query: Option<&str>) -> Self {
        let mut values: HashMap<String, Vec<String>> = HashMap::new();
        for pair in query.unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
            if pair.contains(';') || !is_escaped(pair) {
                continue;
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            values.entry(unplus(key)).or_default().push(unplus(value));
        }
        Self { values }
    }

    /// The first value of `key`, or the empty string.
    pub fn get(&self, key: &str) -> &str {
        self.values.get(key).and_then(|v| v.first()).map_or("", String::as_str)
    }

    /// The first value of `key` as a number, when `key` is there.
    pub fn integer(&self, key: &str) -> Result<Option<i64>> {
        if !self.has(key) {
            return Ok(None);
        }
        let text = self.get(key);
        text.parse().map(Some).map_err(|_| {
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            let in_range = digits.is_empty() || digits.bytes().any(|b| !b.is_ascii_digit());
            let why = if in_range { "invalid syntax" } else { "value out of range" };
            let text = api::field::go_quote(text);
            ApiError::bad_request(format!("strconv.ParseInt: parsing {text}: {why}"))
        })
    }

    /// The first value of `key` as a truth, when `key` is there.
    pub fn truth(&self, key: &str) -> Option<bool> {
        self.has(key).then(|| self.is_true(key))
    }

    /// Sets the only value of `key`.
    pub fn set(&mut self, key: &str, value: &str) {
        self.values.insert(key.to_owned(), vec![value.to_owned()]);
    }

    /// Sets all values of `key`; without any it is not there.
    pub fn set_all(&mut self, key: &str, values: Vec<String>) {
        match values.is_empty() {
            true => self.values.remove(key),
            false => self.values.insert(key.to_owned(), values),
        };
    }

    /// All values of `key`.
    pub fn all(&self, key: &str) -> &[String] {
        self.values.get(key).map_or(&[], Vec::as_slice)
    }

    /// True when `key` is there.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// True when `key` has a true value, as Go reads booleans in queries: anything but `false` and `0`.
    pub fn is_true(&self, key: &str) -> bool {
        self.has(key) && !matches!(self.get(key).to_ascii_lowercase().as_str(), "false" | "0")
    }
}

/// True when two hexadecimal digits stand after every percent sign.
pub fn is_escaped(text: &str) -> bool {
    let mut after = text.split('%').skip(1).map(str::as_bytes);
    after.all(|rest| matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

fn unplus(text: &str) -> String {
    decoded(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, url: &str, want: &str) {
        let (path, query) = url.split_once('?').map_or((url, None), |(p, q)| (p, Some(q)));
        let i = RequestInfo::new(&method, path, &Query::parse(query));
        let got = format!(
            "{} {}/{} ns={} {}/{} name={} rest={}",
            i.verb, i.group, i.version, i.namespace, i.resource, i.subresource, i.name, i.rest
        );
        assert_eq!(got, want, "{url}");
    }

    #[test]
    fn requests_are_read_as_upstream_reads_them() {
        use Method as M;
        check(M::GET, "/api/v1/pods", "list /v1 ns= pods/ name= rest=");
        check(M::GET, "/api/v1/pods?watch=%zz", "list /v1 ns= pods/ name= rest=");
        check(M::GET, "/api/v1/pods?watch=1;x=2", "list /v1 ns= pods/ name= rest=");
        check(M::GET, "/api/v1/pods?watch=1", "watch /v1 ns= pods/ name= rest=");
        check(M::GET, "/api/v1/watch/namespaces/a/pods", "watch /v1 ns=a pods/ name= rest=");
        check(M::GET, "/api/v1/namespaces/a/pods/b?watch=1", "get /v1 ns=a pods/ name=b rest=");
        check(M::GET, "/api/v1/namespaces", "list /v1 ns= namespaces/ name= rest=");
        check(M::GET, "/api/v1/namespaces/a", "get /v1 ns=a namespaces/ name=a rest=");
        check(M::PUT, "/api/v1/namespaces/a/status", "update /v1 ns=a namespaces/status name=a rest=");
        check(
            M::POST,
            "/apis/apps/v1/namespaces/a/deployments",
            "create apps/v1 ns=a deployments/ name= rest=",
        );
        check(
            M::DELETE,
            "/apis/apps/v1/namespaces/a/deployments",
            "deletecollection apps/v1 ns=a deployments/ name= rest=",
        );
        check(M::GET, "/api/v1/nodes/n/proxy/logs/x", "get /v1 ns= nodes/proxy name=n rest=logs/x");
        check(M::GET, "/healthz", "get / ns= / name= rest=");
        check(M::GET, "/apis/apps/v1", "get / ns= / name= rest=");
        check(M::GET, "/api/v1/pods?fieldSelector=metadata.name%3Dx", "list /v1 ns= pods/ name=x rest=");
    }
}
