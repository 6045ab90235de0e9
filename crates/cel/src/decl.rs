//! Declarations of data: what an OpenAPI schema says about an object, as far as expressions need it: the types of the fields,
//! how values are read, and how big they can be, from which costs are estimated.

use std::collections::HashMap;
use std::sync::Arc;

use crate::types::{Declarations, Type};

pub mod escape;
mod schema;

/// Largest request that the API server takes, in bytes; bounds what has no limit of its own.
pub const MAX_REQUEST: u64 = 3 * 1024 * 1024;

/// How a value is declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Decl {
    pub(crate) shape: Shape,
    /// Most elements, members, or four times the characters.
    pub(crate) max_elements: u64,
    /// Fewest bytes that the value takes as JSON.
    pub(crate) min_size: u64,
    pub(crate) nullable: bool,
}

/// The kind of a declared value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    /// Whatever the data is.
    Dyn,
    Bool,
    Int,
    Double,
    String(Format),
    IntOrString,
    List {
        item: Arc<Decl>,
        kind: ListKind,
    },
    Map {
        value: Arc<Decl>,
    },
    /// Fields by the name that expressions use, and members by the name in the data.
    Object {
        name: Arc<str>,
        fields: HashMap<String, Arc<Decl>>,
        members: HashMap<String, Arc<Decl>>,
    },
}

/// Formats that make a string something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    None,
    Byte,
    Date,
    DateTime,
    Duration,
}

/// How lists compare and join: `x-kubernetes-list-type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    Atomic,
    Set,
    /// Keyed by these members, as expressions name them.
    Map(Vec<String>),
}

impl Shape {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Shape::Dyn => "anything",
            Shape::Bool => "bool",
            Shape::Int => "int",
            Shape::Double => "float",
            Shape::String(_) => "string",
            Shape::IntOrString => "a string or integer",
            Shape::List { .. } => "an array for the provided schema with type=array",
            Shape::Map { .. } | Shape::Object { .. } => "a map for the provided schema with type=object",
        }
    }
}

impl Decl {
    /// Anything at all; `null` too.
    pub const DYN: Decl = Decl { shape: Shape::Dyn, max_elements: MAX_REQUEST, min_size: 1, nullable: true };

    /// A declaration of the given kind, with nothing known of its size.
    fn of(shape: Shape, min_size: u64) -> Self {
        Self { shape, max_elements: 0, min_size, nullable: false }
    }

    /// An object with declared fields, named as expressions name them.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (String, Decl)>) -> Self {
        let members: HashMap<String, Arc<Decl>> = fields.into_iter().map(|(n, d)| (n, Arc::new(d))).collect();
        let fields =
            members.iter().filter_map(|(n, d)| Some((escape::escape(n)?.into_owned(), d.clone()))).collect();
        Self::of(Shape::Object { name: name.into(), fields, members }, 2)
    }

    /// Text without a limit to its length.
    pub fn string() -> Self {
        Self { max_elements: MAX_REQUEST - 2, ..Self::of(Shape::String(Format::None), 2) }
    }

    /// `true` or `false`.
    pub fn bool() -> Self {
        Self::of(Shape::Bool, 4)
    }

    /// A whole number.
    pub fn int() -> Self {
        Self::of(Shape::Int, 1)
    }

    /// A point in time.
    pub fn timestamp() -> Self {
        Self { max_elements: 32, ..Self::of(Shape::String(Format::DateTime), 21) }
    }

    /// A list.
    pub fn list(item: Decl, max_items: Option<u64>) -> Self {
        let max = max_items.unwrap_or((MAX_REQUEST - 2) / (item.min_size + 1));
        let shape = Shape::List { item: Arc::new(item), kind: ListKind::Atomic };
        Self { max_elements: max, ..Self::of(shape, 2) }
    }

    /// A map with strings as keys.
    pub fn map(value: Decl, max_members: Option<u64>) -> Self {
        let max = max_members.unwrap_or((MAX_REQUEST - 2) / (value.min_size + 6));
        Self { max_elements: max, ..Self::of(Shape::Map { value: Arc::new(value) }, 2) }
    }

    /// The type that expressions see.
    pub fn cel_type(&self) -> Type {
        match &self.shape {
            Shape::Dyn | Shape::IntOrString => Type::Dyn,
            Shape::Bool => Type::Bool,
            Shape::Int => Type::Int,
            Shape::Double => Type::Double,
            Shape::String(Format::None) => Type::String,
            Shape::String(Format::Byte) => Type::Bytes,
            Shape::String(Format::Date | Format::DateTime) => Type::Timestamp,
            Shape::String(Format::Duration) => Type::Duration,
            Shape::List { item, .. } => Type::list(item.cel_type()),
            Shape::Map { value } => Type::map(Type::String, value.cel_type()),
            Shape::Object { name, .. } => Type::Struct(name.clone()),
        }
    }

    /// How often, at most, a value of this kind occurs in a request.
    pub fn max_cardinality(&self) -> u64 {
        MAX_REQUEST / (self.min_size + 1)
    }

    pub(crate) fn is_object(&self) -> bool {
        matches!(self.shape, Shape::Object { .. })
    }

    /// What the member `name` of the data is declared as.
    pub(crate) fn member(&self, name: &str) -> Option<&Decl> {
        match &self.shape {
            Shape::Object { members, .. } => members.get(name).map(AsRef::as_ref),
            Shape::Map { value } => Some(value),
            Shape::Dyn => Some(self),
            _ => None,
        }
    }

    pub(crate) fn list_kind(&self) -> &ListKind {
        match &self.shape {
            Shape::List { kind, .. } => kind,
            _ => &ListKind::Atomic,
        }
    }
}

/// The object types below a declaration, for an environment.
#[derive(Debug, Default)]
pub struct DeclTypes(HashMap<Arc<str>, Arc<Decl>>);

impl DeclTypes {
    /// The object types of some declarations and of everything below them.
    pub fn new(roots: impl IntoIterator<Item = Arc<Decl>>) -> Self {
        let mut types = Self::default();
        roots.into_iter().for_each(|root| types.add(&root));
        types
    }

    fn add(&mut self, decl: &Arc<Decl>) {
        match &decl.shape {
            Shape::List { item, .. } => self.add(item),
            Shape::Map { value } => self.add(value),
            Shape::Object { name, fields, .. } => {
                let new = self.0.insert(name.clone(), decl.clone()).is_none();
                fields.values().filter(|_| new).for_each(|field| self.add(field));
            }
            _ => {}
        }
    }
}

impl Declarations for DeclTypes {
    fn has_type(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn field(&self, object: &str, field: &str) -> Option<Type> {
        match &self.0.get(object)?.shape {
            // A word that cannot be a variable can be a field, without being escaped.
            Shape::Object { fields, .. } => {
                let found = fields.get(field).or_else(|| fields.get(escape::reserved(field)?.as_str()));
                found.map(|d| d.cel_type())
            }
            _ => None,
        }
    }
}
