//! Schemas of types.

use std::collections::{BTreeMap, BTreeSet};

use api::{Map, Value, object};

use super::descriptions::Descriptions;
use super::{Format, Resource};
use crate::types::{self, Field, ListKind, Omit, Shape, Ty};

/// The definitions of a document: those that were referred to, and what they refer to.
pub(super) struct Definitions<'d> {
    pub(super) format: Format,
    descriptions: &'d Descriptions,
    /// Groups and versions of the document.
    versions: Vec<(String, String)>,
    wanted: Vec<Ty<'static>>,
    seen: BTreeSet<String>,
    custom: BTreeMap<String, Value>,
}

/// The body of patches: no type of its own, but a definition.
const PATCH: &str = "meta/v1.Patch";

/// The name of the definition of a type with package: `io.k8s.api.core.v1.Pod`.
pub(super) fn definition_name(name: &str) -> String {
    let (package, short) = name.rsplit_once('.').unwrap_or(("", name));
    let dotted = package.replace('/', ".");
    match package.split('/').next() {
        Some("meta") => format!("io.k8s.apimachinery.pkg.apis.{dotted}.{short}"),
        Some("apiextensions") => format!("io.k8s.apiextensions-apiserver.pkg.apis.{dotted}.{short}"),
        Some("apiregistration") => format!("io.k8s.kube-aggregator.pkg.apis.{dotted}.{short}"),
        Some("api") => format!("io.k8s.apimachinery.pkg.{dotted}.{short}"),
        Some("util") => format!("io.k8s.apimachinery.pkg.{dotted}.{short}"),
        Some("pkg") => format!("io.k8s.apimachinery.{dotted}.{short}"),
        _ => format!("io.k8s.api.{dotted}.{short}"),
    }
}

/// The name of the definition of a custom kind: its group backwards.
fn custom_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').collect();
    parts.reverse();
    format!("{}.{version}.{kind}", parts.join("."))
}

impl<'d> Definitions<'d> {
    pub(super) fn new(
        format: Format,
        descriptions: &'d Descriptions,
        versions: Vec<(String, String)>,
    ) -> Self {
        Self {
            format,
            descriptions,
            versions,
            wanted: Vec::new(),
            seen: BTreeSet::new(),
            custom: BTreeMap::new(),
        }
    }

    /// What is said about a field of a built-in type.
    pub(super) fn about(&self, ty: &str, field: &str) -> Option<String> {
        self.descriptions.of_field(ty, field)
    }

    /// A reference to a built-in type by its name with package.
    pub(super) fn named(&mut self, name: &str) -> Value {
        if name == PATCH {
            let text = "Patch is what a client sends to change a part of an object.";
            self.custom.insert(definition_name(PATCH), object!({"description": text, "type": "object"}));
        } else if let Some(ty) = types::named(name) {
            self.want(ty);
        }
        self.format.reference(&definition_name(name))
    }

    fn want(&mut self, ty: Ty<'static>) {
        if self.seen.insert(ty.get().name.to_string()) {
            self.wanted.push(ty);
        }
    }

    /// A reference to a resource's kind, or the list of it.
    pub(super) fn kind(&mut self, r: &Resource<'_>, list: bool) -> Value {
        let (group, version) = r.of.unwrap_or((r.group, r.version));
        let kind = if list { format!("{}List", r.kind) } else { r.kind.to_owned() };
        match types::kind(group, version, &kind) {
            Some(ty) if r.schema.is_none() => {
                self.want(ty);
                self.format.reference(&definition_name(&ty.get().name))
            }
            _ => {
                let name = custom_name(group, version, &kind);
                if !self.custom.contains_key(&name) {
                    let schema = if list { self.custom_list(r) } else { self.custom_kind(r) };
                    self.custom.insert(name.clone(), schema);
                }
                self.format.reference(&name)
            }
        }
    }

    /// All definitions.
    pub(super) fn finish(mut self) -> Value {
        let mut out: BTreeMap<String, Value> = std::mem::take(&mut self.custom);
        while let Some(ty) = self.wanted.pop() {
            let schema = self.define(ty);
            out.insert(definition_name(&ty.get().name), schema);
        }
        Value::Object(out.into_iter().collect())
    }

