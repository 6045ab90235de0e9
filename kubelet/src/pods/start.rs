//! Carrying out a plan: sandboxes and containers are made here.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use api::Value;
use client::events::Kind;
use k8s_cri::v1 as cri;

use super::actor::{Actor, now};
use super::container::{self, Inputs};
use super::image_volumes::{ImageVolumes, of_mounts};
use super::observed::{Container, State};
use super::plan::Plan;
use super::status::RESTARTING_ALL;
use super::{amounts, hooks, resources, sandbox, spec};
use crate::cri::ImagePart;
use crate::downward;
use crate::env;
use crate::events;
use crate::images;
use crate::logs;
use crate::metrics::ContainerType;
use crate::users::Users;

/// What a container's configuration is made of besides the pod.
pub(super) struct Around {
    image: cri::Image,
    /// The images it mounts, by the names of their volumes.
    pub(super) image_volumes: HashMap<String, cri::ImageSpec>,
    /// The runtime's handler for the pod.
    pub(super) handler: String,
    /// The users of the pod's own.
    pub(super) users: Option<Users>,
}

impl Actor {
    /// Takes the steps of a plan; true when anything was done. A failure has been told to the user already.
    pub(super) async fn apply(&mut self, pod: &Arc<Value>, plan: &Plan) -> Result<bool, ()> {
        if !plan.reset.is_empty() {
            return self.reset(pod, plan).await.map(|()| true);
        }
        let mut did = !plan.kill.is_empty();
        for kill in &plan.kill {
            if !self.kill(pod, &kill.id, &kill.name, &kill.message, &[]).await {
                return Err(());
            }
        }
        if plan.sandbox.is_some() || !plan.start.is_empty() {
            self.prepare(pod).await?;
        }
        // Volumes that show objects are brought up to date at every look.
        self.mount(pod).await?;
        let mut resized = Ok(());
        if !plan.resize.is_empty() {
            did = true;
            let began = Instant::now();
            resized = self.actuate(pod, &plan.resize).await;
            self.kubelet.metrics.outcomes.resized(began.elapsed(), resized.is_ok());
            if let Err(error) = &resized {
                tracing::warn!(pod = %spec::describe(pod), err = error, "Cannot change the pod's resources");
                self.kubelet.note_failure(pod, error);
            }
        }
        if let Some(attempt) = plan.sandbox {
            self.make_sandbox(pod, attempt, plan.sandbox_changed).await?;
            did = true;
        }
        let volumes = if plan.start.is_empty() { ImageVolumes::new() } else { self.image_volumes(pod).await };
        for name in &plan.start {
            let Some(definition) = spec::container(pod, name).cloned() else { continue };
            let started = self.start(pod, &definition, &volumes).await;
            let failure = started.as_ref().err().map(|(reason, _)| reason.as_str());
            self.kubelet.metrics.pods.container(ContainerType::of(pod, name), failure);
            match started {
                Ok(()) => {
                    self.waiting.remove(name);
                    did = true;
                }
                Err((reason, message)) => {
                    self.waiting.insert(name.clone(), (reason, message));
                    self.report(pod, false);
                    return Err(());
                }
            }
        }
        resized.map(|()| did).map_err(|_| ())
    }

    /// Removes all containers of the pod, which then start over. Their logs stay.
    async fn reset(&mut self, pod: &Arc<Value>, plan: &Plan) -> Result<(), ()> {
        let kubelet = self.kubelet.clone();
        for reset in &plan.reset {
            let remove = async {
                if reset.kill {
                    let recorder = &kubelet.recorder;
                    events::of_container(recorder, pod, &reset.name, Kind::Normal, "Killing", "killing");
                    kubelet.runtime.stop_container(&reset.id, 0).await?;
                }
                kubelet.runtime.remove_container(&reset.id).await
            };
            remove.await.map_err(|error| {
                let pod = spec::describe(pod);
                tracing::warn!(pod, container = reset.name, err = %error, "Cannot remove a container");
            })?;
        }
        Ok(())
    }

