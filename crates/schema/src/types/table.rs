//! Reads the table of built-in types. Its format is described at its top.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::{
    Field, Inlined, List, ListKind, MapOf, Omit, Patch, Schema, Shape, Struct, Type, TypeId, Unknown, Wire,
};

static TABLE: &str = include_str!("../../data/types.txt");

/// A field as the table has it: inlined structs are still fields.
#[derive(Clone)]
struct Row {
    field: Field,
    inlined: bool,
}

/// How a named type is seen where a field uses it.
enum Variant {
    Struct { atomic: bool },
    List(ListKind),
}

#[derive(Default)]
struct Reader {
    schema: Schema,
    /// Rows of each struct.
    rows: HashMap<TypeId, Vec<Row>>,
    /// Types that differ from another named one in how server-side apply sees them.
    variants: Vec<(TypeId, TypeId, Variant)>,
}

pub(super) fn parse() -> Schema {
    let mut reader = Reader::default();
    reader.declare();
    reader.read();
    reader.flatten();
    for (id, of, variant) in std::mem::take(&mut reader.variants) {
        let mut ty = reader.schema.types[of.0 as usize].clone();
        match (&mut ty.shape, variant) {
            (Shape::Struct(s), Variant::Struct { atomic }) => s.atomic = atomic,
            (Shape::List(l), Variant::List(kind)) => (l.kind, l.declared) = (kind, true),
            _ => {}
        }
        reader.schema.types[id.0 as usize] = ty;
    }
    reader.schema
}

/// The `x-kubernetes-unions` of a struct, as JSON, by its name with package.
pub(crate) fn unions(name: &str) -> Option<&'static str> {
    let mut package = "";
    lines().find_map(|line| {
        if let Some(rest) = line.strip_prefix('@') {
            package = rest.split_once(' ').map_or(rest, |(p, _)| p);
        }
        let (head, unions) = line.split_once(" unions=")?;
        let short = head.split(' ').next().unwrap_or(head);
        (name.strip_prefix(package).and_then(|n| n.strip_prefix('.')) == Some(short)).then_some(unions)
    })
}

/// Types whose JSON form is their own.
fn opaque(name: &str) -> Option<Shape> {
    Some(match name {
        "string" | "types.UID" | "types.NodeName" => Shape::String,
        "bool" => Shape::Bool,
        "int32" => Shape::Int32,
        "int64" => Shape::Int64,
        "float64" => Shape::Float,
        "[]byte" => Shape::Bytes,
        "api/resource.Quantity" => Shape::Quantity,
        "util/intstr.IntOrString" => Shape::IntOrString,
        "meta/v1.Time" => Shape::Time,
        "meta/v1.MicroTime" => Shape::MicroTime,
        "meta/v1.Duration" => Shape::Duration,
        "meta/v1.FieldsV1" => Shape::FieldsV1,
        "pkg/runtime.RawExtension" | "apiextensions/v1.JSON" | "apiextensions/v1beta1.JSON" => Shape::Raw,
        _ => return None,
    })
}

/// What the protobuf message of a struct holds, by field number.
fn wire(fields: &[Field], inlined: &[Inlined]) -> Vec<Wire> {
    let own = fields.iter().enumerate().map(|(i, f)| (f.number, Wire::Field(i as u16)));
    let inner = inlined.iter().enumerate().map(|(i, f)| (f.number, Wire::Inlined(i as u16)));
    let mut all: Vec<(u32, Wire)> = own.chain(inner).filter(|(number, _)| *number != 0).collect();
    all.sort_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, wire)| wire).collect()
}

/// Fields that defaults, rules or messages look at for more than what is in them.
const TOLD_APART: [(&str, &str); 14] = [
    ("autoscaling/v2.HPAScalingRules", "policies"),
    ("core/v1.PersistentVolumeSpec", "capacity"),
    ("resource/v1.Device", "bindingConditions"),
    ("resource/v1.Device", "bindingFailureConditions"),
    ("resource/v1.ResourceSliceSpec", "devices"),
    ("resource/v1.ResourceSliceSpec", "sharedCounters"),
    ("resource/v1beta1.BasicDevice", "bindingConditions"),
    ("resource/v1beta1.BasicDevice", "bindingFailureConditions"),
    ("resource/v1beta1.ResourceSliceSpec", "devices"),
    ("resource/v1beta1.ResourceSliceSpec", "sharedCounters"),
    ("resource/v1beta2.Device", "bindingConditions"),
    ("resource/v1beta2.Device", "bindingFailureConditions"),
    ("resource/v1beta2.ResourceSliceSpec", "devices"),
    ("resource/v1beta2.ResourceSliceSpec", "sharedCounters"),
];

