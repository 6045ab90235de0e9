//! Content negotiation: which form of an answer a client wants, and what form a body has.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources>.

mod accept;
mod yaml;

use api::ApiError;
use api::error::Result;
use api::json::Decoded;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

use crate::audit::Level;
use accept::Accepted;

pub use accept::{Offer, is_routed};
pub use yaml::yaml;

/// The encoding of an answer or a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    #[default]
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// What of an object an answer shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// All of it.
    #[default]
    Object,
    /// A table of columns for people.
    Table,
    /// The metadata alone.
    Metadata,
    /// The metadata of each object of a list.
    MetadataList,
}

/// What the rows of a table hold besides their cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// The metadata of the object.
    #[default]
    Metadata,
    /// The object.
    Object,
    /// Nothing.
    None,
}

impl Include {
    /// Reads the query parameter `includeObject` of a request for a table.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "Metadata" => Ok(Include::Metadata),
            "Object" => Ok(Include::Object),
            "None" => Ok(Include::None),
            other => {
                use api::field::{FieldError, Path};
                let why = "must be 'Metadata', 'Object', 'None', or empty";
                let error = FieldError::invalid(&Path::new("includeObject"), other, why);
                Err(ApiError::bad_request(format!("Unable to convert to Table as requested: {error}")))
            }
        }
    }
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// Encoding.
    pub encoding: Encoding,
    /// Shape.
    pub shape: Shape,
    /// Tables and metadata in the form of `meta.k8s.io/v1beta1`.
    pub beta: bool,
    /// JSON for people.
    pub pretty: bool,
    /// What the rows of a table hold.
    pub include: Include,
    /// Compressed if it is large.
    pub gzip: bool,
    /// How much of the answer is recorded.
    pub recorded: Level,
}

const SUPPORTED: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// What streams of events can be had as.
const STREAMS: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

impl Encoding {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => SUPPORTED[0],
            Encoding::Yaml => SUPPORTED[1],
            Encoding::Protobuf => SUPPORTED[2],
        }
    }
}

/// The refusal of a header that accepts nothing of what there is.
fn not_acceptable() -> ApiError {
    ApiError::not_acceptable(&SUPPORTED)
}

/// The media types that the route of a verb answers in.
pub fn produced(verb: &str, subresource: &str) -> Vec<&'static str> {
    match (verb, subresource) {
        (_, "exec" | "attach" | "portforward" | "proxy") => vec!["*/*"],
        (_, "log") => [&["text/plain"], &SUPPORTED[..]].concat(),
        ("list" | "watch", _) => [&SUPPORTED[..], &STREAMS[..]].concat(),
        _ => SUPPORTED.to_vec(),
    }
}

/// The first `Accept` header, which is the one that counts.
pub fn accept(headers: &HeaderMap) -> &str {
    headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

impl Form {
    /// The best form that the client accepts of those that are offered.
    pub fn negotiate(headers: &HeaderMap, pretty: bool, offer: Offer) -> Result<Self> {
        let accepted = accept::best(accept(headers), offer).ok_or_else(not_acceptable)?;
        let Accepted { encoding, shape, beta, .. } = accepted;
        Ok(Self { encoding, shape, beta, pretty: pretty || accepted.pretty, ..Self::default() })
    }

    /// This form for a stream of events, which YAML has none for.
    pub fn streamed(self) -> Result<Self> {
        match self.encoding {
            Encoding::Yaml => Err(ApiError::not_acceptable(&STREAMS)),
            Encoding::Json | Encoding::Protobuf => Ok(self),
        }
    }

    /// The group and version of tables and metadata.
    pub fn meta_version(self) -> &'static str {
        if self.beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
    }
}

/// The media type of a body, without parameters; JSON when none is given.
pub fn content_type(headers: &HeaderMap) -> String {
    let Ok(value) = headers.get(CONTENT_TYPE).map_or(Ok(""), |v| v.to_str()) else {
        return "unreadable".to_owned();
    };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    if media_type.is_empty() { SUPPORTED[0].to_owned() } else { media_type.to_ascii_lowercase() }
}