    /// The pod's folders and its control group.
    async fn prepare(&self, pod: &Value) -> Result<(), ()> {
        let config = &self.kubelet.config;
        let folders = || -> io::Result<()> {
            let dir = config.pod_dir(pod.uid());
            for sub in ["", "volumes", "plugins", "containers"] {
                make_dir(&dir.join(sub), 0o750)?;
            }
            make_dir(&config.pod_logs(pod.namespace(), pod.name(), pod.uid()), 0o755)
        };
        let recorder = &self.kubelet.recorder;
        folders().map_err(|error| {
            let message = format!("error making pod data directories: {error}");
            events::of_pod(recorder, pod, Kind::Warning, "Failed", &message);
        })?;
        if !config.file.cgroups_per_qos {
            return Ok(());
        }
        let period = config.file.cpu_cfs_quota_period.0.as_micros() as u64;
        let rationed = config.file.cpu_cfs_quota && !self.kubelet.managers.has_own_cpus(pod.uid());
        let limits = resources::pod_limits(pod, period, rationed, config.file.pod_pids_limit);
        let group = config.groups.pod(pod);
        if self.kubelet.cgroups.exists(&group) {
            // Its limits change with the resources of the pod, in the order of `resize`.
            return Ok(());
        }
        self.kubelet.allocations.actuate_pod(pod);
        self.kubelet.allocations.save().await;
        self.kubelet.cgroups.create(&group, &limits).await.map_err(|error| {
            let message = format!(
                "unable to ensure pod container exists: failed to create container for {group} : {error}"
            );
            events::of_pod(recorder, pod, Kind::Warning, "FailedCreatePodContainer", &message);
        })
    }

    async fn mount(&mut self, pod: &Value) -> Result<(), ()> {
        let dir = self.kubelet.config.pod_dir(pod.uid());
        let ips = self.ips(pod);
        let facts = self.facts(&ips);
        match self.kubelet.volumes.mount(pod, &dir, &facts).await {
            Ok(mounted) => {
                self.mounted = mounted;
                Ok(())
            }
            Err(errors) => {
                for error in errors {
                    let message = error.to_string();
                    events::of_pod(&self.kubelet.recorder, pod, Kind::Warning, "FailedMount", &message);
                }
                Err(())
            }
        }
    }

    fn facts<'a>(&'a self, ips: &'a [String]) -> downward::Facts<'a> {
        let allocatable = self.kubelet.allocatable();
        downward::Facts {
            host_ips: &self.kubelet.host_ips,
            pod_ips: ips,
            allocatable: (allocatable.cpu, allocatable.memory),
        }
    }

    pub(super) fn sandbox_config(
        &self,
        pod: &Value,
        attempt: u32,
        users: Option<Users>,
    ) -> Result<cri::PodSandboxConfig, String> {
        let resolv_conf = fs::read_to_string(&self.kubelet.config.file.resolv_conf).unwrap_or_default();
        sandbox::config(pod, &self.kubelet.config, attempt, &resolv_conf, users)
    }

    /// The users of the pod's own, when it wants such.
    pub(super) fn users(&self, pod: &Value, handler: &str) -> Result<Option<Users>, String> {
        if pod.at(&["spec", "hostUsers"]).as_bool() != Some(false) {
            return Ok(None);
        }
        let able = self.kubelet.abilities.read().as_ref().is_some_and(|can| can.user_namespaces(handler));
        match (able, handler) {
            (true, _) => self.kubelet.users.of(pod.uid()).map(Some),
            (false, "") => {
                Err("can't set `spec.hostUsers: false`, runtime does not support user namespaces".to_owned())
            }
            (false, _) => Err(format!(
                "can't set `spec.hostUsers: false`, RuntimeClass handler {handler:?} does not support user namespaces"
            )),
        }
    }

    async fn make_sandbox(&mut self, pod: &Arc<Value>, attempt: u32, changed: bool) -> Result<(), ()> {
        let kubelet = self.kubelet.clone();
        if changed {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            events::of_pod(&kubelet.recorder, pod, Kind::Normal, "SandboxChanged", message);
            let running: Vec<_> = self.observed.running().map(|c| (c.id.clone(), c.name.clone())).collect();
            for (id, name) in running {
                let message = format!("Stopping container {name}");
                self.kill(pod, &id, &name, &message, &[]).await;
            }
            for old in self.observed.sandboxes.clone() {
                if let Err(error) = kubelet.runtime.stop_sandbox(&old.id).await {
                    tracing::warn!(pod = %spec::describe(pod), err = %error, "Cannot stop the old sandbox");
                    return Err(());
                }
            }
        }
        kubelet.claims.prepare(pod).await.map_err(|why| {
            let message = format!("Failed to prepare dynamic resources: {why}");
            events::of_pod(&kubelet.recorder, pod, Kind::Warning, "FailedPrepareDynamicResources", &message);
        })?;
        let made = async {
            let handler = runtime_handler(&kubelet, pod).await?;
            let config = self.sandbox_config(pod, attempt, self.users(pod, &handler)?)?;
            kubelet.runtime.run_sandbox(config, &handler).await.map_err(|error| error.to_string())
        };
        let made = made.await;
        kubelet.metrics.pods.sandbox(made.is_ok());
        if pod.at(&["spec", "hostUsers"]).as_bool() == Some(false) {
            kubelet.metrics.outcomes.own_users(made.is_ok());
        }
        let id = made.map_err(|why| {
            let message = format!("Failed to create pod sandbox: {why}");
            events::of_pod(&kubelet.recorder, pod, Kind::Warning, "FailedCreatePodSandBox", &message);
        })?;
        // Nothing is known of what was stopped.
        let seen = if changed { self.observe(pod).await } else { self.observe_sandbox(&id).await };
        seen.map_err(|error| {
            tracing::warn!(pod = %spec::describe(pod), err = %error, "Cannot see the new sandbox");
        })?;
        self.report(pod, false);
        Ok(())
    }

