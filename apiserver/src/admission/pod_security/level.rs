//! Levels and versions of the standards, and which of them hold for a namespace.

use std::fmt;

use api::Value;
use api::field::{FieldError, Path};

use crate::admission::configuration::only;
use crate::server::MINOR;

/// How strict a standard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::admission) enum Level {
    /// Everything is allowed.
    Privileged,
    /// What is known to give pods power over the node is not.
    Baseline,
    /// Pods are hardened.
    Restricted,
}

impl Level {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "privileged" => Ok(Level::Privileged),
            "baseline" => Ok(Level::Baseline),
            "restricted" => Ok(Level::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

/// A minor version of Kubernetes 1 whose standards hold; none for the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admission) struct Version(pub(super) Option<u64>);

impl Version {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "must be \"latest\" or \"v1.x\"";
        if text == "latest" {
            return Ok(Version(None));
        }
        let minor = text.strip_prefix("v1.").ok_or(WRONG)?;
        let plain = minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
        let minor = minor.parse().ok().filter(|n: &u64| plain && i64::try_from(*n).is_ok());
        minor.map(|n| Version(Some(n))).ok_or(WRONG)
    }
}

/// A standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admission) struct Standard {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl Standard {
    /// Everything is allowed.
    pub(super) const OPEN: Self = Self { level: Level::Privileged, version: Version(None) };

    /// Its level and version as metrics show them: all versions that are not known yet as one, and what allows everything
    /// as the latest.
    pub(super) fn shown(&self) -> (String, String) {
        let version = match self.version.0 {
            Some(_) if self.level == Level::Privileged => "latest".to_owned(),
            Some(minor) if minor > MINOR => "future".to_owned(),
            _ => self.version.to_string(),
        };
        (self.level.to_string(), version)
    }

    fn is_equivalent(&self, other: &Self) -> bool {
        (self.level == Level::Privileged && other.level == Level::Privileged) || self == other
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(minor) => write!(f, "v1.{minor}"),
            None => f.write_str("latest"),
        }
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// The standards that hold somewhere, and what comes of violations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admission) struct Policy {
    pub(super) enforce: Standard,
    pub(super) audit: Standard,
    pub(super) warn: Standard,
}

impl Default for Policy {
    fn default() -> Self {
        Self { enforce: Standard::OPEN, audit: Standard::OPEN, warn: Standard::OPEN }
    }
}

/// What labels and annotations of the plug-in begin with.
pub(super) const PREFIX: &str = "pod-security.kubernetes.io/";

impl Policy {
    /// The policy of a namespace with these labels, and what is wrong with them. What cannot be read enforces the
    /// strictest standard, and warns of nothing.
    pub(super) fn of<'l>(
        defaults: &Self,
        label: impl Fn(&str) -> Option<&'l str>,
    ) -> (Self, Vec<FieldError>) {
        let (mut policy, mut errors) = (*defaults, Vec::new());
        let mut wrong = |key: &str, value: &str, why: &str| {
            let (metadata, value) = (Path::new("metadata"), Value::from(value));
            errors.push(FieldError::invalid(&metadata.child("labels").key(key), value, why));
        };
        let mut enforced = false;
        for (mode, open) in
            [("enforce", Level::Restricted), ("audit", Level::Privileged), ("warn", Level::Privileged)]
        {
            let standard = policy.mode(mode);
            let key = format!("{PREFIX}{mode}");
            if let Some(text) = label(&key) {
                let level = Level::parse(text);
                enforced |= mode == "enforce" && level.is_ok();
                standard.level = level.unwrap_or_else(|why| {
                    wrong(&key, text, why);
                    open
                });
            }
            let key = format!("{PREFIX}{mode}-version");
            if let Some(text) = label(&key) {
                standard.version = Version::parse(text).unwrap_or_else(|why| {
                    wrong(&key, text, why);
                    Version(None)
                });
            }
        }
        let says = |mode: &str| label(&format!("{PREFIX}{mode}")).is_some();
        if !says("warn") && enforced && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if !says("warn-version") {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }

    pub(super) fn mode(&mut self, mode: &str) -> &mut Standard {
        match mode {
            "enforce" => &mut self.enforce,
            "audit" => &mut self.audit,
            _ => &mut self.warn,
        }
    }

    /// True when nothing is noted or warned of, nor refused where that is `enforced`.
    pub(super) fn is_privileged(&self, enforced: bool) -> bool {
        let open = |standard: Standard| standard.level == Level::Privileged;
        open(self.audit) && open(self.warn) && (!enforced || open(self.enforce))
    }

    /// What the labels that a namespace `has` say, if they say another thing than the defaults do.
    pub(super) fn shown_if_set(&self, defaults: &Self, has: impl Fn(&str) -> bool) -> Option<String> {
        let modes = [("enforce", self.enforce), ("audit", self.audit), ("warn", self.warn)];
        let same = self.enforce.is_equivalent(&defaults.enforce)
            && self.audit.is_equivalent(&defaults.audit)
            && self.warn.is_equivalent(&defaults.warn);
        if self.is_privileged(true) || same {
            return None;
        }
        let set = |mode: &str| has(&format!("{PREFIX}{mode}")) || has(&format!("{PREFIX}{mode}-version"));
        let shown: Vec<String> = modes
            .iter()
            .filter(|(mode, standard)| standard.level != Level::Privileged && set(mode))
            .map(|(mode, standard)| format!("{mode}={standard}"))
            .collect();
        (!shown.is_empty()).then(|| shown.join(", "))
    }
}

