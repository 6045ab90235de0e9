//! From what a client sent to what the server works with: types are checked, unknown members dropped and reported,
//! members put in order, quantities and times written in their canonical forms, and absent members that Go would
//! write added with their zero values, so that printing the result gives what upstream would print.
//!
//! Mirrors `sigs.k8s.io/json`: null is the same as absent, names are case-sensitive, the first type error is reported
//! unless a value's own parser (a quantity's, say) fails, which is reported at once.

use api::json::{Decoded, Duplicate, number_at};
use api::{ApiError, Map, Value};

use crate::types::{Field, List, MapOf, Omit, Shape, Struct, Ty, TypeId, Unknown};

mod path;
pub(crate) mod scalar;

use path::At;

/// What happens to unknown and duplicate members: the `fieldValidation` of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They fail the request.
    Strict,
    /// They are reported to the client as warnings.
    #[default]
    Warn,
    /// They are dropped silently.
    Ignore,
}

/// What was noticed in a document that could be read: `unknown field "spec.foo"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding(pub String);

/// The document cannot be read as the type; `Display` is upstream's sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// The type of amounts of resources, which are kept to the thousandth.
const RESOURCES: &str = "core/v1.ResourceList";

/// As many findings as upstream reports of one document.
const MAX_FINDINGS: usize = 100;

/// Reads `value` as `ty`. Findings are collected unless `mode` is `Ignore`, and never fail here.
pub fn normalize(value: Value, ty: Ty<'_>, mode: Mode) -> Result<(Value, Vec<Finding>), DecodeError> {
    normalize_document(Decoded { value, ..Decoded::default() }, ty, mode)
}

/// Reads a time that stands alone, as fields of that type are read; none for Go's zero.
pub fn time(text: &str) -> Result<Option<Value>, String> {
    scalar::time(Value::from(text), false).map_err(|e| match e {
        scalar::Error::Type(why)
        | scalar::Error::Saved(why)
        | scalar::Error::Hard(why)
        | scalar::Error::Refused(why, _) => why,
    })
}

/// As [`normalize`], for what upstream reads without its JSON decoder: paths of findings are without the keys of maps.
pub(crate) fn normalize_converted(
    value: Value,
    ty: Ty<'_>,
    mode: Mode,
) -> Result<(Value, Vec<Finding>), DecodeError> {
    let decoder = Decoder { collect: mode != Mode::Ignore, keyless: true, ..Decoder::default() };
    finish(decoder, value, ty)
}

/// As [`normalize`], with what was noticed when the document was read among the findings, in the document's order.
pub fn normalize_document(
    Decoded { value, duplicates, source, .. }: Decoded,
    ty: Ty<'_>,
    mode: Mode,
) -> Result<(Value, Vec<Finding>), DecodeError> {
    let decoder = Decoder { collect: mode != Mode::Ignore, duplicates, source, ..Decoder::default() };
    finish(decoder, value, ty)
}

fn finish(mut decoder: Decoder, value: Value, ty: Ty<'_>) -> Result<(Value, Vec<Finding>), DecodeError> {
    const MANAGED: [&str; 2] = ["metadata", "managedFields"];
    let forgets = value.at(&MANAGED).as_array().is_some_and(Vec::is_empty);
    let mut value = decoder.value(value, ty, &At::ROOT)?.unwrap_or_else(|| zero(ty));
    if forgets {
        // A list without managers asks to forget them, which one empty entry says, too.
        value.set(&MANAGED, Value::Array(vec![Value::object()]));
    }
    decoder.pass_all(|_| true);
    match decoder.first {
        Some(e) => Err(e),
        None => Ok((value, decoder.findings)),
    }
}

/// Reads a custom resource that was stored, maybe before its metadata was checked: what cannot be read of that is dropped.
pub(crate) fn normalize_stored(value: Value, ty: Ty<'_>) -> Value {
    let mut decoder = Decoder { lenient: true, ..Decoder::default() };
    match decoder.value(value, ty, &At::ROOT) {
        Ok(Some(value)) => value,
        _ => zero(ty),
    }
}

