//! Paths, queries, headers and the forms of bodies.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Uri};

use crate::negotiate::{self, Encoding, Form, Include, Offer};
use crate::registry::{DeleteOptions, ListOptions, WriteOptions};
use crate::render;
use crate::request::{Query, RequestInfo};
use crate::resources::TABLE;

/// A request line, headers and a body: whatever is asked for, it is understood or refused, and tokens of pages that are
/// understood are written the same again.
pub fn requests(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let (method, uri) = lines.next().and_then(|line| line.split_once(' ')).unwrap_or_default();
    let (Ok(method), Ok(uri)) = (Method::try_from(method), Uri::try_from(uri)) else { return };
    let mut headers = HeaderMap::new();
    for value in lines.filter_map(|line| HeaderValue::try_from(line).ok()).take(10) {
        headers.append(ACCEPT, value);
    }
    let query = Query::parse(uri.query());
    let info = RequestInfo::new(&method, uri.path(), &query);
    assert!(info.is_resource || info.resource.is_empty());
    let _ = (info.is_long_running(), Include::parse(query.get("includeObject")));
    for offer in [Offer::ALL, Offer { protobuf: false, tables: false, shapes: true }] {
        if let Ok(form) = Form::negotiate(&headers, true, offer) {
            assert!(offer.protobuf || form.encoding != Encoding::Protobuf);
            assert!(offer.tables || form.shape != negotiate::Shape::Table);
        }
    }
    let _ = WriteOptions::parse(&query, body, "PatchOptions");
    let _ = DeleteOptions::from_query(&query);
    let _ = super::document(body).map(|body| DeleteOptions::from_body(&body));
    let row = TABLE.find(&info.group, &info.version, &info.resource).or_else(|| TABLE.find("", "v1", "pods"));
    let row = row.expect("there are pods");
    if let Ok(options) = ListOptions::parse(&query, row) {
        let _ = options.labels.to_string();
        if let Some(from) = options.from {
            let mut query = Query::default();
            query.set("continue", &from.encode());
            assert_eq!(ListOptions::parse(&query, row).ok().and_then(|o| o.from), Some(from));
        }
    }
}

/// A body after a byte for its type: what was read is written in YAML and protobuf as what is read as the same.
pub fn decoding(data: &[u8]) {
    let Some((how, body)) = data.split_first() else { return };
    let types = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
    let media_type = types[usize::from(*how) % types.len()];
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
    let Ok(read) = negotiate::decode(&headers, body, "Pod") else { return };
    // Numbers have more than one form; those of what was written once do not.
    let written = read.value.to_json();
    let value = api::json::decode(&written).expect("what was written is JSON").value;
    let yaml = render::encode(&value, Encoding::Yaml, false);
    let again = negotiate::yaml(&yaml).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&yaml)));
    assert_eq!(again.value, value, "{}", String::from_utf8_lossy(&yaml));
    assert!(again.complaint.is_none());
    let pretty = render::encode(&value, Encoding::Json, true);
    assert_eq!(negotiate::json(&pretty, "Pod").expect("what was written is JSON").value, value);
}