    /// Pulls the image, then makes and starts one container. The error is the reason and message of its status.
    async fn start(
        &mut self,
        pod: &Arc<Value>,
        definition: &Value,
        volumes: &ImageVolumes,
    ) -> Result<(), (String, String)> {
        let kubelet = self.kubelet.clone();
        let name = definition.str_at(&["name"]);
        let Some(sandbox) = self.observed.sandbox(pod).cloned() else {
            return Err(("ContainerCreating".to_owned(), "the sandbox is not ready".to_owned()));
        };
        let of_sandbox = async {
            let handler = runtime_handler(&kubelet, pod).await?;
            let users = self.users(pod, &handler)?;
            Ok((self.sandbox_config(pod, sandbox.attempt, users)?, users, handler))
        };
        let (sandbox_config, users, handler) =
            of_sandbox.await.map_err(|why: String| ("CreateContainerConfigError".to_owned(), why))?;
        self.handler.clone_from(&handler);
        let warn = |reason: &str, message: &str| {
            events::of_container(&kubelet.recorder, pod, name, Kind::Warning, reason, message);
        };
        let waiting = |waiting: images::Waiting| {
            warn("Failed", &format!("Error: {}", waiting.reason));
            (waiting.reason.to_owned(), waiting.message)
        };
        let image_volumes = of_mounts(definition, volumes).map_err(waiting)?;
        let request = images::Request {
            pod,
            image: definition.str_at(&["image"]),
            policy: definition.str_at(&["imagePullPolicy"]),
            container: Some(name),
            sandbox: sandbox_config.clone(),
            now: now(),
        };
        let image = kubelet.images.ensure(request, &kubelet.objects, &mut self.image_backoffs).await;
        let image = image.map_err(waiting)?;
        let around = Around { image, image_volumes, handler, users };
        let config = self.container_config(pod, definition, &around).await.map_err(|message| {
            warn("Failed", &format!("Error: {message}"));
            ("CreateContainerConfigError".to_owned(), message)
        })?;
        let ended = |last: &Container| last.name == name && last.state == State::Exited;
        if self.observed.containers.iter().any(ended) {
            self.backoffs.crashed(name, now());
        }
        let resources = amounts::effective(pod.at(&["spec", "resources"]), definition.get("resources"));
        if !spec::is_ephemeral(pod, name) {
            kubelet.allocations.actuate(pod, name, resources);
            kubelet.allocations.save().await;
        }
        let log = Path::new(&sandbox_config.log_directory).join(&config.0.log_path);
        let created = kubelet.runtime.create_container(&sandbox.id, config, sandbox_config).await;
        let mounts = definition.array_at(&["volumeMounts"]).iter();
        let of_images = mounts.filter(|mount| volumes.contains_key(mount.str_at(&["name"]))).count();
        kubelet.metrics.outcomes.images(volumes.len(), of_images, created.is_ok());
        let id = created.map_err(|error| {
            warn("Failed", &format!("Error: {}", error.message));
            ("CreateContainerError".to_owned(), error.message)
        })?;
        let normal = |reason: &str, message: &str| {
            events::of_container(&kubelet.recorder, pod, name, Kind::Normal, reason, message);
        };
        normal("Created", "Container created");
        kubelet.managers.started(pod, name);
        kubelet.runtime.start_container(&id).await.map_err(|error| {
            warn("Failed", &format!("Error: {}", error.message));
            ("RunContainerError".to_owned(), error.message)
        })?;
        normal("Started", "Container started");
        let names = logs::Names { pod: pod.name(), namespace: pod.namespace(), container: name, id: &id };
        if let Err(error) = logs::link(Path::new(logs::LINKS), &names, &log) {
            tracing::error!(pod = %spec::describe(pod), container = name, err = %error, "Cannot link to the container's log");
        }
        self.after_start(pod, definition, &id).await;
        Ok(())
    }

