//! The node agent: it takes the pods that are bound to its node and makes the container runtime run them.
//!
//! One actor for each pod compares what is wanted (the API server's object or a file) with what runs (as the runtime has
//! it) and takes the next step, over and over. Nothing is remembered that cannot be found again: after a restart the
//! state comes from the runtime's labels and the pods' statuses, and no container is touched.
//!
//! Mirrors upstream's kubelet v1.36: configuration file, flags, labels, folders, events, statuses, endpoints. What it does
//! not do (yet): managers of whole pods. Where a setting asks for one of these it is refused, not
//! ignored.

mod allocation;
mod args;
mod certificates;
mod checkpoint;
mod claims;
pub mod config;
mod cri;
mod csi;
mod devices;
mod downward;
mod env;
mod events;
mod eviction;
mod firewall;
mod groups;
mod grpc;
mod images;
mod logs;
mod managers;
mod metrics;
mod network;
mod node;
mod objects;
mod plugins;
mod pod_resources;
mod pods;
mod probes;
mod reserved;
mod server;
mod shutdown;
mod usage;
mod users;
mod volumes;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};
use api::Value;
use client::{Client, Connection, Recorder};
use daemon::Tasks;
use daemon::features::FeatureGates;
use linux::cgroup::{Cgroups, Limits};
use linux::facts::Facts;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use allocation::Allocations;
pub use args::{Args, FieldFlags, Fixed};
use claims::{Claims, NodeServer};
use config::Config;
use cri::{Abilities, Runtime};
use csi::Csi;
use devices::Devices;
use env::Services;
use eviction::{Eviction, Pressure};
use groups::{GroupNames, Groups};
use images::collect::Collector;
use images::{Images, Providers, Records};
use managers::Managers;
use metrics::{Metrics, Place, Startup};
use node::status::Capacity;
use objects::Objects;
use pods::manager::{Allocatable, Health};
use pods::needs::{Needs, Taken, Wanted};
use pods::swap::Swap;
use pods::{Manager, resources, spec, static_pods, traces};
use users::Ranges;
use volumes::{Tokens, Volumes};

/// The folder, below the kubelet's own, in which plug-ins make themselves known.
const PLUGINS: &str = "plugins_registry";

/// What all parts share.
pub(crate) struct Kubelet {
    pub(crate) config: Config,
    /// When this process began.
    pub(crate) started: jiff::Timestamp,
    pub(crate) tasks: Tasks,
    pub(crate) runtime: Runtime,
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) cgroups: Groups,
    pub(crate) facts: Facts,
    pub(crate) capacity: Capacity,
    pub(crate) swap: Swap,
    pub(crate) host_ips: Vec<String>,
    pub(crate) objects: Arc<Objects>,
    pub(crate) services: Services,
    pub(crate) volumes: Volumes,
    pub(crate) csi: Arc<Csi>,
    pub(crate) images: Images,
    /// What the runtime can do; none until it said so.
    pub(crate) abilities: RwLock<Option<Abilities>>,
    /// Users that pods have of their own.
    pub(crate) users: Ranges,
    /// The node's own object.
    pub(crate) node: RwLock<Option<Arc<Value>>>,
    pub(crate) node_changed: Notify,
    pub(crate) mirrors_changed: Notify,
    /// Whether all places that static pods come from have been read once.
    pub(crate) manifests_read: watch::Sender<bool>,
    pub(crate) relisted: Health,
    /// Every pod here, by uid.
    pub(crate) pods: Mutex<HashMap<String, Known>>,
    pub(crate) allocations: Allocations,
    pub(crate) devices: Arc<Devices>,
    pub(crate) managers: Arc<Managers>,
    pub(crate) claims: Arc<Claims>,
    /// What the node runs short of.
    pub(crate) pressures: RwLock<Vec<Pressure>>,
    pub(crate) collector: Collector,
    /// The machine is being shut down.
    pub(crate) shutting_down: AtomicBool,
    /// Some pod has let go of everything.
    pub(crate) settled: Notify,
    pub(crate) shutdown_metrics: shutdown::Metrics,
    pub(crate) probe_metrics: probes::Metrics,
    pub(crate) pod_resources: pod_resources::Metrics,
    /// How busy groups and containers are.
    pub(crate) rates: server::Rates,
    pub(crate) metrics: Arc<Metrics>,
}

