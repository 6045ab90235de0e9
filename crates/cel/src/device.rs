//! Selectors of devices in ResourceClaims and DeviceClasses.
//!
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/>.

use std::sync::Arc;

use api::Value;
use api::quantity::Quantity;

use crate::cost::{Range, Sizes};
use crate::env::{Env, Version};
use crate::eval::{Activation, Limits, Program};
use crate::types::{Declarations, Type};
use crate::value::map::Entries;
use crate::value::{EvalError, Map, Outcome, Val};

/// The most that a selector may be estimated to cost, and the most that evaluating it may cost.
pub const MAX_COST: u64 = 1_000_000;
const DEVICE_TYPE: &str = "kubernetes.DRADevice";
/// Longest domain.
const MAX_DOMAIN: u64 = 63;
/// Longest name in a domain.
const MAX_ID: u64 = 32;
/// Longest value of an attribute.
const MAX_VALUE: u64 = 64;
/// Most attributes and capacities of a device.
const MAX_ENTRIES: u64 = 32;

/// What expressions know of a device.
struct Declared;

impl Declarations for Declared {
    fn has_type(&self, name: &str) -> bool {
        name == DEVICE_TYPE
    }

    fn field(&self, object: &str, field: &str) -> Option<Type> {
        let of = |t| Type::map(Type::String, Type::map(Type::String, t));
        match (object, field) {
            (DEVICE_TYPE, "driver") => Some(Type::String),
            (DEVICE_TYPE, "allowMultipleAllocations") => Some(Type::Bool),
            (DEVICE_TYPE, "attributes") => Some(of(Type::Dyn)),
            (DEVICE_TYPE, "capacity") => Some(of(Type::object("kubernetes.Quantity"))),
            _ => None,
        }
    }
}

impl Sizes for Declared {
    fn size(&self, path: &[String]) -> Option<Range> {
        let steps: Vec<&str> = path.iter().map(String::as_str).collect();
        let max = match steps.as_slice() {
            ["device"] => 0,
            ["device", "driver"] => MAX_DOMAIN,
            ["device", "allowMultipleAllocations"] => 1,
            ["device", "attributes" | "capacity"] | ["device", "attributes" | "capacity", "@values"] => {
                MAX_ENTRIES
            }
            ["device", "attributes" | "capacity", "@keys"] => MAX_DOMAIN,
            ["device", "attributes" | "capacity", "@values", "@keys"] => MAX_ID,
            ["device", "capacity", "@values", "@values"] => 0,
            ["device", "attributes", "@values", name] if *name != "@items" => MAX_VALUE,
            _ => return None,
        };
        Some(Range { min: 0, max })
    }
}

/// A compiled selector.
#[derive(Debug)]
pub struct Selector {
    program: Program,
    max_cost: u64,
}

/// A device as selectors see it.
#[derive(Debug)]
pub struct Device(Val<'static>);

impl Selector {
    /// Compiles a selector.
    ///
    /// # Errors
    /// What is wrong with it, in the words of upstream.
    pub fn new(expression: &str, version: Version) -> Result<Self, String> {
        let env = Env::new(version)
            .with_bindings()
            .variable("device", Type::object(DEVICE_TYPE))
            .declarations(Arc::new(Declared));
        let checked = env.compile(expression).map_err(|issues| format!("compilation failed: {issues}"))?;
        let got = checked.output_type();
        if !matches!(got, Type::Bool | Type::Dyn) {
            return Err(format!("must evaluate to bool or the unknown type, not {got}"));
        }
        let max_cost = checked.estimate_cost(&Declared).max;
        let program = checked.program().map_err(|e| format!("program instantiation failed: {e}"))?;
        Ok(Self { program, max_cost })
    }

    /// The most that evaluating the selector is estimated to cost.
    pub fn max_cost(&self) -> u64 {
        self.max_cost
    }

    /// Does the device match?
    ///
    /// # Errors
    /// Evaluation failed, or came to something that is neither true nor false.
    pub fn matches(&self, device: &Device) -> Result<bool, EvalError> {
        let limits = Limits { cost: MAX_COST, deadline: None };
        match self.program.evaluate(device, limits).0? {
            Val::Bool(matches) => Ok(matches),
            other => {
                let name = other.runtime_type();
                let why = format!("CEL result of type {} could not be converted to bool", name.name());
                Err(EvalError::new(why))
            }
        }
    }
}

impl<'a> Activation<'a> for Device {
    fn variable(&self, name: &str) -> Option<Outcome<'a>> {
        (name == "device").then(|| Ok(self.0.clone()))
    }
}

