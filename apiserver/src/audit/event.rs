//! An event of the audit log, and how it is written: as JSON, or as one line of text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use api::field::go_quote;
use api::{Value, time};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::policy::{Level, Stage};
use crate::authn::UserInfo;

/// How events are written to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Each on a line, as JSON.
    Json,
    /// Each on a line, as text.
    Legacy,
    /// As JSON that does not say its kind, to stand in a list.
    Item,
}

/// What was gathered of a request.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub level: Level,
    pub id: String,
    pub uri: String,
    pub verb: String,
    pub user: User,
    pub impersonated: Option<User>,
    pub constraint: String,
    pub source_ips: Vec<String>,
    pub user_agent: String,
    pub object: Option<ObjectReference>,
    pub status: Option<Value>,
    pub request: Option<Json>,
    pub response: Option<Json>,
    pub received: Timestamp,
    pub annotations: BTreeMap<String, String>,
}

/// JSON that was written already.
#[derive(Debug)]
pub(super) struct Json(Box<RawValue>);

impl Json {
    /// None when `json` is no JSON.
    pub(super) fn new(json: Vec<u8>) -> Option<Self> {
        RawValue::from_string(String::from_utf8(json).ok()?).ok().map(Self)
    }
}

/// A user, as `UserInfo` of `authentication.k8s.io/v1` is written.
#[derive(Debug, Default, Serialize)]
pub(super) struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl From<&UserInfo> for User {
    fn from(user: &UserInfo) -> Self {
        Self {
            username: user.name.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.iter().cloned().collect(),
        }
    }
}

/// The object that a request is about.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    impersonation_constraint: &'a str,
}