fn lines() -> impl Iterator<Item = &'static str> {
    TABLE.lines().filter(|l| !l.starts_with('#'))
}

impl Reader {
    /// Gives every named type its place, so that types may refer to later ones.
    fn declare(&mut self) {
        let mut package = "";
        for line in lines() {
            if let Some(rest) = line.strip_prefix('@') {
                let (p, gv) = rest.split_once(' ').expect("the table is generated");
                package = p;
                self.schema.packages.insert(gv.into(), p.into());
            } else if !line.starts_with('\t') {
                let name = line.split([' ', '=']).next().unwrap_or(line);
                let full: Cow<'static, str> = format!("{package}.{name}").into();
                let id = self.schema.add(Type { name: full.clone(), shape: Shape::Any });
                self.schema.names.insert(full, id);
            }
        }
    }

    fn read(&mut self) {
        let (mut package, mut current) = ("", None);
        for line in lines() {
            let line = line.split_once(" unions=").map_or(line, |(head, _)| head);
            if let Some(rest) = line.strip_prefix('@') {
                package = rest.split_once(' ').map_or(rest, |(p, _)| p);
            } else if let Some(row) = line.strip_prefix('\t') {
                let row = self.row(row);
                let id = current.expect("fields follow their struct");
                self.rows.entry(id).or_default().push(row);
            } else if let Some((name, of)) = line.split_once('=') {
                let id = self.schema.names[format!("{package}.{name}").as_str()];
                let of = self.intern(of, None, None);
                self.schema.types[id.0 as usize].shape = self.schema.types[of.0 as usize].shape.clone();
            } else {
                let mut words = line.split(' ');
                let id =
                    self.schema.names[format!("{package}.{}", words.next().unwrap_or_default()).as_str()];
                let mut s = Struct { go: true, ..Struct::default() };
                for word in words {
                    s.kind |= word == "kind";
                    s.atomic |= word == "atomic";
                }
                self.schema.types[id.0 as usize].shape = Shape::Struct(s);
                current = Some(id);
            }
        }
    }

    fn row(&mut self, row: &'static str) -> Row {
        let mut columns = row.split('\t');
        let mut column = || columns.next().unwrap_or_default();
        let (name, ty, number, flags) = (column(), column(), column(), column());
        let mut field = Field {
            name: name.into(),
            ty: TypeId(0),
            number: number.parse().expect("the table is generated"),
            pointer: ty.starts_with('*'),
            omit: Omit::Never,
            required: false,
            nullable: false,
            via: None,
            patch: None,
            default: None,
        };
        let (mut inlined, mut list, mut atomic, mut patch) = (false, None, None, Patch::default());
        for flag in flags.split(' ') {
            match flag.split_once('=').unwrap_or((flag, "")) {
                ("i", _) => inlined = true,
                ("e", _) if field.omit == Omit::Never => field.omit = Omit::Empty,
                ("z", _) => field.omit = Omit::Zero,
                ("r", _) => field.required = true,
                ("l", "set") => list = Some(ListKind::Set),
                ("l", _) => list = Some(ListKind::Atomic),
                ("k", keys) => list = Some(ListKind::Map(keys.split(',').map(Into::into).collect())),
                ("m", kind) => atomic = Some(kind == "atomic"),
                ("p", strategy) => {
                    for s in strategy.split(',') {
                        patch.merge |= s == "merge";
                        patch.retain_keys |= s == "retainKeys";
                        patch.replace |= s == "replace";
                    }
                }
                ("pk", key) => patch.key = Some(key.into()),
                ("d", json) => field.default = serde_json::from_str(json).ok().map(Box::new),
                _ => {}
            }
        }
        let ty = ty.trim_start_matches('*');
        field.patch = (patch != Patch::default()).then(|| Box::new(patch));
        let plain = ty.starts_with('[') || ty.starts_with("map[");
        let variant = match (atomic, &list) {
            (Some(atomic), _) => Some(Variant::Struct { atomic }),
            (None, Some(kind)) => Some(Variant::List(kind.clone())),
            (None, None) => None,
        };
        field.ty = match (variant, self.schema.names.get(ty)) {
            (Some(variant), Some(of)) if !plain => {
                let of = *of;
                let id = self.schema.add(self.schema.types[of.0 as usize].clone());
                self.variants.push((id, of, variant));
                id
            }
            _ => self.intern(ty, list, atomic),
        };
        Row { field, inlined }
    }

