//! Finds the type of every part of an expression and the overloads of its calls, or says what does not fit, in cel-go's words.

use crate::ast::{Ast, Comprehension, Expr, Kind, Literal, MapEntry, StructField};
use crate::env::Env;
use crate::library::{Function, Overload};
use crate::source::{Issues, Reporter};
use crate::types::{Type, Types};

mod unify;
mod validate;

use unify::{Unifier, instantiate, most_general};

/// What a name or a call turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reference {
    /// A variable of the environment or of a macro.
    Variable,
    /// The name of a type.
    TypeName(Type),
    /// A call, with the overloads that its arguments leave.
    Overloads(Vec<&'static str>),
}

/// An expression that is known to fit its declarations.
#[derive(Debug)]
pub struct Checked {
    pub(crate) ast: Ast,
    pub(crate) types: Vec<Type>,
    pub(crate) references: Vec<Option<Reference>>,
}

impl Checked {
    /// The type of the value.
    pub fn output_type(&self) -> &Type {
        &self.types[self.ast.root.id as usize]
    }

    /// True when the variable `name` occurs.
    pub fn uses(&self, name: &str) -> bool {
        let mut found = false;
        self.ast.root.walk(&mut |e| {
            found |= e.as_ident() == Some(name) && self.reference(e) == Some(&Reference::Variable);
        });
        found
    }

    pub(crate) fn type_of(&self, e: &Expr) -> &Type {
        self.types.get(e.id as usize).unwrap_or(&Type::Dyn)
    }

    pub(crate) fn reference(&self, e: &Expr) -> Option<&Reference> {
        self.references.get(e.id as usize).and_then(Option::as_ref)
    }

    /// The overloads that a call may turn out to be.
    pub(crate) fn overloads(&self, e: &Expr) -> &[&'static str] {
        match self.reference(e) {
            Some(Reference::Overloads(ids)) => ids,
            _ => &[],
        }
    }
}

struct Checker<'e> {
    env: &'e Env,
    /// The names that macros bind, innermost last.
    scope: Vec<(String, Type)>,
    unifier: Unifier,
    types: Vec<Type>,
    references: Vec<Option<Reference>>,
    places: Vec<u32>,
    report: Reporter,
}

/// Checks `ast`, which was parsed from `text`.
pub(crate) fn check(text: &str, mut ast: Ast, env: &Env) -> Result<Checked, Issues> {
    let nodes = ast.places.len();
    let mut checker = Checker {
        env,
        scope: Vec::new(),
        unifier: Unifier::default(),
        types: vec![Type::Error; nodes],
        references: vec![None; nodes],
        places: std::mem::take(&mut ast.places),
        report: Reporter::new(text),
    };
    checker.check(&mut ast.root);
    let Checker { unifier, types, references, places, mut report, .. } = checker;
    ast.places = places;
    let checked = Checked { ast, types: types.iter().map(|t| unifier.settle(t)).collect(), references };
    if report.is_empty() {
        validate::validate(&checked, &mut report);
    }
    report.finish()?;
    Ok(checked)
}