/// A pod on this node.
pub(crate) struct Known {
    /// The pod as it is wanted.
    pub(crate) pod: Wanted,
    /// The status that it has; null before the first.
    pub(crate) status: Value,
    /// Wakes its actor.
    pub(crate) wake: Arc<Notify>,
    /// Tells its actor to go.
    pub(crate) eviction: watch::Sender<Option<Eviction>>,
    /// It has ended, and let go of everything but its containers, which can be looked at.
    pub(crate) over: bool,
    /// Nobody wants it any more.
    pub(crate) removed: bool,
    /// It was found here, and nobody has ever wanted it.
    pub(crate) found: bool,
    /// How it starts, as the API server shows it.
    pub(crate) startup: Startup,
}

impl Known {
    /// The pod's phase: by the kubelet, or by the API server as long as the kubelet has not said anything.
    fn phase(&self) -> &str {
        match self.status.str_at(&["phase"]) {
            "" => self.pod.str_at(&["status", "phase"]),
            phase => phase,
        }
    }

    fn place(&self) -> Place {
        Place {
            is_static: spec::is_static(&self.pod),
            wanted: !self.removed,
            found: self.found,
            ended: matches!(self.phase(), "Succeeded" | "Failed"),
            ends: self.pod.is_terminating(),
            over: self.over,
        }
    }
}

fn node_reference(config: &Config) -> Value {
    let name = config.node_name.as_str();
    api::object!({"kind": "Node", "metadata": {"name": name, "uid": name}})
}

impl Kubelet {
    /// What pods may use of the node.
    pub(crate) fn allocatable(&self) -> Allocatable {
        self.capacity.allocatable
    }

    /// The node, for events about it.
    pub(crate) fn node_reference(&self) -> Value {
        node_reference(&self.config)
    }

    /// The node object's uid.
    pub(crate) fn node_uid(&self) -> Option<String> {
        self.node.read().as_ref().map(|node| node.uid().to_owned())
    }

    /// The pods that use the node's resources, but for one, with what they were given of them.
    pub(crate) fn admitted(&self, except: &str) -> Vec<Arc<Value>> {
        let using = self.using(except, |pod| Arc::clone(pod));
        using.iter().map(|pod| self.allocations.allocated(pod)).collect()
    }

    /// What each of these pods takes of the node.
    pub(crate) fn taken(&self, except: &str) -> Vec<Taken> {
        let using = self.using(except, |pod| (Arc::clone(pod), pod.needs()));
        let given = using.into_iter().map(|(pod, needs)| {
            let allocated = self.allocations.allocated(&pod);
            let needs = if Arc::ptr_eq(&allocated, &pod) { needs } else { Arc::new(Needs::of(&allocated)) };
            (pod, needs)
        });
        given.collect()
    }

    fn using<T>(&self, except: &str, what: impl Fn(&Wanted) -> T) -> Vec<T> {
        let ended = |known: &Known| matches!(known.phase(), "Succeeded" | "Failed");
        let pods = self.pods.lock();
        let others = pods.iter().filter(|(uid, known)| *uid != except && !ended(known));
        others.filter(|(uid, _)| self.allocations.has(uid)).map(|(_, known)| what(&known.pod)).collect()
    }

    /// Has the figures show where pods and their volumes stand now.
    pub(crate) fn count_pods(&self) {
        let (places, pods): (Vec<_>, Vec<_>) =
            self.pods.lock().values().map(|known| (known.place(), known.pod.clone())).unzip();
        self.metrics.pods.states.show(&places);
        let added: usize = pods.iter().map(|pod| spec::ephemeral_containers(pod).len()).sum();
        self.metrics.outcomes.ephemeral.set(i64::try_from(added).unwrap_or(i64::MAX));
        let (pending, in_progress) = self.allocations.count_conditions();
        self.metrics.outcomes.show_resizes(&pending, in_progress);
        let held = places.iter().zip(&pods).filter(|(place, _)| !place.over).map(|(_, pod)| pod);
        let (wanted, there) = self.volumes.count(held);
        self.metrics.storage.show(&wanted, &there);
        self.images.count_records();
    }

