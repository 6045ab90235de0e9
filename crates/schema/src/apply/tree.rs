//! How server-side apply sees a value: as one thing, as a list of items with identities, or as a map.

use api::{Map, Value};
use compact_str::CompactString;

use super::element::Element;
use crate::types::{ListKind, Omit, Shape, Ty, Unknown};

/// A type, or none where the value alone tells what it is.
#[derive(Clone, Copy)]
pub(super) enum Shaped<'a> {
    Of(Ty<'a>),
    Deduced,
}

/// How one value is seen.
#[derive(Clone, Copy)]
pub(super) enum Atom<'a> {
    Scalar(Scalar),
    List(ListAtom<'a>),
    Map(MapAtom<'a>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Numeric,
    String,
    Boolean,
    Untyped,
}

#[derive(Clone, Copy)]
pub(super) struct ListAtom<'a> {
    pub(super) kind: &'a ListKind,
    pub(super) item: Shaped<'a>,
}

#[derive(Clone, Copy)]
pub(super) struct MapAtom<'a> {
    pub(super) atomic: bool,
    shape: Shaped<'a>,
}

static ATOMIC: ListKind = ListKind::Atomic;

/// What OpenAPI gives as default of a field that is always written.
fn zero_key(ty: Ty<'_>) -> Option<Value> {
    match ty.shape() {
        Shape::String => Some("".into()),
        Shape::Bool => Some(false.into()),
        Shape::Int32 | Shape::Int64 => Some(0.into()),
        _ => None,
    }
}

impl<'a> Shaped<'a> {
    /// How `value` is seen; none where there is nothing.
    pub(super) fn atom(self, value: Option<&Value>) -> Atom<'a> {
        let map = |atomic| Atom::Map(MapAtom { atomic, shape: self });
        let Shaped::Of(ty) = self else { return self.deduce(value) };
        match ty.shape() {
            Shape::Struct(s) => map(s.atomic),
            Shape::Map(m) => map(m.atomic),
            Shape::List(l) => Atom::List(ListAtom { kind: &l.kind, item: Shaped::Of(ty.at(l.item)) }),
            Shape::String | Shape::Bytes => Atom::Scalar(Scalar::String),
            Shape::Bool => Atom::Scalar(Scalar::Boolean),
            Shape::Int32 | Shape::Int64 | Shape::Float => Atom::Scalar(Scalar::Numeric),
            Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime | Shape::Duration => {
                Atom::Scalar(Scalar::Untyped)
            }
            // What OpenAPI calls an object without members merges as a whole.
            Shape::Raw if ty.short_name() == "RawExtension" => {
                Atom::Map(MapAtom { atomic: true, shape: Shaped::Deduced })
            }
            Shape::Raw
            | Shape::FieldsV1
            | Shape::SchemaOrBool(_)
            | Shape::SchemaOrArray(_)
            | Shape::SchemaOrStrings(_)
            | Shape::Any
            | Shape::Builtin(_) => Shaped::Deduced.deduce(value),
        }
    }

    fn deduce(self, value: Option<&Value>) -> Atom<'a> {
        match value {
            Some(Value::Array(_)) => Atom::List(ListAtom { kind: &ATOMIC, item: Shaped::Deduced }),
            Some(Value::Object(_) | Value::Null) | None => {
                Atom::Map(MapAtom { atomic: false, shape: Shaped::Deduced })
            }
            Some(_) => Atom::Scalar(Scalar::Untyped),
        }
    }

    /// True when `name` is a field of a struct.
    pub(super) fn declares(self, name: &str) -> bool {
        matches!(self, Shaped::Of(ty) if ty.field(name).is_some())
    }

    /// What an element of a value is.
    pub(super) fn child(self, element: &Element) -> Option<Shaped<'a>> {
        match (self, element) {
            (Shaped::Of(ty), Element::Field(name)) => {
                MapAtom { atomic: false, shape: Shaped::Of(ty) }.member(name)
            }
            (Shaped::Of(ty), Element::Key(_)) => ty.item().map(Shaped::Of),
            _ => None,
        }
    }
}

/// True when an item of a list that is kept by keys has none.
pub(super) fn lacks_keys(value: &Value, ty: Ty<'_>) -> bool {
    lacks(value, Shaped::Of(ty))
}

