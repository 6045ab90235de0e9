//! Evaluation, with the cost counted as it goes.

use std::sync::Arc;
use std::time::Instant;

use crate::checker::Checked;
use crate::cost::{LIST, MAP, STRUCT};
use crate::library::call::{Call, Patterns};
use crate::plan::{Invocation, Node, plan};
use crate::value::compare::equal;
use crate::value::map::Entries;
use crate::value::{EvalError, Map, Outcome, Val};

mod attribute;
mod fold;

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
            tables: attribute::Tables::default(),
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
    tables: attribute::Tables<'a>,
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
        let result = match (&call.pattern, values.as_slice()) {
            (None, [key, Val::Map(map @ Map::Data(..))]) if &*call.name == "@in" => {
                self.tables.find(map, key).map(|found| Val::Bool(found.is_some()))
            }
            (Some(pattern), _) => crate::library::regex::with_pattern(&call.name, pattern, &values),
            (None, _) => {
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