    /// Keeps a pod's status for those who ask this node for it.
    pub(crate) fn note(&self, uid: &str, status: &Value) {
        if let Some(known) = self.pods.lock().get_mut(uid) {
            known.status = status.clone();
        }
    }

    /// The status that was last made of a pod here.
    pub(crate) fn status_of(&self, uid: &str) -> Option<Value> {
        let pods = self.pods.lock();
        pods.get(uid).map(|known| known.status.clone()).filter(|status| !status.is_null())
    }

    /// Notes that a pod has ended and let go of everything.
    pub(crate) fn note_over(&self, uid: &str) {
        if let Some(known) = self.pods.lock().get_mut(uid) {
            known.over = true;
        }
        self.settled.notify_waiters();
    }

    /// Waits until these pods have ended and let go of everything.
    pub(crate) async fn gone(&self, uids: &[String]) {
        loop {
            let settled = self.settled.notified();
            let remain = {
                let pods = self.pods.lock();
                uids.iter().any(|uid| pods.get(uid).is_some_and(|known| !known.over))
            };
            if !remain {
                return;
            }
            settled.await;
        }
    }

    /// Has a pod looked at again.
    pub(crate) fn wake(&self, uid: &str) {
        if let Some(known) = self.pods.lock().get(uid) {
            known.wake.notify_one();
        }
    }
}

/// Reads the configuration and starts everything.
pub async fn run(args: Args, tasks: Tasks) -> anyhow::Result<()> {
    let mut config = Config::load(&args)?;
    let Some(client) = connect(&config, &tasks).await? else { return Ok(()) };
    ask_for_driver(&mut config).await?;
    prepare_folders(&config)?;
    let kubelet = Arc::new(make(config, client, &tasks)?);
    prepare_groups(&kubelet).await?;
    reserved::enforce(&kubelet).await?;
    // Where the runtime is not there yet, the reports about the node see it come.
    if let Ok((_, abilities)) = kubelet.runtime.status().await {
        *kubelet.abilities.write() = Some(abilities);
    }
    let manager = Manager::new(kubelet.clone());
    start(&kubelet, &manager)?;
    server::start(&kubelet).await?;
    kubelet.recorder.normal(&kubelet.node_reference(), "Starting", "Starting kubelet.");
    Ok(())
}

/// Has the runtime decide who makes control groups, where it says so.
async fn ask_for_driver(config: &mut Config) -> anyhow::Result<()> {
    const TRIES: u32 = 3;
    let timeout = config.file.runtime_request_timeout.0;
    let runtime = Runtime::new(&config.runtime_socket, &config.image_socket, timeout);
    let mut tries = 1;
    let driver = loop {
        match runtime.cgroup_driver().await {
            Ok(driver) => break driver,
            Err(error) if tries == TRIES => {
                return Err(error).context("cannot ask the runtime for its configuration");
            }
            Err(error) => tracing::warn!(err = %error, "Cannot ask the runtime for its configuration yet"),
        }
        tries += 1;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    };
    let Some(driver) = driver else {
        tracing::info!("The runtime does not say who makes control groups: the configuration does");
        return Ok(());
    };
    tracing::info!(driver, "The runtime says who makes control groups");
    config.file.cgroup_driver = driver.to_owned();
    config.groups = GroupNames::new(driver, &config.file.cgroup_root);
    Ok(())
}

/// A client for the API server, or for none at all when the kubelet stands alone. Nothing when the process is to end.
async fn connect(config: &Config, tasks: &Tasks) -> anyhow::Result<Option<Client>> {
    let Some(kubeconfig) = &config.kubeconfig else {
        tracing::warn!("Standalone mode, no API client");
        return Ok(Some(client::nowhere()));
    };
    let stop = tasks.token();
    tokio::select! {
        bootstrapped = certificates::bootstrap(config, kubeconfig) => bootstrapped?,
        () = stop.cancelled() => return Ok(None),
    }
    let connection = Connection {
        kubeconfig: Some(kubeconfig.clone()),
        user_agent: user_agent(),
        ..Connection::default()
    };
    Ok(Some(client::connect(&connection).await?))
}