impl Device {
    /// The member `device` of a ResourceSlice's `devices`, which `driver` manages.
    ///
    /// # Errors
    /// An attribute or a capacity has a value that selectors cannot use.
    pub fn new(driver: &str, device: &Value) -> Result<Self, EvalError> {
        let mut fields = Entries::default();
        let multiple = device.get("allowMultipleAllocations").as_bool().unwrap_or(false);
        fields.insert(Val::string("driver"), Val::string(driver))?;
        fields.insert(Val::string("allowMultipleAllocations"), Val::Bool(multiple))?;
        fields.insert(
            Val::string("attributes"),
            by_domain(driver, device.get("attributes"), "attribute", attribute)?,
        )?;
        fields.insert(
            Val::string("capacity"),
            by_domain(driver, device.get("capacity"), "capacity", capacity)?,
        )?;
        Ok(Self(Val::Map(Map::new(fields))))
    }
}

type Read = fn(&Value) -> Result<Val<'static>, String>;

/// Values by their domain and their name in it; the domain of names without one is the driver. Where nothing is known of a
/// domain, it is as if it had nothing.
fn by_domain(driver: &str, values: &Value, what: &str, read: Read) -> Outcome<'static> {
    let mut domains: Vec<(String, Entries<'static>)> = Vec::new();
    for (name, value) in values.as_object().into_iter().flat_map(api::Map::iter) {
        let value = read(value).map_err(|e| EvalError::new(format!("{what} {name}: {e}")))?;
        let (domain, id) = name.split_once('/').unwrap_or((driver, name));
        let at = domains.iter().position(|(d, _)| d == domain).unwrap_or_else(|| {
            domains.push((domain.to_owned(), Entries::default()));
            domains.len() - 1
        });
        domains[at].1.replace(Val::string(id), value)?;
    }
    let mut outer = Entries::with_default(Val::Map(Map::new(Entries::default())));
    for (domain, entries) in domains {
        outer.insert(Val::string(domain), Val::Map(Map::new(entries)))?;
    }
    Ok(Val::Map(Map::new(outer)))
}

fn attribute(value: &Value) -> Result<Val<'static>, String> {
    let of = |key: &str| value.as_object().and_then(|m| m.get(key));
    if let Some(n) = of("int").and_then(Value::as_i64) {
        return Ok(Val::Int(n));
    }
    if let Some(b) = of("bool").and_then(Value::as_bool) {
        return Ok(Val::Bool(b));
    }
    if let Some(s) = of("string").and_then(Value::as_str) {
        return Ok(Val::string(s));
    }
    match of("version").and_then(Value::as_str) {
        Some(text) => {
            let version = semver::Version::parse(text).map_err(|e| format!("parse semantic version: {e}"))?;
            Ok(Val::Semver(Arc::new(version)))
        }
        None => Err("unsupported attribute value".into()),
    }
}

fn capacity(value: &Value) -> Result<Val<'static>, String> {
    let text = match value.get("value") {
        Value::String(text) => text.to_string(),
        number => number.to_string(),
    };
    let quantity: Quantity = text.parse().map_err(|e: api::quantity::ParseError| e.to_string())?;
    Ok(Val::Quantity(quantity, crate::library::quantity::is_whole(&text)))
}

#[cfg(test)]
mod tests;