/// Whom no standard holds for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::admission) struct Exemptions {
    /// Names of users.
    pub usernames: Vec<String>,
    /// Namespaces.
    pub namespaces: Vec<String>,
    /// Names of RuntimeClasses.
    pub runtime_classes: Vec<String>,
}

impl Exemptions {
    /// Why a namespace or a user is exempt.
    pub(super) fn covers(&self, namespace: &str, user: &str) -> Option<&'static str> {
        let has = |list: &[String], name: &str| !name.is_empty() && list.iter().any(|n| n == name);
        match (has(&self.namespaces, namespace), has(&self.usernames, user)) {
            (true, _) => Some("namespace"),
            (_, true) => Some("user"),
            _ => None,
        }
    }

    pub(super) fn covers_class(&self, class: &str) -> bool {
        !class.is_empty() && self.runtime_classes.iter().any(|n| n == class)
    }
}

/// How the plug-in is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::admission) struct PodSecurity {
    /// What holds in namespaces without labels.
    pub defaults: Policy,
    /// Whom nothing holds for.
    pub exemptions: Exemptions,
}

impl PodSecurity {
    /// Reads a `PodSecurityConfiguration`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::admission) fn read(document: &Value) -> anyhow::Result<Self> {
        only(document, &["kind", "apiVersion", "defaults", "exemptions"])?;
        let (defaults, exemptions) = (document.get("defaults"), document.get("exemptions"));
        let modes = ["enforce", "audit", "warn"];
        let known = modes.iter().flat_map(|m| [(*m).to_owned(), format!("{m}-version")]).collect::<Vec<_>>();
        only(defaults, &known.iter().map(String::as_str).collect::<Vec<_>>())?;
        only(exemptions, &["usernames", "namespaces", "runtimeClasses"])?;
        let mut policy = Policy::default();
        for mode in modes {
            let version = format!("{mode}-version");
            let wrong = |field: &str, value: &str, why: &str| {
                anyhow::anyhow!("{}", FieldError::invalid(&Path::new("defaults").child(field), value, why))
            };
            let given = defaults.str_at(&[mode]);
            if !given.is_empty() {
                policy.mode(mode).level = Level::parse(given).map_err(|why| wrong(mode, given, why))?;
            }
            let given = defaults.str_at(&[&version]);
            if !given.is_empty() {
                policy.mode(mode).version =
                    Version::parse(given).map_err(|why| wrong(&version, given, why))?;
            }
        }
        let texts = |field: &str| -> Vec<String> {
            exemptions.array_at(&[field]).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        let exemptions = Exemptions {
            usernames: texts("usernames"),
            namespaces: texts("namespaces"),
            runtime_classes: texts("runtimeClasses"),
        };
        Ok(Self { defaults: policy, exemptions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_standards() {
        let check = |labels: &[(&str, &str)], want: [&str; 3], wrong: &[&str]| {
            let label = |key: &str| {
                labels.iter().find(|(k, _)| key.strip_prefix(PREFIX) == Some(*k)).map(|(_, v)| *v)
            };
            let (policy, errors) = Policy::of(&Policy::default(), label);
            let shown = [policy.enforce, policy.audit, policy.warn].map(|s| s.to_string());
            assert_eq!(shown, want.map(str::to_owned), "{labels:?}");
            let fields: Vec<String> = errors.iter().map(|e| e.to_string()).collect();
            assert_eq!(fields, wrong, "{labels:?}");
        };
        let open = "privileged:latest";
        check(&[], [open; 3], &[]);
        check(&[("enforce", "baseline")], ["baseline:latest", open, "baseline:latest"], &[]);
        check(
            &[("enforce", "restricted"), ("enforce-version", "v1.24"), ("audit", "baseline")],
            ["restricted:v1.24", "baseline:latest", "restricted:v1.24"],
            &[],
        );
        check(&[("warn", "privileged"), ("enforce", "baseline")], ["baseline:latest", open, open], &[]);
        check(
            &[("enforce", "none"), ("warn-version", "v1.01")],
            ["restricted:latest", open, open],
            &[
                "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"none\": must be one of privileged, baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v1.01\": must be \"latest\" or \"v1.x\"",
            ],
        );
    }
}