fn user_agent() -> String {
    format!("kubelet/{} (linux)", daemon::KUBERNETES_VERSION)
}

fn make(config: Config, client: Client, tasks: &Tasks) -> anyhow::Result<Kubelet> {
    let cgroups = Cgroups::detect().context("cannot find the control groups")?;
    if !cgroups.is_v2() && config.file.fail_cgroup_v1 {
        bail!(
            "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be \
             removed in a future release; set failCgroupV1 to false to run here nevertheless"
        );
    }
    if !cgroups.is_v2() && config.file.single_process_oom_kill == Some(false) {
        bail!(
            "invalid configuration: singleProcessOOMKill must not be explicitly set to false when using cgroup v1"
        );
    }
    let facts = linux::facts::read()?;
    if facts.swap > 0 && config.file.fail_swap_on {
        bail!(
            "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false"
        );
    }
    let (recorder, pump) = Recorder::new(client.clone(), "kubelet", &config.node_name);
    let pump = pump.limited(config.file.event_rate());
    if !config.stands_alone() {
        let stop = tasks.token();
        tasks.plain("events", async move {
            pump.run(stop).await;
            Ok(())
        });
    }
    if facts.swap > 0 && !linux::mount::tmpfs_stays_in_memory(&config.root) {
        recorder.warning(
            &node_reference(&config),
            "PossibleMemoryBackedVolumesOnDisk",
            "The tmpfs noswap option is not supported. Memory-backed volumes (e.g. secrets, emptyDirs, etc.) might be \
             swapped to disk and should no longer be considered secure.",
        );
    }
    let timeout = config.file.runtime_request_timeout.0;
    let runtime = Runtime::new(&config.runtime_socket, &config.image_socket, timeout);
    let objects = Arc::new(Objects::new(client.clone(), tasks.clone()));
    let tokens = Arc::new(Tokens::new(client.clone()));
    let gates = FeatureGates::from_map(config.file.feature_gates.clone());
    let metrics = Arc::new(Metrics::new(&config.node_name, cgroups.is_v2(), gates));
    let images = images(&config, (&runtime, &recorder), &client, &tokens, metrics.clone())?;
    let (api, storage) = ((client.clone(), recorder.clone()), metrics.storage.clone());
    let csi = Csi::new(&config.root, &config.node_name, api, tokens.clone(), storage);
    let csi = Arc::new(csi.context("cannot read what there is of CSI volumes")?);
    let (sys, kept) = (Path::new(managers::machine::SYS), node::status::kept(&config, &facts));
    let managers = Managers::load(&config.file, &config.root, sys, kept, facts.memory)?;
    let server = NodeServer { client: client.clone(), node_name: config.node_name.clone() };
    Ok(Kubelet {
        started: jiff::Timestamp::now(),
        managers: Arc::new(managers),
        capacity: Capacity::of(&config, &facts),
        swap: Swap {
            accounted: cgroups.limits_swap(),
            limited: config.file.memory_swap.swap_behavior == "LimitedSwap",
            capacity: facts.swap,
            memory: facts.memory,
            cgroup_v2: cgroups.is_v2(),
        },
        host_ips: config.node_ips.iter().map(ToString::to_string).collect(),
        services: Services::new(),
        volumes: Volumes::new(
            (client.clone(), objects.clone()),
            tokens,
            csi.clone(),
            metrics.storage.clone(),
        ),
        csi,
        images,
        tasks: tasks.clone(),
        abilities: RwLock::default(),
        users: Ranges::load(&config).context("cannot give pods users of their own")?,
        node: RwLock::default(),
        node_changed: Notify::new(),
        mirrors_changed: Notify::new(),
        manifests_read: watch::Sender::new(!config.file.has_static_pods()),
        relisted: Health::default(),
        pods: Mutex::default(),
        allocations: Allocations::load(&config.root)?,
        devices: Arc::new(Devices::load(&config.root, timeout)?),
        claims: Arc::new(Claims::load(&config.root, Arc::new(server))?),
        pressures: RwLock::default(),
        collector: Collector::default(),
        shutting_down: AtomicBool::new(false),
        settled: Notify::new(),
        shutdown_metrics: shutdown::Metrics::new(),
        probe_metrics: probes::Metrics::new(),
        pod_resources: pod_resources::Metrics::new(),
        rates: server::Rates::default(),
        metrics,
        cgroups: Groups::new(cgroups, &config.groups),
        config,
        runtime,
        client,
        recorder,
        facts,
        objects,
    })
}

