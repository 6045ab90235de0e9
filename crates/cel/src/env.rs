//! Environments: which variables, object types, functions and macros expressions may use.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::checker::{Checked, check};
use crate::library::{Function, Library};
use crate::parser::{Syntax, parse};
use crate::source::Issues;
use crate::types::{Declarations, Type};

/// A minor version of Kubernetes 1, which decides what expressions may use. Expressions that are new to the cluster are
/// held to what the version before knew, so that they survive a step back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u16);

impl Version {
    /// What expressions that are stored already may use.
    pub const STORED: Version = Version(36);
    /// What expressions that are written now may use.
    pub const NEW: Version = Version(35);
}

/// What expressions may use.
#[derive(Clone)]
pub struct Env {
    library: Arc<Library>,
    syntax: Syntax,
    variables: HashMap<String, Type>,
    declarations: Option<Arc<dyn Declarations>>,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env")
            .field("syntax", &self.syntax)
            .field("variables", &self.variables)
            .finish_non_exhaustive()
    }
}

impl Env {
    /// The environment that all of Kubernetes' expressions share, at a version.
    pub fn new(version: Version) -> Self {
        let syntax = Syntax {
            optional: version >= Version(28),
            two_variables: version >= Version(32),
            sort_by: version >= Version(34),
            bind: false,
        };
        Self { library: Library::base(version), syntax, variables: HashMap::new(), declarations: None }
    }

    /// With `cel.bind`.
    pub fn with_bindings(mut self) -> Self {
        self.syntax.bind = true;
        self
    }

    /// With `jsonpatch.escapeKey`, as mutating policies have it.
    pub fn with_json_patch(mut self) -> Self {
        self.library = self.library.with_json_patch();
        self
    }

    /// With a variable.
    pub fn variable(mut self, name: &str, t: Type) -> Self {
        self.variables.insert(name.to_owned(), t);
        self
    }

    /// With object types.
    pub fn declarations(mut self, declarations: Arc<dyn Declarations>) -> Self {
        self.declarations = Some(declarations);
        self
    }

    /// Parses and checks an expression.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile(&self, expression: &str) -> Result<Checked, Issues> {
        check(expression, parse(expression, self.syntax)?, self)
    }

    pub(crate) fn variable_type(&self, name: &str) -> Option<&Type> {
        self.variables.get(name)
    }

    pub(crate) fn function(&self, name: &str) -> Option<&Function> {
        self.library.function(name)
    }

    pub(crate) fn has_struct(&self, name: &str) -> bool {
        self.declarations.as_ref().is_some_and(|d| d.has_type(name))
    }

    pub(crate) fn field(&self, object: &str, field: &str) -> Option<Type> {
        self.declarations.as_ref()?.field(object, field)
    }

    /// The type that `name` names.
    pub(crate) fn type_named(&self, name: &str) -> Option<Type> {
        if self.has_struct(name) {
            return Some(Type::object(name));
        }
        Some(match name {
            "bool" => Type::Bool,
            "bytes" => Type::Bytes,
            "double" => Type::Double,
            "google.protobuf.Duration" => Type::Duration,
            "google.protobuf.Timestamp" => Type::Timestamp,
            "int" => Type::Int,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "null_type" => Type::Null,
            "string" => Type::String,
            "type" => Type::Type(None),
            "uint" => Type::Uint,
            "optional_type" if self.syntax.optional => Type::optional(Type::Dyn),
            "net.IP" | "net.CIDR" if self.function("cidr").is_some() => Type::Opaque(name.into(), [].into()),
            _ => return None,
        })
    }
}