/// Reads a body as `kind` would be written in it.
pub fn decode(headers: &HeaderMap, body: &[u8], kind: &str) -> Result<Decoded> {
    match content_type(headers).as_str() {
        "application/json" => json(body, kind),
        "application/yaml" => yaml::read_body(body).map_err(|e| unrecognized(&e, kind, body)),
        "application/vnd.kubernetes.protobuf" => {
            let found = schema::proto::decode_object(body, |api_version, kind| {
                let gv = api::meta::GroupVersion::parse(api_version)?;
                schema::kind(&gv.group, &gv.version, kind)
            });
            let unknown = || {
                ApiError::bad_request(format!("the object provided is unrecognized (must be of type {kind})"))
            };
            let value = found.map_err(|e| unrecognized(&e, kind, body))?.ok_or_else(unknown)?;
            Ok(Decoded { value, ..Decoded::default() })
        }
        _ => Err(ApiError::unsupported_media_type(&SUPPORTED)),
    }
}

/// Reads a body of options, whose errors stand alone.
pub fn decode_options(headers: &HeaderMap, body: &[u8]) -> Result<Decoded> {
    match content_type(headers).as_str() {
        "application/json" => read_json(body).map_err(ApiError::bad_request),
        "application/yaml" => yaml::read_body(body).map_err(ApiError::bad_request),
        "application/vnd.kubernetes.protobuf" => {
            let found = schema::proto::decode_object(body, |_, _| schema::kind("", "v1", "DeleteOptions"));
            let value = found.map_err(|e| ApiError::bad_request(e.to_string()))?;
            let value = value.ok_or_else(|| ApiError::bad_request("the options are of no known kind"))?;
            Ok(Decoded { value, ..Decoded::default() })
        }
        _ => Err(ApiError::unsupported_media_type(&SUPPORTED)),
    }
}

/// Reads a JSON body; the error quotes what cannot be read.
pub fn json(body: &[u8], kind: &str) -> Result<Decoded> {
    read_json(body).map_err(|why| unrecognized(&why, kind, body))
}

fn read_json(body: &[u8]) -> std::result::Result<Decoded, String> {
    // Go's decoder puts a replacement character where bytes are no UTF-8. Places in errors are places in this text.
    let text = String::from_utf8_lossy(body);
    api::json::decode(text.as_bytes()).map_err(|e| {
        format!("couldn't get version/kind; json parse error: {}", go_syntax_error(text.as_bytes(), &e))
    })
}

/// A body that cannot be read, which the message shows the beginning of: as text what begins as an object in JSON.
pub fn unrecognized(why: &dyn std::fmt::Display, kind: &str, body: &[u8]) -> ApiError {
    const SHOWN: usize = 30;
    let begin = &body[..body.len().min(SHOWN)];
    let mut shown = match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(begin).into_owned(),
        Some(_) => begin.iter().map(|b| format!("{b:02x}")).collect(),
    };
    if body.len() > SHOWN {
        shown.push_str(" ...");
    }
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({shown})"
    ))
}

