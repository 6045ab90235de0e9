//! What an expression may cost, estimated before it runs from the sizes that its data may have.
//!
//! It follows cel-go's estimator and Kubernetes' functions, to the number: whether a rule of a custom resource is accepted
//! depends on it.

use std::collections::HashMap;

use super::{LIST, MAP, STRUCT};
use crate::ast::{Comprehension, Expr, Kind, Literal};
use crate::checker::Checked;
use crate::types::Type;

mod functions;
mod range;

pub use range::Range;

/// What is known about the sizes of data.
pub trait Sizes {
    /// The size of what is found along `path`: a variable, then fields, `@items`, `@values`, `@keys` or `@indices`.
    fn size(&self, path: &[String]) -> Option<Range>;
}

const ONE: Range = Range { min: 1, max: 1 };
const ZERO: Range = Range { min: 0, max: 0 };

/// The sizes of what a list or a map contains.
#[derive(Clone, Copy, Debug)]
struct Entry {
    list: bool,
    key: Range,
    value: Range,
}

impl Entry {
    fn union(self, other: Entry) -> Entry {
        Entry { list: self.list, key: self.key.union(other.key), value: self.value.union(other.value) }
    }
}

type Path = Vec<String>;

/// A variable of a macro.
#[derive(Clone, Debug)]
struct Local {
    path: Path,
    size: Option<Range>,
    entry: Option<Entry>,
}

/// What functions may know of an argument.
struct Argument<'e> {
    path: Path,
    t: &'e Type,
    expr: &'e Expr,
    size: Option<Range>,
}

struct Estimator<'e> {
    checked: &'e Checked,
    sizes: &'e dyn Sizes,
    paths: HashMap<u32, Path>,
    locals: HashMap<String, Vec<Local>>,
    known: HashMap<u32, Range>,
    entries: HashMap<u32, Entry>,
}

impl Checked {
    /// The least and the most that evaluating the expression costs, as far as `sizes` tell.
    pub fn estimate_cost(&self, sizes: &dyn Sizes) -> Range {
        let mut estimator = Estimator {
            checked: self,
            sizes,
            paths: HashMap::new(),
            locals: HashMap::new(),
            known: HashMap::new(),
            entries: HashMap::new(),
        };
        estimator.cost(&self.ast.root)
    }
}

fn deeper(mut path: Path, step: &str) -> Path {
    path.push(step.to_owned());
    path
}

impl<'e> Estimator<'e> {
    fn local(&self, e: &Expr) -> Option<&Local> {
        self.locals.get(e.as_ident()?)?.last()
    }

    fn path(&self, e: &Expr) -> Path {
        match self.local(e) {
            Some(local) => local.path.clone(),
            None => self.paths.get(&e.id).cloned().unwrap_or_default(),
        }
    }

    fn cost(&mut self, e: &'e Expr) -> Range {
        match &e.kind {
            Kind::Literal(_) | Kind::Error => ZERO,
            Kind::Ident(name) => {
                let path = self.local(e).map_or_else(|| vec![name.clone()], |local| local.path.clone());
                self.paths.insert(e.id, path);
                ONE
            }
            Kind::Select { operand, test: true, .. } => self.cost(operand),
            Kind::Select { operand, field, .. } => {
                let mut sum = self.cost(operand);
                if matches!(self.checked.type_of(operand), Type::Map(..) | Type::Struct(_) | Type::Var(_)) {
                    sum = sum.add(ONE);
                }
                let path = deeper(self.path(operand), field);
                self.paths.insert(e.id, path);
                sum
            }
            Kind::Call { function, target, args } => self.call(e, function, target.as_deref(), args),
            Kind::List(elements) => {
                let elements: Vec<&Expr> = elements.iter().map(|(e, _)| e).collect();
                let (sum, value) = self.all(&elements);
                self.entries.insert(e.id, Entry { list: true, key: ONE, value });
                sum.add(Range::fixed(LIST))
            }
            Kind::Map(entries) => {
                let keys: Vec<&Expr> = entries.iter().map(|e| &e.key).collect();
                let values: Vec<&Expr> = entries.iter().map(|e| &e.value).collect();
                let ((keys, key), (values, value)) = (self.all(&keys), self.all(&values));
                self.entries.insert(e.id, Entry { list: false, key, value });
                keys.add(values).add(Range::fixed(MAP))
            }
            Kind::Struct { fields, .. } => {
                fields.iter().fold(ZERO, |sum, f| sum.add(self.cost(&f.value))).add(Range::fixed(STRUCT))
            }
            Kind::Comprehension(fold) if is_binding(fold) => self.binding(e, fold),
            Kind::Comprehension(fold) => self.fold(e, fold),
        }
    }

