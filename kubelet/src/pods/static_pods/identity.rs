//! The uid of a static pod: a hash of the whole pod, as upstream makes it, so that the pod goes on when another kubelet
//! takes over.
//!
//! Upstream hashes what a dumper for debugging writes of its internal types: every field with its Go name and type, zero
//! values included, maps in the order of their keys. To that it adds where the pod came from.
//!
// DIVERGES: sums that upstream makes of what several containers request, where a pod has limits as a whole and does not
// say what it requests as a whole, forget how they would be written; here such a pod has another uid than there.

mod quantity;

use std::fmt::Write;

use api::{Map, Value};

use super::Source;
use super::types::{self, Field, Place, Shape};

/// The uid of a pod that is decoded and has its defaults.
pub(super) fn uid(pod: &Value, source: &Source, node: &str) -> String {
    let mut hash = Fnv::default();
    hash.write(dump(pod).as_bytes());
    match source {
        Source::File(path) => hash.write(format!("host:{node}file:{}", path.display()).as_bytes()),
        Source::Url(url) => hash.write(format!("url:{url}").as_bytes()),
    }
    format!("{:032x}", hash.0)
}

/// The hash FNV-1a of 128 bits.
struct Fnv(u128);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        self.0 = bytes.iter().fold(self.0, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    }
}

fn dump(pod: &Value) -> String {
    let mut out = format!("(*{})", types::POD);
    // Decoding forgets what kind of object it was.
    let mut pod = pod.clone();
    pod.remove_at(&["kind"]);
    pod.remove_at(&["apiVersion"]);
    Dump { out: &mut out }.value(types::POD, &pod, &Value::Null, "");
    out
}

static NULL: Value = Value::Null;

struct Dump<'o> {
    out: &'o mut String,
}

impl Dump<'_> {
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn show(&mut self, value: impl std::fmt::Display) {
        // Writing to memory does not fail.
        let _ = write!(self.out, "{value}");
    }

    fn typed(&mut self, ty: &'static str, value: &Value, outer: &Value, name: &str) {
        self.push("(");
        self.push(ty);
        self.push(")");
        self.value(ty, value, outer, name);
    }

    /// A value without its type; `outer` is the object that it is in, and `name` the field.
    fn value(&mut self, ty: &'static str, value: &Value, outer: &Value, name: &str) {
        match types::shape(ty) {
            Shape::Text => self.push(value.as_str().unwrap_or_default()),
            Shape::Bool => self.show(value.as_bool().unwrap_or_default()),
            Shape::Int(_) => self.show(value.as_i64().unwrap_or_default()),
            Shape::Quantity => {
                let text = quantity::dump(value.as_str().unwrap_or_default(), rounded(name));
                self.push(&text);
            }
            Shape::IntOrString => {
                let (text, number) = (value.as_str(), value.as_i64().unwrap_or_default());
                let kind = i32::from(text.is_some());
                let text = text.unwrap_or_default();
                self.show(format_args!(
                    "{{Type:(intstr.Type){kind} IntVal:(int32){number} StrVal:(string){text}}}"
                ));
            }
            Shape::Time => self.time(value),
            _ if value.is_null() && !matches!(types::shape(ty), Shape::Struct(_)) => self.push("<nil>"),
            Shape::Pointer(inner) => self.value(inner, value, outer, name),
            Shape::Raw => self.raw(value),
            Shape::List(item) => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                self.push("[");
                for (at, inner) in items.iter().enumerate() {
                    self.push(if at > 0 { " " } else { "" });
                    self.value(item, inner, &NULL, name);
                }
                self.push("]");
            }
            Shape::Map(of) => {
                let mut members: Vec<_> = value.as_object().into_iter().flat_map(Map::iter).collect();
                members.sort_by_key(|(key, _)| *key);
                self.push("map[");
                for (at, (key, inner)) in members.into_iter().enumerate() {
                    self.push(if at > 0 { " " } else { "" });
                    self.push(key);
                    self.push(":");
                    self.value(of, inner, &NULL, name);
                }
                self.push("]");
            }
            Shape::Struct(fields) => self.fields(fields, value, outer),
        }
    }

    fn fields(&mut self, fields: &'static [Field], value: &Value, outer: &Value) {
        self.push("{");
        let shown = fields.iter().filter_map(|field| Some((field.go?, field)));
        for (at, (go, field)) in shown.enumerate() {
            self.push(if at > 0 { " " } else { "" });
            self.push(go);
            self.push(":");
            match field.place {
                Place::Member(name) => self.typed(field.ty, value.get(name), value, name),
                Place::Outer(name) => self.typed(field.ty, outer.get(name), outer, name),
                Place::Inline => self.typed(field.ty, value, outer, go),
            }
        }
        self.push("}");
    }

    // DIVERGES: upstream shows what its process has read of the machine's time zone by then. Times belong to what servers
    // write, and stand in no manifest that was not copied from one.
    fn time(&mut self, value: &Value) {
        const YEAR_ONE: i64 = 62_135_596_800;
        let time = value.as_str().and_then(api::time::parse);
        let (seconds, location) = match time {
            None => (0, "<nil>"),
            Some(time) => (time.as_second() + YEAR_ONE, EMPTY_LOCATION),
        };
        self.show(format_args!(
            "{{Time:(time.Time){{wall:(uint64)0 ext:(int64){seconds} loc:(*time.Location){location}}}}}"
        ));
    }

    fn raw(&mut self, value: &Value) {
        let bytes: Vec<String> = sorted(value).to_json().iter().map(u8::to_string).collect();
        self.show(format_args!("{{Raw:([]uint8)[{}]}}", bytes.join(" ")));
    }
}

const EMPTY_LOCATION: &str = "{name:(string) zone:([]time.zone)<nil> tx:([]time.zoneTrans)<nil> extend:(string) \
                              cacheStart:(int64)0 cacheEnd:(int64)0 cacheZone:(*time.zone)<nil>}";

/// Amounts of resources are whole thousandths.
fn rounded(field: &str) -> bool {
    matches!(field, "limits" | "requests" | "overhead" | "allocatedResources")
}

/// Reading YAML puts members in the order of their names.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut map: Map = map.iter().map(|(key, inner)| (key, sorted(inner))).collect();
            map.sort_keys();
            Value::Object(map)
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
