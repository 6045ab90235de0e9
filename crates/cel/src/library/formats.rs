//! Formats by name, as the names of objects are checked.

use base64::Engine;

use super::call::{Builtin, no_overload};
use super::time::parse_timestamp;
use crate::value::Val;

/// A format by its name.
#[derive(Debug)]
pub struct NamedFormat {
    /// The name as messages show it.
    pub(crate) name: &'static str,
    /// What is wrong with a text.
    check: fn(&str) -> Vec<String>,
    /// The size of the pattern that costs are counted by.
    pub(crate) pattern_size: u64,
}

macro_rules! formats {
    ($($key:literal $name:literal $size:literal $check:expr;)*) => {
        /// The formats by the names of their functions.
        static FORMATS: &[(&str, NamedFormat)] =
            &[$(($key, NamedFormat { name: $name, check: $check, pattern_size: $size })),*];
    };
}

formats! {
    "dns1123Label" "DNS1123Label" 30 api::names::dns_label;
    "dns1123Subdomain" "DNS1123Subdomain" 60 api::names::dns_subdomain;
    "dns1035Label" "DNS1035Label" 30 api::names::dns1035_label;
    "qualifiedName" "QualifiedName" 60 api::names::qualified_name;
    "dns1123LabelPrefix" "DNS1123LabelPrefix" 30 |s| api::names::dns_label(&prefix(s));
    "dns1123SubdomainPrefix" "DNS1123SubdomainPrefix" 60 |s| api::names::dns_subdomain(&prefix(s));
    "dns1035LabelPrefix" "DNS1035LabelPrefix" 30 |s| api::names::dns1035_label(&prefix(s));
    "labelValue" "LabelValue" 40 api::names::label_value;
    "uri" "URI" 1103 |s| super::url::parse(s).err().into_iter().collect();
    "uuid" "uuid" 70 |s| complain(is_uuid(s), "does not match the UUID format");
    "byte" "byte" 84 |s| complain(is_base64(s), "invalid base64");
    "date" "date" 71 |s| complain(is_date(s), "invalid date");
    "datetime" "datetime" 71 |s| complain(parse_timestamp(&s.to_ascii_uppercase()).is_some(), "invalid datetime");
}

/// A prefix of generated names may end with a dash, which something follows.
fn prefix(s: &str) -> String {
    match s.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let kept = rest.char_indices().next_back().map_or(0, |(at, _)| at);
            format!("{}a", &rest[..kept])
        }
        _ => s.to_owned(),
    }
}

fn complain(valid: bool, message: &str) -> Vec<String> {
    if valid { Vec::new() } else { vec![message.to_owned()] }
}

fn is_uuid(s: &str) -> bool {
    let mut rest = s.as_bytes();
    for (n, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if n > 0 && rest.first() == Some(&b'-') {
            rest = &rest[1..];
        }
        let Some((group, after)) = rest.split_at_checked(length) else { return false };
        if !group.iter().all(u8::is_ascii_hexdigit) {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

fn is_base64(s: &str) -> bool {
    !s.is_empty() && base64::engine::general_purpose::STANDARD.decode(s).is_ok()
}

fn is_date(s: &str) -> bool {
    s.len() == 10 && parse_timestamp(&format!("{s}T00:00:00Z")).is_some()
}

fn named(name: &str) -> Option<&'static NamedFormat> {
    FORMATS.iter().find(|(key, _)| *key == name).map(|(_, format)| format)
}

pub(crate) fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "validate" => |_, args| match args {
            [Val::Format(format), Val::String(s)] => {
                let wrong = (format.check)(s);
                if wrong.is_empty() {
                    return Ok(Val::Optional(None));
                }
                Ok(Val::list(wrong.into_iter().map(Val::string).collect()).some())
            }
            _ => no_overload(),
        },
        "format.named" => |_, args| match args {
            [Val::String(s)] => Ok(named(s).map_or(Val::Optional(None), |format| Val::Format(format).some())),
            _ => no_overload(),
        },
        _ => {
            named(name.strip_prefix("format.")?)?;
            // The overload of these functions is their name.
            |call, _| match call.overload.strip_prefix("format.").and_then(named) {
                Some(format) => Ok(Val::Format(format)),
                None => no_overload(),
            }
        }
    })
}
