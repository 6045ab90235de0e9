//! From a checked expression to what is evaluated: names are resolved, functions found, constants folded, patterns compiled.
//!
//! How nodes are put together follows cel-go's planner, as the costs that are counted at run time depend on it: a chain of
//! selections is one attribute with qualifiers, a list of constants is a constant.

use std::collections::HashSet;
use std::sync::Arc;

use crate::ast::{Comprehension, Expr, Kind, Literal};
use crate::checker::{Checked, Reference};
use crate::cost::{Rule, rule};
use crate::library::call::{Builtin, Call, Patterns, builtin};
use crate::value::map::Entries;
use crate::value::{EvalError, Key, Map, Outcome, Text, Val};

/// A step of evaluation.
#[derive(Debug)]
pub(crate) enum Node {
    Const(Val<'static>),
    Attribute(Box<Attribute>),
    Call(Box<Invocation>),
    /// `||` when `stop` is true, `&&` when it is false.
    Logic {
        stop: bool,
        terms: [Box<Node>; 2],
    },
    /// True unless the term is false.
    NotFalse(Box<Node>),
    Equal {
        negate: bool,
        terms: [Box<Node>; 2],
    },
    /// `or` and `orValue`.
    Or {
        value: bool,
        terms: [Box<Node>; 2],
    },
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Struct {
        name: Arc<str>,
        fields: Vec<(Arc<str>, Node, bool)>,
    },
    Fold(Box<Fold>),
    /// Is the value one of these constants?
    OneOf(Box<Node>, HashSet<Key>),
    /// Adds to the accumulator in place.
    Append {
        slot: usize,
        items: Box<Node>,
    },
    Insert {
        slot: usize,
        entry: Vec<Node>,
    },
}

/// Where to look, and what to select there.
#[derive(Debug)]
pub(crate) struct Attribute {
    pub(crate) root: Root,
    pub(crate) qualifiers: Vec<Qualifier>,
    /// Asks for presence only.
    pub(crate) test: bool,
}

#[derive(Debug)]
pub(crate) enum Root {
    Variable(Arc<str>),
    /// A variable of a macro.
    Local(usize),
    Node(Node),
    Conditional([Node; 3]),
}

#[derive(Debug)]
pub(crate) struct Qualifier {
    pub(crate) key: QualifierKey,
    pub(crate) optional: bool,
    /// Asks for presence only.
    pub(crate) test: bool,
}

#[derive(Debug)]
pub(crate) enum QualifierKey {
    Const(Val<'static>),
    Dynamic(Node),
}

#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) name: Arc<str>,
    /// The overload, if the types leave but one.
    pub(crate) overload: &'static str,
    pub(crate) function: Builtin,
    pub(crate) rule: Rule,
    pub(crate) args: Vec<Node>,
    /// The pattern, if it is constant.
    pub(crate) pattern: Option<Arc<regex::Regex>>,
}

#[derive(Debug)]
pub(crate) struct Fold {
    pub(crate) range: Node,
    pub(crate) init: Node,
    pub(crate) condition: Node,
    pub(crate) step: Node,
    pub(crate) result: Node,
    /// The accumulator's; the variables' follow.
    pub(crate) slot: usize,
    pub(crate) two: bool,
}

/// A function that is looked at as a conversion, and so is folded when what it converts is constant.
const CONVERSIONS: [&str; 10] =
    ["bool", "bytes", "double", "dyn", "duration", "int", "string", "timestamp", "type", "uint"];

struct Planner<'c> {
    checked: &'c Checked,
    /// Names of macros in scope; their slots are their places.
    scope: Vec<String>,
    deepest: usize,
}

/// Plans `checked`; also says how many slots variables of macros need.
///
/// # Errors
/// A constant cannot be converted or compiled.
pub(crate) fn plan(checked: &Checked) -> Result<(Node, usize), EvalError> {
    let mut planner = Planner { checked, scope: Vec::new(), deepest: 0 };
    let node = planner.plan(&checked.ast.root)?;
    Ok((node, planner.deepest))
}

fn constant(literal: &Literal) -> Val<'static> {
    match literal {
        Literal::Null => Val::Null,
        Literal::Bool(b) => Val::Bool(*b),
        Literal::Int(n) => Val::Int(*n),
        Literal::Uint(n) => Val::Uint(*n),
        Literal::Double(n) => Val::Double(*n),
        Literal::String(s) => Val::String(Text::Shared(s.clone())),
        Literal::Bytes(b) => Val::Bytes(b.clone()),
    }
}

fn attribute(root: Root) -> Node {
    Node::Attribute(Box::new(Attribute { root, qualifiers: Vec::new(), test: false }))
}

/// `node` as something that can be selected from.
fn as_attribute(node: Node) -> Box<Attribute> {
    match node {
        Node::Attribute(attribute) => attribute,
        node => Box::new(Attribute { root: Root::Node(node), qualifiers: Vec::new(), test: false }),
    }
}