fn images(
    config: &Config,
    (runtime, recorder): (&Runtime, &Recorder),
    client: &Client,
    tokens: &Arc<Tokens>,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Images> {
    let (providers, programs) = (&config.credential_providers, &config.credential_provider_dir);
    let providers = Providers::load(providers, programs, client.clone(), tokens.clone())
        .context("cannot use the credential providers")?;
    let verification = config.file.verification().map_err(anyhow::Error::msg)?;
    let records =
        Records::open(&config.root, verification).context("cannot keep records of pulled images")?;
    Ok(Images::new(
        (runtime.clone(), recorder.clone()),
        (config.file.parallel_pulls(), config.file.pull_rate()),
        (providers, records),
        &config.root,
        metrics,
    ))
}

/// The folders that all pods share.
fn prepare_folders(config: &Config) -> anyhow::Result<()> {
    let below = |name: &str| config.root.join(name);
    let logs = [config.file.pod_logs_dir.clone().into(), logs::LINKS.into()];
    let dirs = [below(""), below("pods"), below("plugins"), below(PLUGINS)].into_iter().chain(logs);
    for dir in dirs {
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    // What containers mount in volumes that propagate both ways is seen here and by others.
    linux::mount::make_shared(&config.root).context("error configuring root directory")
}

/// The control groups that all pods share.
async fn prepare_groups(kubelet: &Kubelet) -> anyhow::Result<()> {
    let config = &kubelet.config;
    kubelet.capacity.check(config, &kubelet.facts)?;
    if !config.file.cgroups_per_qos {
        return Ok(());
    }
    reserved::check_whole(kubelet)?;
    let names = &config.groups;
    let least = Limits { cpu_shares: Some(2), ..Limits::default() };
    if !kubelet.cgroups.exists(&names.kubepods()) {
        kubelet.cgroups.create(&names.kubepods(), &reserved::for_pods(kubelet)).await?;
    }
    kubelet.cgroups.create(&names.class("burstable"), &least).await?;
    kubelet.cgroups.create(&names.class("besteffort"), &least).await?;
    Ok(())
}

fn start(kubelet: &Arc<Kubelet>, manager: &Arc<Manager>) -> anyhow::Result<()> {
    let tasks = &kubelet.tasks;
    let until_stop = |name, work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        let stop = tasks.token();
        tasks.critical(name, async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        });
    };
    let (client, stop) = (kubelet.client.clone(), tasks.token());
    let alone = kubelet.config.stands_alone();
    if alone {
        until_stop("runtime-abilities", Box::pin(node::follow_runtime(kubelet.clone())));
    } else {
        until_stop("services", Box::pin(kubelet.services.clone().run(client.clone(), stop.clone())));
        until_stop("node-watch", Box::pin(node::informer(kubelet).run(client.clone(), stop.clone())));
        until_stop("node-status", Box::pin(node::run(kubelet.clone())));
        until_stop("node-lease", Box::pin(node::keep_lease(kubelet.clone())));
        until_stop("node-changes", Box::pin(node::follow(kubelet.clone())));
    }
    until_stop("places", Box::pin(reserved::keep(kubelet.clone())));
    until_stop("qos", Box::pin(share_processors(kubelet.clone())));
    until_stop("resizes", Box::pin(allocation::keep_trying(kubelet.clone())));
    until_stop("eviction", Box::pin(eviction::run(kubelet.clone())));
    until_stop("images", Box::pin(images::collect::run(kubelet.clone())));
    until_stop("logs", Box::pin(logs::rotate(kubelet.clone())));
    until_stop("log-links", Box::pin(logs::sweep_links(kubelet.clone())));
    let (registry, stopped) = (kubelet.config.root.join(PLUGINS), tasks.token());
    let handlers = handlers(kubelet)?;
    tasks.critical("plug-ins", async move {
        tokio::select! {
            ended = plugins::run(&registry, handlers) => Ok(ended?),
            () = stopped.cancelled() => Ok(()),
        }
    });
    pod_resources::start(kubelet).context("cannot serve the resources of pods")?;
    if kubelet.managers.manage_cpus() {
        until_stop("processors", Box::pin(managers::run(kubelet.clone())));
    }
    if kubelet.config.file.rotate_certificates && !alone {
        until_stop("certificate-rotation", Box::pin(certificates::rotate(kubelet.clone())));
    }
    if kubelet.config.file.make_iptables_util_chains {
        until_stop("firewall", Box::pin(firewall::run(kubelet.clone())));
    }
    shutdown::start(kubelet);
    manager.watch_runtime();
    if kubelet.config.file.has_static_pods() {
        until_stop("static-pods", Box::pin(static_pods::run(kubelet.clone(), manager.clone())));
    }
    let informer = manager.informer();
    let orphans = informer.clone();
    if !alone {
        until_stop("pods", Box::pin(informer.run(client, stop)));
    }
    let (manager, this) = (manager.clone(), kubelet.clone());
    tasks.restarting("orphans", move || {
        let (manager, orphans) = (manager.clone(), orphans.clone());
        let mut manifests = this.manifests_read.subscribe();
        async move {
            if !alone {
                orphans.synced().await;
            }
            // What comes of a place that could not be read yet is nobody's orphan.
            manifests.wait_for(|read| *read).await?;
            manager.adopt_orphans().await?;
            manager.clean_up_claims().await;
            loop {
                tokio::time::sleep(traces::PERIOD).await;
                manager.adopt_orphans().await?;
            }
        }
    });
    Ok(())
}