    fn define(&mut self, ty: Ty<'static>) -> Value {
        let name: &str = &ty.get().name;
        let mut out = Map::new();
        let about = self.descriptions.of_type(name).or_else(|| list_text(ty));
        if let Some(text) = about {
            out.push("description", text.into());
        }
        let v3 = self.format == Format::V3;
        let one_of = |types: &[&str]| -> Value {
            types.iter().map(|t| object!({"type": (*t)})).collect::<Vec<Value>>().into()
        };
        match ty.shape() {
            Shape::Struct(s) => {
                if !s.fields.is_empty() {
                    let mut properties = Map::new();
                    for f in &s.fields {
                        properties.push(f.name.clone(), self.property(ty, f));
                    }
                    properties.sort_keys();
                    out.push("properties", properties.into());
                }
                let mut required: Vec<&str> =
                    s.fields.iter().filter(|f| f.required).map(|f| f.name.as_str()).collect();
                required.sort_unstable();
                if !required.is_empty() {
                    out.push("required", required.into());
                }
                out.push("type", "object".into());
                if s.kind || ty.short_name() == "WatchEvent" {
                    out.push("x-kubernetes-group-version-kind", self.kinds(ty));
                }
                if s.atomic {
                    out.push("x-kubernetes-map-type", "atomic".into());
                }
                if let Some(unions) = types::table::unions(name).and_then(|u| serde_json::from_str(u).ok()) {
                    out.push("x-kubernetes-unions", unions);
                }
            }
            Shape::Quantity if v3 => out.push("oneOf", one_of(&["string", "number"])),
            Shape::IntOrString => {
                out.push("format", "int-or-string".into());
                if v3 {
                    out.push("oneOf", one_of(&["integer", "string"]));
                } else {
                    out.push("type", "string".into());
                }
            }
            Shape::Quantity => out.push("type", "string".into()),
            Shape::Time | Shape::MicroTime => {
                out.push("format", "date-time".into());
                out.push("type", "string".into());
            }
            Shape::Raw if name.starts_with("pkg/") => out.push("type", "object".into()),
            Shape::FieldsV1 => out.push("type", "object".into()),
            _ => {}
        }
        Value::Object(out)
    }

    /// Which kinds a type is: one, or for the common options one in every group.
    fn kinds(&self, ty: Ty<'_>) -> Value {
        let kind = ty.short_name();
        let package = ty.get().name.rsplit_once('.').map_or("", |(p, _)| p);
        if package == "meta/v1" {
            let everywhere = matches!(kind, "DeleteOptions" | "WatchEvent");
            let mut all = vec![gvk("", "v1", kind)];
            for (group, version) in self.versions.iter().filter(|_| everywhere) {
                let next = gvk(group, version, kind);
                if !all.contains(&next) {
                    all.push(next);
                }
            }
            return Value::Array(all);
        }
        let gv = types::builtin().packages().find(|(_, p)| *p == package).map_or("", |(gv, _)| gv);
        let (group, version) = gv.split_once('/').unwrap_or(("", gv));
        Value::Array(vec![gvk(group, version, kind)])
    }

    fn property(&mut self, of: Ty<'static>, f: &Field) -> Value {
        let ty = of.at(f.ty);
        let about = self
            .descriptions
            .of_field(&of.get().name, &f.name)
            .or_else(|| list_field_text(of, &f.name).map(str::to_owned));
        let default = (self.format == Format::V3).then(|| default(f, ty)).flatten();
        let schema = self.schema(ty);
        let mut schema = self.with_description(schema, about, default);
        let mut set = |key: &str, value: Value| {
            schema.make_object().insert(key, value);
        };
        match ty.shape() {
            Shape::List(l) if l.declared => match &l.kind {
                ListKind::Atomic => set("x-kubernetes-list-type", "atomic".into()),
                ListKind::Set => set("x-kubernetes-list-type", "set".into()),
                ListKind::Map(keys) => {
                    let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
                    set("x-kubernetes-list-map-keys", keys.into());
                    set("x-kubernetes-list-type", "map".into());
                }
            },
            // Bytes are a list in Go, and some declare of what kind.
            Shape::Bytes if types::named("[]byte").is_some_and(|plain| plain.id() != ty.id()) => {
                set("x-kubernetes-list-type", "atomic".into());
            }
            Shape::Map(m) if m.declared => {
                set("x-kubernetes-map-type", if m.atomic { "atomic" } else { "granular" }.into());
            }
            // A struct that is seen in another way here than everywhere else.
            Shape::Struct(s) if types::named(&ty.get().name).is_some_and(|plain| plain.id() != ty.id()) => {
                set("x-kubernetes-map-type", if s.atomic { "atomic" } else { "granular" }.into());
            }
            _ => {}
        }
        if let Some(patch) = &f.patch {
            if let Some(key) = &patch.key {
                set("x-kubernetes-patch-merge-key", key.as_ref().into());
            }
            let strategies =
                [("merge", patch.merge), ("replace", patch.replace), ("retainKeys", patch.retain_keys)];
            let strategies: Vec<&str> = strategies.iter().filter(|(_, on)| *on).map(|(s, _)| *s).collect();
            if !strategies.is_empty() {
                set("x-kubernetes-patch-strategy", strategies.join(",").into());
            }
        }
        schema.make_object().sort_keys();
        schema
    }

