//! `/statusz` and `/flagz` (KEP-4827, KEP-4828): what a process is and which flags it runs with, as text for people, or as an
//! object of `config.k8s.io` for who names its kind in `Accept`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, WARNING};
use http::{HeaderMap, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::body::{Body, full, text};

/// What the pages tell.
#[derive(Clone, Debug)]
pub struct Pages {
    /// The component's name.
    pub component: &'static str,
    /// The version it follows, `v1.36.2`.
    pub version: &'static str,
    /// When the process began.
    pub started: Timestamp,
    /// The paths that can be read to find out more, in order.
    pub paths: Vec<&'static str>,
    /// Flags with their values; nothing secret is among them.
    pub flags: BTreeMap<String, String>,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json(&'static str),
    Yaml(&'static str),
}

const GROUP: &str = "config.k8s.io";
const VERSIONS: [&str; 2] = ["v1beta1", "v1alpha1"];
const WARNING_TEXT: &str = "\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n";

impl Pages {
    /// The answer to `/statusz`.
    pub fn statusz(&self, headers: &HeaderMap) -> Response<Body> {
        let now = Timestamp::now();
        answer(headers, ("Statusz", "statusz"), || self.status_text(now), |version| self.status(version, now))
    }

    /// The answer to `/flagz`.
    pub fn flagz(&self, headers: &HeaderMap) -> Response<Body> {
        let lines = || {
            let mut out = format!("\n{} flagz{WARNING_TEXT}", self.component);
            for (name, value) in &self.flags {
                let _ = writeln!(out, "{name}: {value}");
            }
            out
        };
        answer(headers, ("Flagz", "flagz"), lines, |version| {
            let mut page = self.head("Flagz", version);
            page["flags"] = json!(self.flags);
            page
        })
    }

    fn head(&self, kind: &str, version: &str) -> Value {
        json!({
            "kind": kind,
            "apiVersion": format!("{GROUP}/{version}"),
            "metadata": {"name": self.component},
        })
    }

    fn uptime(&self, now: Timestamp) -> i64 {
        (now.as_second() - self.started.as_second()).max(0)
    }

    /// `1.36.2` and `1.36`.
    fn versions(&self) -> (&str, &str) {
        let binary = self.version.trim_start_matches('v');
        (binary, binary.rsplit_once('.').map_or(binary, |(minor, _)| minor))
    }

    fn status(&self, version: &str, now: Timestamp) -> Value {
        let (binary, emulated) = self.versions();
        let mut page = self.head("Statusz", version);
        page["startTime"] = self.started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
        page["uptimeSeconds"] = self.uptime(now).into();
        // Nothing here is written in Go.
        page["goVersion"] = "".into();
        page["binaryVersion"] = binary.into();
        page["emulationVersion"] = emulated.into();
        page["paths"] = json!(self.paths);
        page
    }

    fn status_text(&self, now: Timestamp) -> String {
        let up = self.uptime(now);
        let (binary, emulated) = self.versions();
        format!(
            "\n{} statusz{WARNING_TEXT}\nStarted: {}\nUp: {} hr {:02} min {:02} sec\nGo version: \nBinary version: {binary}\n\
             Emulation version: {emulated}\nPaths: {}\n",
            self.component,
            self.started.strftime("%a %b %e %H:%M:%S UTC %Y"),
            up / 3600,
            up / 60 % 60,
            up % 60,
            self.paths.join(" "),
        )
    }
}

fn answer(
    headers: &HeaderMap,
    (kind, page): (&str, &str),
    lines: impl FnOnce() -> String,
    object: impl FnOnce(&str) -> Value,
) -> Response<Body> {
    let (content, media, version) = match form(headers, kind) {
        None => return unacceptable(),
        Some(Form::Text) => return text(StatusCode::OK, lines()),
        Some(Form::Json(version)) => (format!("{}\n", object(version)), "application/json", version),
        Some(Form::Yaml(version)) => (yaml(&object(version)), "application/yaml", version),
    };
    let mut response = Response::new(full(content));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    if version != VERSIONS[0] {
        let warning = format!(
            "299 - \"This version of the {page} endpoint is deprecated. Please use a newer version.\""
        );
        let warning = HeaderValue::from_str(&warning).expect("it consists of words");
        response.headers_mut().insert(WARNING, warning);
    }
    response
}

fn unacceptable() -> Response<Body> {
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "only the following media types are accepted: application/json, application/yaml, text/plain",
        "reason": "NotAcceptable",
        "code": 406,
    });
    crate::body::json(StatusCode::NOT_ACCEPTABLE, status.to_string())
}

/// The form that is wanted most of those that there are; text for who does not say.
fn form(headers: &HeaderMap, kind: &str) -> Option<Form> {
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accept = accept.join(",");
    if accept.trim().is_empty() {
        return Some(Form::Text);
    }
    let mut clauses: Vec<(f64, &str)> = accept.split(',').map(|clause| (weight(clause), clause)).collect();
    clauses.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    clauses.into_iter().find_map(|(_, clause)| of_clause(clause, kind))
}

fn parameters(clause: &str) -> impl Iterator<Item = (&str, &str)> {
    clause.split(';').skip(1).filter_map(|pair| pair.trim().split_once('='))
}

fn weight(clause: &str) -> f64 {
    parameters(clause).find(|(name, _)| *name == "q").and_then(|(_, q)| q.parse().ok()).unwrap_or(1.0)
}

/// Objects are there for who names their kind and version, text for who names none.
fn of_clause(clause: &str, kind: &str) -> Option<Form> {
    let media = clause.split(';').next().unwrap_or_default().trim();
    let named = |wanted: &str| parameters(clause).find(|(name, _)| *name == wanted).map(|(_, value)| value);
    let converts = ["as", "g", "v"].map(named);
    if converts == [None; 3] {
        return matches!(media, "text/plain" | "text/*" | "*/*").then_some(Form::Text);
    }
    let version = VERSIONS.into_iter().find(|known| converts == [Some(kind), Some(GROUP), Some(known)])?;
    match media {
        "application/json" | "application/*" | "*/*" => Some(Form::Json(version)),
        "application/yaml" => Some(Form::Yaml(version)),
        _ => None,
    }
}

/// An object of texts, numbers, lists of texts and maps of texts.
fn yaml(object: &Value) -> String {
    let mut out = String::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                let _ = writeln!(out, "{name}:");
                inner.iter().for_each(|(key, value)| {
                    let _ = writeln!(out, "  {}: {value}", Value::from(key.as_str()));
                });
            }
            Value::Array(items) if !items.is_empty() => {
                let _ = writeln!(out, "{name}:");
                items.iter().for_each(|item| {
                    let _ = writeln!(out, "- {item}");
                });
            }
            // Every other value of JSON is one of YAML.
            other => {
                let _ = writeln!(out, "{name}: {other}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn pages() -> Pages {
        Pages {
            component: "kubelet",
            version: "v1.36.2",
            started: "2026-01-02T03:04:05Z".parse().unwrap(),
            paths: vec!["/configz", "/metrics"],
            flags: [("v", "2"), ("config", "a: \"b\"")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        }
    }

    fn accepting(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(ACCEPT, accept.parse().unwrap());
        }
        headers
    }

    #[test]
    fn objects_are_there_for_who_names_their_kind() {
        for (accept, expected) in [
            ("", Some(Form::Text)),
            ("*/*", Some(Form::Text)),
            ("text/plain", Some(Form::Text)),
            ("application/json", None),
            ("application/json, text/plain;q=0.5", Some(Form::Text)),
            ("application/json;as=Statusz;g=config.k8s.io;v=v1beta1", Some(Form::Json("v1beta1"))),
            ("application/yaml;v=v1alpha1;g=config.k8s.io;as=Statusz", Some(Form::Yaml("v1alpha1"))),
            ("application/json;as=Flagz;g=config.k8s.io;v=v1beta1", None),
            ("application/json;as=Statusz;g=config.k8s.io;v=v2", None),
            ("text/plain;as=Statusz;g=config.k8s.io;v=v1beta1", None),
            ("application/vnd.kubernetes.protobuf", None),
            (
                "text/plain;q=0.1, application/json;as=Statusz;g=config.k8s.io;v=v1beta1;q=0.9",
                Some(Form::Json("v1beta1")),
            ),
        ] {
            assert_eq!(form(&accepting(accept), "Statusz"), expected, "{accept}");
        }
    }

    async fn body(response: Response<Body>) -> (StatusCode, bool, String) {
        let (status, warned) = (response.status(), response.headers().contains_key(WARNING));
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, warned, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn pages_are_shown_in_every_form() {
        let (_, _, page) = body(pages().statusz(&accepting(""))).await;
        assert!(page.starts_with("\nkubelet statusz\nWarning: This endpoint"), "{page}");
        for line in [
            "Started: Fri Jan  2 03:04:05 UTC 2026",
            "Binary version: 1.36.2",
            "Emulation version: 1.36",
            "Paths: /configz /metrics",
        ] {
            assert!(page.lines().any(|other| other == line), "{line} is not in {page}");
        }
        let json = "application/json;as=Statusz;g=config.k8s.io;v=v1alpha1";
        let (status, warned, page) = body(pages().statusz(&accepting(json))).await;
        let page: Value = serde_json::from_str(&page).unwrap();
        assert_eq!((status, warned), (StatusCode::OK, true));
        assert_eq!(page["apiVersion"], "config.k8s.io/v1alpha1");
        assert_eq!(
            (&page["startTime"], &page["paths"][1]),
            (&"2026-01-02T03:04:05Z".into(), &"/metrics".into())
        );
        let yaml = "application/yaml;as=Flagz;g=config.k8s.io;v=v1beta1";
        let (_, warned, page) = body(pages().flagz(&accepting(yaml))).await;
        assert!(!warned);
        let expected = "kind: \"Flagz\"\n";
        assert!(
            page.contains(expected)
                && page.contains("flags:\n  \"config\": \"a: \\\"b\\\"\"\n  \"v\": \"2\"\n"),
            "{page}"
        );
        let (_, _, page) = body(pages().flagz(&accepting("text/*"))).await;
        assert!(page.ends_with("config: a: \"b\"\nv: 2\n"), "{page}");
        assert_eq!(body(pages().flagz(&accepting("image/png"))).await.0, StatusCode::NOT_ACCEPTABLE);
    }
}