/// Who takes which kind of plug-in.
fn handlers(kubelet: &Arc<Kubelet>) -> anyhow::Result<plugins::Handlers> {
    let this = kubelet.clone();
    let wake = Arc::new(move |uid: &str| this.wake(uid));
    let claimed = claims::Registry::new(kubelet.claims.clone(), kubelet.tasks.clone(), wake.clone());
    if !kubelet.config.stands_alone() {
        claimed.start();
    }
    let devices = devices::Registry::new(kubelet.devices.clone(), kubelet.tasks.clone(), wake);
    devices.start().context("cannot serve device plug-ins")?;
    let devices: Arc<dyn plugins::Handler> = Arc::new(devices);
    let drivers: Arc<dyn plugins::Handler> = Arc::new(csi::Registration(kubelet.csi.clone()));
    let claimed: Arc<dyn plugins::Handler> = Arc::new(claimed);
    Ok([("DevicePlugin", devices), ("CSIPlugin", drivers), ("DRAPlugin", claimed)].into())
}

/// Keeps the weight of all burstable pods together at the sum of what they request.
async fn share_processors(kubelet: Arc<Kubelet>) {
    let group = kubelet.config.groups.class("burstable");
    let mut before = 0;
    loop {
        let burstable = kubelet.admitted("");
        let burstable = burstable.iter().filter(|pod| spec::qos(pod) == "Burstable");
        let shares = resources::shares(burstable.map(|pod| resources::request(pod, "cpu")).sum());
        if shares != before && kubelet.config.file.cgroups_per_qos {
            let limits = Limits { cpu_shares: Some(shares), ..Limits::default() };
            match kubelet.cgroups.update(&group, &limits).await {
                Ok(()) => before = shares,
                Err(error) => tracing::warn!(err = %error, "Cannot weigh the burstable pods"),
            }
        }
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    }
}