fn lacks(value: &Value, shape: Shaped<'_>) -> bool {
    match (shape.atom(Some(value)), value) {
        (Atom::List(list), Value::Array(items)) if !list.atomic() => {
            items.iter().any(|item| list.element(item).is_err() || lacks(item, list.item))
        }
        (Atom::Map(map), Value::Object(members)) => members
            .iter()
            .filter(|(_, value)| matches!(value, Value::Array(_) | Value::Object(_)))
            .any(|(name, value)| map.member(name).is_some_and(|shape| lacks(value, shape))),
        _ => false,
    }
}

impl Atom<'_> {
    /// True when both are seen in the same way.
    pub(super) fn same(&self, other: &Atom<'_>) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl<'a> MapAtom<'a> {
    /// True for a member that is left out when it is empty, once the object has been checked: nobody owns that.
    pub(super) fn leaves_out_empty(self, name: &str) -> bool {
        let Shaped::Of(ty) = self.shape else { return false };
        ty.field(name).is_some_and(|field| field.omit == Omit::Checked)
    }

    /// What the member `name` is; none if it may not be there.
    pub(super) fn member(self, name: &str) -> Option<Shaped<'a>> {
        let ty = match self.shape {
            Shaped::Of(ty) => ty,
            Shaped::Deduced => return Some(Shaped::Deduced),
        };
        match ty.shape() {
            Shape::Struct(s) => match s.fields.iter().find(|f| f.name == name) {
                Some(f) => Some(Shaped::Of(ty.at(f.ty))),
                // A struct without fields holds anything.
                None if s.fields.is_empty() && s.unknown == Unknown::Drop => Some(Shaped::Deduced),
                None => match s.unknown {
                    Unknown::Drop => None,
                    Unknown::Keep => Some(Shaped::Deduced),
                    Unknown::Typed(id) => Some(Shaped::Of(ty.at(id))),
                },
            },
            Shape::Map(m) => Some(Shaped::Of(ty.at(m.value))),
            _ => Some(Shaped::Deduced),
        }
    }

    /// What the member `name` is; anything if it may not be there.
    pub(super) fn member_or_any(self, name: &str) -> Shaped<'a> {
        self.member(name).unwrap_or(Shaped::Deduced)
    }

    /// True when `name` is a field of a struct.
    pub(super) fn declares(self, name: &str) -> bool {
        self.shape.declares(name)
    }
}

impl ListAtom<'_> {
    /// True when the list is one value.
    pub(super) fn atomic(self) -> bool {
        *self.kind == ListKind::Atomic
    }

    /// What identifies an item of a list that is not atomic.
    pub(super) fn element(self, item: &Value) -> Result<Element, String> {
        match self.kind {
            ListKind::Atomic => Err("invalid indexing of non-associative list".into()),
            ListKind::Set => match item {
                Value::Object(_) => {
                    Err("associative list without keys has an element that's a map type".into())
                }
                Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
                Value::Null => {
                    Err("associative list without keys has an element that's an explicit null".into())
                }
                scalar => Ok(Element::Value(scalar.clone())),
            },
            ListKind::Map(keys) => match item {
                Value::Object(item) => self.key(keys, item),
                Value::Null => Err("associative list with keys may not have a null element".into()),
                _ => Err("associative list with keys may not have non-map elements".into()),
            },
        }
    }

    fn key(self, keys: &[CompactString], item: &Map) -> Result<Element, String> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let default = || match self.item {
                Shaped::Of(ty) => ty.field(key).and_then(|f| match f.default.as_deref() {
                    None if f.omit == Omit::Never && !f.pointer => zero_key(ty.at(f.ty)),
                    default => default.cloned(),
                }),
                Shaped::Deduced => None,
            };
            if let Some(value) = item.get(key).cloned().or_else(default) {
                found.push((key.clone(), value));
            }
        }
        if found.is_empty() {
            let keys: Vec<String> = keys.iter().map(|k| api::field::go_quote(k)).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                keys.join(" ")
            ));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Element::Key(found))
    }
}

/// The items of an array; none for null, nothing and what is no array.
pub(super) fn items(value: Option<&Value>) -> Option<&[Value]> {
    value.and_then(Value::as_array).map(Vec::as_slice)
}

/// The members of an object; none for null, nothing and what is no object.
pub(super) fn members(value: Option<&Value>) -> Option<&Map> {
    value.and_then(Value::as_object)
}
