//! The plug-ins: their names, the order they run in, and which of them run.

use anyhow::{Result, bail};

macro_rules! plugins {
    ($($name:ident $default:literal),* $(,)?) => {
        /// A plug-in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Plugin {
            $(#[doc = concat!("`", stringify!($name), "`")] $name),*
        }

        /// All plug-ins in the order they run, and whether they run unless that is said otherwise.
        const PLUGINS: &[(Plugin, &str, bool)] = &[$((Plugin::$name, stringify!($name), $default)),*];
    };
}

plugins! {
    AlwaysAdmit false,
    NamespaceAutoProvision false,
    NamespaceLifecycle true,
    NamespaceExists false,
    LimitPodHardAntiAffinityTopology false,
    LimitRanger true,
    ServiceAccount true,
    NodeRestriction false,
    TaintNodesByCondition true,
    AlwaysPullImages false,
    ImagePolicyWebhook false,
    PodSecurity true,
    PodNodeSelector false,
    Priority true,
    DefaultTolerationSeconds true,
    PodTolerationRestriction false,
    EventRateLimit false,
    ExtendedResourceToleration false,
    DefaultStorageClass true,
    StorageObjectInUseProtection true,
    PodGroupProtection true,
    OwnerReferencesPermissionEnforcement false,
    PersistentVolumeClaimResize true,
    RuntimeClass true,
    CertificateApproval true,
    CertificateSigning true,
    ClusterTrustBundleAttest true,
    CertificateSubjectRestriction true,
    DefaultIngressClass true,
    DenyServiceExternalIPs false,
    PodTopologyLabels true,
    PodGroupWorkloadExists true,
    NodeDeclaredFeatureValidator true,
    JobValidation true,
    PodResizeValidator true,
    MutatingAdmissionPolicy true,
    MutatingAdmissionWebhook true,
    ValidatingAdmissionPolicy true,
    ValidatingAdmissionWebhook true,
    ResourceQuota true,
    AlwaysDeny false,
}

impl Plugin {
    /// How many there are.
    pub const COUNT: usize = PLUGINS.len();

    /// The name that flags and metrics use.
    pub fn name(self) -> &'static str {
        PLUGINS[self as usize].1
    }
}

/// Which plug-ins run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plugins(u64);

impl Default for Plugins {
    fn default() -> Self {
        let on = PLUGINS.iter().filter(|(_, _, on)| *on);
        Self(on.fold(0, |bits, (plugin, ..)| bits | 1 << *plugin as u32))
    }
}

impl Plugins {
    /// Those that run by default, with some more and without others.
    ///
    /// # Errors
    /// A name is none of a plug-in, or is named twice.
    pub(super) fn new(enable: &[String], disable: &[String]) -> Result<Self> {
        let mut plugins = Self::default();
        for name in enable.iter().filter(|name| !name.is_empty()) {
            let plugin = named("--enable-admission-plugins", name)?;
            if disable.contains(name) {
                bail!("{name} in enable-admission-plugins and disable-admission-plugins overlapped");
            }
            plugins.0 |= 1 << plugin as u32;
        }
        for name in disable.iter().filter(|name| !name.is_empty()) {
            plugins.0 &= !(1 << named("--disable-admission-plugins", name)? as u32);
        }
        Ok(plugins)
    }

    /// True when a plug-in runs.
    pub(super) fn run(self, plugin: Plugin) -> bool {
        self.0 & 1 << plugin as u32 != 0
    }
}

/// The plug-in that `flag` names.
///
/// # Errors
/// There is none.
pub(super) fn named(flag: &str, name: &str) -> Result<Plugin> {
    match PLUGINS.iter().find(|(_, known, _)| *known == name) {
        Some((plugin, ..)) => Ok(*plugin),
        None => bail!("{flag} plugin \"{name}\" is unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_switched_by_name() {
        let new = |enable: &[&str], disable: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
            Plugins::new(&owned(enable), &owned(disable))
        };
        let plugins = new(&["AlwaysPullImages"], &["PodSecurity"]).unwrap();
        assert!(plugins.run(Plugin::AlwaysPullImages) && plugins.run(Plugin::ResourceQuota));
        assert!(!plugins.run(Plugin::PodSecurity) && !plugins.run(Plugin::NodeRestriction));
        assert_eq!(new(&[""], &[""]).unwrap(), Plugins::default());
        for (enable, disable) in [("Nope", ""), ("Priority", "Priority")] {
            assert!(new(&[enable], &[disable]).is_err(), "{enable}");
        }
    }
}