    async fn after_start(&mut self, pod: &Arc<Value>, definition: &Value, id: &str) {
        let hook = definition.at(&["lifecycle", "postStart"]);
        if hook.is_empty() {
            return;
        }
        let ips = self.ips(pod);
        let target = hooks::target(pod, definition, id, &ips);
        if let Err(error) = hooks::run(&self.kubelet, hook, &target).await {
            tracing::warn!(pod = %spec::describe(pod), err = error, "PostStart hook failed");
            let name = definition.str_at(&["name"]);
            let recorder = &self.kubelet.recorder;
            events::of_container(
                recorder,
                pod,
                name,
                Kind::Warning,
                "FailedPostStartHook",
                "PostStartHook failed",
            );
            self.probes.hook_failed(id, &error);
        }
    }

    async fn container_config(
        &self,
        pod: &Arc<Value>,
        definition: &Value,
        around: &Around,
    ) -> Result<(cri::ContainerConfig, Vec<ImagePart>), String> {
        let kubelet = &self.kubelet;
        let ips = self.ips(pod);
        let links = pod.at(&["spec", "enableServiceLinks"]).as_bool().unwrap_or(true);
        if links && !kubelet.services.is_synced() && !spec::is_static(pod) {
            return Err("services have not yet been read at least once, cannot construct envvars".to_owned());
        }
        let sources = env::Sources {
            objects: &kubelet.objects,
            services: &kubelet.services,
            volumes: &self.mounted,
            downward: self.facts(&ips),
        };
        let env = env::variables(pod, definition, &sources).await.map_err(|error| error.to_string())?;
        let mounts = self.mounts(pod, definition, (&env, &ips), around);
        let (mounts, parts) = mounts.map_err(|error| error.to_string())?;
        let target = match definition.str_at(&["targetContainerName"]) {
            "" => None,
            name => {
                let running = self.observed.running().find(|container| container.name == name);
                let missing = || format!("unable to find target container {name}");
                Some(running.map(|container| container.id.clone()).ok_or_else(missing)?)
            }
        };
        let mut options = kubelet.devices.options(pod, definition).await?;
        options.devices.extend(self.devices(pod, definition)?);
        options.name_devices(kubelet.claims.cdi_ids(pod, definition)?);
        let mut config = container::config(Inputs {
            target,
            pod,
            container: definition,
            config: &kubelet.config,
            restarts: self.restarts(pod, definition),
            image: &around.image,
            env: &env,
            mounts,
            options,
            memory: kubelet.facts.memory as i64,
            cgroup_v2: kubelet.cgroups.is_v2(),
            huge_pages: &kubelet.capacity.huge_pages,
            swap: kubelet.swap,
            users: around.users,
        })?;
        if let Some(linux) = config.linux.as_mut().and_then(|linux| linux.resources.as_mut()) {
            kubelet.managers.pin(pod.uid(), definition.str_at(&["name"]), linux);
        }
        Ok((config, parts))
    }

    /// How often the container has been started so far.
    fn restarts(&self, pod: &Value, definition: &Value) -> u32 {
        let name = definition.str_at(&["name"]);
        if let Some(last) = self.observed.newest(name) {
            return last.restarts + 1;
        }
        let statuses = ["initContainerStatuses", "containerStatuses"];
        let mut all = statuses.iter().flat_map(|field| pod.array_at(&["status", field]));
        let status = all.find(|status| status.str_at(&["name"]) == name);
        // The runtime may have lost what it had; a container that never ran counts as none.
        match status {
            // What was removed in order to start over has been counted already.
            Some(status) if status.str_at(&["state", "waiting", "reason"]) == RESTARTING_ALL => {
                status.get("restartCount").as_i64().and_then(|n| u32::try_from(n).ok()).unwrap_or_default()
            }
            Some(status) if !status.str_at(&["containerID"]).is_empty() => {
                status.get("restartCount").as_i64().and_then(|n| u32::try_from(n).ok()).unwrap_or_default()
                    + 1
            }
            _ => 0,
        }
    }
}

pub(super) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// The runtime's handler for the pod's runtime class; an error is a sentence.
pub(super) async fn runtime_handler(kubelet: &crate::Kubelet, pod: &Value) -> Result<String, String> {
    let class = pod.str_at(&["spec", "runtimeClassName"]);
    if class.is_empty() {
        return Ok(String::new());
    }
    match kubelet.client.get_opt(&client::resource::RUNTIME_CLASSES, "", class).await {
        Ok(Some(found)) => Ok(found.str_at(&["handler"]).to_owned()),
        Ok(None) => Err(format!("RuntimeClass {class:?} not found")),
        Err(error) => Err(format!("cannot read RuntimeClass {class:?}: {error}")),
    }
}