    /// The costs of some expressions, and the sizes that any of them may have.
    fn all(&mut self, parts: &[&'e Expr]) -> (Range, Range) {
        if parts.is_empty() {
            return (ZERO, ZERO);
        }
        let mut sum = ZERO;
        let mut size = Range { min: u64::MAX, max: 0 };
        for part in parts {
            sum = sum.add(self.cost(part));
            size = size.union(self.size_or_unknown(part));
        }
        (sum, size)
    }

    fn size_or_unknown(&mut self, e: &Expr) -> Range {
        self.size(e).unwrap_or(Range::UNKNOWN)
    }

    fn size(&mut self, e: &Expr) -> Option<Range> {
        if let Some(size) = self.known.get(&e.id).copied().or_else(|| written_size(e)) {
            return Some(size);
        }
        let path = self.path(e);
        if !path.is_empty()
            && let Some(size) = self.sizes.size(&path)
        {
            self.known.insert(e.id, size);
            return Some(size);
        }
        if is_scalar(self.checked.type_of(e)) {
            return Some(ONE);
        }
        self.local(e).and_then(|local| local.size)
    }

    fn entry(&self, e: &Expr) -> Option<Entry> {
        self.entries.get(&e.id).copied().or_else(|| self.local(e)?.entry)
    }

    fn set_size(&mut self, e: &Expr, size: Option<Range>) {
        if let Some(size) = size {
            self.known.insert(e.id, size);
        }
    }

    fn set_entry(&mut self, e: &Expr, entry: Option<Entry>) {
        if let Some(entry) = entry {
            self.entries.insert(e.id, entry);
        }
    }

    fn copy_sizes(&mut self, to: &Expr, from: &Expr) {
        let (size, entry) = (self.size(from), self.entry(from));
        self.set_size(to, size);
        self.set_entry(to, entry);
    }

    fn push(&mut self, name: &str, local: Local) {
        self.locals.entry(name.to_owned()).or_default().push(local);
    }

    fn pop(&mut self, name: &str) {
        if let Some(stack) = self.locals.get_mut(name) {
            stack.pop();
        }
    }

    fn push_value(&mut self, name: &str, value: &Expr) {
        let local = Local { path: self.path(value), size: self.size(value), entry: self.entry(value) };
        self.push(name, local);
    }

    fn push_variables(&mut self, fold: &Comprehension) {
        let entry = self.entry(&fold.range);
        let list = entry.map_or(matches!(self.checked.type_of(&fold.range), Type::List(_)), |e| e.list);
        let path = self.path(&fold.range);
        let (keys, values) = if list { ("@indices", "@items") } else { ("@keys", "@values") };
        let variable = |step: &str, size| Local { path: deeper(path.clone(), step), size, entry: None };
        let key = variable(keys, entry.map(|e| e.key));
        let value = variable(values, entry.map(|e| e.value));
        match &fold.var2 {
            Some(second) => {
                self.push(&fold.var, key);
                self.push(second, value);
            }
            None => self.push(&fold.var, if list { value } else { key }),
        }
    }

    fn fold(&mut self, e: &Expr, fold: &'e Comprehension) -> Range {
        let mut sum = self.cost(&fold.range);
        sum = sum.add(self.cost(&fold.init));
        self.push_value(&fold.accu, &fold.init);
        self.push_variables(fold);
        let condition = self.cost(&fold.condition);
        let step = self.cost(&fold.step);
        self.pop(&fold.var);
        if let Some(second) = &fold.var2 {
            self.pop(second);
        }
        sum = sum.add(self.cost(&fold.result));
        self.pop(&fold.accu);
        let count = self.size_or_unknown(&fold.range);
        match &fold.init.kind {
            Kind::Literal(_) => {
                let size = self.size(&fold.init);
                self.set_size(e, size);
            }
            Kind::List(_) | Kind::Map(_) => {
                self.set_size(e, Some(count));
                let entry = self.entry(&fold.step);
                self.set_entry(e, entry);
            }
            _ => {}
        }
        sum.add(count.times(step.add(condition)))
    }

    fn binding(&mut self, e: &Expr, fold: &'e Comprehension) -> Range {
        let mut sum = self.cost(&fold.range);
        sum = sum.add(self.cost(&fold.init));
        self.push_value(&fold.accu, &fold.init);
        sum = sum.add(self.cost(&fold.result));
        self.pop(&fold.accu);
        self.copy_sizes(e, &fold.result);
        sum
    }

    fn argument(&mut self, e: &'e Expr) -> Argument<'e> {
        let mut path = self.path(e);
        if path.first().is_some_and(|name| matches!(name.as_str(), "@result" | "__result__")) {
            path.clear();
        }
        Argument { path, t: self.checked.type_of(e), expr: e, size: self.size(e) }
    }

    fn call(&mut self, e: &'e Expr, function: &str, target: Option<&'e Expr>, args: &'e [Expr]) -> Range {
        if let ("dyn", [arg]) = (function, args) {
            let cost = self.cost(arg);
            self.copy_sizes(e, arg);
            return cost.add(ONE);
        }
        let mut costs = Vec::with_capacity(args.len());
        let mut arguments = Vec::with_capacity(args.len());
        for arg in args {
            costs.push(self.cost(arg));
            arguments.push(self.argument(arg));
        }
        let checked = self.checked;
        let overloads = checked.overloads(e);
        if overloads.is_empty() {
            return ZERO;
        }
        let mut sum = ZERO;
        let target = target.map(|target| {
            sum = self.cost(target);
            self.argument(target)
        });
        let mut cost = Range { min: u64::MAX, max: 0 };
        let mut size: Option<Range> = None;
        for overload in overloads {
            let call = functions::Site {
                e,
                function,
                overload,
                target: target.as_ref(),
                args: &arguments,
                costs: &costs,
            };
            let (one, result) = self.function_cost(&call);
            cost = cost.union(one);
            if let Some(result) = result {
                size = Some(size.map_or(result, |size| size.union(result)));
            }
            if let ("index_list" | "index_map", [container, ..]) = (*overload, args) {
                size = self.entry(container).map(|entry| entry.value);
                let step = if *overload == "index_list" { "@items" } else { "@values" };
                let path = deeper(self.path(container), step);
                self.paths.insert(e.id, path);
            }
            if size.is_none() {
                size = self.size(e);
            }
        }
        self.set_size(e, size);
        sum.add(cost)
    }
}

fn is_binding(fold: &Comprehension) -> bool {
    matches!(&fold.range.kind, Kind::List(elements) if elements.is_empty())
        && matches!(fold.condition.kind, Kind::Literal(Literal::Bool(false)))
        && fold.accu != "__result__"
}

/// The size of what is written out.
fn written_size(e: &Expr) -> Option<Range> {
    let size = match &e.kind {
        Kind::Literal(Literal::String(s)) => s.chars().count(),
        Kind::Literal(Literal::Bytes(b)) => b.len(),
        Kind::Literal(_) => 1,
        Kind::List(elements) => elements.len(),
        Kind::Map(entries) => entries.len(),
        _ => return None,
    };
    Some(Range::fixed(size as u64))
}

fn is_scalar(t: &Type) -> bool {
    match t {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        _ => t.unwrap_optional().is_some_and(is_scalar),
    }
}

#[cfg(test)]
mod tests;
