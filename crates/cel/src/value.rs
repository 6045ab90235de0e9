//! Values at run time. What comes from an object is borrowed from it and converted piece by piece as it is looked at.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::library::authz::Authz;
use crate::library::formats::NamedFormat;
use crate::library::net::Cidr;
use crate::library::time::Moment;
use crate::library::url::Url;
use crate::types::Type;

pub(crate) mod compare;
mod data;
mod export;
mod list;
pub(crate) mod map;

pub use list::List;
pub(crate) use map::Key;
pub use map::Map;

/// A value of the language.
#[derive(Clone, Debug)]
pub enum Val<'a> {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// 64 bits with sign
    Int(i64),
    /// 64 bits without sign
    Uint(u64),
    /// 64-bit floating point
    Double(f64),
    /// Unicode text
    String(Text<'a>),
    /// Bytes
    Bytes(Arc<[u8]>),
    /// A point in time
    Timestamp(Moment),
    /// A span of time, in nanoseconds
    Duration(i64),
    /// A list
    List(List<'a>),
    /// A map, or an object with declared fields
    Map(Map<'a>),
    /// An object that the expression has made: its type and its fields
    Struct(Arc<(Arc<str>, Map<'a>)>),
    /// A type
    Type(Type),
    /// A value that may be absent
    Optional(Option<Arc<Val<'a>>>),
    /// A URL
    Url(Arc<Url>),
    /// A resource quantity, and whether it was written as a whole number
    Quantity(api::quantity::Quantity, bool),
    /// An address
    Ip(IpAddr),
    /// A network
    Cidr(Cidr),
    /// A semantic version
    Semver(Arc<semver::Version>),
    /// A named format
    Format(&'static NamedFormat),
    /// Something of the authorizer
    Authz(Authz<'a>),
}

/// Text of an object or of the expression.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// Text in an object
    Borrowed(&'a str),
    /// Text that was computed
    Shared(Arc<str>),
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(s) => s,
            Text::Shared(s) => s,
        }
    }
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The expression went wrong; `||` and `&&` can absorb it.
    #[error("{0}")]
    Failed(Arc<str>),
    /// Evaluation was ended because of its cost or its time.
    #[error("{0}")]
    Cancelled(&'static str),
}

impl EvalError {
    pub(crate) fn new(message: impl Into<Arc<str>>) -> Self {
        EvalError::Failed(message.into())
    }

    pub(crate) fn no_overload() -> Self {
        Self::new("no such overload")
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(self, EvalError::Cancelled(_))
    }
}

/// What evaluation comes to.
pub type Outcome<'a> = Result<Val<'a>, EvalError>;

impl<'a> Val<'a> {
    /// Computed text.
    pub fn string(text: impl Into<Arc<str>>) -> Self {
        Val::String(Text::Shared(text.into()))
    }

    /// A computed list.
    pub fn list(items: Vec<Val<'a>>) -> Self {
        Val::List(List::new(items))
    }

    /// An optional value.
    pub fn some(self) -> Self {
        Val::Optional(Some(Arc::new(self)))
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Val::String(s) => Some(s),
            _ => None,
        }
    }

    /// The truth, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Val::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The type as `type()` gives it.
    pub(crate) fn runtime_type(&self) -> Type {
        match self {
            Val::Null => Type::Null,
            Val::Bool(_) => Type::Bool,
            Val::Int(_) => Type::Int,
            Val::Uint(_) => Type::Uint,
            Val::Double(_) => Type::Double,
            Val::String(_) => Type::String,
            Val::Bytes(_) => Type::Bytes,
            Val::Timestamp(_) => Type::Timestamp,
            Val::Duration(_) => Type::Duration,
            Val::List(_) => Type::list(Type::Dyn),
            Val::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Val::Struct(s) => Type::Struct(s.0.clone()),
            Val::Type(_) => Type::Type(None),
            Val::Optional(_) => Type::optional(Type::Dyn),
            Val::Url(_) => Type::object("kubernetes.URL"),
            Val::Quantity(..) => Type::object("kubernetes.Quantity"),
            Val::Ip(_) => Type::Opaque("net.IP".into(), [].into()),
            Val::Cidr(_) => Type::Opaque("net.CIDR".into(), [].into()),
            Val::Semver(_) => Type::object("kubernetes.Semver"),
            Val::Format(_) => Type::object("kubernetes.NamedFormat"),
            Val::Authz(a) => Type::object(a.type_name()),
        }
    }

    /// The size that costs are counted by, if the value has one.
    pub(crate) fn size(&self) -> Option<u64> {
        Some(match self {
            Val::String(s) => s.chars().count() as u64,
            Val::Bytes(b) => b.len() as u64,
            Val::List(l) => l.len() as u64,
            Val::Map(m) => m.len() as u64,
            Val::Ip(IpAddr::V4(_)) => 4,
            Val::Ip(IpAddr::V6(_)) => 16,
            Val::Cidr(c) => u64::from(c.bits.div_ceil(8)),
            _ => return None,
        })
    }

    /// True for what `optional.ofNonZeroValue` leaves out.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Val::Null => true,
            Val::Bool(b) => !b,
            Val::Int(n) => *n == 0,
            Val::Uint(n) => *n == 0,
            Val::Double(n) => *n == 0.0,
            Val::String(s) => s.is_empty(),
            Val::Bytes(b) => b.is_empty(),
            Val::Duration(d) => *d == 0,
            Val::Timestamp(t) => t.is_zero(),
            Val::List(l) => l.len() == 0,
            Val::Map(m) => m.len() == 0,
            Val::Struct(s) => s.1.len() == 0,
            _ => false,
        }
    }
}

/// As messages show values: text without quotes.
impl fmt::Display for Val<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Val::Null => f.write_str("null"),
            Val::Bool(b) => write!(f, "{b}"),
            Val::Int(n) => write!(f, "{n}"),
            Val::Uint(n) => write!(f, "{n}"),
            Val::Double(n) => f.write_str(&crate::library::format::shortest(*n)),
            Val::String(s) => f.write_str(s),
            Val::Bytes(b) => write!(f, "{b:?}"),
            Val::Timestamp(t) => write!(f, "{t}"),
            Val::Duration(d) => f.write_str(&crate::library::time::format_duration(*d)),
            Val::List(l) => {
                f.write_str("[")?;
                for (n, item) in l.iter().enumerate() {
                    f.write_str(if n > 0 { ", " } else { "" })?;
                    match item {
                        Ok(item) => write!(f, "{item}")?,
                        Err(e) => write!(f, "{e}")?,
                    }
                }
                f.write_str("]")
            }
            Val::Map(m) => write_map(m, f),
            Val::Struct(s) => {
                f.write_str(&s.0)?;
                write_map(&s.1, f)
            }
            Val::Type(t) => f.write_str(t.name()),
            Val::Optional(None) => f.write_str("optional.none()"),
            Val::Optional(Some(v)) => write!(f, "optional({v})"),
            Val::Url(u) => write!(f, "{u}"),
            Val::Quantity(q, _) => write!(f, "{q}"),
            Val::Ip(ip) => write!(f, "{ip}"),
            Val::Cidr(c) => write!(f, "{c}"),
            Val::Semver(v) => write!(f, "{v}"),
            Val::Format(format) => f.write_str(format.name),
            Val::Authz(a) => f.write_str(a.type_name()),
        }
    }
}

fn write_map(map: &Map<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("{")?;
    for (n, (key, value)) in map.iter().enumerate() {
        f.write_str(if n > 0 { ", " } else { "" })?;
        match value {
            Ok(value) => write!(f, "{key}: {value}")?,
            Err(e) => write!(f, "{key}: {e}")?,
        }
    }
    f.write_str("}")
}
