//! Evaluation, with the cost counted as it goes.

use std::sync::Arc;
use std::time::Instant;

use crate::checker::Checked;
use crate::cost::{LIST, MAP, STRUCT};
use crate::library::call::{Call, Patterns, items as list_items, list_fits};
use crate::plan::{Attribute, Fold, Invocation, Node, Qualifier, QualifierKey, Root, plan};
use crate::value::compare::equal;
use crate::value::map::Entries;
use crate::value::{EvalError, Map, Outcome, Val};

/// The cost that one evaluation may have, in Kubernetes.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// How many steps of folds are between two looks at the clock.
const CLOCK: u32 = 100;

/// The values of the variables.
pub trait Activation<'a> {
    /// The value of the variable `name`.
    fn variable(&self, name: &str) -> Option<Outcome<'a>>;

    /// The value of the field `field` of the variable `name`, for variables whose fields are computed when asked for. None
    /// when `name` is no such variable.
    fn computed_field(&self, name: &str, field: &str) -> Option<Outcome<'a>> {
        let _ = (name, field);
        None
    }
}

/// A few variables.
impl<'a, const N: usize> Activation<'a> for [(&str, Val<'a>); N] {
    fn variable(&self, name: &str) -> Option<Outcome<'a>> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| Ok(v.clone()))
    }
}

/// What an evaluation may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The cost.
    pub cost: u64,
    /// When it has to be over.
    pub deadline: Option<Instant>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cost: PER_CALL_LIMIT, deadline: None }
    }
}

/// An expression, ready to be evaluated any number of times.
#[derive(Debug)]
pub struct Program {
    node: Node,
    slots: usize,
}

impl Checked {
    /// Makes a program of the expression.
    ///
    /// # Errors
    /// A constant cannot be converted, or a constant pattern cannot be compiled.
    pub fn program(&self) -> Result<Program, EvalError> {
        let (node, slots) = plan(self)?;
        Ok(Program { node, slots })
    }
}

impl Program {
    /// Evaluates the expression; says also what that cost, be there a value or not.
    pub fn evaluate<'a>(&self, variables: &dyn Activation<'a>, limits: Limits) -> (Outcome<'a>, u64) {
        let mut evaluation = Evaluation {
            variables,
            slots: (0..self.slots).map(|_| Slot::Empty).collect(),
            cost: 0,
            limits,
            steps: 0,
            patterns: Patterns::default(),
        };
        let outcome = evaluation.eval(&self.node);
        (outcome, evaluation.cost)
    }
}

