//! The functions that expressions may call: signatures as text, one line for each overload, and when Kubernetes got them.
//!
//! Sources: <https://github.com/google/cel-spec/blob/master/doc/langdef.md#list-of-standard-definitions>,
//! <https://kubernetes.io/docs/reference/using-api/cel/#cel-options-language-features-and-libraries>.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::env::Version;
use crate::types::Type;

mod convert;
mod lists;
mod optional;
mod semver;
mod signatures;
mod standard;
mod strings;

pub(crate) mod authz;
pub(crate) mod call;
pub(crate) mod format;
pub(crate) mod formats;
pub(crate) mod net;
pub(crate) mod quantity;
pub(crate) mod regex;
pub(crate) mod time;
pub(crate) mod url;

/// One signature of a function.
#[derive(Clone, Debug)]
pub(crate) struct Overload {
    pub(crate) id: &'static str,
    /// Called as `target.name(args)`; the first parameter is the target.
    pub(crate) member: bool,
    pub(crate) params: Vec<Type>,
    pub(crate) result: Type,
    /// The parameters among the types.
    pub(crate) variables: Vec<char>,
}

/// A function with its overloads.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) overloads: Vec<Overload>,
}

/// The functions that an environment knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Library {
    functions: HashMap<&'static str, Function>,
}

impl Library {
    /// The functions of all environments at a version.
    pub(crate) fn base(version: Version) -> Arc<Self> {
        static KNOWN: OnceLock<Mutex<HashMap<Version, Arc<Library>>>> = OnceLock::new();
        let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        let library = known.entry(version).or_insert_with(|| {
            let mut library = Library::default();
            for (since, text) in signatures::BASE {
                if version >= Version(*since) {
                    library.add(text);
                }
            }
            Arc::new(library)
        });
        library.clone()
    }

    pub(crate) fn with_json_patch(&self) -> Arc<Self> {
        let mut library = self.clone();
        library.add(signatures::JSON_PATCH);
        Arc::new(library)
    }

    fn add(&mut self, text: &'static str) {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, overload) = signature(line);
            let function =
                self.functions.entry(name).or_insert_with(|| Function { name, overloads: Vec::new() });
            function.overloads.push(overload);
        }
    }

    pub(crate) fn function(&self, name: &str) -> Option<&Function> {
        self.functions.get(name)
    }
}

/// Reads `name(A, list(A)) -> bool id`, or `(string).name() -> int id` for a member.
fn signature(line: &'static str) -> (&'static str, Overload) {
    let (rest, id) = line.rsplit_once(' ').expect("a signature ends with its name");
    let (call, result) = rest.rsplit_once(" -> ").expect("a signature has a result");
    let (target, call) = match call.strip_prefix('(').and_then(|c| c.split_once(").")) {
        Some((target, call)) => (Some(target), call),
        None => (None, call),
    };
    let (name, params) = call.split_once('(').expect("a signature has parameters");
    let params = params.strip_suffix(')').expect("parameters end");
    let params: Vec<Type> = target.into_iter().chain(split(params)).map(read_type).collect();
    let result = read_type(result);
    let mut variables = BTreeSet::new();
    params.iter().chain([&result]).for_each(|t| variables_of(t, &mut variables));
    let variables = variables.into_iter().collect();
    (name, Overload { id: id.trim(), member: target.is_some(), params, result, variables })
}

/// The parts between the commas that are outside of brackets.
fn split(text: &'static str) -> impl Iterator<Item = &'static str> {
    let mut depth = 0;
    text.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

fn read_type(text: &'static str) -> Type {
    let text = text.trim();
    if let Some((name, params)) = text.strip_suffix(')').and_then(|t| t.split_once('(')) {
        let mut params = split(params).map(read_type);
        let mut next = || params.next().expect("a type has its parameters");
        return match name {
            "list" => Type::list(next()),
            "map" => Type::map(next(), next()),
            "optional" => Type::optional(next()),
            "type" => Type::Type(Some(Arc::new(next()))),
            _ => unreachable!("no type {name} with parameters"),
        };
    }
    match text {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "net.IP" | "net.CIDR" => Type::Opaque(text.into(), [].into()),
        _ => match text.chars().next() {
            Some(param) if text.len() == 1 => Type::Param(param),
            _ => Type::object(text),
        },
    }
}

fn variables_of(t: &Type, found: &mut BTreeSet<char>) {
    match t {
        Type::Param(name) => {
            found.insert(*name);
        }
        Type::List(e) => variables_of(e, found),
        Type::Map(k, v) => {
            variables_of(k, found);
            variables_of(v, found);
        }
        Type::Opaque(_, params) => params.iter().for_each(|p| variables_of(p, found)),
        Type::Type(Some(inner)) => variables_of(inner, found),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
