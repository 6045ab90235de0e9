//! Feature gates: one table of what Kubernetes v1.36 knows, and what a command line or a config file sets.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use crate::flags::boolean;

/// Every gate of v1.36: name, stage, default, and whether it is locked to that.
const TABLE: &str = include_str!("features.txt");

/// Gates as they were set, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates(BTreeMap<String, bool>);

/// What is known of a gate.
#[derive(Clone, Copy)]
struct Gate {
    stage: &'static str,
    default: bool,
    locked: bool,
}

fn known(name: &str) -> Option<Gate> {
    TABLE.lines().find_map(|line| {
        let mut words = line.split(' ');
        (words.next() == Some(name)).then(|| {
            let stage = words.next().unwrap_or_default();
            Gate { stage, default: words.next() == Some("true"), locked: words.next() == Some("locked") }
        })
    })
}

impl FeatureGates {
    /// Takes settings from a config file's map.
    pub fn from_map(gates: BTreeMap<String, bool>) -> Self {
        Self(gates)
    }

    /// The settings of both; `over` wins.
    pub fn merged(mut self, over: &Self) -> Self {
        self.0.extend(over.0.iter().map(|(k, v)| (k.clone(), *v)));
        self
    }

    /// Refuses unknown gates, and gates set to other than their default unless they are among `switchable`, those the daemon
    /// really can run both ways.
    pub fn check(&self, switchable: &[&str]) -> Result<(), String> {
        for (name, value) in &self.0 {
            let Gate { stage, default, locked } =
                known(name).ok_or_else(|| format!("unrecognized feature gate: {name}"))?;
            if *value != default && locked {
                return Err(format!(
                    "cannot set feature gate {name} to {value}, feature is locked to {default}"
                ));
            }
            if *value != default && !switchable.contains(&name.as_str()) {
                return Err(format!("feature gate {name} ({stage}) is not supported with {value}"));
            }
        }
        Ok(())
    }

    /// Every gate with its stage (`ALPHA`, `BETA`, `DEPRECATED`, or nothing for what is there to stay) and whether it is on.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        TABLE.lines().map(|line| {
            let mut words = line.split(' ');
            let (name, stage) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            (name, if stage == "GA" { "" } else { stage }, self.enabled(name))
        })
    }

    /// Whether a gate is on: as set, else by its default.
    pub fn enabled(&self, name: &str) -> bool {
        self.0.get(name).copied().unwrap_or_else(|| known(name).is_some_and(|gate| gate.default))
    }
}

impl FromStr for FeatureGates {
    type Err = String;

    /// Reads `A=true,B=false` or `kube:A=true,kube:B=false`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (mut gates, mut prefixed) = (BTreeMap::new(), BTreeSet::new());
        for pair in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| format!("missing bool value for {pair}"))?;
            let (component, name) = name.split_once(':').unwrap_or(("", name));
            if !matches!(component, "" | "kube") {
                return Err(format!("component not registered: {component}"));
            }
            prefixed.insert(component.to_owned());
            let (name, value) = (name.trim(), value.trim());
            let value = boolean(value).ok_or_else(|| {
                let why = format!("strconv.ParseBool: parsing {value:?}: invalid syntax");
                format!("invalid value of {name}={value}, err: {why}")
            })?;
            gates.insert(name.to_owned(), value);
        }
        if prefixed.len() > 1 {
            return Err(
                "set kube feature gates with default empty prefix or kube: prefix consistently, do not mix use"
                    .to_owned(),
            );
        }
        Ok(Self(gates))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_keep_their_defaults_unless_switchable() {
        let check = |text: &str, ok: bool| {
            let gates: FeatureGates = text.parse().unwrap();
            assert_eq!(gates.check(&["EventedPLEG"]).is_ok(), ok, "{text}");
        };
        check("", true);
        check("ContextualLogging=true", true);
        check("kube:ContextualLogging=false", false);
        check("EventedPLEG=true", true);
        check("NoSuchGate=true", false);
        check("ServiceAccountTokenJTI=true", true);
        check("ServiceAccountTokenJTI=false", false);
        let wrong = |text: &str| text.parse::<FeatureGates>().unwrap_err();
        assert_eq!(wrong("X"), "missing bool value for X");
        let why = "strconv.ParseBool: parsing \"maybe\": invalid syntax";
        assert_eq!(wrong("X=maybe"), format!("invalid value of X=maybe, err: {why}"));
        assert_eq!(wrong("other:X=true"), "component not registered: other");
        assert!(wrong("kube:X=true,Y=true").contains("do not mix use"));
        assert!(FeatureGates::default().enabled("ContextualLogging"));
        assert!(!FeatureGates::default().enabled("EventedPLEG"));
    }
}