/// The value of a variable of a macro.
enum Slot<'p, 'a> {
    Empty,
    /// Evaluated when it is first asked for.
    Lazy(&'p Node),
    Value(Outcome<'a>),
}

struct Evaluation<'p, 'v, 'a> {
    variables: &'v dyn Activation<'a>,
    slots: Vec<Slot<'p, 'a>>,
    cost: u64,
    limits: Limits,
    steps: u32,
    patterns: Patterns,
}

impl<'p, 'a> Evaluation<'p, '_, 'a> {
    fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limits.cost {
            return Err(EvalError::Cancelled("operation cancelled: actual cost limit exceeded"));
        }
        Ok(())
    }

    fn eval(&mut self, node: &'p Node) -> Outcome<'a> {
        match node {
            Node::Const(v) => Ok(v.clone()),
            Node::Attribute(attribute) => self.attribute(attribute),
            Node::Call(call) => self.call(call),
            Node::Logic { stop, terms } => self.logic(*stop, terms),
            Node::NotFalse(term) => {
                let v = self.eval(term);
                if let Err(e) = &v
                    && e.is_cancelled()
                {
                    return v;
                }
                self.charge(1)?;
                Ok(Val::Bool(!matches!(v, Ok(Val::Bool(false)))))
            }
            Node::Equal { negate, terms } => self.equality(*negate, terms),
            Node::Or { value, terms } => self.or(*value, terms),
            Node::List(elements) => self.list(elements),
            Node::Map(entries) => self.map(entries),
            Node::Struct { name, fields } => self.object(name, fields),
            Node::Fold(fold) => self.fold(fold),
            Node::OneOf(value, keys) => {
                let v = self.eval(value)?;
                Ok(Val::Bool(crate::value::Key::of(&v).is_some_and(|k| keys.contains(&k))))
            }
            Node::Append { slot, items } => self.append(*slot, items),
            Node::Insert { slot, entry } => self.insert(*slot, entry),
        }
    }

    fn attribute(&mut self, attribute: &'p Attribute) -> Outcome<'a> {
        let v = self.resolve(attribute);
        if let Err(e) = &v
            && e.is_cancelled()
        {
            return v;
        }
        if !attribute.test && !matches!(attribute.root, Root::Conditional(_)) {
            self.charge(1)?;
        }
        match v? {
            Val::Optional(found) if attribute.test => Ok(Val::Bool(found.is_some())),
            v => Ok(v),
        }
    }

    /// The value of an attribute, without what evaluating it costs as a node of its own.
    fn resolve(&mut self, attribute: &'p Attribute) -> Outcome<'a> {
        let mut qualifiers = attribute.qualifiers.as_slice();
        let mut v = match &attribute.root {
            Root::Variable(name) => match self.computed(name, qualifiers) {
                Some(v) => {
                    qualifiers = &qualifiers[1..];
                    self.charge(1)?;
                    v?
                }
                None => self.variable(name)?,
            },
            Root::Local(slot) => self.local(*slot)?,
            Root::Node(node) => self.eval(node)?,
            Root::Conditional([condition, yes, no]) => {
                let branch = match self.eval(condition)? {
                    Val::Bool(true) => yes,
                    Val::Bool(false) => no,
                    _ => return Err(EvalError::no_overload()),
                };
                match branch {
                    Node::Attribute(attribute) if !attribute.test => self.resolve(attribute)?,
                    node => self.eval(node)?,
                }
            }
        };
        let mut optional = false;
        if let Val::Optional(inner) = &v
            && !qualifiers.is_empty()
        {
            match inner {
                None => return Ok(v),
                Some(inner) => {
                    optional = true;
                    v = inner.as_ref().clone();
                }
            }
        }
        for qualifier in qualifiers {
            optional |= qualifier.optional;
            match self.qualify(&v, qualifier, optional)? {
                Some(found) => v = found,
                None => return Ok(Val::Optional(None)),
            }
        }
        Ok(if optional { v.some() } else { v })
    }

    fn computed(&self, name: &str, qualifiers: &'p [Qualifier]) -> Option<Outcome<'a>> {
        match qualifiers.first() {
            Some(Qualifier { key: QualifierKey::Const(Val::String(field)), test: false, .. }) => {
                self.variables.computed_field(name, field)
            }
            _ => None,
        }
    }

    fn variable(&mut self, name: &str) -> Outcome<'a> {
        self.variables
            .variable(name)
            .unwrap_or_else(|| Err(EvalError::new(format!("no such attribute(s): {name}"))))
    }

    fn local(&mut self, slot: usize) -> Outcome<'a> {
        if let Slot::Lazy(node) = self.slots[slot] {
            let v = self.eval(node);
            self.slots[slot] = Slot::Value(v);
        }
        match &self.slots[slot] {
            Slot::Value(v) => v.clone(),
            _ => Err(EvalError::new("no such attribute(s): the variable of a macro")),
        }
    }

    /// One step down. None where what is optional is absent.
    fn qualify(
        &mut self,
        v: &Val<'a>,
        qualifier: &'p Qualifier,
        optional: bool,
    ) -> Result<Option<Val<'a>>, EvalError> {
        let dynamic;
        let key: &Val<'_> = match &qualifier.key {
            QualifierKey::Const(key) => key,
            QualifierKey::Dynamic(node) => {
                dynamic = self.key(node, optional)?;
                &dynamic
            }
        };
        let found = find(v, key);
        let seen = found.is_ok() || !optional || qualifier.test;
        self.charge(u64::from(seen))?;
        match found {
            Ok(_) if qualifier.test => Ok(Some(Val::Bool(true))),
            Ok(v) => Ok(Some(v)),
            Err(Missing::Key) if qualifier.test => Ok(Some(Val::Bool(false))),
            Err(Missing::Key) if optional => Ok(None),
            Err(Missing::Key) if matches!(v, Val::List(_)) => {
                Err(EvalError::new(format!("index out of bounds: {key}")))
            }
            Err(Missing::Key) => Err(EvalError::new(format!("no such key: {key}"))),
            Err(Missing::Other(e)) => Err(e),
        }
    }

    /// The value of what is between the brackets.
    fn key(&mut self, node: &'p Node, optional: bool) -> Outcome<'a> {
        let key = match node {
            Node::Attribute(attribute) if !attribute.test => self.resolve(attribute),
            node => self.eval(node),
        };
        match key {
            Ok(key @ (Val::String(_) | Val::Int(_) | Val::Uint(_) | Val::Bool(_) | Val::Double(_))) => {
                Ok(key)
            }
            Err(e) if e.is_cancelled() => Err(e),
            failed => {
                self.charge(u64::from(!optional))?;
                let key = failed?;
                Err(EvalError::new(format!("invalid qualifier type: {}", key.runtime_type().name())))
            }
        }
    }

    fn logic(&mut self, stop: bool, terms: &'p [Box<Node>; 2]) -> Outcome<'a> {
        let mut failure = None;
        for term in terms {
            match self.eval(term) {
                Ok(Val::Bool(b)) if b == stop => return Ok(Val::Bool(stop)),
                Ok(Val::Bool(_)) => {}
                Ok(_) => {
                    failure.get_or_insert_with(EvalError::no_overload);
                }
                Err(e) if e.is_cancelled() => return Err(e),
                Err(e) => {
                    failure.get_or_insert(e);
                }
            }
        }
        failure.map_or(Ok(Val::Bool(!stop)), Err)
    }

    /// Evaluates both terms even when the first one fails, as cel-go does.
    fn pair(&mut self, terms: &'p [Box<Node>; 2]) -> Result<[Outcome<'a>; 2], EvalError> {
        let a = self.eval(&terms[0]);
        if let Err(e) = &a
            && e.is_cancelled()
        {
            return Err(e.clone());
        }
        let b = self.eval(&terms[1]);
        match &b {
            Err(e) if e.is_cancelled() => Err(e.clone()),
            _ => Ok([a, b]),
        }
    }

    fn equality(&mut self, negate: bool, terms: &'p [Box<Node>; 2]) -> Outcome<'a> {
        let pair = self.pair(terms)?;
        let rule = crate::cost::rule("", if negate { "not_equals" } else { "equals" });
        self.charge(rule.cost(&pair, &Ok(Val::Null)))?;
        let [a, b] = pair;
        Ok(Val::Bool(equal(&a?, &b?) != negate))
    }

    fn or(&mut self, value: bool, terms: &'p [Box<Node>; 2]) -> Outcome<'a> {
        match self.eval(&terms[0])? {
            Val::Optional(None) => self.eval(&terms[1]),
            Val::Optional(Some(v)) if value => Ok(v.as_ref().clone()),
            other => Ok(other),
        }
    }

    fn call(&mut self, call: &'p Invocation) -> Outcome<'a> {
        let mut args: Vec<Outcome<'a>> = Vec::with_capacity(call.args.len());
        for node in &call.args {
            let v = self.eval(node);
            if let Err(e) = &v {
                let early = call.args.len() > 2 && args.len() + 1 < call.args.len();
                if e.is_cancelled() || early {
                    return v;
                }
            }
            args.push(v);
        }
        let result = match args.iter().find_map(|a| a.as_ref().err()) {
            Some(e) => Err(e.clone()),
            None => self.invoke(call, &mut args),
        };
        self.charge(call.rule.cost(&args, &result))?;
        result
    }

    fn invoke(&mut self, call: &Invocation, args: &mut Vec<Outcome<'a>>) -> Outcome<'a> {
        let values: Vec<Val<'a>> = std::mem::take(args).into_iter().flatten().collect();
        let result = match &call.pattern {
            Some(pattern) => crate::library::regex::with_pattern(&call.name, pattern, &values),
            None => {
                let mut context = Call { overload: call.overload, patterns: &mut self.patterns };
                (call.function)(&mut context, &values)
            }
        };
        let result = result.map_err(|e| match e {
            EvalError::Failed(message) if &*message == "no such overload" => complaint(&call.name, &values),
            other => other,
        });
        args.extend(values.into_iter().map(Ok));
        result
    }

    fn list(&mut self, elements: &'p [(Node, bool)]) -> Outcome<'a> {
        let mut items = Vec::with_capacity(elements.len());
        for (node, optional) in elements {
            let v = self.eval(node)?;
            match (optional, v) {
                (false, v) => items.push(v),
                (true, Val::Optional(None)) => {}
                (true, Val::Optional(Some(v))) => items.push(v.as_ref().clone()),
                (true, v) => {
                    return Err(EvalError::new(format!(
                        "cannot initialize optional list element from non-optional value {v}"
                    )));
                }
            }
        }
        self.charge(LIST)?;
        Ok(Val::list(items))
    }

    fn optional_entry(name: &dyn std::fmt::Display, v: Val<'a>) -> Result<Option<Val<'a>>, EvalError> {
        match v {
            Val::Optional(inner) => Ok(inner.map(|v| v.as_ref().clone())),
            v => Err(EvalError::new(format!(
                "cannot initialize optional entry '{name}' from non-optional value {v}"
            ))),
        }
    }

    fn map(&mut self, nodes: &'p [(Node, Node, bool)]) -> Outcome<'a> {
        let mut entries = Entries::default();
        for (key, value, optional) in nodes {
            let key = self.eval(key)?;
            let mut value = self.eval(value)?;
            if *optional {
                match Self::optional_entry(&key, value)? {
                    Some(v) => value = v,
                    None => continue,
                }
            }
            entries.replace(key, value)?;
        }
        self.charge(MAP)?;
        Ok(Val::Map(Map::new(entries)))
    }

    fn object(&mut self, name: &Arc<str>, fields: &'p [(Arc<str>, Node, bool)]) -> Outcome<'a> {
        let mut entries = Entries::default();
        for (field, value, optional) in fields {
            let mut value = self.eval(value)?;
            if *optional {
                match Self::optional_entry(field, value)? {
                    Some(v) => value = v,
                    None => continue,
                }
            }
            entries.replace(Val::string(field.clone()), value)?;
        }
        self.charge(STRUCT)?;
        Ok(Val::Struct(Arc::new((name.clone(), Map::new(entries)))))
    }

    fn fold(&mut self, fold: &'p Fold) -> Outcome<'a> {
        let range = self.eval(&fold.range)?;
        let saved: Vec<Slot<'p, 'a>> = (fold.slot..fold.slot + 2 + usize::from(fold.two))
            .map(|slot| std::mem::replace(&mut self.slots[slot], Slot::Empty))
            .collect();
        self.slots[fold.slot] = Slot::Lazy(&fold.init);
        let outcome = self.iterate(fold, &range).and_then(|()| self.eval(&fold.result));
        for (n, slot) in saved.into_iter().enumerate() {
            self.slots[fold.slot + n] = slot;
        }
        outcome
    }

    fn iterate(&mut self, fold: &'p Fold, range: &Val<'a>) -> Result<(), EvalError> {
        match range {
            Val::List(list) if fold.two => {
                for (n, item) in list.iter().enumerate() {
                    self.slots[fold.slot + 1] = Slot::Value(Ok(Val::Int(n as i64)));
                    self.slots[fold.slot + 2] = Slot::Value(item);
                    if !self.step(fold)? {
                        break;
                    }
                }
            }
            Val::List(list) => {
                for item in list.iter() {
                    self.slots[fold.slot + 1] = Slot::Value(item);
                    if !self.step(fold)? {
                        break;
                    }
                }
            }
            Val::Map(map) if fold.two => {
                for (key, value) in map.iter() {
                    self.slots[fold.slot + 1] = Slot::Value(Ok(key));
                    self.slots[fold.slot + 2] = Slot::Value(value);
                    if !self.step(fold)? {
                        break;
                    }
                }
            }
            Val::Map(map) => {
                for key in map.keys() {
                    self.slots[fold.slot + 1] = Slot::Value(Ok(key));
                    if !self.step(fold)? {
                        break;
                    }
                }
            }
            other => {
                let name = other.runtime_type();
                return Err(EvalError::new(format!("got '{}', expected iterable type", name.name())));
            }
        }
        Ok(())
    }

    /// One turn of a fold; false when the condition ends it.
    fn step(&mut self, fold: &'p Fold) -> Result<bool, EvalError> {
        self.steps += 1;
        if self.steps.is_multiple_of(CLOCK)
            && self.limits.deadline.is_some_and(|deadline| Instant::now() > deadline)
        {
            return Err(EvalError::Cancelled("operation interrupted"));
        }
        match self.eval(&fold.condition) {
            Ok(Val::Bool(false)) => return Ok(false),
            Err(e) if e.is_cancelled() => return Err(e),
            _ => {}
        }
        let v = self.eval(&fold.step);
        if let Err(e) = &v
            && e.is_cancelled()
        {
            return Err(e.clone());
        }
        self.slots[fold.slot] = Slot::Value(v);
        Ok(true)
    }

    /// Takes the accumulator out of its slot, to be changed in place.
    fn take(&mut self, slot: usize) -> Outcome<'a> {
        if matches!(self.slots[slot], Slot::Lazy(_)) {
            let _ = self.local(slot);
        }
        match std::mem::replace(&mut self.slots[slot], Slot::Empty) {
            Slot::Value(v) => v,
            _ => Err(EvalError::no_overload()),
        }
    }

    fn append(&mut self, slot: usize, items: &'p Node) -> Outcome<'a> {
        self.charge(1)?;
        let items = self.eval(items);
        if let Err(e) = &items
            && e.is_cancelled()
        {
            return items;
        }
        let accumulated = self.take(slot);
        self.charge(1)?;
        match (accumulated?, items?) {
            (Val::List(list), Val::List(items)) => {
                list_fits(list.len().saturating_add(items.len()))?;
                Ok(Val::List(list.extended(list_items(&items)?)))
            }
            _ => Err(EvalError::no_overload()),
        }
    }

    fn insert(&mut self, slot: usize, entry: &'p [Node]) -> Outcome<'a> {
        self.charge(1)?;
        let mut parts = Vec::with_capacity(2);
        for node in entry {
            parts.push(self.eval(node)?);
        }
        self.charge(1)?;
        let Val::Map(map) = self.take(slot)? else { return Err(EvalError::no_overload()) };
        let mut entries = map.into_entries()?;
        let mut put = |key: Val<'a>, value: Val<'a>| {
            let shown = key.to_string();
            match entries.insert(key, value)? {
                true => Ok(()),
                false => Err(EvalError::new(format!("insert failed: key {shown} already exists"))),
            }
        };
        match parts.as_slice() {
            [key, value] => put(key.clone(), value.clone())?,
            [Val::Map(more)] => {
                for (key, value) in more.iter() {
                    put(key, value?)?;
                }
            }
            _ => return Err(EvalError::no_overload()),
        }
        Ok(Val::Map(Map::new(entries)))
    }
}

/// Why a step down leads nowhere.
enum Missing {
    Key,
    Other(EvalError),
}

/// What is under `key`, or at it.
fn find<'a>(v: &Val<'a>, key: &Val<'_>) -> Result<Val<'a>, Missing> {
    match v {
        Val::Map(map) => map.find(key).map_err(Missing::Other)?.ok_or(Missing::Key),
        Val::Struct(object) => object.1.find(key).map_err(Missing::Other)?.ok_or(Missing::Key),
        Val::List(list) => {
            let at = match key {
                Val::Int(n) => usize::try_from(*n).ok(),
                Val::Uint(n) => usize::try_from(*n).ok(),
                Val::Double(d) if d.fract() == 0.0 && *d >= 0.0 => Some(*d as usize),
                Val::Double(d) if d.fract() == 0.0 => None,
                other => {
                    let name = other.runtime_type();
                    let message = format!("unsupported index type '{}' in list", name.name());
                    return Err(Missing::Other(EvalError::new(message)));
                }
            };
            match at.and_then(|at| list.get(at)) {
                Some(item) => item.map_err(Missing::Other),
                None => Err(Missing::Key),
            }
        }
        _ => Err(Missing::Key),
    }
}

/// The message about a function that is not for values of these types; operators say less.
fn complaint(name: &str, values: &[Val<'_>]) -> EvalError {
    if name.starts_with(['_', '!', '-', '@']) {
        return EvalError::no_overload();
    }
    let types: Vec<String> = values.iter().map(|v| v.runtime_type().name().to_owned()).collect();
    EvalError::new(format!("no such overload: {name}({})", types.join(", ")))
}

#[cfg(test)]
mod tests;
