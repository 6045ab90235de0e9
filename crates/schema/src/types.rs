//! Types: what a value may look like and how it is written, merged and numbered.
//!
//! All types of a [`Schema`] live in one vector and refer to each other by [`TypeId`], so that they may be recursive
//! and cost little memory. [`Ty`] is a schema and a type of it: the handle that everything else takes. The built-in
//! types are parsed once from a table; a custom resource brings a schema of its own whose types may point into it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use api::Value;
use compact_str::CompactString;

pub(crate) mod table;

/// A type's place in its [`Schema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeId(pub(crate) u32);

/// A set of types that refer to each other.
#[derive(Debug, Default)]
pub struct Schema {
    pub(crate) types: Vec<Type>,
    pub(crate) names: HashMap<Cow<'static, str>, TypeId>,
    /// Go package of each `group/version`.
    pub(crate) packages: HashMap<Cow<'static, str>, Cow<'static, str>>,
}

/// One type.
#[derive(Clone, Debug)]
pub struct Type {
    /// The type as Go writes it, with whole package names: `core/v1.Pod`, `[]string`. Empty for custom types.
    pub name: Cow<'static, str>,
    /// What values look like.
    pub shape: Shape,
}

/// What values of a type look like.
#[derive(Clone, Debug)]
pub enum Shape {
    /// An object with known members.
    Struct(Struct),
    /// An array.
    List(List),
    /// An object with any members of one type.
    Map(MapOf),
    /// A string.
    String,
    /// A boolean.
    Bool,
    /// An integer of 32 bits.
    Int32,
    /// An integer of 64 bits.
    Int64,
    /// Any number.
    Float,
    /// Bytes, written as base64.
    Bytes,
    /// A resource quantity, written as string.
    Quantity,
    /// A number or a string.
    IntOrString,
    /// A time with seconds.
    Time,
    /// A time with microseconds.
    MicroTime,
    /// A duration as Go writes it: `1m30s`.
    Duration,
    /// Any JSON, kept as it is (`RawExtension`, `JSON`); null when absent.
    Raw,
    /// A set of fields in managed fields; kept as it is.
    FieldsV1,
    /// A JSON schema, or `true` or `false`.
    SchemaOrBool(TypeId),
    /// A JSON schema or a list of them.
    SchemaOrArray(TypeId),
    /// A JSON schema or a list of strings.
    SchemaOrStrings(TypeId),
    /// Anything, of a custom resource.
    Any,
    /// A built-in type, seen from a custom schema.
    Builtin(TypeId),
}

/// An object with known members.
#[derive(Clone, Debug, Default)]
pub struct Struct {
    /// The members in the order of declaration, those of inlined structs in their places.
    pub fields: Vec<Field>,
    /// Structs that JSON inlines but protobuf nests.
    pub inlined: Vec<Inlined>,
    /// What a protobuf message holds, by field number.
    pub wire: Vec<Wire>,
    /// Has `kind` and `apiVersion`.
    pub kind: bool,
    /// Server-side apply sees it as one value.
    pub atomic: bool,
    /// Written as upstream writes Go structs: in order, with zero values. Otherwise (custom resources): sorted by name.
    pub go: bool,
    /// What happens to members that are not known.
    pub unknown: Unknown,
}

/// What happens to members of an object that are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// They are dropped and reported.
    #[default]
    Drop,
    /// They are kept as they are.
    Keep,
    /// They have this type.
    Typed(TypeId),
}

/// A struct that JSON inlines but protobuf nests.
#[derive(Clone, Copy, Debug)]
pub struct Inlined {
    /// Protobuf field number in the outer message.
    pub number: u32,
    /// The inner struct.
    pub ty: TypeId,
    /// Index of the first of its fields among those of the outer struct; the others follow.
    pub first: u16,
}

/// A member of a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// The field of that index.
    Field(u16),
    /// The inlined struct of that index.
    Inlined(u16),
}

/// When an empty value is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Omit {
    /// Never: a zero value is written.
    #[default]
    Never,
    /// When Go's `omitempty` finds it empty; structs never are.
    Empty,
    /// As [`Omit::Empty`], but not before the object has been checked: rules tell an empty value from an absent one.
    Checked,
    /// Also when it is a zero struct.
    Zero,
}

/// One member of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    /// JSON name.
    pub name: CompactString,
    /// Its type.
    pub ty: TypeId,
    /// Protobuf field number in the message of this struct; zero for none.
    pub number: u32,
    /// A pointer in Go: a zero value is told apart from an absent one.
    pub pointer: bool,
    /// When it is left out.
    pub omit: Omit,
    /// Listed as required in OpenAPI documents.
    pub required: bool,
    /// May be null in custom resources.
    pub nullable: bool,
    /// Go names of the inlined structs it comes from, each followed by a dot.
    pub via: Option<Box<str>>,
    /// How strategic merge patch treats it, if not like any other.
    pub patch: Option<Box<Patch>>,
    /// The value when absent.
    pub default: Option<Box<Value>>,
}

/// How strategic merge patch treats a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Lists are merged, not replaced.
    pub merge: bool,
    /// Only the keys of the patch are kept.
    pub retain_keys: bool,
    /// Replaced as a whole.
    pub replace: bool,
    /// The field that identifies an item of a merged list.
    pub key: Option<Box<str>>,
}

/// An array.
#[derive(Clone, Debug)]
pub struct List {
    /// Type of the items.
    pub item: TypeId,
    /// How server-side apply sees it.
    pub kind: ListKind,
    /// The kind is declared, and shown in OpenAPI documents.
    pub declared: bool,
}

