//! The container runtime, by CRI v1 over its unix socket.

mod abilities;
pub(crate) mod labels;
mod operations;

use std::path::Path;
use std::time::Duration;

use k8s_cri::v1 as cri;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use prost::Message;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

pub(crate) use abilities::Abilities;

pub(crate) use crate::grpc::{Error, Result};
use crate::grpc::{Plugin, channel};
use operations::{Operation, Operations};

/// The largest answer that is taken: a node full of containers.
const MAX_MESSAGE: usize = 16 << 20;

impl Error {
    /// The runtime is there and answers, but not to this.
    pub(crate) fn is_about_the_request(&self) -> bool {
        matches!(self.code, Code::Unknown | Code::Internal | Code::FailedPrecondition | Code::DataLoss)
    }
}

/// What holds the runtime's images, and what they use of it.
pub(crate) struct ImageFs {
    /// The folder.
    pub(crate) mount: String,
    pub(crate) bytes: i64,
    pub(crate) inodes: i64,
}

/// A connection to the runtime and its image service; clones share it.
#[derive(Clone)]
pub(crate) struct Runtime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    /// For calls that the generated client does not know.
    other: Plugin,
    timeout: Duration,
    /// What is counted of the calls.
    pub(crate) operations: Operations,
}

const CREATE_CONTAINER: &str = "/runtime.v1.RuntimeService/CreateContainer";
const UPDATE_SANDBOX: &str = "/runtime.v1.RuntimeService/UpdatePodSandboxResources";

/// Other resources of a sandbox: a message that CRI has had since v1.33.
#[derive(Clone, PartialEq, Message)]
struct UpdateSandbox {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    overhead: Option<cri::LinuxContainerResources>,
    #[prost(message, optional, tag = "3")]
    resources: Option<cri::LinuxContainerResources>,
}

/// Its answer.
#[derive(Clone, PartialEq, Message)]
struct SandboxUpdated {}

/// A mount of a part of an image: fields that CRI has had since v1.33.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ImagePart {
    /// The path inside.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// Images can only be read.
    #[prost(bool, tag = "3")]
    pub readonly: bool,
    /// So can what is mounted below.
    #[prost(bool, tag = "8")]
    pub recursive_read_only: bool,
    /// The image.
    #[prost(message, optional, tag = "9")]
    pub image: Option<cri::ImageSpec>,
    /// The part of it.
    #[prost(string, tag = "10")]
    pub image_sub_path: String,
}

/// The mounts of a container's configuration.
#[derive(Clone, PartialEq, Message)]
struct Parts {
    #[prost(message, repeated, tag = "7")]
    mounts: Vec<ImagePart>,
}

/// The request for a container whose configuration is encoded already: messages one after the other are one message with
/// the fields of both.
#[derive(Clone, PartialEq, Message)]
struct CreateEncoded {
    #[prost(string, tag = "1")]
    sandbox: String,
    #[prost(bytes = "vec", tag = "2")]
    config: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<cri::PodSandboxConfig>,
}

impl Runtime {
    /// Makes the connection; it is set up with the first call, and again whenever it broke.
    pub(crate) fn new(runtime: &Path, images: &Path, timeout: Duration) -> Self {
        Self {
            runtime: RuntimeServiceClient::new(channel(runtime)).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel(images)).max_decoding_message_size(MAX_MESSAGE),
            other: Plugin::new(runtime),
            timeout,
            operations: Operations::new(),
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        self.request_within(message, self.timeout)
    }

    fn request_within<T>(&self, message: T, timeout: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(timeout);
        request
    }

