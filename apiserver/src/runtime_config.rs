//! `--runtime-config`: which built-in resources are served.
//!
//! Mirrors upstream's `resourceconfig`: settings for levels of stability first, from `api/all` to `api/alpha`, then those
//! for versions, then those for resources, in whichever order they are given. A resource that is not served goes on being
//! kept and looked at by this server itself; upstream's own parts are cut off from it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use daemon::features::FeatureGates;

use crate::resources::{Row, TABLE, Table};

/// Settings for all versions of a kind, from the weakest.
const LEVELS: [&str; 4] = ["api/all", "api/ga", "api/beta", "api/alpha"];
/// Versions that are not in the table of resources.
const OTHERS: &str = include_str!("../data/versions.txt");

/// The settings, by key; the last one of a key counts.
pub struct RuntimeConfig(BTreeMap<String, String>);

/// What a version of a group is to this server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It is in the table of resources, and served unless it is switched off.
    Here,
    /// It is in the table of resources, and served if it is switched on, and this feature gate if there is one.
    Off(Option<&'static str>),
    /// Upstream serves nothing of it.
    Nothing,
    /// Upstream can serve it, this server cannot.
    Absent,
}

/// Whether versions and resources are served; what is said of a resource counts more.
struct Switches {
    versions: BTreeMap<(&'static str, &'static str), (Known, bool)>,
    resources: BTreeMap<(&'static str, &'static str, String), bool>,
}

impl RuntimeConfig {
    /// Reads what the flag was given, each time it was given.
    pub fn new(given: &[String]) -> Self {
        let mut settings = BTreeMap::new();
        for pair in given.iter().flat_map(|text| text.split(',')).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = match key.trim() {
                "api/legacy" => continue,
                "v1" | "api/v1" => "/v1",
                // Also what is said of one resource of the core group is said of all.
                key if key.starts_with("v1/") || key.starts_with("api/v1/") => "/v1",
                key => key,
            };
            settings.insert(key.to_owned(), value.trim().to_owned());
        }
        Self(settings)
    }

    /// The built-in resources that are served.
    ///
    /// # Errors
    /// What is wrong with the settings, in upstream's words; or that they ask for what this server does not have.
    pub fn served(&self, gates: &FeatureGates, fair: bool) -> Result<Table> {
        self.check(fair)?;
        let mut switches = Switches::default();
        for level in LEVELS {
            match self.0.get(level).map(String::as_str) {
                Some("true") => switches.set_level(level, true),
                Some("false") => switches.set_level(level, false),
                Some(value) => bail!("invalid value {level}={value}"),
                None => {}
            }
        }
        for (key, value) in self.0.iter().filter(|(key, _)| !LEVELS.contains(&key.as_str())) {
            switches.set(key, value)?;
        }
        switches.refuse_absent()?;
        Ok(TABLE.only(|row| switches.serves(row, gates)))
    }

    fn check(&self, fair: bool) -> Result<()> {
        let conflict = if fair { self.conflict() } else { None };
        let wrong: Vec<String> = conflict.into_iter().chain(self.wrong()).collect();
        match wrong.as_slice() {
            [] => Ok(()),
            [one] => bail!("{one}"),
            many => bail!("[{}]", many.join(", ")),
        }
    }

    /// Priority and fairness needs its objects.
    fn conflict(&self) -> Option<String> {
        // Upstream looks for the settings in all of them as one text.
        let all: Vec<String> = self.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let all = all.join(",");
        for key in ["flowcontrol.apiserver.k8s.io/v1", "api/ga", "api/all"] {
            if all.contains(&format!("{key}=false")) {
                let with = "conflicts with --enable-priority-and-fairness=true";
                return Some(format!("--runtime-config={key}=false {with}"));
            }
            if all.contains(&format!("{key}=true")) {
                break;
            }
        }
        None
    }

    /// Keys that name nothing.
    fn wrong(&self) -> Option<String> {
        if self.0.len() == 1 && self.0.get("api/all").is_some_and(|v| v == "false") {
            return Some("invalid runtime-config with only api/all=false".to_owned());
        }
        let mut unknown = BTreeSet::new();
        for key in self.0.keys().filter(|key| !LEVELS.contains(&key.as_str())) {
            let parts: Vec<&str> = key.split('/').collect();
            let (&[group, version] | &[group, version, _]) = parts.as_slice() else {
                return Some(format!("runtime-config invalid key {key}"));
            };
            if !known().any(|(g, ..)| g == group) {
                unknown.insert(group_version(group, version));
            }
        }
        let unknown: Vec<String> = unknown.into_iter().collect();
        (!unknown.is_empty()).then(|| format!("unknown api groups {}", unknown.join(",")))
    }
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// All versions that upstream knows.
fn known() -> impl Iterator<Item = (&'static str, &'static str, Known)> {
    let here = TABLE.rows.iter().map(|row| (row.group, row.version, Known::Here));
    let others = OTHERS.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            [group, version, "off", gate @ ..] => (*group, *version, Known::Off(gate.first().copied())),
            [group, version, "absent"] => (*group, *version, Known::Absent),
            [group, version, "nothing"] => (*group, *version, Known::Nothing),
            _ => panic!("{line:?} says nothing of a version"),
        }
    });
    here.chain(others)
}

