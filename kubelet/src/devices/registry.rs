//! How device plug-ins make themselves known, and what they say from then on.

use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

use api::names;
use async_trait::async_trait;
use daemon::Tasks;
use hyper::body::Incoming;
use tonic::Status;

use super::Devices;
use super::api::{
    Empty, LIST_AND_WATCH, ListAndWatchResponse, OPTIONS, Options, REGISTER, RegisterRequest, VERSION,
};
use super::state::Endpoint;
use crate::grpc::{self, Answer, Plugin, Service};
use crate::plugins::Handler;

const SOCKET: &str = "kubelet.sock";
/// How long a plug-in may take to say what it is.
const LIMIT: Duration = Duration::from_secs(10);

/// Where device plug-ins make themselves known.
#[derive(Clone)]
pub(crate) struct Registry {
    devices: Arc<Devices>,
    tasks: Tasks,
    wake: Arc<dyn Fn(&str) + Send + Sync>,
}

/// Whether nodes may call a resource like this: a name with a domain that is not Kubernetes' own.
fn is_extended(resource: &str) -> bool {
    resource.contains('/')
        && !resource.contains("kubernetes.io/")
        && !resource.starts_with("requests.")
        && names::qualified_name(&format!("requests.{resource}")).is_empty()
}

#[async_trait]
impl Service for Registry {
    async fn answer(&self, method: &str, request: http::Request<Incoming>) -> Answer {
        match method {
            REGISTER => grpc::unary(request, |question| self.register(question)).await,
            other => grpc::unimplemented(other),
        }
    }
}

impl Registry {
    /// Serves these devices. `wake` has a pod looked at again, by its uid.
    pub(crate) fn new(devices: Arc<Devices>, tasks: Tasks, wake: Arc<dyn Fn(&str) + Send + Sync>) -> Self {
        Self { devices, tasks, wake }
    }

    /// Opens the socket of the registry, and answers at it until the process ends.
    pub(crate) fn start(&self) -> std::io::Result<()> {
        let listener = grpc::listen(&self.devices.dir.join(SOCKET))?;
        let (registry, stop) = (Arc::new(self.clone()), self.tasks.token());
        self.tasks.critical("device-plugins", async move {
            grpc::serve(listener, registry, stop).await;
            Ok(())
        });
        Ok(())
    }

    async fn register(&self, request: RegisterRequest) -> Result<Empty, Status> {
        let resource = request.resource_name.as_str();
        tracing::info!(resource, "Got registration request from device plugin with resource");
        let refused = |why: String| {
            tracing::error!(resource, err = why, "Bad registration request from device plugin");
            Status::unknown(why)
        };
        if request.version != VERSION {
            let why = format!(
                "requested API version {:?} is not supported by kubelet. Supported version is [{VERSION:?}]",
                request.version
            );
            return Err(refused(why));
        }
        if !is_extended(resource) {
            return Err(refused(format!("the ResourceName {resource:?} is invalid")));
        }
        self.devices.registrations.with_label_values(&[resource]).inc();
        let endpoint = Path::new(&request.endpoint);
        if request.endpoint.is_empty()
            || !endpoint.components().all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(refused(format!("the endpoint {:?} is no file of the folder", request.endpoint)));
        }
        let socket = self.devices.dir.join(endpoint);
        self.connect(resource, &socket).await.map_err(refused)?;
        Ok(Empty {})
    }

    /// Asks a plug-in what it is, and listens to it from then on.
    async fn connect(&self, resource: &str, socket: &Path) -> Result<(), String> {
        let plugin = Plugin::new(socket);
        let options: Options = plugin
            .call(OPTIONS, Empty {}, LIMIT)
            .await
            .map_err(|error| format!("failed to get device plugin options: {error}"))?;
        let generation = rand::random();
        {
            let mut state = self.devices.state.lock();
            let entry = state.resources.entry(resource.to_owned()).or_default();
            entry.endpoint = Some(Endpoint { plugin: plugin.clone(), options, generation });
            entry.stopped = None;
        }
        let (this, resource) = (self.clone(), resource.to_owned());
        let stop = self.tasks.token();
        self.tasks.plain("device-plugin", async move {
            let ended = tokio::select! {
                ended = this.listen(&plugin, &resource, generation) => ended,
                () = stop.cancelled() => return Ok(()),
            };
            tracing::warn!(resource, err = ended, "ListAndWatch ended unexpectedly for device plugin");
            this.disconnect(&resource, Some(generation));
            Ok(())
        });
        Ok(())
    }

    /// Whether what a connection says is (still) of interest.
    fn is_current(&self, resource: &str, generation: u64) -> bool {
        let state = self.devices.state.lock();
        let endpoint = state.resources.get(resource).and_then(|entry| entry.endpoint.as_ref());
        endpoint.is_some_and(|endpoint| endpoint.generation == generation)
    }

    /// Takes over what a plug-in says until it falls silent.
    async fn listen(&self, plugin: &Plugin, resource: &str, generation: u64) -> String {
        let stream = plugin.stream::<_, ListAndWatchResponse>(LIST_AND_WATCH, Empty {}).await;
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) => return error.to_string(),
        };
        loop {
            let devices = match stream.message().await {
                Ok(Some(answer)) => answer.devices,
                Ok(None) => return "EOF".to_owned(),
                Err(status) => return grpc::Error::from(status).to_string(),
            };
            if !self.is_current(resource, generation) {
                return "another plug-in has taken its place".to_owned();
            }
            let pods = self.devices.state.lock().update(resource, devices);
            self.devices.write();
            self.devices.changed.notify_one();
            pods.iter().for_each(|uid| (self.wake)(uid));
        }
    }

    fn disconnect(&self, resource: &str, generation: Option<u64>) {
        if generation.is_none_or(|generation| self.is_current(resource, generation)) {
            self.devices.state.lock().disconnect(resource, std::time::Instant::now());
            self.devices.changed.notify_one();
        }
    }
}

#[async_trait]
impl Handler for Registry {
    fn validate(&self, name: &str, _: &Path, versions: &[String]) -> Result<(), String> {
        if !versions.iter().any(|version| version == VERSION) {
            return Err(format!(
                "manager version, {VERSION}, is not among plugin supported versions [{}]",
                versions.join(" ")
            ));
        }
        if !is_extended(name) {
            return Err(format!(
                "invalid name of device plugin socket: the ResourceName {name:?} is invalid"
            ));
        }
        Ok(())
    }

    async fn register(&self, name: &str, endpoint: &Path, _: &[String]) -> Result<(), String> {
        self.connect(name, endpoint).await
    }

    async fn deregister(&self, name: &str, _: &Path) {
        self.disconnect(name, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_of_devices_have_a_domain_of_their_own() {
        for (name, fine) in [
            ("example.com/gpu", true),
            ("gpu", false),
            ("kubernetes.io/gpu", false),
            ("x.kubernetes.io/gpu", false),
            ("requests.example.com/gpu", false),
            ("example.com/g pu", false),
            ("example.com/", false),
        ] {
            assert_eq!(is_extended(name), fine, "{name}");
        }
    }
}