impl Planner<'_> {
    fn plan(&mut self, e: &Expr) -> Result<Node, EvalError> {
        match &e.kind {
            Kind::Literal(literal) => Ok(Node::Const(constant(literal))),
            Kind::Ident(name) => Ok(self.name(e, name)),
            Kind::Select { operand, field, test } => {
                let mut attribute = as_attribute(self.plan(operand)?);
                let key = QualifierKey::Const(Val::string(field.as_str()));
                attribute.qualifiers.push(Qualifier { key, optional: false, test: *test });
                attribute.test = *test;
                Ok(Node::Attribute(attribute))
            }
            Kind::Call { function, target, args } => self.call(e, function, target.as_deref(), args),
            Kind::List(elements) => self.list(elements),
            Kind::Map(entries) => {
                let mut planned = Vec::with_capacity(entries.len());
                for entry in entries {
                    planned.push((self.plan(&entry.key)?, self.plan(&entry.value)?, entry.optional));
                }
                fold_map(planned)
            }
            Kind::Struct { name, fields } => {
                let mut planned = Vec::with_capacity(fields.len());
                for field in fields {
                    planned.push((field.name.as_str().into(), self.plan(&field.value)?, field.optional));
                }
                Ok(Node::Struct { name: name.as_str().into(), fields: planned })
            }
            Kind::Comprehension(fold) => self.fold(fold),
            Kind::Error => Err(EvalError::new("the expression has errors")),
        }
    }

    fn name(&self, e: &Expr, name: &str) -> Node {
        if let Some(Reference::TypeName(t)) = self.checked.reference(e) {
            return Node::Const(Val::Type(t.clone()));
        }
        match self.scope.iter().rposition(|n| n == name) {
            Some(slot) => attribute(Root::Local(slot)),
            None => attribute(Root::Variable(name.into())),
        }
    }

    fn list(&mut self, elements: &[(Expr, bool)]) -> Result<Node, EvalError> {
        let mut planned = Vec::with_capacity(elements.len());
        for (element, optional) in elements {
            planned.push((self.plan(element)?, *optional));
        }
        if planned.iter().all(|(node, optional)| matches!(node, Node::Const(_)) && !optional) {
            let values = planned.into_iter().filter_map(|(node, _)| match node {
                Node::Const(v) => Some(v),
                _ => None,
            });
            return Ok(Node::Const(Val::list(values.collect())));
        }
        Ok(Node::List(planned))
    }

    fn boxed_pair(&mut self, args: &[Expr]) -> Result<[Box<Node>; 2], EvalError> {
        match args {
            [a, b] => Ok([Box::new(self.plan(a)?), Box::new(self.plan(b)?)]),
            _ => Err(EvalError::no_overload()),
        }
    }

    fn call(
        &mut self,
        e: &Expr,
        function: &str,
        target: Option<&Expr>,
        args: &[Expr],
    ) -> Result<Node, EvalError> {
        match (function, args) {
            ("_&&_", _) => return Ok(Node::Logic { stop: false, terms: self.boxed_pair(args)? }),
            ("_||_", _) => return Ok(Node::Logic { stop: true, terms: self.boxed_pair(args)? }),
            ("_==_", _) => return Ok(Node::Equal { negate: false, terms: self.boxed_pair(args)? }),
            ("_!=_", _) => return Ok(Node::Equal { negate: true, terms: self.boxed_pair(args)? }),
            ("@not_strictly_false", [term]) => return Ok(Node::NotFalse(Box::new(self.plan(term)?))),
            ("_?_:_", [condition, yes, no]) => {
                let parts = [self.plan(condition)?, self.plan(yes)?, self.plan(no)?];
                return Ok(attribute(Root::Conditional(parts)));
            }
            ("_[_]", [operand, index]) => return self.index(operand, index, false),
            ("_[?_]" | "_?._", [operand, index]) => return self.index(operand, index, true),
            _ => {}
        }
        let overloads = self.checked.overloads(e);
        let overload = if let [one] = overloads { one } else { "" };
        let mut planned = Vec::with_capacity(args.len() + 1);
        for arg in target.into_iter().chain(args) {
            planned.push(self.plan(arg)?);
        }
        if matches!(
            (function, overload),
            ("or", "" | "optional_or_optional") | ("orValue", "" | "optional_orValue_value")
        ) && planned.len() == 2
        {
            let [a, b]: [Node; 2] = planned.try_into().map_err(|_| EvalError::no_overload())?;
            return Ok(Node::Or { value: function == "orValue", terms: [Box::new(a), Box::new(b)] });
        }
        if overload == "in_list"
            && let Some(node) = one_of(&mut planned)
        {
            return Ok(node);
        }
        let found =
            builtin(function).ok_or_else(|| EvalError::new(format!("no such overload: {function}")))?;
        let invocation = Invocation {
            name: function.into(),
            overload,
            function: found,
            rule: rule(function, overload),
            args: planned,
            pattern: None,
        };
        finish(invocation)
    }

    fn index(&mut self, operand: &Expr, index: &Expr, optional: bool) -> Result<Node, EvalError> {
        let mut attribute = as_attribute(self.plan(operand)?);
        let key = match self.plan(index)? {
            Node::Const(v) => QualifierKey::Const(v),
            node => QualifierKey::Dynamic(node),
        };
        attribute.qualifiers.push(Qualifier { key, optional, test: false });
        Ok(Node::Attribute(attribute))
    }

    fn fold(&mut self, fold: &Comprehension) -> Result<Node, EvalError> {
        let init = self.plan(&fold.init)?;
        let range = self.plan(&fold.range)?;
        let slot = self.scope.len();
        self.scope.push(fold.accu.clone());
        self.scope.push(fold.var.clone());
        self.scope.extend(fold.var2.clone());
        self.deepest = self.deepest.max(self.scope.len());
        let condition = self.plan(&fold.condition)?;
        let step = in_place(self.plan(&fold.step)?, slot, &init);
        self.scope.truncate(slot + 1);
        // The variables have no value any more, but their slots stay taken.
        let result = self.plan(&fold.result)?;
        self.scope.truncate(slot);
        let two = fold.var2.is_some();
        Ok(Node::Fold(Box::new(Fold { range, init, condition, step, result, slot, two })))
    }
}