    /// Waits for the answer to a question, and counts it.
    async fn ask<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = std::result::Result<Response<T>, Status>>,
    ) -> std::result::Result<T, Status> {
        self.operations.watch(operation, call).await.map(Response::into_inner)
    }

    /// Name and version of the runtime.
    pub(crate) async fn version(&self) -> Result<cri::VersionResponse> {
        let request = cri::VersionRequest { version: "0.1.0".to_owned() };
        Ok(self.ask(Operation::Version, self.runtime.clone().version(self.request(request))).await?)
    }

    /// The runtime's own conditions, `RuntimeReady` and `NetworkReady`, and what it can do.
    pub(crate) async fn status(&self) -> Result<(Vec<cri::RuntimeCondition>, Abilities)> {
        let request = cri::StatusRequest { verbose: false };
        let answer = self.ask(Operation::Status, self.runtime.clone().status(self.request(request))).await?;
        let abilities = Abilities::of(&answer);
        Ok((answer.status.map(|status| status.conditions).unwrap_or_default(), abilities))
    }

    /// Who makes control groups, as the runtime says; none where it says nothing of that.
    pub(crate) async fn cgroup_driver(&self) -> Result<Option<&'static str>> {
        let answer = self
            .ask(
                Operation::RuntimeConfig,
                self.runtime.clone().runtime_config(self.request(cri::RuntimeConfigRequest {})),
            )
            .await;
        let linux = match answer {
            Err(status) if status.code() == Code::Unimplemented => return Ok(None),
            other => other?.linux,
        };
        Ok(linux.map(|linux| match linux.cgroup_driver() {
            cri::CgroupDriver::Systemd => "systemd",
            cri::CgroupDriver::Cgroupfs => "cgroupfs",
        }))
    }

    /// All pod sandboxes, or those of one pod.
    pub(crate) async fn sandboxes(&self, uid: Option<&str>) -> Result<Vec<cri::PodSandbox>> {
        let filter = uid.map(|uid| cri::PodSandboxFilter {
            label_selector: [(labels::POD_UID.to_owned(), uid.to_owned())].into(),
            ..Default::default()
        });
        let request = cri::ListPodSandboxRequest { filter };
        Ok(self
            .ask(Operation::ListSandboxes, self.runtime.clone().list_pod_sandbox(self.request(request)))
            .await?
            .items)
    }

    /// All containers, or those of one pod.
    pub(crate) async fn containers(&self, uid: Option<&str>) -> Result<Vec<cri::Container>> {
        let filter = uid.map(|uid| cri::ContainerFilter {
            label_selector: [(labels::POD_UID.to_owned(), uid.to_owned())].into(),
            ..Default::default()
        });
        let request = cri::ListContainersRequest { filter };
        Ok(self
            .ask(Operation::ListContainers, self.runtime.clone().list_containers(self.request(request)))
            .await?
            .containers)
    }

    /// The state of a sandbox; none when it is gone.
    pub(crate) async fn sandbox_status(&self, id: &str) -> Result<Option<cri::PodSandboxStatus>> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        match self
            .ask(Operation::SandboxStatus, self.runtime.clone().pod_sandbox_status(self.request(request)))
            .await
        {
            Ok(answer) => Ok(answer.status),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// The state of a container; none when it is gone.
    pub(crate) async fn container_status(&self, id: &str) -> Result<Option<cri::ContainerStatus>> {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        match self
            .ask(Operation::ContainerStatus, self.runtime.clone().container_status(self.request(request)))
            .await
        {
            Ok(answer) => Ok(answer.status),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// Makes and starts a sandbox.
    pub(crate) async fn run_sandbox(&self, config: cri::PodSandboxConfig, handler: &str) -> Result<String> {
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        // Network plug-ins may take their time.
        let request = self.request_within(request, self.timeout * 2);
        Ok(self
            .operations
            .watch_sandbox(handler, self.runtime.clone().run_pod_sandbox(request))
            .await?
            .into_inner()
            .pod_sandbox_id)
    }

    /// Stops a sandbox with everything in it and takes its network down; one that is gone is no error.
    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(
            self.ask(Operation::StopSandbox, self.runtime.clone().stop_pod_sandbox(self.request(request)))
                .await,
        )
    }

    /// Removes a sandbox; one that is gone is no error.
    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(
            self.ask(
                Operation::RemoveSandbox,
                self.runtime.clone().remove_pod_sandbox(self.request(request)),
            )
            .await,
        )
    }

    /// Makes a container that mounts `parts` of images besides what its configuration says.
    pub(crate) async fn create_container(
        &self,
        sandbox: &str,
        (config, parts): (cri::ContainerConfig, Vec<ImagePart>),
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String> {
        let request = encoded(sandbox, (config, parts), sandbox_config);
        let made: cri::CreateContainerResponse = self
            .operations
            .watch(Operation::CreateContainer, self.other.call(CREATE_CONTAINER, request, self.timeout))
            .await?;
        Ok(made.container_id)
    }

    /// Starts a container.
    pub(crate) async fn start_container(&self, id: &str) -> Result<()> {
        let request = cri::StartContainerRequest { container_id: id.to_owned() };
        self.ask(Operation::StartContainer, self.runtime.clone().start_container(self.request(request)))
            .await?;
        Ok(())
    }

    /// Stops a container, killing it after `grace` seconds; one that is gone is no error.
    pub(crate) async fn stop_container(&self, id: &str, grace: i64) -> Result<()> {
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout: grace };
        let patience = self.timeout + Duration::from_secs(grace.max(0).unsigned_abs());
        let request = self.request_within(request, patience);
        gone_is_fine(self.ask(Operation::StopContainer, self.runtime.clone().stop_container(request)).await)
    }

    /// Removes a container; one that is gone is no error.
    pub(crate) async fn remove_container(&self, id: &str) -> Result<()> {
        let request = cri::RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_fine(
            self.ask(
                Operation::RemoveContainer,
                self.runtime.clone().remove_container(self.request(request)),
            )
            .await,
        )
    }

    /// Gives a running container other resources.
    pub(crate) async fn update_container(&self, id: &str, linux: cri::LinuxContainerResources) -> Result<()> {
        let request = cri::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(linux),
            ..Default::default()
        };
        self.ask(
            Operation::UpdateContainer,
            self.runtime.clone().update_container_resources(self.request(request)),
        )
        .await?;
        Ok(())
    }

    /// Tells the runtime what the containers of a sandbox have together from now on, and what the sandbox needs itself.
    /// Runtimes that do not know of this need not.
    pub(crate) async fn update_sandbox(
        &self,
        id: &str,
        overhead: cri::LinuxContainerResources,
        resources: cri::LinuxContainerResources,
    ) -> Result<()> {
        let request =
            UpdateSandbox { id: id.to_owned(), overhead: Some(overhead), resources: Some(resources) };
        let updated = self.other.call::<_, SandboxUpdated>(UPDATE_SANDBOX, request, self.timeout);
        match self.operations.watch(Operation::UpdateSandbox, updated).await {
            Err(error) if error.code == Code::Unimplemented => Ok(()),
            // Some say it in words only.
            Err(error) if error.code == Code::Unknown && error.message.contains("not implemented") => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// The memory that a container uses, in bytes, if the runtime knows.
    pub(crate) async fn container_memory(&self, id: &str) -> Result<Option<u64>> {
        let request = cri::ContainerStatsRequest { container_id: id.to_owned() };
        let stats = self
            .ask(Operation::ContainerStats, self.runtime.clone().container_stats(self.request(request)))
            .await?
            .stats;
        let memory = stats.and_then(|stats| stats.memory).unwrap_or_default();
        Ok(memory.usage_bytes.or(memory.working_set_bytes).map(|bytes| bytes.value))
    }

    /// Tells the runtime that a container's log file was moved away.
    pub(crate) async fn reopen_log(&self, id: &str) -> Result<()> {
        let request = cri::ReopenContainerLogRequest { container_id: id.to_owned() };
        self.ask(Operation::ReopenLog, self.runtime.clone().reopen_container_log(self.request(request)))
            .await?;
        Ok(())
    }

    /// Writes a container's state to a file, for which there is at least as much time as for everything else.
    pub(crate) async fn checkpoint(&self, id: &str, location: &str, patience: Duration) -> Result<()> {
        let patience = patience.max(self.timeout);
        let request = cri::CheckpointContainerRequest {
            container_id: id.to_owned(),
            location: location.to_owned(),
            timeout: patience.as_secs() as i64,
        };
        let request = self.request_within(request, patience);
        self.ask(Operation::Checkpoint, self.runtime.clone().checkpoint_container(request)).await?;
        Ok(())
    }

    /// Runs a command in a container: its exit code, standard output and standard error.
    pub(crate) async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<cri::ExecSyncResponse> {
        let seconds = timeout.as_secs();
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: seconds as i64,
        };
        let patience = if seconds == 0 { self.timeout } else { timeout + Duration::from_secs(10) };
        Ok(self
            .ask(Operation::ExecSync, self.runtime.clone().exec_sync(self.request_within(request, patience)))
            .await?)
    }

    /// The URL at which a command can be run with streams.
    pub(crate) async fn exec(&self, request: cri::ExecRequest) -> Result<String> {
        Ok(self.ask(Operation::Exec, self.runtime.clone().exec(self.request(request))).await?.url)
    }

    /// The URL at which a container's streams can be had.
    pub(crate) async fn attach(&self, request: cri::AttachRequest) -> Result<String> {
        Ok(self.ask(Operation::Attach, self.runtime.clone().attach(self.request(request))).await?.url)
    }

    /// The URL at which a sandbox's ports can be reached.
    pub(crate) async fn port_forward(&self, sandbox: &str, ports: Vec<i32>) -> Result<String> {
        let request = cri::PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port: ports };
        Ok(self
            .ask(Operation::PortForward, self.runtime.clone().port_forward(self.request(request)))
            .await?
            .url)
    }

    /// What all containers use.
    pub(crate) async fn container_stats(&self) -> Result<Vec<cri::ContainerStats>> {
        let request = cri::ListContainerStatsRequest { filter: None };
        Ok(self
            .ask(
                Operation::ListContainerStats,
                self.runtime.clone().list_container_stats(self.request(request)),
            )
            .await?
            .stats)
    }

    /// All images.
    pub(crate) async fn images(&self) -> Result<Vec<cri::Image>> {
        let request = cri::ListImagesRequest { filter: None };
        Ok(self
            .ask(Operation::ListImages, self.images.clone().list_images(self.request(request)))
            .await?
            .images)
    }

    /// An image, if the runtime has it.
    pub(crate) async fn image(&self, image: &str) -> Result<Option<cri::Image>> {
        let request = cri::ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        Ok(self
            .ask(Operation::ImageStatus, self.images.clone().image_status(self.request(request)))
            .await?
            .image)
    }

    /// Removes an image with all its names.
    pub(crate) async fn remove_image(&self, id: &str) -> Result<()> {
        let request = cri::RemoveImageRequest { image: Some(image_spec(id)) };
        gone_is_fine(
            self.ask(Operation::RemoveImage, self.images.clone().remove_image(self.request(request))).await,
        )
    }

    /// Where the runtime keeps its images.
    pub(crate) async fn image_fs(&self) -> Result<Option<ImageFs>> {
        let request = self.request(cri::ImageFsInfoRequest {});
        let info = self.ask(Operation::ImageFsInfo, self.images.clone().image_fs_info(request)).await?;
        let value = |value: Option<cri::UInt64Value>| value.map_or(0, |value| value.value as i64);
        let mut all = info.image_filesystems.into_iter().filter_map(|usage| {
            let (bytes, inodes) = (value(usage.used_bytes), value(usage.inodes_used));
            Some(ImageFs { mount: usage.fs_id?.mountpoint, bytes, inodes })
        });
        Ok(all.next())
    }

    /// Pulls an image; takes as long as it takes. Returns the runtime's reference to it.
    pub(crate) async fn pull(
        &self,
        image: &str,
        auth: Option<cri::AuthConfig>,
        sandbox: cri::PodSandboxConfig,
    ) -> Result<String> {
        let request =
            cri::PullImageRequest { image: Some(image_spec(image)), auth, sandbox_config: Some(sandbox) };
        let request = self.request_within(request, Duration::from_secs(3600));
        Ok(self.ask(Operation::PullImage, self.images.clone().pull_image(request)).await?.image_ref)
    }
}