/// A syntax error in the words of Go's decoder, given what was decoded.
pub fn go_syntax_error(body: &[u8], e: &serde_json::Error) -> String {
    if e.classify() == serde_json::error::Category::Eof {
        return "unexpected end of JSON input".to_owned();
    }
    let lines = body
        .split_inclusive(|b| *b == b'\n')
        .take(e.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum::<usize>();
    let at = (lines + e.column()).saturating_sub(1);
    let text = e.to_string();
    if text.starts_with("number out of range") {
        let number = number_around(body, at);
        return format!("json: cannot unmarshal number {number} into Go value of type float64");
    }
    if at > 0 && body.get(at - 1) == Some(&b'-') && body.get(at).is_some_and(|b| !b.is_ascii_digit()) {
        return format!("invalid character {} in numeric literal", quoted(char::from(body[at])));
    }
    let character = quoted(body.get(at).map_or(' ', |b| char::from(*b)));
    if let Some(place) = in_literal(body, at) {
        return format!("invalid character {character} {place}");
    }
    let place = if text.starts_with("control character") {
        "in string literal"
    } else if text.contains("recursion limit exceeded") || text.contains("exceeded max depth") {
        "exceeded max depth"
    } else if text.starts_with("key must be a string") {
        "looking for beginning of object key string"
    } else if text.starts_with("expected `:`") {
        "after object key"
    } else if text.starts_with("expected `,` or `}`") {
        "after object key:value pair"
    } else if text.starts_with("expected `,` or `]`") {
        "after array element"
    } else if text.starts_with("trailing characters") {
        "after top-level value"
    } else {
        "looking for beginning of value"
    };
    format!("invalid character {character} {place}")
}

/// A character as Go's decoder quotes it.
fn quoted(character: char) -> String {
    match character {
        '\'' => r"'\''".to_owned(),
        '"' => "'\"'".to_owned(),
        other => {
            let text = api::field::go_quote(&other.to_string());
            format!("'{}'", text.trim_matches('"'))
        }
    }
}

/// The beginning of the number that stands at or right before a place.
fn number_around(body: &[u8], at: usize) -> String {
    let of_number = |b: &u8| b.is_ascii_digit() || b"+-.eE".contains(b);
    let at = at.min(body.len());
    let start = body[..at].iter().rposition(|b| !of_number(b)).map_or(0, |i| i + 1);
    body[start..].iter().copied().take_while(of_number).take(64).map(char::from).collect()
}

/// Where the literal breaks off that stands at or right before `at`.
fn in_literal(body: &[u8], at: usize) -> Option<String> {
    for literal in ["null", "true", "false"] {
        for right in 1..literal.len() {
            let start = at.checked_sub(right)?;
            let alone = start == 0 || !body[start - 1].is_ascii_alphanumeric();
            let here = body.get(at).is_some_and(|b| *b != literal.as_bytes()[right]);
            if alone && here && body[start..at] == literal.as_bytes()[..right] {
                let expected = char::from(literal.as_bytes()[right]);
                return Some(format!("in literal {literal} (expecting '{expected}')"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_show_how_a_body_begins() {
        let refused = |body: &str| json(body.as_bytes(), "Pod").unwrap_err().to_string();
        let ends = |body: &str, end: &str| assert!(refused(body).ends_with(end), "{}", refused(body));
        ends("[1,\0]", r"invalid character '\x00' looking for beginning of value (5b312c005d)");
        ends("[\"\0\"]", r"invalid character '\x00' in string literal (5b2200225d)");
        ends(
            "[1e999, 2]",
            "json: cannot unmarshal number 1e999 into Go value of type float64 (5b31653939392c20325d)",
        );
        // Broken text is longer once it is repaired, and the error stands behind it.
        let broken = [&b"{\"a\":\""[..], &[0xff; 9], b"\" b"].concat();
        let error = json(&broken, "Pod").unwrap_err().to_string();
        assert!(error.contains("invalid character 'b' after object key:value pair"), "{error}");
        ends("", "unexpected end of JSON input (<empty>)");
        ends("[", "unexpected end of JSON input (5b)");
        ends(
            &"{\"a\":".repeat(1000),
            r#"invalid character '{' exceeded max depth ({"a":{"a":{"a":{"a":{"a":{"a": ...)"#,
        );
        ends(
            &"[".repeat(1000),
            &format!("invalid character '[' exceeded max depth ({} ...)", "5b".repeat(30)),
        );
    }

    #[test]
    fn what_is_accepted_is_told() {
        let form = |accept: &str, offer| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            Form::negotiate(&headers, false, offer)
        };
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        assert_eq!(form(table, Offer::ALL).unwrap().shape, Shape::Table);
        assert_eq!(form(&format!("{table},application/json"), Offer::PLAIN).unwrap().shape, Shape::Object);
        let refused = form(table, Offer::PLAIN).unwrap_err();
        assert_eq!((refused.code().as_u16(), refused.to_string().contains("protobuf")), (406, true));
        let yaml = form("application/yaml", Offer::ALL).unwrap();
        assert_eq!(yaml.streamed().unwrap_err().code(), 406);
    }
}
