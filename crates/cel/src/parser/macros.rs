//! Macros: calls that are rewritten into folds before anything is checked.
//!
//! Sources: <https://github.com/google/cel-spec/blob/master/doc/langdef.md#macros>, and cel-go's extensions for optional
//! values, for two variables, for lists and for bindings.

use super::{Parser, Stop};
use crate::ast::{ACCUMULATOR, Comprehension, Expr, Kind, Literal, MapEntry, StructField};

/// The arguments of a macro are not what it needs: a node and a message about it.
struct Wrong(u32, String);

/// The variable of a fold that does not iterate.
const UNUSED: &str = "#unused";
/// What `sortBy` binds its list to.
const SORT_INPUT: &str = "@__sortBy_input__";

#[derive(Clone, Copy, PartialEq)]
enum Quantifier {
    All,
    Exists,
    ExistsOne,
}

/// Makes nodes at the place of the macro's call.
struct Maker<'p, 'c> {
    parser: &'p mut Parser<'c>,
    place: u32,
}

impl Parser<'_> {
    /// The call, or what the macro of this name and number of arguments makes of it.
    pub(super) fn call_or_macro(
        &mut self,
        id: u32,
        function: &str,
        target: Option<Expr>,
        mut args: Vec<Expr>,
    ) -> Result<Expr, Stop> {
        let place = self.places[id as usize];
        let syntax = self.syntax;
        let mut make = Maker { parser: self, place };
        let Some(target) = target else {
            if function == "has" && args.len() == 1 {
                let expanded = make.has(args.remove(0));
                return self.expanded(expanded);
            }
            return self.call(id, function, None, args);
        };
        let expanded = match (function, args.len()) {
            ("all", 2) => make.quantifier(Quantifier::All, target, args),
            ("exists", 2) => make.quantifier(Quantifier::Exists, target, args),
            ("exists_one" | "existsOne", 2) => make.quantifier(Quantifier::ExistsOne, target, args),
            ("all", 3) if syntax.two_variables => make.quantifier(Quantifier::All, target, args),
            ("exists", 3) if syntax.two_variables => make.quantifier(Quantifier::Exists, target, args),
            ("exists_one" | "existsOne", 3) if syntax.two_variables => {
                make.quantifier(Quantifier::ExistsOne, target, args)
            }
            ("map", 2 | 3) => make.map(target, args),
            ("filter", 2) => make.filter(target, args),
            ("transformList" | "transformMap" | "transformMapEntry", 3 | 4) if syntax.two_variables => {
                make.transform(function, target, args)
            }
            ("optMap" | "optFlatMap", 2) if syntax.optional => make.opt_map(function, target, args),
            ("sortBy", 2) if syntax.sort_by => make.sort_by(target, args),
            ("bind", 3) if syntax.bind && target.as_ident() == Some("cel") => make.bind(args),
            _ => return self.call(id, function, Some(target), args),
        };
        self.expanded(expanded)
    }

    fn expanded(&mut self, expanded: Result<Expr, Wrong>) -> Result<Expr, Stop> {
        let mut expr =
            expanded.unwrap_or_else(|Wrong(id, message)| self.error(self.places[id as usize], message));
        expr.depth = self.deepen(expr.depth)?;
        Ok(expr)
    }
}

/// Takes the arguments apart, which are as many as the caller has matched.
fn arguments<const N: usize>(args: Vec<Expr>) -> [Expr; N] {
    args.try_into().unwrap_or_else(|_| unreachable!("the number of arguments has been matched"))
}

fn variable(arg: &Expr, message: &str) -> Result<String, Wrong> {
    let name = arg.as_ident().ok_or_else(|| Wrong(arg.id, message.to_owned()))?;
    if name == ACCUMULATOR || name == "__result__" {
        return Err(Wrong(arg.id, "iteration variable overwrites accumulator variable".to_owned()));
    }
    Ok(name.to_owned())
}

/// One or two variables at the beginning of `args`, of which the last `rest` are something else.
fn variables(args: &mut Vec<Expr>, rest: usize) -> Result<(String, Option<String>), Wrong> {
    const MESSAGE: &str = "argument must be a simple name";
    let rest = args.split_off(args.len() - rest);
    let taken = std::mem::replace(args, rest);
    let first = &taken[0];
    let Some(second) = taken.get(1) else { return Ok((variable(first, MESSAGE)?, None)) };
    if let (Some(a), Some(b)) = (first.as_ident(), second.as_ident())
        && a == b
    {
        return Err(Wrong(second.id, format!("duplicate variable name: {a}")));
    }
    Ok((variable(first, MESSAGE)?, Some(variable(second, MESSAGE)?)))
}