/// A map of constants is a constant.
fn fold_map(planned: Vec<(Node, Node, bool)>) -> Result<Node, EvalError> {
    let constant = |(key, value, optional): &(Node, Node, bool)| {
        matches!(key, Node::Const(_)) && matches!(value, Node::Const(_)) && !optional
    };
    if !planned.iter().all(constant) {
        return Ok(Node::Map(planned));
    }
    let mut entries = Entries::default();
    for (key, value, _) in planned {
        if let (Node::Const(key), Node::Const(value)) = (key, value) {
            entries.replace(key, value)?;
        }
    }
    Ok(Node::Const(Val::Map(Map::new(entries))))
}

/// Membership in a constant list of simple values.
fn one_of(args: &mut Vec<Node>) -> Option<Node> {
    let [_, Node::Const(Val::List(list))] = args.as_slice() else { return None };
    if list.len() == 0 {
        return Some(Node::Const(Val::Bool(false)));
    }
    let mut keys = HashSet::new();
    for item in list.iter() {
        keys.insert(Key::of(&item.ok()?)?);
    }
    args.pop();
    Some(Node::OneOf(Box::new(args.pop()?), keys))
}

/// Folds conversions of constants and compiles constant patterns.
fn finish(mut call: Invocation) -> Result<Node, EvalError> {
    if let ([Node::Const(v)], true) = (call.args.as_slice(), CONVERSIONS.contains(&&*call.name)) {
        let mut patterns = Patterns::default();
        let folded: Outcome<'static> = (call.function)(
            &mut Call { overload: call.overload, patterns: &mut patterns },
            std::slice::from_ref(v),
        );
        return folded.map(Node::Const);
    }
    if let ("matches" | "find" | "findAll", Some(Node::Const(Val::String(pattern)))) =
        (&*call.name, call.args.get(1))
    {
        let compiled = crate::library::regex::compile(pattern);
        call.pattern = Some(Arc::new(compiled.map_err(EvalError::new)?));
    }
    Ok(Node::Call(Box::new(call)))
}

/// Lists and maps that a fold builds up are added to in place.
fn in_place(step: Node, slot: usize, init: &Node) -> Node {
    let is_accumulator = |node: &Node| matches!(node, Node::Attribute(a) if a.qualifiers.is_empty() && matches!(a.root, Root::Local(s) if s == slot));
    match (step, init) {
        (Node::Call(mut call), Node::Const(Val::List(empty)))
            if empty.len() == 0 && &*call.name == "_+_" && call.args.first().is_some_and(is_accumulator) =>
        {
            match call.args.pop() {
                Some(items) => Node::Append { slot, items: Box::new(items) },
                None => Node::Call(call),
            }
        }
        (Node::Call(mut call), Node::Const(Val::Map(_)))
            if &*call.name == "cel.@mapInsert" && call.args.first().is_some_and(is_accumulator) =>
        {
            Node::Insert { slot, entry: call.args.split_off(1) }
        }
        (Node::Attribute(attribute), init) => match *attribute {
            Attribute { root: Root::Conditional([condition, yes, no]), qualifiers, test } => {
                let yes = in_place(yes, slot, init);
                let root = Root::Conditional([condition, yes, no]);
                Node::Attribute(Box::new(Attribute { root, qualifiers, test }))
            }
            other => Node::Attribute(Box::new(other)),
        },
        (step, _) => step,
    }
}