/// Reads a request's body as `ty`, which the client calls `kind` of `version`. Returns the object and the warnings
/// for the client, or the error for it.
pub fn object(
    body: Decoded,
    ty: Ty<'_>,
    (version, kind): (&str, &str),
    mode: Mode,
) -> Result<(Value, Vec<String>), ApiError> {
    let complaint = body.complaint.clone();
    read((version, kind), complaint, mode, normalize_document(body, ty, mode))
}

/// The object and the warnings of a body that was read, or the error for the client. The complaints of those who read it
/// before come first.
pub(crate) fn read(
    (version, kind): (&str, &str),
    complaints: impl IntoIterator<Item = String>,
    mode: Mode,
    normalized: Result<(Value, Vec<Finding>), DecodeError>,
) -> Result<(Value, Vec<String>), ApiError> {
    let refuse = |why: &dyn std::fmt::Display| {
        ApiError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
    };
    let (value, findings) = normalized.map_err(|e| refuse(&e))?;
    if mode == Mode::Ignore {
        return Ok((value, Vec::new()));
    }
    let mut texts: Vec<String> = complaints.into_iter().collect();
    if mode == Mode::Strict {
        texts.extend(findings.into_iter().map(|f| f.0));
        return match texts.is_empty() {
            true => Ok((value, texts)),
            false => Err(refuse(&format!("strict decoding error: {}", texts.join(", ")))),
        };
    }
    // A warning is a line; the first one of a complaint says no more than that there are others.
    let lines = texts.iter().flat_map(|text| text.lines());
    let mut warnings: Vec<String> =
        lines.filter(|line| !line.starts_with("yaml: ")).map(|line| line.trim().to_owned()).collect();
    warnings.extend(findings.into_iter().map(|f| f.0));
    Ok((value, warnings))
}

/// Why a value without members cannot be read as its type, in the words of the type's own parser.
pub(crate) fn read_scalar(value: &Value, ty: Ty<'_>) -> Result<(), String> {
    match scalar::read(value.clone(), ty) {
        Ok(_) => Ok(()),
        Err(scalar::Error::Type(what) | scalar::Error::Saved(what) | scalar::Error::Hard(what)) => Err(what),
        Err(scalar::Error::Refused(what, want)) => {
            Err(format!("json: cannot unmarshal {what} into Go value of type {want}"))
        }
    }
}

/// The value that Go has where nothing was given.
pub fn zero(ty: Ty<'_>) -> Value {
    match ty.shape() {
        Shape::Struct(s) if s.go => {
            let mut map = Map::new();
            for f in s.fields.iter().filter(|f| writes_zero(f, ty)) {
                map.push(f.name.clone(), zero_field(f, ty));
            }
            Value::Object(map)
        }
        Shape::Struct(_) => Value::object(),
        Shape::String => "".into(),
        Shape::Bool => false.into(),
        Shape::Int32 | Shape::Int64 | Shape::Float | Shape::IntOrString => 0.into(),
        Shape::Quantity => "0".into(),
        Shape::Duration => "0s".into(),
        Shape::List(_)
        | Shape::Map(_)
        | Shape::Bytes
        | Shape::Time
        | Shape::MicroTime
        | Shape::Raw
        | Shape::FieldsV1
        | Shape::SchemaOrBool(_)
        | Shape::SchemaOrArray(_)
        | Shape::SchemaOrStrings(_)
        | Shape::Any
        | Shape::Builtin(_) => Value::Null,
    }
}