impl Default for Switches {
    fn default() -> Self {
        let versions = known().map(|(group, version, what)| ((group, version), (what, what == Known::Here)));
        Self { versions: versions.collect(), resources: BTreeMap::new() }
    }
}

impl Switches {
    fn set_level(&mut self, level: &str, on: bool) {
        for ((_, version), (_, is_on)) in &mut self.versions {
            let of_level = match level {
                "api/all" => true,
                "api/ga" => !version.contains("alpha") && !version.contains("beta"),
                "api/beta" => version.contains("beta"),
                _ => version.contains("alpha"),
            };
            if of_level {
                *is_on = on;
            }
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let mut parts = key.split('/');
        let (group, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let found = self.versions.iter_mut().find(|((g, v), _)| *g == group && *v == version);
        let Some(((group, version), (_, is_on))) = found else {
            bail!("group version {} that has not been registered", group_version(group, version));
        };
        let on = match value {
            "" => true,
            _ => daemon::flags::boolean(value).ok_or_else(|| {
                let why =
                    format!("strconv.ParseBool: parsing {}: invalid syntax", api::field::go_quote(value));
                anyhow::anyhow!("invalid value of {key}: {value}, err: {why}")
            })?,
        };
        match parts.next() {
            None => *is_on = on,
            Some(resource) if resource != resource.to_lowercase() => bail!(
                "invalid key {key}: group/version/resource and resource is always lowercase plural, not {}",
                api::field::go_quote(resource)
            ),
            Some(resource) => {
                self.resources.insert((group, version, resource.to_owned()), on);
            }
        }
        Ok(())
    }

    /// Refuses what was switched on and is not there.
    fn refuse_absent(&self) -> Result<()> {
        let is_absent =
            |at: &(&str, &str)| self.versions.get(at).is_some_and(|(what, _)| *what == Known::Absent);
        let versions = self.versions.iter().filter(|(at, (_, on))| *on && is_absent(at));
        let versions = versions.map(|((group, version), _)| group_version(group, version));
        let resources =
            self.resources.iter().filter(|((group, version, _), on)| **on && is_absent(&(group, version)));
        let resources = resources.map(|((group, version, name), _)| format!("{group}/{version}/{name}"));
        let missing: Vec<String> = versions.chain(resources).collect();
        if !missing.is_empty() {
            bail!("--runtime-config switches on what is not implemented: {}", missing.join(", "));
        }
        Ok(())
    }

    fn serves(&self, row: &Row, gates: &FeatureGates) -> bool {
        let Some((what, on)) = self.versions.get(&(row.group, row.version)) else { return false };
        let on = self.resources.get(&(row.group, row.version, row.plural.to_owned())).unwrap_or(on);
        match what {
            Known::Off(Some(gate)) if *on && !gates.enabled(gate) => {
                tracing::warn!("{} are not served because the feature gate {gate} is off", row.plural);
                false
            }
            _ => *on,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(text: &str) -> Result<Table, String> {
        RuntimeConfig::new(&[text.to_owned()])
            .served(&FeatureGates::default(), true)
            .map_err(|e| e.to_string())
    }

    fn check(text: &str, here: &[&str], gone: &[&str]) {
        let table = served(text).unwrap();
        let is_served = |path: &&str| {
            let parts: Vec<&str> = path.split('/').collect();
            table.find(parts[0], parts[1], parts[2]).is_some()
        };
        assert_eq!(here.iter().find(|p| !is_served(p)), None, "{text}");
        assert_eq!(gone.iter().find(|p| is_served(p)), None, "{text}");
    }

    fn refused(text: &str, want: &str) {
        assert_eq!(served(text).err().as_deref(), Some(want), "{text}");
    }

    #[test]
    fn what_is_switched_off_is_not_served() {
        check("", &["/v1/pods", "autoscaling/v1/horizontalpodautoscalers"], &[]);
        check("api/v1,api/legacy=false", &["/v1/pods"], &[]);
        check(
            "autoscaling/v1=false",
            &["autoscaling/v2/horizontalpodautoscalers"],
            &["autoscaling/v1/horizontalpodautoscalers"],
        );
        check("batch/v1/jobs=0", &["batch/v1/cronjobs"], &["batch/v1/jobs"]);
        check("batch/v1=false,batch/v1/jobs", &["batch/v1/jobs"], &["batch/v1/cronjobs"]);
        check("v1/pods=false,apps/v1=true", &["apps/v1/deployments"], &["/v1/pods", "/v1/nodes"]);
        check("api/all=false,api/ga=true", &["apps/v1/deployments"], &[]);
        check("api/alpha=false,api/beta=false", &["apps/v1/deployments"], &[]);
        check("apps/v1beta1=true,extensions/v1beta1/ingresses=true", &["apps/v1/deployments"], &[]);
        check("storage.k8s.io/v1beta1", &["storage.k8s.io/v1beta1/volumeattributesclasses"], &[]);
        check("resource.k8s.io/v1beta1=false,batch/v1/nope=true", &["batch/v1/jobs"], &[]);
    }

    #[test]
    fn settings_that_mean_nothing_are_refused_as_upstream_does() {
        let alone = "invalid runtime-config with only api/all=false";
        let all = "--runtime-config=api/all=false conflicts with --enable-priority-and-fairness=true";
        refused("api/all=false", &format!("[{all}, {alone}]"));
        refused("api/beta=no", "invalid value api/beta=no");
        refused("apps=true", "runtime-config invalid key apps");
        refused("a/b/c/d=true", "runtime-config invalid key a/b/c/d");
        refused("b.example/v1,a.example/v2=false", "unknown api groups a.example/v2,b.example/v1");
        refused("apps/v7=true", "group version apps/v7 that has not been registered");
        let why = "strconv.ParseBool: parsing \"maybe\": invalid syntax";
        refused("apps/v1=maybe", &format!("invalid value of apps/v1: maybe, err: {why}"));
        refused(
            "apps/v1/Deployments=true",
            "invalid key apps/v1/Deployments: group/version/resource and resource is always lowercase plural, not \"Deployments\"",
        );
        let conflict = "conflicts with --enable-priority-and-fairness=true";
        refused("api/ga=false", &format!("--runtime-config=api/ga=false {conflict}"));
        assert!(
            RuntimeConfig::new(&["api/ga=false".to_owned()]).served(&FeatureGates::default(), false).is_ok()
        );
    }

    #[test]
    fn some_versions_need_a_feature_gate_besides() {
        let migrations = |text: &str, gates: &str| {
            let table = RuntimeConfig::new(&[text.to_owned()]).served(&gates.parse().unwrap(), true).unwrap();
            table.find("storagemigration.k8s.io", "v1beta1", "storageversionmigrations").is_some()
        };
        let (on, gate) = ("storagemigration.k8s.io/v1beta1=true", "StorageVersionMigrator=true");
        assert!(!migrations("", "") && !migrations("", gate) && !migrations(on, "") && migrations(on, gate));
    }

    #[test]
    fn versions_that_are_not_here_cannot_be_switched_on() {
        let why = "--runtime-config switches on what is not implemented:";
        refused("resource.k8s.io/v1beta1=true", &format!("{why} resource.k8s.io/v1beta1"));
        refused(
            "coordination.k8s.io/v1beta1/leasecandidates=true",
            &format!("{why} coordination.k8s.io/v1beta1/leasecandidates"),
        );
        let all = served("api/alpha=true").err().unwrap();
        assert!(all.contains("resource.k8s.io/v1alpha3") && !all.contains("beta"), "{all}");
        // What is said of a version counts more than what is said of its level.
        let rest = served("api/alpha=true,resource.k8s.io/v1alpha3=false").err().unwrap();
        assert!(!rest.contains("resource.k8s.io/v1alpha3"), "{rest}");
    }
}