impl Maker<'_, '_> {
    fn node(&mut self, depth: u16, kind: Kind) -> Expr {
        self.parser.node(self.place, depth, kind)
    }

    fn ident(&mut self, name: &str) -> Expr {
        self.node(0, Kind::Ident(name.to_owned()))
    }

    fn accumulator(&mut self) -> Expr {
        self.ident(ACCUMULATOR)
    }

    fn literal(&mut self, literal: Literal) -> Expr {
        self.parser.literal(self.place, literal)
    }

    fn truth(&mut self, value: bool) -> Expr {
        self.literal(Literal::Bool(value))
    }

    fn list(&mut self, elements: Vec<Expr>) -> Expr {
        let depth = elements.iter().map(|e| e.depth).max().unwrap_or(0);
        self.node(depth, Kind::List(elements.into_iter().map(|e| (e, false)).collect()))
    }

    /// A call that adds nothing to the depth, as the user has not written it.
    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        let depth = args.iter().map(|e| e.depth).max().unwrap_or(0);
        self.node(depth, Kind::Call { function: function.to_owned(), target: None, args })
    }

    fn member_call(&mut self, function: &str, target: Expr, args: Vec<Expr>) -> Expr {
        let depth = args.iter().map(|e| e.depth).max().unwrap_or(0).max(target.depth);
        self.node(depth, Kind::Call { function: function.to_owned(), target: Some(Box::new(target)), args })
    }

    fn fold(&mut self, fold: Comprehension) -> Expr {
        let parts = [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result];
        let depth = parts.iter().map(|e| e.depth).max().unwrap_or(0);
        self.node(depth, Kind::Comprehension(Box::new(fold)))
    }

    /// A copy with numbers of its own.
    fn copy(&mut self, expr: &Expr) -> Expr {
        let mut copy = expr.clone();
        self.renumber(&mut copy);
        copy
    }

    fn renumber(&mut self, expr: &mut Expr) {
        expr.id = self.parser.id(self.parser.places[expr.id as usize]);
        match &mut expr.kind {
            Kind::Literal(_) | Kind::Ident(_) | Kind::Error => {}
            Kind::Select { operand, .. } => self.renumber(operand),
            Kind::Call { target, args, .. } => {
                target.iter_mut().for_each(|t| self.renumber(t));
                args.iter_mut().for_each(|a| self.renumber(a));
            }
            Kind::List(elements) => elements.iter_mut().for_each(|(e, _)| self.renumber(e)),
            Kind::Map(entries) => entries.iter_mut().for_each(|MapEntry { key, value, .. }| {
                self.renumber(key);
                self.renumber(value);
            }),
            Kind::Struct { fields, .. } => fields.iter_mut().for_each(|StructField { id, value, .. }| {
                *id = self.parser.id(self.parser.places[*id as usize]);
                self.renumber(value);
            }),
            Kind::Comprehension(c) => {
                for e in [&mut c.range, &mut c.init, &mut c.condition, &mut c.step, &mut c.result] {
                    self.renumber(e);
                }
            }
        }
    }

    fn has(&mut self, arg: Expr) -> Result<Expr, Wrong> {
        match arg.kind {
            Kind::Select { operand, field, .. } => {
                Ok(self.node(arg.depth, Kind::Select { operand, field, test: true }))
            }
            _ => Err(Wrong(arg.id, "invalid argument to has() macro".to_owned())),
        }
    }

    fn quantifier(&mut self, which: Quantifier, range: Expr, mut args: Vec<Expr>) -> Result<Expr, Wrong> {
        let (var, var2) = variables(&mut args, 1)?;
        let [predicate] = arguments(args);
        let accu = self.accumulator();
        let (init, condition, step) = match which {
            Quantifier::All => {
                let condition = self.call("@not_strictly_false", vec![accu]);
                let accu = self.accumulator();
                (self.truth(true), condition, self.call("_&&_", vec![accu, predicate]))
            }
            Quantifier::Exists => {
                let negated = self.call("!_", vec![accu]);
                let condition = self.call("@not_strictly_false", vec![negated]);
                let accu = self.accumulator();
                (self.truth(false), condition, self.call("_||_", vec![accu, predicate]))
            }
            Quantifier::ExistsOne => {
                let one = self.literal(Literal::Int(1));
                let more = self.call("_+_", vec![accu, one]);
                let same = self.accumulator();
                let step = self.call("_?_:_", vec![predicate, more, same]);
                (self.literal(Literal::Int(0)), self.truth(true), step)
            }
        };
        let mut result = self.accumulator();
        if which == Quantifier::ExistsOne {
            let one = self.literal(Literal::Int(1));
            result = self.call("_==_", vec![result, one]);
        }
        Ok(self.fold(Comprehension {
            range,
            var,
            var2,
            accu: ACCUMULATOR.into(),
            init,
            condition,
            step,
            result,
        }))
    }

    /// A fold that builds a list or a map: `step`, where `filter` holds.
    fn build(
        &mut self,
        range: Expr,
        (var, var2): (String, Option<String>),
        init: Expr,
        filter: Option<Expr>,
        step: Expr,
    ) -> Expr {
        let step = match filter {
            Some(filter) => {
                let same = self.accumulator();
                self.call("_?_:_", vec![filter, step, same])
            }
            None => step,
        };
        let (condition, result) = (self.truth(true), self.accumulator());
        self.fold(Comprehension { range, var, var2, accu: ACCUMULATOR.into(), init, condition, step, result })
    }

    fn append(&mut self, element: Expr) -> Expr {
        let (accu, list) = (self.accumulator(), self.list(vec![element]));
        self.call("_+_", vec![accu, list])
    }

    fn map(&mut self, range: Expr, mut args: Vec<Expr>) -> Result<Expr, Wrong> {
        let var = variable(&args[0], "argument is not an identifier")?;
        let filter = (args.len() == 3).then(|| args.remove(1));
        let step = self.append(args.remove(1));
        let init = self.list(vec![]);
        Ok(self.build(range, (var, None), init, filter, step))
    }

    fn filter(&mut self, range: Expr, args: Vec<Expr>) -> Result<Expr, Wrong> {
        let [element, predicate] = arguments(args);
        let var = variable(&element, "argument is not an identifier")?;
        let step = self.append(element);
        let init = self.list(vec![]);
        Ok(self.build(range, (var, None), init, Some(predicate), step))
    }

    fn transform(&mut self, function: &str, range: Expr, mut args: Vec<Expr>) -> Result<Expr, Wrong> {
        let rest = args.len() - 2;
        let vars = variables(&mut args, rest)?;
        let filter = (args.len() == 2).then(|| args.remove(0));
        let [element] = arguments(args);
        if function == "transformList" {
            let (step, init) = (self.append(element), self.list(vec![]));
            return Ok(self.build(range, vars, init, filter, step));
        }
        let mut insert = vec![self.accumulator()];
        if function == "transformMap" {
            insert.push(self.ident(&vars.0));
        }
        insert.push(element);
        let step = self.call("cel.@mapInsert", insert);
        let init = self.node(0, Kind::Map(vec![]));
        Ok(self.build(range, vars, init, filter, step))
    }

    /// A fold over nothing whose accumulator is a name for `value` in `result`.
    fn binding(&mut self, name: String, value: Expr, result: Expr) -> Expr {
        let (range, condition, step) = (self.list(vec![]), self.truth(false), self.ident(&name));
        let var = UNUSED.to_owned();
        self.fold(Comprehension { range, var, var2: None, accu: name, init: value, condition, step, result })
    }

    fn bind(&mut self, args: Vec<Expr>) -> Result<Expr, Wrong> {
        let [name, value, result] = arguments(args);
        match name.as_ident() {
            Some(ident) => Ok(self.binding(ident.to_owned(), value, result)),
            None => Err(Wrong(name.id, "cel.bind() variable names must be simple identifiers".to_owned())),
        }
    }

    fn opt_map(&mut self, function: &str, target: Expr, args: Vec<Expr>) -> Result<Expr, Wrong> {
        let [name, mapped] = arguments(args);
        let Some(ident) = name.as_ident().map(str::to_owned) else {
            return Err(Wrong(name.id, format!("{function}() variable name must be a simple identifier")));
        };
        let same = self.copy(&target);
        let value = self.member_call("value", same, vec![]);
        let mut bound = self.binding(ident, value, mapped);
        if function == "optMap" {
            bound = self.call("optional.of", vec![bound]);
        }
        let has_value = self.member_call("hasValue", target, vec![]);
        let none = self.call("optional.none", vec![]);
        Ok(self.call("_?_:_", vec![has_value, bound, none]))
    }

    fn sort_by(&mut self, target: Expr, args: Vec<Expr>) -> Result<Expr, Wrong> {
        if !matches!(
            target.kind,
            Kind::List(_) | Kind::Select { .. } | Kind::Ident(_) | Kind::Comprehension(_) | Kind::Call { .. }
        ) {
            let message =
                "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return Err(Wrong(target.id, message.to_owned()));
        }
        let input = self.ident(SORT_INPUT);
        let keys = self.map(input, args)?;
        let list = self.ident(SORT_INPUT);
        let sorted = self.member_call("@sortByAssociatedKeys", list, vec![keys]);
        Ok(self.binding(SORT_INPUT.to_owned(), target, sorted))
    }
}