    pub(super) fn with_description(
        &self,
        schema: Value,
        about: Option<String>,
        default: Option<Value>,
    ) -> Value {
        let mut out = Map::new();
        match schema {
            // In version 3 nothing may stand beside a reference.
            Value::Object(m) if m.contains_key("$ref") && self.format == Format::V3 => {
                if about.is_none() && default.is_none() {
                    return Value::Object(m);
                }
                out.push("allOf", Value::Array(vec![m.into()]));
            }
            Value::Object(m) => out = m,
            _ => {}
        }
        if let Some(default) = default {
            out.insert("default", default);
        }
        if let Some(text) = about {
            out.insert("description", text);
        }
        out.sort_keys();
        Value::Object(out)
    }

    /// The schema of a type where it is used.
    fn schema(&mut self, ty: Ty<'static>) -> Value {
        match ty.shape() {
            Shape::List(l) => object!({"items": (self.schema(ty.at(l.item))), "type": "array"}),
            Shape::Map(m) => {
                object!({"additionalProperties": (self.schema(ty.at(m.value))), "type": "object"})
            }
            Shape::String | Shape::Duration => object!({"type": "string"}),
            Shape::Bool => object!({"type": "boolean"}),
            Shape::Int32 => object!({"format": "int32", "type": "integer"}),
            Shape::Int64 => object!({"format": "int64", "type": "integer"}),
            Shape::Float => object!({"format": "double", "type": "number"}),
            Shape::Bytes => object!({"format": "byte", "type": "string"}),
            Shape::Any | Shape::Builtin(_) => object!({}),
            Shape::Struct(_)
            | Shape::Quantity
            | Shape::IntOrString
            | Shape::Time
            | Shape::MicroTime
            | Shape::Raw
            | Shape::FieldsV1
            | Shape::SchemaOrBool(_)
            | Shape::SchemaOrArray(_)
            | Shape::SchemaOrStrings(_) => {
                // A variant of a struct is the struct itself.
                let name: &str = &ty.get().name;
                self.named(name)
            }
        }
    }
}

pub(super) const TYPE_META: [(&str, &str); 2] = [
    (
        "apiVersion",
        "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
    ),
    (
        "kind",
        "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
    ),
];

/// Lists have no descriptions of their own in the data.
fn list_text(ty: Ty<'_>) -> Option<String> {
    let kind = ty.short_name().strip_suffix("List")?;
    ty.field("items").map(|_| format!("{kind}List is a list of {kind} objects."))
}

fn list_field_text(of: Ty<'_>, field: &str) -> Option<&'static str> {
    if of.short_name() == "WatchEvent" {
        return (field == "object").then_some("The object after the change; a Status if the type is ERROR.");
    }
    of.as_struct().filter(|s| s.kind)?;
    match field {
        "items" => Some("Items is the list of objects."),
        "metadata" => Some(
            "Standard metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
        ),
        _ => TYPE_META.iter().find(|(name, _)| *name == field).map(|(_, text)| *text),
    }
}

/// The default of a field: the declared one, or what Go has.
fn default(f: &Field, ty: Ty<'_>) -> Option<Value> {
    if let Some(default) = &f.default {
        return Some((**default).clone());
    }
    match ty.shape() {
        _ if f.pointer => None,
        Shape::Struct(_) => Some(Value::object()),
        _ if f.omit != Omit::Never => None,
        Shape::String => Some("".into()),
        Shape::Bool => Some(false.into()),
        Shape::Int32 | Shape::Int64 | Shape::Float => Some(0.into()),
        _ => None,
    }
}

pub(super) fn gvk(group: &str, version: &str, kind: &str) -> Value {
    object!({"group": group, "kind": kind, "version": version})
}
