//! The types of the language, static and of values.

use std::fmt;
use std::sync::Arc;

/// A type. Displays as cel-go writes it in messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Whatever it is at run time.
    Dyn,
    /// What a mistake has; accepted everywhere, so that one mistake is reported once.
    Error,
    /// `null`
    Null,
    /// `bool`
    Bool,
    /// 64 bits with sign
    Int,
    /// 64 bits without sign
    Uint,
    /// 64-bit floating point
    Double,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// `google.protobuf.Timestamp`
    Timestamp,
    /// `google.protobuf.Duration`
    Duration,
    /// The type of a type.
    Type(Option<Arc<Type>>),
    /// `list(T)`
    List(Arc<Type>),
    /// `map(K, V)`
    Map(Arc<Type>, Arc<Type>),
    /// An object type with declared fields, or one that is only an argument of functions.
    Struct(Arc<str>),
    /// A type of a library, such as `optional_type(T)`.
    Opaque(Arc<str>, Arc<[Type]>),
    /// A parameter in the signature of a function.
    Param(char),
    /// A type that inference has yet to find.
    Var(u32),
}

impl Type {
    /// `list(element)`
    pub fn list(element: Type) -> Self {
        Type::List(Arc::new(element))
    }

    /// `map(key, value)`
    pub fn map(key: Type, value: Type) -> Self {
        Type::Map(Arc::new(key), Arc::new(value))
    }

    /// `optional_type(inner)`
    pub fn optional(inner: Type) -> Self {
        Type::Opaque("optional_type".into(), Arc::new([inner]))
    }

    /// The object type `name`.
    pub fn object(name: &str) -> Self {
        Type::Struct(name.into())
    }

    /// What is inside, if this is optional.
    pub(crate) fn unwrap_optional(&self) -> Option<&Type> {
        match self {
            Type::Opaque(name, params) if name.as_ref() == "optional_type" => params.first(),
            _ => None,
        }
    }

    /// True where a message may be about any type at all.
    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    /// The name of the type without parameters, as values report it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Type::Dyn => "dyn",
            Type::Error => "error",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::Duration => "google.protobuf.Duration",
            Type::Type(_) => "type",
            Type::List(_) => "list",
            Type::Map(..) => "map",
            Type::Struct(name) | Type::Opaque(name, _) => name,
            Type::Param(_) | Type::Var(_) => "type_param",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Error => f.write_str("!error!"),
            Type::Null => f.write_str("null"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::Type(Some(inner)) => write!(f, "type({inner})"),
            Type::List(element) => write!(f, "list({element})"),
            Type::Map(key, value) => write!(f, "map({key}, {value})"),
            Type::Opaque(name, params) if !params.is_empty() => {
                write!(f, "{name}({})", Types(params))
            }
            Type::Param(name) => write!(f, "{name}"),
            Type::Var(n) => write!(f, "_var{n}"),
            simple => f.write_str(simple.name()),
        }
    }
}

/// Types with commas between them.
pub(crate) struct Types<'t>(pub(crate) &'t [Type]);

impl fmt::Display for Types<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, t) in self.0.iter().enumerate() {
            write!(f, "{}{t}", if n > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// The object types that expressions of an environment know besides those of the libraries.
pub trait Declarations: Send + Sync {
    /// True when there is an object type of this name.
    fn has_type(&self, name: &str) -> bool;

    /// The type of a field, by its name as expressions write it.
    fn field(&self, object: &str, field: &str) -> Option<Type>;
}