/// What becomes of a normalized object that is stored as protobuf and read again: empty lists and maps that are
/// written all the same become null, those that were kept to be checked are left out.
pub fn forget_empty(value: &mut Value, ty: Ty<'_>) {
    match (ty.shape(), value) {
        (Shape::Struct(s), Value::Object(map)) if s.go => {
            // Members come in the order of declaration.
            let mut fields = s.fields.iter();
            let mut left_out = false;
            for (name, value) in map.iter_mut() {
                let Some(field) = fields.find(|f| f.name == name) else { break };
                if field.omit == Omit::Checked && value.is_empty() {
                    left_out = true;
                    continue;
                }
                let ty = ty.at(field.ty);
                let counts = matches!(ty.shape(), Shape::List(_) | Shape::Map(_) | Shape::Bytes);
                if counts && value.is_empty() && !field.pointer {
                    *value = Value::Null;
                } else {
                    forget_empty(value, ty);
                }
            }
            if left_out {
                let checked = |name: &str| s.fields.iter().any(|f| f.omit == Omit::Checked && f.name == name);
                map.retain(|name, value| !value.is_empty() || !checked(name));
            }
        }
        (Shape::List(l), Value::Array(items)) => {
            items.iter_mut().for_each(|v| forget_empty(v, ty.at(l.item)));
        }
        (Shape::Map(m), Value::Object(map)) => {
            map.iter_mut().for_each(|(_, v)| forget_empty(v, ty.at(m.value)));
        }
        _ => {}
    }
}

/// True when an absent field is written all the same.
fn writes_zero(f: &Field, ty: Ty<'_>) -> bool {
    match f.omit {
        Omit::Never => true,
        Omit::Zero => false,
        Omit::Empty | Omit::Checked => !f.pointer && is_go_struct(ty.at(f.ty)),
    }
}

/// The members of a struct that Go writes, of one slot for each field.
pub(crate) fn written(slots: Vec<Option<Value>>, s: &Struct, ty: Ty<'_>) -> Map {
    let mut out = Map::with_capacity(slots.iter().flatten().count() + 2);
    for (field, slot) in s.fields.iter().zip(slots) {
        match slot {
            Some(v) if field.omit == Omit::Never || field.pointer || is_go_struct(ty.at(field.ty)) => {
                out.push(field.name.clone(), v);
            }
            Some(v) if !v.is_empty() || field.omit == Omit::Checked => out.push(field.name.clone(), v),
            None if writes_zero(field, ty) => out.push(field.name.clone(), zero_field(field, ty)),
            _ => {}
        }
    }
    out
}

fn zero_field(f: &Field, ty: Ty<'_>) -> Value {
    if f.pointer { Value::Null } else { zero(ty.at(f.ty)) }
}

/// `omitempty` leaves no structs out.
fn is_go_struct(ty: Ty<'_>) -> bool {
    matches!(
        ty.shape(),
        Shape::Struct(_)
            | Shape::Quantity
            | Shape::IntOrString
            | Shape::Time
            | Shape::MicroTime
            | Shape::Duration
            | Shape::Raw
    )
}

/// Sorts all maps by key, as Go prints what has no type.
pub(crate) fn sort(value: &mut Value) {
    match value {
        Value::Object(m) => {
            m.sort_keys();
            m.iter_mut().for_each(|(_, v)| sort(v));
        }
        Value::Array(a) => a.iter_mut().for_each(sort),
        _ => {}
    }
}

#[derive(Default)]
struct Decoder {
    findings: Vec<Finding>,
    collect: bool,
    /// Keys that appeared twice, of objects that have not been walked yet.
    duplicates: Vec<Duplicate>,
    /// The document, to quote its numbers.
    source: Option<Box<[u8]>>,
    /// Paths leave out the keys of maps.
    keyless: bool,
    /// Members of metadata that cannot be read are dropped.
    lenient: bool,
    /// The first type error; the walk goes on, since a failing parser takes precedence.
    first: Option<DecodeError>,
}

/// Those members of an object that can be read as members of the type.
fn readable_members(object: Value, ty: Ty<'_>) -> Value {
    let mut out = Value::object();
    let Value::Object(members) = object else { return out };
    for (name, value) in members {
        let alone = Value::Object(Map::from_iter([(name, value)]));
        let mut decoder = Decoder::default();
        let read = decoder.value(alone, ty, &At::ROOT);
        if let (Ok(Some(Value::Object(read))), None) = (read, decoder.first) {
            for (name, value) in read {
                out.make_object().insert(name, value);
            }
        }
    }
    sort(&mut out);
    out
}