fn encoded(
    sandbox: &str,
    (config, mounts): (cri::ContainerConfig, Vec<ImagePart>),
    sandbox_config: cri::PodSandboxConfig,
) -> CreateEncoded {
    let mut bytes = config.encode_to_vec();
    bytes.extend(Parts { mounts }.encode_to_vec());
    CreateEncoded { sandbox: sandbox.to_owned(), config: bytes, sandbox_config: Some(sandbox_config) }
}

fn image_spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: image.to_owned(), user_specified_image: image.to_owned(), ..Default::default() }
}

fn gone_is_fine<T>(result: std::result::Result<T, tonic::Status>) -> Result<()> {
    match result {
        Err(status) if status.code() != Code::NotFound => Err(status.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::grpc::{self, Answer, Service};
    use async_trait::async_trait;
    use hyper::body::Incoming;

    /// A runtime that answers with the code that the sandbox is called by.
    struct Fake;

    #[async_trait]
    impl Service for Fake {
        async fn answer(&self, method: &str, request: http::Request<Incoming>) -> Answer {
            assert_eq!(method, UPDATE_SANDBOX);
            grpc::unary(request, |question: UpdateSandbox| async move {
                assert_eq!(question.resources.unwrap_or_default().cpu_shares, 512);
                match question.id.as_str() {
                    "fine" => Ok(SandboxUpdated {}),
                    "old" => Err(Status::unimplemented("unknown method")),
                    "older" => Err(Status::unknown("not implemented yet")),
                    _ => Err(Status::internal("no room")),
                }
            })
            .await
        }
    }

    #[test]
    fn parts_of_images_are_among_the_mounts_of_the_configuration() {
        let config = cri::ContainerConfig {
            working_dir: "/w".to_owned(),
            mounts: vec![cri::Mount { container_path: "/plain".to_owned(), ..Default::default() }],
            ..Default::default()
        };
        let image = Some(image_spec("r.io/a"));
        let part = ImagePart {
            container_path: "/part".to_owned(),
            image,
            image_sub_path: "in".to_owned(),
            ..ImagePart::default()
        };
        let bytes = encoded("s", (config, vec![part]), cri::PodSandboxConfig::default()).encode_to_vec();
        let read = cri::CreateContainerRequest::decode(bytes.as_slice()).unwrap();
        let config = read.config.unwrap();
        let paths: Vec<_> = config.mounts.iter().map(|mount| mount.container_path.as_str()).collect();
        assert_eq!((read.pod_sandbox_id.as_str(), config.working_dir.as_str()), ("s", "/w"));
        assert_eq!(paths, ["/plain", "/part"]);
        assert_eq!(config.mounts[1].image, Some(image_spec("r.io/a")));
        // What the generated messages do not know is there as well.
        assert!(bytes.windows(4).any(|window| window == [10 << 3 | 2, 2, b'i', b'n']));
    }

    #[tokio::test]
    async fn runtimes_may_refuse_other_resources_but_need_not_know_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("cri.sock");
        let (listener, tasks) = (grpc::listen(&socket).unwrap(), daemon::Tasks::new());
        let stop = tasks.token();
        tasks.plain("runtime", async move {
            grpc::serve(listener, Arc::new(Fake), stop).await;
            Ok(())
        });
        let runtime = Runtime::new(&socket, &socket, Duration::from_secs(10));
        for (id, refused) in [("fine", None), ("old", None), ("older", None), ("full", Some("no room"))] {
            let resources = cri::LinuxContainerResources { cpu_shares: 512, ..Default::default() };
            let answer = runtime.update_sandbox(id, Default::default(), resources).await;
            assert_eq!(answer.err().map(|error| error.message).as_deref(), refused, "{id}");
        }
    }
}