/// How server-side apply sees a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// As one value.
    Atomic,
    /// As a set of scalars.
    Set,
    /// As objects identified by these members.
    Map(Box<[CompactString]>),
}

/// An object with any members of one type.
#[derive(Clone, Debug)]
pub struct MapOf {
    /// Type of the values.
    pub value: TypeId,
    /// Server-side apply sees it as one value.
    pub atomic: bool,
    /// That is declared, and shown in OpenAPI documents.
    pub declared: bool,
}

/// A type of a schema: what functions of this crate take.
#[derive(Clone, Copy)]
pub struct Ty<'a> {
    schema: &'a Schema,
    id: TypeId,
}

static BUILTIN: LazyLock<Schema> = LazyLock::new(table::parse);

/// The built-in types.
pub fn builtin() -> &'static Schema {
    &BUILTIN
}

/// The type of a built-in kind, such as `kind("apps", "v1", "Deployment")`. Kinds that every group has
/// (`DeleteOptions`, `Status`, `WatchEvent`, ...) are found in each.
pub fn kind(group: &str, version: &str, kind: &str) -> Option<Ty<'static>> {
    let schema = builtin();
    let of = |package: &str| {
        let ty = schema.by_name(&format!("{package}.{kind}"))?;
        ty.as_struct().is_some_and(|s| s.kind || kind == "WatchEvent").then_some(ty)
    };
    schema.packages.get(format!("{group}/{version}").as_str()).and_then(|p| of(p)).or_else(|| of("meta/v1"))
}

/// A built-in type by its Go name with package: `core/v1.PodSpec`, `meta/v1.ObjectMeta`.
pub fn named(name: &str) -> Option<Ty<'static>> {
    builtin().by_name(name)
}

impl Schema {
    /// The type of that name.
    pub fn by_name(&self, name: &str) -> Option<Ty<'_>> {
        self.names.get(name).map(|id| self.ty(*id))
    }

    /// The handle of a type.
    pub fn ty(&self, id: TypeId) -> Ty<'_> {
        Ty { schema: self, id }.resolve()
    }

    /// Every named type, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(AsRef::as_ref)
    }

    /// Every `group/version` with its Go package, in no order.
    pub fn packages(&self) -> impl Iterator<Item = (&str, &str)> {
        self.packages.iter().map(|(gv, p)| (gv.as_ref(), p.as_ref()))
    }

    /// Adds a type.
    pub fn add(&mut self, ty: Type) -> TypeId {
        self.types.push(ty);
        TypeId(self.types.len() as u32 - 1)
    }
}

impl<'a> Ty<'a> {
    fn resolve(self) -> Self {
        match self.schema.types[self.id.0 as usize].shape {
            Shape::Builtin(id) => builtin().ty(id),
            _ => self,
        }
    }

    /// The type itself.
    pub fn get(self) -> &'a Type {
        &self.schema.types[self.id.0 as usize]
    }

    /// What values look like.
    pub fn shape(self) -> &'a Shape {
        &self.get().shape
    }

    /// Another type of the same schema.
    pub fn at(self, id: TypeId) -> Ty<'a> {
        self.schema.ty(id)
    }

    /// Its place in its schema.
    pub fn id(self) -> TypeId {
        self.id
    }

    /// The struct, if it is one.
    pub fn as_struct(self) -> Option<&'a Struct> {
        match self.shape() {
            Shape::Struct(s) => Some(s),
            _ => None,
        }
    }

    /// How strategic merge patch treats the field of that name; none for fields that are like any other.
    pub fn patch(self, name: &str) -> Option<&'a Patch> {
        self.field(name)?.patch.as_deref()
    }

    /// The field of that name, if it is a struct that has it.
    pub fn field(self, name: &str) -> Option<&'a Field> {
        self.as_struct()?.fields.iter().find(|f| f.name == name)
    }

    /// The type of the member `name` of a struct or map.
    pub fn member(self, name: &str) -> Option<Ty<'a>> {
        match self.shape() {
            Shape::Struct(s) => match s.fields.iter().find(|f| f.name == name) {
                Some(f) => Some(self.at(f.ty)),
                None => match s.unknown {
                    Unknown::Typed(id) => Some(self.at(id)),
                    _ => None,
                },
            },
            Shape::Map(m) => Some(self.at(m.value)),
            _ => None,
        }
    }

    /// The type of the items of a list.
    pub fn item(self) -> Option<Ty<'a>> {
        match self.shape() {
            Shape::List(l) => Some(self.at(l.item)),
            _ => None,
        }
    }

    /// True for the types of custom resources.
    pub fn is_custom(self) -> bool {
        self.get().name.is_empty()
    }

    /// The type as Go prints it: `v1.PodSpec`, `[]v1.Container`.
    pub fn go_name(self) -> String {
        let mut out = String::new();
        let mut word = String::new();
        for c in self.get().name.chars() {
            match c {
                '/' => word.clear(),
                '[' | ']' | '*' => {
                    out.push_str(&std::mem::take(&mut word));
                    out.push(c);
                }
                c => word.push(c),
            }
        }
        out.push_str(if word == "byte" { "uint8" } else { &word });
        out
    }

    /// The name without package: `PodSpec`.
    pub fn short_name(self) -> &'a str {
        let name: &str = &self.get().name;
        name.rsplit('.').next().unwrap_or(name)
    }
}

impl fmt::Debug for Ty<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ty({})", self.get().name)
    }
}

#[cfg(test)]
mod tests;