/// The value, or none where null or nothing was given.
type Read = Result<Option<Value>, DecodeError>;

impl Decoder {
    fn value(&mut self, value: Value, ty: Ty<'_>, at: &At<'_>) -> Read {
        if ty.is_custom() {
            return self.custom(value, ty, at).map(Some);
        }
        match (ty.shape(), value) {
            (Shape::Struct(s), Value::Object(map)) => self.go_struct(map, s, ty, at).map(Some),
            (_, Value::Null) => Ok(None),
            (Shape::List(l), Value::Array(items)) => self.list(items, l, ty, at).map(Some),
            (Shape::Map(m), Value::Object(map)) => self.map(map, m, ty, at).map(Some),
            (Shape::SchemaOrBool(id) | Shape::SchemaOrArray(id) | Shape::SchemaOrStrings(id), value) => {
                self.schema_or(value, ty, *id)
            }
            (Shape::Bytes, Value::Array(items)) => Ok(self.byte_list(&items, ty, at)),
            (_, value) => self.scalar(value, ty, at),
        }
    }

    fn scalar(&mut self, value: Value, ty: Ty<'_>, at: &At<'_>) -> Read {
        let inexact = matches!(value, Value::Float(_));
        match scalar::read(value, ty) {
            Ok(value) => Ok(value),
            Err(scalar::Error::Type(what)) => {
                let what = self.quoted(what, inexact, at);
                self.mismatch(&what, &ty.go_name(), at);
                Ok(None)
            }
            Err(scalar::Error::Saved(text)) => {
                self.first.get_or_insert(DecodeError(text));
                Ok(None)
            }
            Err(scalar::Error::Hard(text)) => Err(DecodeError(text)),
            Err(scalar::Error::Refused(what, want)) => {
                let what = self.quoted(what, inexact && want.starts_with("int"), at);
                let place = at.go_place();
                Err(DecodeError(format!("json: cannot unmarshal {what} into Go {place} of type {want}")))
            }
        }
    }