impl Checker<'_> {
    fn set(&mut self, e: &Expr, t: Type) {
        self.types[e.id as usize] = t;
    }

    fn get(&self, e: &Expr) -> Type {
        self.types[e.id as usize].clone()
    }

    fn error(&mut self, id: u32, message: String) {
        self.report.at(self.places[id as usize], message);
    }

    fn mismatch(&mut self, id: u32, wanted: &Type, got: &Type) {
        self.error(id, format!("expected type '{wanted}' but found '{got}'"));
    }

    fn undeclared(&mut self, e: &Expr, name: &str) {
        self.error(e.id, format!("undeclared reference to '{name}' (in container '')"));
        self.set(e, Type::Error);
    }

    fn check(&mut self, e: &mut Expr) {
        match &mut e.kind {
            Kind::Literal(literal) => {
                let t = match literal {
                    Literal::Null => Type::Null,
                    Literal::Bool(_) => Type::Bool,
                    Literal::Int(_) => Type::Int,
                    Literal::Uint(_) => Type::Uint,
                    Literal::Double(_) => Type::Double,
                    Literal::String(_) => Type::String,
                    Literal::Bytes(_) => Type::Bytes,
                };
                self.set(e, t);
            }
            Kind::Ident(name) => {
                let name = name.clone();
                if !self.resolve_name(e, &name) {
                    self.undeclared(e, &name);
                }
            }
            Kind::Select { .. } => self.check_select(e),
            Kind::Call { .. } => self.check_call(e),
            Kind::List(_) => self.check_list(e),
            Kind::Map(_) => self.check_map(e),
            Kind::Struct { .. } => self.check_struct(e),
            Kind::Comprehension(_) => self.check_fold(e),
            Kind::Error => {}
        }
    }

    /// Makes `e` the variable or type of this name, if there is one.
    fn resolve_name(&mut self, e: &mut Expr, name: &str) -> bool {
        let name = name.strip_prefix('.').unwrap_or(name);
        let local = self.scope.iter().rev().find(|(n, _)| n == name).map(|(_, t)| t.clone());
        let (t, reference) = if let Some(t) = local.or_else(|| self.env.variable_type(name).cloned()) {
            (t, Reference::Variable)
        } else if let Some(t) = self.env.type_named(name) {
            (Type::Type(Some(t.clone().into())), Reference::TypeName(t))
        } else {
            return false;
        };
        e.kind = Kind::Ident(name.to_owned());
        self.references[e.id as usize] = Some(reference);
        self.set(e, t);
        true
    }

    fn check_select(&mut self, e: &mut Expr) {
        if let Some(name) = e.qualified_name()
            && self.resolve_name(e, &name)
        {
            return;
        }
        let id = e.id;
        let Kind::Select { operand, field, test } = &mut e.kind else { return };
        let test = *test;
        let field = field.clone();
        let mut t = self.field_type(id, operand, &field, false);
        if test {
            t = Type::Bool;
        }
        let t = self.unifier.resolve(&t);
        self.set(e, t);
    }

    fn field_type(&mut self, id: u32, operand: &mut Expr, field: &str, optional: bool) -> Type {
        self.check(operand);
        let operand = self.unifier.resolve(&self.get(operand));
        let inner = operand.unwrap_optional();
        let wrapped = optional || inner.is_some();
        let t = match inner.unwrap_or(&operand) {
            Type::Map(_, value) => value.as_ref().clone(),
            Type::Struct(name) => self.declared_field(id, name, field),
            Type::Var(v) => {
                self.unifier.assignable(&Type::Dyn, &Type::Var(*v));
                Type::Dyn
            }
            target => {
                if !target.is_dyn_or_error() {
                    let message = format!("type '{target}' does not support field selection");
                    self.error(id, message);
                }
                Type::Dyn
            }
        };
        if wrapped { Type::optional(t) } else { t }
    }

    fn declared_field(&mut self, id: u32, object: &str, field: &str) -> Type {
        if !self.env.has_struct(object) {
            self.error(id, format!("unexpected failed resolution of '{object}'"));
            return Type::Error;
        }
        self.env.field(object, field).unwrap_or_else(|| {
            self.error(id, format!("undefined field '{field}'"));
            Type::Error
        })
    }

    fn check_call(&mut self, e: &mut Expr) {
        let id = e.id;
        let Kind::Call { function, target, args } = &mut e.kind else { return };
        if function == "_?._" && target.is_none() {
            return self.check_optional_select(e);
        }
        for arg in args.iter_mut() {
            self.check(arg);
        }
        if let Some(t) = target
            && let Some(prefix) = t.qualified_name()
        {
            let qualified = format!("{}.{function}", prefix.strip_prefix('.').unwrap_or(&prefix));
            if self.env.function(&qualified).is_some() {
                *function = qualified;
                *target = None;
            }
        }
        if target.is_none()
            && let Some(bare) = function.strip_prefix('.')
        {
            *function = bare.to_owned();
        }
        if let Some(t) = target {
            self.check(t);
        }
        let Some(found) = self.env.function(function) else {
            let name = function.clone();
            return self.undeclared(e, &name);
        };
        let member = target.is_some();
        let nodes: Vec<u32> = target.iter().map(|t| t.id).chain(args.iter().map(|a| a.id)).collect();
        let resolved = self.overload(id, found, member, &nodes);
        let (t, ids) = resolved.unwrap_or((Type::Error, Vec::new()));
        self.references[id as usize] = Some(Reference::Overloads(ids));
        self.types[id as usize] = t;
    }

    fn check_optional_select(&mut self, e: &mut Expr) {
        let id = e.id;
        let Kind::Call { args, .. } = &mut e.kind else { return };
        let [operand, field] = args.as_mut_slice() else { return };
        let Kind::Literal(Literal::String(name)) = &field.kind else { return };
        let name = name.clone();
        self.types[field.id as usize] = Type::String;
        let t = self.field_type(id, operand, &name, true);
        self.references[id as usize] = Some(Reference::Overloads(vec!["select_optional_field"]));
        self.types[id as usize] = self.unifier.resolve(&t);
    }

    /// The result and the overloads of a call of `function` with the arguments `nodes`.
    fn overload(
        &mut self,
        id: u32,
        function: &Function,
        member: bool,
        nodes: &[u32],
    ) -> Option<(Type, Vec<&'static str>)> {
        let types: Vec<Type> = nodes.iter().map(|n| self.types[*n as usize].clone()).collect();
        if matches!(function.name, "_&&_" | "_||_") {
            return self.logical(function, nodes, &types);
        }
        let mut ids = Vec::new();
        let mut result: Option<Type> = None;
        for overload in function.overloads.iter().filter(|o| o.member == member) {
            let Some(t) = self.try_overload(overload, &types) else { continue };
            ids.push(overload.id);
            result = Some(match result {
                None => t,
                Some(before) if before == Type::Dyn || before == t => before,
                Some(_) => Type::Dyn,
            });
        }
        if result.is_none() {
            let types: Vec<Type> = types.iter().map(|t| self.unifier.settle(t)).collect();
            let signature = match types.split_first() {
                Some((target, args)) if member => format!("{target}.({})", Types(args)),
                _ => format!("({})", Types(&types)),
            };
            self.error(
                id,
                format!("found no matching overload for '{}' applied to '{signature}'", function.name),
            );
        }
        Some((result?, ids))
    }

    fn try_overload(&mut self, overload: &Overload, types: &[Type]) -> Option<Type> {
        if types.len() != overload.params.len() {
            return None;
        }
        if overload.variables.is_empty() {
            return self.unifier.all_assignable(types, &overload.params).then(|| overload.result.clone());
        }
        let vars: Vec<(char, Type)> = overload.variables.iter().map(|c| (*c, self.unifier.fresh())).collect();
        let params: Vec<Type> = overload.params.iter().map(|p| instantiate(p, &vars)).collect();
        let fits = self.unifier.all_assignable(types, &params);
        fits.then(|| self.unifier.resolve(&instantiate(&overload.result, &vars)))
    }

    fn logical(
        &mut self,
        function: &Function,
        nodes: &[u32],
        types: &[Type],
    ) -> Option<(Type, Vec<&'static str>)> {
        let mut fits = true;
        for (node, t) in nodes.iter().zip(types) {
            if !self.unifier.assignable(t, &Type::Bool) {
                self.mismatch(*node, &Type::Bool, t);
                fits = false;
            }
        }
        fits.then(|| (Type::Bool, function.overloads.iter().map(|o| o.id).collect()))
    }

    /// The type of elements that have been `before` when another is `now`.
    fn join(&mut self, before: Option<Type>, now: Type) -> Type {
        let Some(before) = before else { return now };
        // Whether elements may be of different types is decided once everything fits.
        if self.unifier.assignable(&before, &now) { most_general(&before, &now).clone() } else { Type::Dyn }
    }

    /// What an element marked with `?` contributes.
    fn unmark(&mut self, node: &Expr, t: Type) -> Type {
        match t.unwrap_optional() {
            Some(inner) => inner.clone(),
            None => {
                if t != Type::Dyn {
                    self.mismatch(node.id, &Type::optional(t.clone()), &t);
                }
                t
            }
        }
    }

    fn check_list(&mut self, e: &mut Expr) {
        let Kind::List(elements) = &mut e.kind else { return };
        let mut joined = None;
        for (element, optional) in elements {
            self.check(element);
            let mut t = self.get(element);
            if *optional {
                t = self.unmark(element, t);
            }
            joined = Some(self.join(joined, t));
        }
        let element = joined.unwrap_or_else(|| self.unifier.fresh());
        self.set(e, Type::list(element));
    }

    fn check_map(&mut self, e: &mut Expr) {
        let Kind::Map(entries) = &mut e.kind else { return };
        let (mut keys, mut values) = (None, None);
        for MapEntry { key, value, optional } in entries {
            self.check(key);
            let t = self.get(key);
            keys = Some(self.join(keys, t));
            self.check(value);
            let mut t = self.get(value);
            if *optional {
                t = self.unmark(value, t);
            }
            values = Some(self.join(values, t));
        }
        let key = keys.unwrap_or_else(|| self.unifier.fresh());
        let value = values.unwrap_or_else(|| self.unifier.fresh());
        self.set(e, Type::map(key, value));
    }

    fn check_struct(&mut self, e: &mut Expr) {
        let id = e.id;
        let Kind::Struct { name, fields } = &mut e.kind else { return };
        let name_text = name.strip_prefix('.').unwrap_or(name).to_owned();
        *name = name_text.clone();
        let t = match self.env.type_named(&name_text) {
            Some(t @ Type::Struct(_)) => t,
            Some(other) => {
                self.error(id, format!("'{other}' is not a message type"));
                Type::Error
            }
            None if self.env.variable_type(&name_text).is_some() => {
                self.error(id, format!("'{name_text}' is not a type"));
                Type::Error
            }
            None => return self.undeclared(e, &name_text),
        };
        for StructField { id: field_id, name: field, value, optional } in fields {
            self.check(value);
            let wanted = match &t {
                Type::Struct(object) => self.declared_field(*field_id, object, field),
                _ => Type::Error,
            };
            let mut got = self.get(value);
            if *optional {
                got = self.unmark(value, got);
            }
            if !self.unifier.assignable(&wanted, &got) {
                let message =
                    format!("expected type of field '{field}' is '{wanted}' but provided type is '{got}'");
                self.error(*field_id, message);
            }
        }
        self.set(e, t);
    }

    fn check_fold(&mut self, e: &mut Expr) {
        let Kind::Comprehension(fold) = &mut e.kind else { return };
        let Comprehension { range, var, var2, accu, init, condition, step, result } = fold.as_mut();
        self.check(range);
        self.check(init);
        let over = self.unifier.resolve(&self.get(range));
        let accu_type = self.get(init);
        let (first, second) = self.variable_types(range, &over, var2.is_some());
        let depth = self.scope.len();
        self.scope.push((accu.clone(), accu_type.clone()));
        self.scope.push((var.clone(), first));
        if let Some(var2) = var2 {
            self.scope.push((var2.clone(), second));
        }
        self.check(condition);
        self.wants(condition, &Type::Bool);
        self.check(step);
        self.wants(step, &accu_type);
        self.scope.truncate(depth + 1);
        self.check(result);
        self.scope.truncate(depth);
        let t = self.unifier.resolve(&self.get(result));
        self.set(e, t);
    }

    fn wants(&mut self, e: &Expr, t: &Type) {
        let got = self.get(e);
        if !self.unifier.assignable(t, &got) {
            self.mismatch(e.id, t, &got);
        }
    }

    /// The types of the variables of a fold over `over`.
    fn variable_types(&mut self, range: &Expr, over: &Type, two: bool) -> (Type, Type) {
        match over {
            Type::List(element) if two => (Type::Int, element.as_ref().clone()),
            Type::List(element) => (element.as_ref().clone(), Type::Dyn),
            Type::Map(key, value) => (key.as_ref().clone(), value.as_ref().clone()),
            Type::Dyn | Type::Error | Type::Var(_) => {
                self.unifier.assignable(&Type::Dyn, over);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.error(range.id, message);
                (Type::Error, Type::Error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
