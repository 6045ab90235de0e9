//! Content negotiation: which form of an answer a client wants, and what form a body has.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources>.

mod yaml;

use api::ApiError;
use api::error::Result;
use api::json::Decoded;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

use crate::audit::Level;

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
    /// JSON for people.
    pub pretty: bool,
    /// What the rows of a table hold.
    pub include: Include,
    /// How much of the answer is recorded.
    pub recorded: Level,
}

/// What an answer can be had as, besides JSON and YAML.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// What is asked for has a protobuf form.
    pub protobuf: bool,
    /// What is asked for has columns.
    pub tables: bool,
}

impl Offer {
    /// All there is.
    pub const ALL: Self = Self { protobuf: true, tables: true };
}

const SUPPORTED: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

impl Encoding {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => SUPPORTED[0],
            Encoding::Yaml => SUPPORTED[1],
            Encoding::Protobuf => SUPPORTED[2],
        }
    }

    fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json" | "*/*" | "application/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(Encoding::Protobuf),
            _ => None,
        }
    }
}

impl Form {
    /// The best form that the client accepts of those that are offered.
    pub fn negotiate(headers: &HeaderMap, pretty: bool, offer: Offer) -> Result<Self> {
        let supported = if offer.protobuf { &SUPPORTED[..] } else { &SUPPORTED[..2] };
        let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
        let accept = accept.join(",");
        if accept.trim().is_empty() {
            return Ok(Self { pretty, ..Self::default() });
        }
        let mut clauses: Vec<(f32, Self)> =
            accept.split(',').filter_map(|clause| Self::clause(clause, pretty)).collect();
        clauses.retain(|(_, form)| {
            supported.contains(&form.encoding.media_type()) && (offer.tables || form.shape != Shape::Table)
        });
        clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
        match clauses.first() {
            Some((_, form)) => Ok(*form),
            None => Err(ApiError::not_acceptable(supported)),
        }
    }

    fn clause(clause: &str, pretty: bool) -> Option<(f32, Self)> {
        let mut parts = clause.split(';').map(str::trim);
        let encoding = Encoding::of(parts.next()?)?;
        let (mut quality, mut shape, mut group, mut version) = (1.0, Shape::Object, "", "");
        for (key, value) in parts.filter_map(|p| p.split_once('=')) {
            match key {
                "q" => quality = value.parse().unwrap_or(1.0),
                "as" if value == "Table" => shape = Shape::Table,
                "as" if matches!(value, "PartialObjectMetadata" | "PartialObjectMetadataList") => {
                    shape = Shape::Metadata
                }
                "as" => return None,
                "g" => group = value,
                "v" => version = value,
                _ => {}
            }
        }
        if shape != Shape::Object && (group != "meta.k8s.io" || !matches!(version, "v1" | "v1beta1")) {
            return None;
        }
        // Tables and metadata have no protobuf form here; the client's next choice is taken.
        if shape != Shape::Object && encoding == Encoding::Protobuf {
            return None;
        }
        Some((quality, Self { encoding, shape, pretty, ..Self::default() }))
    }
}

/// The media type of a body, without parameters; JSON when none is given.
pub fn content_type(headers: &HeaderMap) -> &str {
    let Ok(value) = headers.get(CONTENT_TYPE).map_or(Ok(""), |v| v.to_str()) else { return "unreadable" };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    if media_type.is_empty() { SUPPORTED[0] } else { media_type }
}

/// Reads a body as `kind` would be written in it.
pub fn decode(headers: &HeaderMap, body: &[u8], kind: &str) -> Result<Decoded> {
    match content_type(headers) {
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

/// Reads a JSON body; the error quotes what cannot be read.
pub fn json(body: &[u8], kind: &str) -> Result<Decoded> {
    // Go's decoder puts a replacement character where bytes are no UTF-8.
    let read = match std::str::from_utf8(body) {
        Ok(_) => api::json::decode(body),
        Err(_) => api::json::decode(String::from_utf8_lossy(body).as_bytes()),
    };
    read.map_err(|e| {
        let why = go_syntax_error(body, &e);
        unrecognized(&format!("couldn't get version/kind; json parse error: {why}"), kind, body)
    })
}

/// A body that cannot be read, which the message shows the beginning of: as text what begins as an object in JSON.
fn unrecognized(why: &dyn std::fmt::Display, kind: &str, body: &[u8]) -> ApiError {
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

/// A syntax error in the words of Go's decoder.
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

    fn form(accept: &str) -> Option<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        Form::negotiate(&headers, false, Offer::ALL).ok()
    }

    #[test]
    fn the_best_supported_form_is_chosen() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(form(table).unwrap().shape, Shape::Table);
        assert_eq!(
            form("application/json;as=Nope;v=v1;g=meta.k8s.io,application/json").unwrap().shape,
            Shape::Object
        );
        assert_eq!(form("application/cbor,application/yaml").unwrap().encoding, Encoding::Yaml);
        assert_eq!(form("application/json;q=0.5,application/yaml").unwrap().encoding, Encoding::Yaml);
        assert!(form("text/html").is_none());
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, table.parse().unwrap());
        let offer = Offer { tables: false, ..Offer::ALL };
        assert_eq!(Form::negotiate(&headers, false, offer).unwrap().shape, Shape::Object);
        headers.insert(ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io".parse().unwrap());
        assert_eq!(Form::negotiate(&headers, false, offer).unwrap_err().code(), 406);
    }
}
