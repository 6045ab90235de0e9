//! How admission is configured: by flags, and by a file in which each plug-in has a part.
//!
//! Source: <https://kubernetes.io/docs/reference/config-api/apiserver-config.v1/#apiserver-k8s-io-v1-AdmissionConfiguration>.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use api::{Map, Value};

use super::event_rate::Limit;
use super::image_policy::ImagePolicy;
use super::plugins::{self, Plugin, Plugins};
use super::pod_security::PodSecurity;

/// How admission is configured.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    plugins: Plugins,
    /// PodSecurity.
    pub(super) pod_security: PodSecurity,
    /// PodNodeSelector: selectors by namespace, and `clusterDefaultNodeSelector`.
    pub(super) node_selectors: BTreeMap<String, String>,
    /// EventRateLimit: how many events there may be.
    pub(super) event_limits: Vec<Limit>,
    /// ImagePolicyWebhook: who says which images there may be.
    pub(super) image_policy: Option<Arc<ImagePolicy>>,
    /// PodTolerationRestriction: what pods get, and what they may have.
    pub(super) tolerations: Tolerations,
    /// DefaultTolerationSeconds: how long pods stay on a node that is not ready, and on one that is unreachable.
    pub(super) toleration_seconds: [i64; 2],
}

/// Tolerations of a cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Tolerations {
    pub(super) default: Vec<Value>,
    pub(super) allowed: Vec<Value>,
}

impl Configuration {
    /// Reads flags, and the file that one of them names.
    ///
    /// # Errors
    /// They name what there is not, or the file cannot be read.
    pub fn new(
        enable: &[String],
        disable: &[String],
        toleration_seconds: [i64; 2],
        file: Option<&Path>,
    ) -> Result<Self> {
        let plugins = Plugins::new(enable, disable)?;
        let mut configuration = Self { plugins, toleration_seconds, ..Self::default() };
        if let Some(file) = file {
            let read = configuration.read(file);
            read.with_context(|| format!("--admission-control-config-file {}", file.display()))?;
        }
        if plugins.run(Plugin::EventRateLimit) && configuration.event_limits.is_empty() {
            bail!(
                "--enable-admission-plugins EventRateLimit: limits: Invalid value: null: must not be empty"
            );
        }
        if plugins.run(Plugin::ImagePolicyWebhook) && configuration.image_policy.is_none() {
            bail!("--enable-admission-plugins ImagePolicyWebhook: no config specified");
        }
        Ok(configuration)
    }

    /// True when a plug-in runs.
    pub(super) fn runs(&self, plugin: Plugin) -> bool {
        self.plugins.run(plugin)
    }

    fn read(&mut self, file: &Path) -> Result<()> {
        let whole = document(file)?;
        let versions = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];
        expect(&whole, "AdmissionConfiguration", &versions)?;
        only(&whole, &["kind", "apiVersion", "plugins"])?;
        for part in whole.array_at(&["plugins"]) {
            only(part, &["name", "path", "configuration"])?;
            let name = part.str_at(&["name"]);
            let plugin = plugins::named("the file's", name)?;
            let embedded = part.get("configuration");
            let folder = file.parent().unwrap_or(Path::new(""));
            let own = match (embedded.is_null(), part.str_at(&["path"])) {
                (true, "") => continue,
                (true, path) => document(&folder.join(path))?,
                (false, _) => embedded.clone(),
            };
            self.configure(plugin, &own, folder).with_context(|| format!("the configuration of {name}"))?;
        }
        Ok(())
    }

    fn configure(&mut self, plugin: Plugin, own: &Value, folder: &Path) -> Result<()> {
        match plugin {
            Plugin::PodSecurity => {
                let versions = ["v1", "v1beta1", "v1alpha1"]
                    .map(|v| format!("pod-security.admission.config.k8s.io/{v}"));
                expect(own, "PodSecurityConfiguration", &versions.each_ref().map(String::as_str))?;
                self.pod_security = PodSecurity::read(own)?;
            }
            Plugin::PodNodeSelector => {
                only(own, &["podNodeSelectorPluginConfig"])?;
                let selectors = own.get("podNodeSelectorPluginConfig").as_object();
                for (namespace, selector) in selectors.into_iter().flat_map(Map::iter) {
                    let text = selector.as_str().context("a selector is no text")?;
                    self.node_selectors.insert(namespace.to_owned(), text.to_owned());
                }
            }
            Plugin::PodTolerationRestriction => {
                expect(own, "Configuration", &["podtolerationrestriction.admission.k8s.io/v1alpha1"])?;
                only(own, &["kind", "apiVersion", "default", "whitelist"])?;
                self.tolerations.default = own.array_at(&["default"]).to_vec();
                self.tolerations.allowed = own.array_at(&["whitelist"]).to_vec();
            }
            Plugin::EventRateLimit => {
                expect(own, "Configuration", &["eventratelimit.admission.k8s.io/v1alpha1"])?;
                self.event_limits = Limit::read(own)?;
            }
            Plugin::ImagePolicyWebhook => self.image_policy = Some(ImagePolicy::read(own, folder)?),
            _ => bail!("this plug-in takes no configuration"),
        }
        Ok(())
    }
}

fn document(file: &Path) -> Result<Value> {
    let text = crate::config_file::text(file)?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} is no YAML", file.display()))
}

/// Makes sure that a document is what it should be.
fn expect(document: &Value, kind: &str, versions: &[&str]) -> Result<()> {
    let (given, version) = (document.kind(), document.api_version());
    if given != kind || !versions.contains(&version) {
        bail!(
            "no kind \"{given}\" is registered for version \"{version}\"; it should be {kind} in {}",
            versions[0]
        );
    }
    Ok(())
}

/// Makes sure that a document has no members but these.
pub(super) fn only(document: &Value, members: &[&str]) -> Result<()> {
    let given = document.as_object().into_iter().flat_map(Map::keys);
    match given.into_iter().find(|name| !members.contains(name)) {
        Some(other) => bail!("strict decoding error: unknown field \"{other}\""),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Configuration> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, text).unwrap();
        std::fs::write(dir.path().join("selector.yaml"), "podNodeSelectorPluginConfig: {a: b=c}\n").unwrap();
        Configuration::new(&[], &[], [300, 300], Some(&file))
    }

    #[test]
    fn plugins_have_parts_of_a_file() {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n";
        let security = "- name: PodSecurity\n  configuration:\n    apiVersion: pod-security.admission.config.k8s.io/v1\n    kind: PodSecurityConfiguration\n    defaults: {enforce: baseline, warn-version: v1.30}\n    exemptions: {namespaces: [kube-system]}\n";
        let selector = "- {name: PodNodeSelector, path: selector.yaml}\n";
        let configuration = read(&format!("{head}{security}{selector}")).unwrap();
        assert_eq!(configuration.pod_security.exemptions.namespaces, ["kube-system"]);
        assert_eq!(configuration.node_selectors["a"], "b=c");
        for wrong in [
            "kind: AdmissionConfiguration\n".to_owned(),
            format!("{head}- {{name: Nope, path: x}}\n"),
            format!("{head}- {{name: PodNodeSelector, path: missing.yaml}}\n"),
            format!("{head}- {{name: Priority, configuration: {{a: b}}}}\n"),
            format!("{head}{}", security.replace("baseline", "strict")),
            format!("{head}{}", security.replace("exemptions", "exceptions")),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
}