    /// The place of a type written in Go's way; equal types share one.
    fn intern(&mut self, text: &'static str, list: Option<ListKind>, atomic: Option<bool>) -> TypeId {
        let key = match (&list, atomic) {
            _ if !text.starts_with('[') && !text.starts_with("map[") => Cow::Borrowed(text),
            (None, None) => Cow::Borrowed(text),
            (None, Some(true)) => Cow::Owned(format!("{text}|atomic")),
            (None, Some(false)) => Cow::Owned(format!("{text}|granular")),
            (Some(ListKind::Atomic), _) => Cow::Owned(format!("{text}|atomic")),
            (Some(ListKind::Set), _) => Cow::Owned(format!("{text}|set")),
            (Some(ListKind::Map(keys)), _) => Cow::Owned(format!("{text}|{}", keys.join(","))),
        };
        if let Some(id) = self.schema.names.get(&key) {
            return *id;
        }
        let shape = if let Some(shape) = opaque(text) {
            shape
        } else if let Some(item) = text.strip_prefix("[]") {
            let item = self.intern(item, None, None);
            Shape::List(List { item, declared: list.is_some(), kind: list.unwrap_or(ListKind::Atomic) })
        } else if let Some((_, value)) = text.strip_prefix("map[").and_then(|t| t.split_once(']')) {
            let value = self.intern(value, None, None);
            Shape::Map(MapOf { value, atomic: atomic.unwrap_or(false), declared: atomic.is_some() })
        } else {
            let props = |v: &str| self.schema.names[format!("apiextensions/{v}.JSONSchemaProps").as_str()];
            match text.strip_prefix("apiextensions/").and_then(|t| t.split_once('.')) {
                Some((v, "JSONSchemaPropsOrBool")) => Shape::SchemaOrBool(props(v)),
                Some((v, "JSONSchemaPropsOrArray")) => Shape::SchemaOrArray(props(v)),
                Some((v, "JSONSchemaPropsOrStringArray")) => Shape::SchemaOrStrings(props(v)),
                _ => unreachable!("the table names no unknown type: {text}"),
            }
        };
        let id = self.schema.add(Type { name: text.into(), shape });
        self.schema.names.insert(key, id);
        id
    }

    /// Puts the fields of inlined structs in their places.
    fn flatten(&mut self) {
        let inlined: HashSet<TypeId> =
            self.rows.values().flatten().filter(|r| r.inlined).map(|r| r.field.ty).collect();
        let ids: Vec<TypeId> = self.rows.keys().copied().collect();
        for id in ids {
            // Only what others inline is needed again.
            let rows = if inlined.contains(&id) {
                self.rows[&id].clone()
            } else {
                self.rows.remove(&id).unwrap_or_default()
            };
            let (mut fields, mut inlined) = (Vec::with_capacity(rows.len()), Vec::new());
            let name = self.schema.types[id.0 as usize].name.clone();
            for mut row in rows {
                if TOLD_APART.contains(&(&*name, row.field.name.as_str())) {
                    row.field.omit = Omit::Checked;
                }
                if !row.inlined {
                    fields.push(row.field);
                    continue;
                }
                if row.field.number != 0 {
                    let first = fields.len() as u16;
                    inlined.push(Inlined { number: row.field.number, ty: row.field.ty, first });
                }
                self.inline(&row, "", &mut fields);
            }
            if let Shape::Struct(s) = &mut self.schema.types[id.0 as usize].shape {
                s.wire = wire(&fields, &inlined);
                (s.fields, s.inlined, s.unknown) = (fields, inlined, Unknown::Drop);
                s.fields.shrink_to_fit();
            }
        }
        self.schema.types.shrink_to_fit();
    }

    fn inline(&self, row: &Row, via: &str, out: &mut Vec<Field>) {
        let via = format!("{via}{}.", row.field.name);
        for inner in self.rows.get(&row.field.ty).into_iter().flatten() {
            if inner.inlined {
                self.inline(inner, &via, out);
            } else {
                let field = Field { number: 0, via: Some(via.as_str().into()), ..inner.field.clone() };
                out.push(field);
            }
        }
    }
}
