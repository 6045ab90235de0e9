//! The syntax tree. Nodes are numbered; what is known of a node (its place, type, overload) is kept in tables by number.

use std::sync::Arc;

/// A constant in the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub(crate) id: u32,
    /// How many operators, selections and calls are on the longest way down; bounds recursion.
    pub(crate) depth: u16,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Literal(Literal),
    Ident(String),
    Select {
        operand: Box<Expr>,
        field: String,
        test: bool,
    },
    Call {
        function: String,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    /// Elements with the mark `?`.
    List(Vec<(Expr, bool)>),
    Map(Vec<MapEntry>),
    Struct {
        name: String,
        fields: Vec<StructField>,
    },
    Comprehension(Box<Comprehension>),
    /// A place that could not be read; a message about it exists.
    Error,
}

#[derive(Clone, Debug)]
pub(crate) struct MapEntry {
    pub(crate) key: Expr,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct StructField {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

/// A fold: what every macro over lists and maps, and every binding of a name, becomes.
#[derive(Clone, Debug)]
pub(crate) struct Comprehension {
    pub(crate) range: Expr,
    pub(crate) var: String,
    pub(crate) var2: Option<String>,
    pub(crate) accu: String,
    pub(crate) init: Expr,
    pub(crate) condition: Expr,
    pub(crate) step: Expr,
    pub(crate) result: Expr,
}

/// The accumulator of the macros; cannot be written in an expression.
pub(crate) const ACCUMULATOR: &str = "@result";

/// A parsed expression.
#[derive(Debug)]
pub(crate) struct Ast {
    pub(crate) root: Expr,
    /// The place of each node, by number.
    pub(crate) places: Vec<u32>,
}

impl Ast {
    pub(crate) fn place(&self, id: u32) -> u32 {
        self.places.get(id as usize).copied().unwrap_or(0)
    }
}

impl Expr {
    /// The dotted name that a chain of selections spells, as in `a.b.c`.
    pub(crate) fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.clone()),
            Kind::Select { operand, field, test: false } => {
                let mut name = operand.qualified_name()?;
                name.push('.');
                name.push_str(field);
                Some(name)
            }
            _ => None,
        }
    }

    /// The name, if this is nothing but a name.
    pub(crate) fn as_ident(&self) -> Option<&str> {
        match &self.kind {
            Kind::Ident(name) => Some(name),
            _ => None,
        }
    }

    /// The nodes directly below.
    pub(crate) fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            Kind::Literal(_) | Kind::Ident(_) | Kind::Error => Vec::new(),
            Kind::Select { operand, .. } => vec![operand],
            Kind::Call { target, args, .. } => target.iter().map(AsRef::as_ref).chain(args).collect(),
            Kind::List(elements) => elements.iter().map(|(e, _)| e).collect(),
            Kind::Map(entries) => entries.iter().flat_map(|e| [&e.key, &e.value]).collect(),
            Kind::Struct { fields, .. } => fields.iter().map(|f| &f.value).collect(),
            Kind::Comprehension(c) => vec![&c.range, &c.init, &c.condition, &c.step, &c.result],
        }
    }

    /// Calls `visit` with this node and every node below.
    pub(crate) fn walk<'e>(&'e self, visit: &mut dyn FnMut(&'e Expr)) {
        visit(self);
        for child in self.children() {
            child.walk(visit);
        }
    }
}
