//! The drivers that have made themselves known.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use prost::Message;
use semver::Version;
use tonic::Code;

use super::api::{CAPABILITIES, CapabilitiesResponse, Capability, INFO, InfoResponse, Nothing};
use super::{Csi, Local};
use crate::grpc::{self, Plugin};
use crate::metrics::Storage;
use crate::plugins::Handler;

/// How long a driver may take for anything.
const LIMIT: Duration = Duration::from_secs(120);

/// A driver on this node.
#[derive(Debug)]
pub(super) struct Driver {
    name: String,
    plugin: Plugin,
    metrics: Arc<Storage>,
    version: Version,
    capabilities: OnceLock<Vec<i32>>,
}

impl Driver {
    pub(super) fn new(name: &str, endpoint: &Path, version: Version, metrics: Arc<Storage>) -> Self {
        let (name, plugin) = (name.to_owned(), Plugin::new(endpoint));
        Self { name, plugin, metrics, version, capabilities: OnceLock::new() }
    }

    /// Asks the driver for something.
    pub(super) async fn call<Q, A>(&self, method: &'static str, question: Q) -> grpc::Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let began = Instant::now();
        let answer = self.plugin.call(method, question, LIMIT).await;
        let code = answer.as_ref().err().map_or(Code::Ok, |error: &grpc::Error| error.code);
        self.metrics.called(&self.name, method, &grpc::name(code), began.elapsed());
        answer
    }

    /// Whether the driver can do something. It is asked once.
    pub(super) async fn can(&self, capability: Capability) -> grpc::Result<bool> {
        let known = match self.capabilities.get() {
            Some(known) => known,
            None => {
                let answer: CapabilitiesResponse = self.call(CAPABILITIES, Nothing {}).await?;
                let kinds = answer
                    .capabilities
                    .into_iter()
                    .filter_map(|known| known.rpc)
                    .map(|rpc| rpc.kind)
                    .collect();
                self.capabilities.get_or_init(|| kinds)
            }
        };
        Ok(known.contains(&(capability as i32)))
    }
}

/// Whether an operation that failed with this is over. If not, the driver may go on with it.
pub(super) fn is_final(error: &grpc::Error) -> bool {
    !matches!(
        error.code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Unavailable
            | Code::ResourceExhausted
            | Code::Aborted
    )
}

/// The highest version of the protocol that both sides speak.
fn highest(versions: &[String]) -> Option<Version> {
    let parse = |text: &String| {
        let text = text.trim_start_matches('v');
        let dots = text.matches('.').count();
        Version::parse(&format!("{text}{}", &".0.0"[..(2 - dots.min(2)) * 2])).ok()
    };
    versions.iter().filter_map(parse).filter(|version| version.major == 1).max()
}

impl Local {
    /// A driver; an error is a sentence.
    pub(super) fn driver(&self, name: &str) -> Result<Arc<Driver>, String> {
        let drivers = self.drivers.lock();
        let missing = || format!("driver name {name} not found in the list of registered CSI drivers");
        drivers.get(name).cloned().ok_or_else(missing)
    }

    fn version(&self, name: &str, versions: &[String], caller: &str) -> Result<Version, String> {
        let failed =
            |why: String| Err(format!("kubernetes.io/csi: {caller} for CSI driver {name:?} failed. {why}"));
        if versions.is_empty() {
            return failed("Plugin returned an empty list for supported versions".to_owned());
        }
        let Some(version) = highest(versions) else {
            return failed(format!("None of the versions specified {versions:?} are supported."));
        };
        match self.drivers.lock().get(name) {
            Some(known) if known.version >= version => failed(format!(
                "Another driver with the same name is already registered with a higher supported version: \"{}\"",
                known.version
            )),
            _ => Ok(version),
        }
    }
}

/// Takes drivers.
pub(crate) struct Registration(pub(crate) Arc<Csi>);

#[async_trait]
impl Handler for Registration {
    fn validate(&self, name: &str, endpoint: &Path, versions: &[String]) -> Result<(), String> {
        let checked = self.0.local.version(name, versions, "ValidatePlugin");
        let wrap = |why| {
            format!("validation failed for CSI Driver {name} at endpoint {}: {why}", endpoint.display())
        };
        // The name becomes part of paths.
        match api::names::dns_subdomain(&name.to_lowercase()).pop() {
            Some(problem) => Err(wrap(format!("invalid name {name:?}: {problem}"))),
            None => checked.map(drop).map_err(wrap),
        }
    }

    async fn register(&self, name: &str, endpoint: &Path, versions: &[String]) -> Result<(), String> {
        let version = self.0.local.version(name, versions, "RegisterPlugin")?;
        let driver = Arc::new(Driver::new(name, endpoint, version, self.0.metrics.clone()));
        self.0.local.drivers.lock().insert(name.to_owned(), driver.clone());
        let install = async {
            let info: InfoResponse =
                driver.call(INFO, Nothing {}).await.map_err(|error| error.to_string())?;
            self.0.install(name, &info).await
        };
        let installed = install.await;
        if installed.is_err() {
            self.deregister(name, endpoint).await;
        }
        installed
    }

    async fn deregister(&self, name: &str, _: &Path) {
        self.0.local.drivers.lock().remove(name);
        if let Err(error) = self.0.uninstall(name).await {
            tracing::error!(driver = name, err = error, "Cannot take a CSI driver off the node's objects");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_counts() {
        for (versions, expected) in [
            (&["1.0.0"][..], Some("1.0.0")),
            (&["0.3.0", "1.2.0", "1.10.0", "2.0.0"], Some("1.10.0")),
            (&["v1"], Some("1.0.0")),
            (&["1.4"], Some("1.4.0")),
            (&["0.3.0", "nonsense", "2.0.0"], None),
        ] {
            let versions: Vec<String> = versions.iter().map(|v| (*v).to_owned()).collect();
            assert_eq!(highest(&versions).map(|v| v.to_string()).as_deref(), expected, "{versions:?}");
        }
    }
}