/// The members of an event in upstream's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'a str>,
    level: Level,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: &'a User,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<&'a User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authentication_metadata: Option<Metadata<'a>>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[_]>::is_empty")]
    source_ips: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<&'a ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<&'a RawValue>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl Record {
    /// The event of a stage; `truncated` leaves out the bodies.
    pub(super) fn write(&self, stage: Stage, at: Timestamp, format: Format, truncated: bool) -> Bytes {
        if format == Format::Legacy {
            return self.line(stage).into();
        }
        let marked = truncated.then(|| {
            let mut annotations = self.annotations.clone();
            annotations.insert("audit.k8s.io/truncated".to_owned(), "true".to_owned());
            annotations
        });
        let event = Event {
            kind: (format == Format::Json).then_some("Event"),
            api_version: (format == Format::Json).then_some("audit.k8s.io/v1"),
            level: self.level,
            audit_id: &self.id,
            stage,
            request_uri: &self.uri,
            verb: &self.verb,
            user: &self.user,
            impersonated_user: self.impersonated.as_ref(),
            authentication_metadata: (!self.constraint.is_empty())
                .then_some(Metadata { impersonation_constraint: &self.constraint }),
            source_ips: &self.source_ips,
            user_agent: &self.user_agent,
            object_ref: self.object.as_ref(),
            response_status: self.status.as_ref(),
            request_object: self.request.as_ref().filter(|_| !truncated).map(|b| &*b.0),
            response_object: self.response.as_ref().filter(|_| !truncated).map(|b| &*b.0),
            request_received_timestamp: time::format_micro(self.received),
            stage_timestamp: time::format_micro(at),
            annotations: marked.as_ref().unwrap_or(&self.annotations),
        };
        let mut out = serde_json::to_vec(&event).unwrap_or_default();
        if format == Format::Json {
            out.push(b'\n');
        }
        out.into()
    }

    fn line(&self, stage: Stage) -> String {
        let list = |items: &[String]| items.iter().map(|i| go_quote(i)).collect::<Vec<_>>().join(",");
        let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
        let groups = match self.user.username.is_empty() || self.user.groups.is_empty() {
            true => "<none>".to_owned(),
            false => list(&self.user.groups),
        };
        let (name, other_groups) = match &self.impersonated {
            None => ("<self>".to_owned(), "<lookup>".to_owned()),
            Some(user) => (user.username.clone(), list(&user.groups)),
        };
        let namespace = self.object.as_ref().map_or("", |o| o.namespace.as_str());
        let code = self.status.as_ref().map(|s| s.get("code").as_i64().unwrap_or(0).to_string());
        let mut line = format!("{} AUDIT:", self.received);
        for (key, value) in [
            ("id", self.id.clone()),
            ("stage", stage.name().to_owned()),
            ("ip", or(self.source_ips.first().map_or("", String::as_str), "<unknown>")),
            ("method", self.verb.clone()),
            ("user", or(&self.user.username, "<none>")),
            ("groups", groups),
            ("as", name),
            ("asgroups", other_groups),
            ("user-agent", self.user_agent.clone()),
            ("namespace", or(namespace, "<none>")),
            ("uri", self.uri.clone()),
        ] {
            // Writing to a string cannot fail.
            let _ = write!(line, " {key}={}", go_quote(&value));
        }
        let _ = writeln!(line, " response=\"{}\"", code.as_deref().unwrap_or("<deferred>"));
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn record() -> Record {
        let user = |name: &str| User { username: name.into(), groups: vec!["g".into()], ..User::default() };
        Record {
            level: Level::Request,
            id: "i".into(),
            uri: "/api/v1/namespaces/n/pods?x=1".into(),
            verb: "create".into(),
            user: user("ann"),
            impersonated: Some(user("bob")),
            source_ips: vec!["10.0.0.1".into()],
            user_agent: "kubectl".into(),
            object: Some(ObjectReference {
                resource: "pods".into(),
                namespace: "n".into(),
                ..ObjectReference::default()
            }),
            status: Some(object!({"metadata": {}, "code": 201})),
            request: Json::new(b"{\"kind\":\"Pod\"}".to_vec()),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
            ..Record::default()
        }
    }

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn events_have_the_members_of_upstream_in_their_order() {
        let json = record().write(Stage::ResponseComplete, Timestamp::UNIX_EPOCH, Format::Json, false);
        assert_eq!(
            text(&json),
            "{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Request\",\"auditID\":\"i\",\
             \"stage\":\"ResponseComplete\",\"requestURI\":\"/api/v1/namespaces/n/pods?x=1\",\"verb\":\"create\",\
             \"user\":{\"username\":\"ann\",\"groups\":[\"g\"]},\"impersonatedUser\":{\"username\":\"bob\",\"groups\":[\"g\"]},\
             \"sourceIPs\":[\"10.0.0.1\"],\"userAgent\":\"kubectl\",\"objectRef\":{\"resource\":\"pods\",\"namespace\":\"n\"},\
             \"responseStatus\":{\"metadata\":{},\"code\":201},\"requestObject\":{\"kind\":\"Pod\"},\
             \"requestReceivedTimestamp\":\"1970-01-01T00:00:00.000000Z\",\"stageTimestamp\":\"1970-01-01T00:00:00.000000Z\",\
             \"annotations\":{\"a\":\"b\"}}\n"
        );
        let item = record().write(Stage::ResponseComplete, Timestamp::UNIX_EPOCH, Format::Item, true);
        assert!(text(&item).starts_with("{\"level\":") && !text(&item).contains("requestObject"));
        assert!(text(&item).contains("\"annotations\":{\"a\":\"b\",\"audit.k8s.io/truncated\":\"true\"}"));
    }

    #[test]
    fn the_older_format_is_a_line_of_text() {
        let line = record().write(Stage::ResponseComplete, Timestamp::UNIX_EPOCH, Format::Legacy, false);
        assert_eq!(
            text(&line),
            "1970-01-01T00:00:00Z AUDIT: id=\"i\" stage=\"ResponseComplete\" ip=\"10.0.0.1\" method=\"create\" user=\"ann\" \
             groups=\"\\\"g\\\"\" as=\"bob\" asgroups=\"\\\"g\\\"\" user-agent=\"kubectl\" namespace=\"n\" \
             uri=\"/api/v1/namespaces/n/pods?x=1\" response=\"201\"\n"
        );
    }
}