    /// Bytes that came as a list of numbers, which Go reads, too.
    fn byte_list(&mut self, items: &[Value], ty: Ty<'_>, at: &At<'_>) -> Option<Value> {
        let want = ty.go_name();
        let want = want.trim_start_matches("[]");
        let mut out = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            match item {
                Value::Null => out.push(0),
                Value::Int(n @ 0..=255) => out.push(u8::try_from(*n).expect("it is in range")),
                Value::Int(_) | Value::Float(_) => {
                    let inexact = matches!(item, Value::Float(_));
                    let what = self.quoted(format!("number {item}"), inexact, &at.index(i));
                    self.mismatch(&what, want, at);
                }
                other => self.mismatch(other.kind_name(), want, at),
            }
        }
        Some(scalar::base64(&out))
    }

    /// What came, with a number as it was written.
    fn quoted(&self, what: String, inexact: bool, at: &At<'_>) -> String {
        let source = self.source.as_ref().filter(|_| inexact && what.starts_with("number "));
        match source.and_then(|s| number_at(s, &at.steps())) {
            Some(number) => format!("number {number}"),
            None => what,
        }
    }

    fn mismatch(&mut self, what: &str, want: &str, at: &At<'_>) {
        if self.first.is_none() {
            let place = at.go_place();
            self.first =
                Some(DecodeError(format!("json: cannot unmarshal {what} into Go {place} of type {want}")));
        }
    }

    fn unknown(&mut self, name: &str, at: &At<'_>) {
        if self.collect && self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding(format!("unknown field \"{}\"", at.field_path(name))));
        }
        if !self.duplicates.is_empty() {
            // Nobody looks into what is unknown, nor whether it stands twice.
            let (path, parent) = (at.field_path(name), at.field_path(""));
            let parent = parent.strip_suffix('.').unwrap_or(&parent);
            self.duplicates.retain(|d| {
                let inside = d
                    .parent
                    .strip_prefix(&path)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
                !inside && (d.parent != parent || d.key != name)
            });
        }
    }

    /// Turns to the n-th member of an object: keys that stood twice before it are findings now.
    fn pass(&mut self, at: &At<'_>, n: usize) {
        if self.duplicates.is_empty() {
            return;
        }
        let parent = at.field_path("");
        let parent = parent.strip_suffix('.').unwrap_or(&parent);
        self.pass_all(|d| d.position <= n && d.parent == parent);
    }

    fn pass_all(&mut self, passed: impl Fn(&Duplicate) -> bool) {
        for duplicate in self.duplicates.extract_if(.., |d| passed(d)) {
            if self.collect && self.findings.len() < MAX_FINDINGS {
                self.findings.push(Finding(format!("duplicate field \"{duplicate}\"")));
            }
        }
    }

    fn go_struct(&mut self, map: Map, s: &Struct, ty: Ty<'_>, at: &At<'_>) -> Result<Value, DecodeError> {
        // Members mostly come in the order of declaration: the search starts after the last one found.
        let mut slots: Vec<Option<Value>> = Vec::new();
        slots.resize_with(s.fields.len(), || None);
        let mut next = 0;
        for (position, (name, value)) in map.into_iter().enumerate() {
            self.pass(at, position);
            let n = s.fields.len();
            let Some(i) = (0..n).map(|k| (next + k) % n).find(|i| s.fields[*i].name == name) else {
                self.unknown(&name, at);
                continue;
            };
            next = i + 1;
            let field = &s.fields[i];
            slots[i] = self.value(value, ty.at(field.ty), &at.field(field, ty))?;
        }
        self.pass(at, usize::MAX);
        Ok(Value::Object(written(slots, s, ty)))
    }

    /// Custom resources are checked by their own validation; here only unknown members are pruned.
    fn custom(&mut self, value: Value, ty: Ty<'_>, at: &At<'_>) -> Result<Value, DecodeError> {
        match (ty.shape(), value) {
            (Shape::Struct(s), Value::Object(map)) => self.custom_struct(map, s, ty, at),
            (Shape::Map(m), Value::Object(map)) => {
                let mut out = Map::with_capacity(map.len());
                for (name, value) in map {
                    let value = self.custom(value, ty.at(m.value), &at.key(&name))?;
                    out.push(name, value);
                }
                out.sort_keys();
                Ok(Value::Object(out))
            }
            (Shape::List(l), Value::Array(mut items)) => {
                for (i, slot) in items.iter_mut().enumerate() {
                    *slot = self.custom(slot.take(), ty.at(l.item), &at.index(i))?;
                }
                Ok(Value::Array(items))
            }
            (_, mut value) => {
                sort(&mut value);
                Ok(value)
            }
        }
    }

    fn custom_struct(&mut self, map: Map, s: &Struct, ty: Ty<'_>, at: &At<'_>) -> Result<Value, DecodeError> {
        let mut out = Map::with_capacity(map.len());
        for (name, mut value) in map {
            let field = s.fields.iter().find(|f| f.name == name);
            let value = match (field, s.unknown) {
                (Some(f), _) if !ty.at(f.ty).is_custom() => {
                    self.metadata(value, ty.at(f.ty), &at.field(f, ty))?
                }
                (Some(f), _) => self.custom(value, ty.at(f.ty), &at.field(f, ty))?,
                (None, Unknown::Typed(id)) => self.custom(value, ty.at(id), &at.key(&name))?,
                (None, Unknown::Keep) => {
                    sort(&mut value);
                    value
                }
                (None, Unknown::Drop) => {
                    self.unknown(&name, at);
                    continue;
                }
            };
            out.push(name, value);
        }
        out.sort_keys();
        Ok(Value::Object(out))
    }

    /// The metadata of a custom resource, or of an object in it: of a built-in type.
    fn metadata(&mut self, value: Value, ty: Ty<'_>, at: &At<'_>) -> Result<Value, DecodeError> {
        let mut inner = Decoder { collect: self.collect, ..Decoder::default() };
        let (mut shown, path) = (value.clone(), at.field_path(""));
        sort(&mut shown);
        let read = inner.value(value, ty, &At::ROOT);
        let error = match read {
            Ok(value) if inner.first.is_none() => {
                let prefixed = inner.findings.into_iter().map(|f| {
                    Finding(f.0.replacen("unknown field \"", &format!("unknown field \"{path}"), 1))
                });
                self.findings.extend(prefixed);
                let mut value = value.unwrap_or_else(|| zero(ty));
                sort(&mut value);
                return Ok(value);
            }
            Ok(_) => inner.first,
            Err(e) => Some(e),
        };
        if self.lenient {
            return Ok(readable_members(shown, ty));
        }
        let why = error.map(|e| e.0).unwrap_or_default();
        Err(DecodeError(match path.trim_end_matches('.') {
            "metadata" => why,
            path => format!("{path}: Invalid value: {shown}: {why}"),
        }))
    }

    fn list(
        &mut self,
        mut items: Vec<Value>,
        l: &List,
        ty: Ty<'_>,
        at: &At<'_>,
    ) -> Result<Value, DecodeError> {
        let item = ty.at(l.item);
        for (i, slot) in items.iter_mut().enumerate() {
            let read = self.value(slot.take(), item, &at.index(i))?;
            *slot = read.unwrap_or_else(|| zero(item));
        }
        Ok(Value::Array(items))
    }

    fn map(&mut self, map: Map, m: &MapOf, ty: Ty<'_>, at: &At<'_>) -> Result<Value, DecodeError> {
        let item = ty.at(m.value);
        let mut map = map;
        let mut last = "";
        let sorted = map.keys().all(|k| std::mem::replace(&mut last, k) <= k);
        for (position, (key, slot)) in map.iter_mut().enumerate() {
            self.pass(at, position);
            let read = match self.keyless {
                true => self.value(slot.take(), item, at)?,
                false => self.value(slot.take(), item, &at.key(key))?,
            };
            // Members without bytes are kept as such.
            let bytes = matches!(item.shape(), Shape::Bytes);
            *slot = read.unwrap_or_else(|| if bytes { "".into() } else { zero(item) });
        }
        self.pass(at, usize::MAX);
        if ty.get().name == RESOURCES {
            map.iter_mut().for_each(|(_, amount)| scalar::round_up(amount));
        }
        if !sorted {
            map.sort_keys();
        }
        Ok(Value::Object(map))
    }

    /// A JSON schema in one of its special places. Upstream reads these apart: what is unknown in them is not reported.
    fn schema_or(&mut self, value: Value, ty: Ty<'_>, id: TypeId) -> Read {
        let props = ty.at(id);
        let mut inner = Decoder::default();
        let read = match (ty.shape(), value) {
            (_, value @ Value::Object(_)) => inner.value(value, props, &At::ROOT)?,
            (Shape::SchemaOrBool(_), value @ Value::Bool(_)) => Some(value),
            (Shape::SchemaOrBool(_), _) => return Err(DecodeError("boolean or JSON schema expected".into())),
            (Shape::SchemaOrArray(_), Value::Array(items)) => {
                let mut out = Vec::with_capacity(items.len());
                for item in items {
                    out.push(inner.value(item, props, &At::ROOT)?.unwrap_or_else(|| zero(props)));
                }
                Some(Value::Array(out))
            }
            (Shape::SchemaOrStrings(_), value @ Value::Array(_)) => Some(value),
            _ => None,
        };
        match inner.first {
            Some(e) => Err(e),
            None => Ok(read),
        }
    }
}

#[cfg(test)]
mod tests;
