//! Which type can stand where another is wanted, and what that says about types yet to be found.

use std::collections::HashMap;
use std::sync::Arc;

use crate::types::Type;

/// What is known of the types to be found; attempts that fail are undone.
#[derive(Debug, Default)]
pub(crate) struct Unifier {
    found: HashMap<u32, Type>,
    /// What each change replaced.
    trail: Vec<(u32, Option<Type>)>,
    next: u32,
}

impl Unifier {
    /// A type to be found.
    pub(crate) fn fresh(&mut self) -> Type {
        self.next += 1;
        Type::Var(self.next - 1)
    }

    /// Can `got` stand where `wanted` is? Remembers what follows if so.
    pub(crate) fn assignable(&mut self, wanted: &Type, got: &Type) -> bool {
        self.attempt(|u| u.fits(wanted, got))
    }

    /// The same for lists of types.
    pub(crate) fn all_assignable(&mut self, wanted: &[Type], got: &[Type]) -> bool {
        self.attempt(|u| u.all_fit(wanted, got))
    }

    fn attempt(&mut self, fits: impl FnOnce(&mut Self) -> bool) -> bool {
        let before = self.trail.len();
        if fits(self) {
            return true;
        }
        while self.trail.len() > before {
            match self.trail.pop() {
                Some((var, Some(old))) => self.found.insert(var, old),
                Some((var, None)) => self.found.remove(&var),
                None => break,
            };
        }
        false
    }

    fn set(&mut self, var: u32, t: Type) {
        let old = self.found.insert(var, t);
        self.trail.push((var, old));
    }

    fn all_fit(&mut self, a: &[Type], b: &[Type]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.fits(a, b))
    }

    fn fits(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Var(var) = b {
            let known = self.found.contains_key(var);
            if self.bind(a, *var) {
                return true;
            }
            if known {
                return false;
            }
        }
        if let Type::Var(var) = a {
            return self.bind(b, *var);
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => {
                matches!(
                    other,
                    Type::Null | Type::Opaque(..) | Type::Struct(_) | Type::Duration | Type::Timestamp
                )
            }
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) => self.fits(a, b),
            (Type::Map(ak, av), Type::Map(bk, bv)) => self.fits(ak, bk) && self.fits(av, bv),
            (Type::Opaque(an, ap), Type::Opaque(bn, bp)) => an == bn && self.all_fit(ap, bp),
            (a, b) => a == b,
        }
    }

    /// Can the type `var` be `t`, with what is known of it?
    fn bind(&mut self, t: &Type, var: u32) -> bool {
        if *t == Type::Var(var) {
            return true;
        }
        if let Some(known) = self.found.get(&var).cloned() {
            if known == *t {
                return true;
            }
            if !self.fits(t, &known) {
                return false;
            }
            let general = most_general(t, &known).clone();
            if !self.mentions(&general, var) {
                self.set(var, general);
            }
            return true;
        }
        let free = !self.mentions(t, var);
        if free {
            self.set(var, t.clone());
        }
        free
    }

    /// Does `within`, with what is known, contain the type `var`?
    fn mentions(&self, within: &Type, var: u32) -> bool {
        match within {
            Type::Var(v) if *v == var => true,
            Type::Var(v) => self.found.get(v).is_some_and(|known| self.mentions(known, var)),
            Type::List(e) => self.mentions(e, var),
            Type::Map(k, v) => self.mentions(k, var) || self.mentions(v, var),
            Type::Opaque(_, params) => params.iter().any(|p| self.mentions(p, var)),
            Type::Type(Some(inner)) => self.mentions(inner, var),
            _ => false,
        }
    }

    /// `t` with what is known put in.
    pub(crate) fn resolve(&self, t: &Type) -> Type {
        self.replace(t, false)
    }

    /// `t` with what is known put in, and `dyn` for what is not.
    pub(crate) fn settle(&self, t: &Type) -> Type {
        self.replace(t, true)
    }

    fn replace(&self, t: &Type, settle: bool) -> Type {
        match t {
            Type::Var(v) => match self.found.get(v) {
                Some(known) => self.replace(known, settle),
                None if settle => Type::Dyn,
                None => t.clone(),
            },
            Type::List(e) => Type::list(self.replace(e, settle)),
            Type::Map(k, v) => Type::map(self.replace(k, settle), self.replace(v, settle)),
            Type::Opaque(name, params) if !params.is_empty() => {
                Type::Opaque(name.clone(), params.iter().map(|p| self.replace(p, settle)).collect())
            }
            Type::Type(Some(inner)) => Type::Type(Some(Arc::new(self.replace(inner, settle)))),
            _ => t.clone(),
        }
    }
}

/// The one of two assignable types that says less.
pub(crate) fn most_general<'t>(a: &'t Type, b: &'t Type) -> &'t Type {
    if says_less(a, b) { a } else { b }
}

fn says_less(a: &Type, b: &Type) -> bool {
    if matches!(a, Type::Dyn | Type::Var(_)) {
        return true;
    }
    match (a, b) {
        (_, Type::Dyn | Type::Var(_)) => false,
        (Type::List(a), Type::List(b)) => says_less(a, b),
        (Type::Map(ak, av), Type::Map(bk, bv)) => says_less(ak, bk) && says_less(av, bv),
        (Type::Opaque(an, ap), Type::Opaque(bn, bp)) => {
            an == bn && ap.len() == bp.len() && ap.iter().zip(bp.iter()).all(|(a, b)| says_less(a, b))
        }
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a == b,
    }
}

/// A signature's type with a type to be found for each of its parameters.
pub(crate) fn instantiate(t: &Type, vars: &[(char, Type)]) -> Type {
    match t {
        Type::Param(name) => vars.iter().find(|(n, _)| n == name).map_or(Type::Dyn, |(_, v)| v.clone()),
        Type::List(e) => Type::list(instantiate(e, vars)),
        Type::Map(k, v) => Type::map(instantiate(k, vars), instantiate(v, vars)),
        Type::Opaque(name, params) => {
            Type::Opaque(name.clone(), params.iter().map(|p| instantiate(p, vars)).collect())
        }
        Type::Type(Some(inner)) => Type::Type(Some(Arc::new(instantiate(inner, vars)))),
        _ => t.clone(),
    }
}
