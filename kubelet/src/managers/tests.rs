use std::time::Duration;

use api::object;

use super::*;
use crate::config::MemoryReservation;
use crate::devices::Devices;

/// A node with two packages, four cores and eight threads in each, and one GiB of memory; settings by `cpu`, `memory`,
/// `topology`, `scope` and options.
pub(crate) struct Setup {
    pub(crate) dir: tempfile::TempDir,
    devices: Devices,
    file: KubeletConfiguration,
}

/// A guaranteed pod whose containers ask for so many processors, and 64 MiB each.
pub(crate) fn guaranteed(uid: &str, cpus: &[&str]) -> Value {
    let container = |(i, cpu): (usize, &&str)| {
        let amounts = object!({"cpu": (*cpu), "memory": "64Mi"});
        object!({
            "name": (format!("m{i}")),
            "resources": {"requests": (amounts.clone()), "limits": (amounts)},
        })
    };
    let containers = Value::Array(cpus.iter().enumerate().map(container).collect());
    object!({"metadata": {"uid": uid, "name": uid}, "spec": {"containers": (containers)}})
}

const KEPT: Kept = Kept { cpu: 1500, memory: 128 << 20 };

impl Setup {
    pub(crate) fn new(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        machine::tests::lay(&dir.path().join("sys"), 2, 1, 4, 4);
        let devices = Devices::load(dir.path(), Duration::from_secs(10)).unwrap();
        let mut setup = Self { dir, devices, file: KubeletConfiguration::default() };
        setup.file.managers.reserved_memory = [(0, "64Mi"), (1, "64Mi")]
            .map(|(numa_node, amount)| MemoryReservation {
                numa_node,
                limits: [("memory".to_owned(), amount.to_owned())].into(),
            })
            .into();
        settings.iter().for_each(|(name, value)| setup.set(name, value));
        setup
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        let settings = &mut self.file.managers;
        match name {
            "cpu" => settings.cpu_manager_policy = value.to_owned(),
            "memory" => settings.memory_manager_policy = value.to_owned(),
            "topology" => settings.topology_manager_policy = value.to_owned(),
            "scope" => settings.topology_manager_scope = value.to_owned(),
            "reserved" => settings.reserved_system_cpus = value.to_owned(),
            option => drop(settings.cpu_manager_policy_options.insert(option.to_owned(), value.to_owned())),
        }
    }

    pub(crate) fn load(&self) -> anyhow::Result<Managers> {
        Managers::load(&self.file, self.dir.path(), &self.dir.path().join("sys"), KEPT, 2 << 30)
    }

    pub(crate) async fn admit(&self, managers: &Managers, pod: &Value) -> Result<(), (String, String)> {
        managers.admit(&self.devices, Request { pod, running: &|_| false, known: false }).await
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

/// Where a container would be made to run: processors, nodes, quota.
fn pinned(managers: &Managers, uid: &str, container: &str) -> (String, String, i64) {
    let mut resources = cri::LinuxContainerResources { cpu_quota: 5, cpu_period: 100, ..Default::default() };
    managers.pin(uid, container, &mut resources);
    (resources.cpuset_cpus, resources.cpuset_mems, resources.cpu_quota)
}

fn place(cpus: &str, mems: &str, quota: i64) -> (String, String, i64) {
    (cpus.to_owned(), mems.to_owned(), quota)
}

#[tokio::test]
async fn with_no_policy_nothing_is_given_away() {
    let setup = Setup::new(&[]);
    let managers = setup.load().unwrap();
    setup.admit(&managers, &guaranteed("a", &["2"])).await.unwrap();
    assert_eq!(pinned(&managers, "a", "m0"), place("", "", 5));
    assert!(!managers.manage_cpus() && !managers.has_own_cpus("a"));
    assert!(managers.allocatable_cpu_ids().is_empty() && managers.allocatable_memory().is_empty());
    let written = r#"{"policyName":"none","defaultCpuSet":"","checksum":1353318690}"#;
    assert_eq!(setup.file("cpu_manager_state"), written);
    let written = r#"{"policyName":"None","machineState":{},"checksum":4236770233}"#;
    assert_eq!(setup.file("memory_manager_state"), written);
    assert_eq!(managers.metrics.admissions.get(), 1);
}

#[tokio::test]
async fn what_is_given_away_survives_and_comes_back() {
    let setup = Setup::new(&[("cpu", "static"), ("memory", "Static"), ("topology", "single-numa-node")]);
    let managers = setup.load().unwrap();
    setup.admit(&managers, &guaranteed("a", &["2", "500m"])).await.unwrap();
    assert_eq!(pinned(&managers, "a", "m0"), place("1,9", "0", -1));
    assert_eq!(pinned(&managers, "a", "m1"), place("0,2-8,10-15", "0", 5));
    assert_eq!(pinned(&managers, "b", "m0"), place("0,2-8,10-15", "", 5));
    assert!(managers.has_own_cpus("a") && !managers.has_own_cpus("b"));
    let again = setup.load().unwrap();
    assert_eq!(pinned(&again, "a", "m0"), place("1,9", "0", -1));
    // A kubelet that is started over finds its pods, also those that would not be let in by now.
    let known = guaranteed("a", &["2", "500m"]);
    let request = Request { pod: &known, running: &|_| true, known: true };
    again.admit(&setup.devices, request).await.unwrap();
    assert_eq!(again.cpu_ids("a", "m0"), [1, 9]);
    again.retain(|uid| uid != "a");
    assert_eq!(pinned(&setup.load().unwrap(), "a", "m0"), place("0-15", "", 5));
    assert_eq!(managers.metrics.cpu_requests.get(), 1);
    assert_eq!(managers.metrics.memory_requests.get(), 2);
}

#[tokio::test]
async fn pods_that_do_not_fit_are_turned_away_in_upstreams_words() {
    let all = [("cpu", "static"), ("memory", "Static")];
    let locality = ("TopologyAffinityError".to_owned(), topology::MESSAGE.to_owned());
    let unexpected = |why: &str| {
        ("UnexpectedAdmissionError".to_owned(), format!("Allocate failed due to {why}, which is unexpected"))
    };
    let lacking = unexpected("not enough cpus available to satisfy request: requested=15, available=14");
    let partly = "not enough cpus available to satisfy request: requested=9, available=8";
    for (topology, scope, cpus, expected) in [
        ("none", "container", &["15"][..], Err(lacking.clone())),
        // Six of the node where the memory would be, and the rest from elsewhere.
        ("best-effort", "container", &["15"], Err(unexpected(partly))),
        ("none", "container", &["10"], Ok(())),
        ("best-effort", "container", &["10"], Ok(())),
        // Ten processors are more than a node has, and so are preferred of both.
        ("restricted", "container", &["10"], Ok(())),
        ("single-numa-node", "container", &["10"], Err(locality.clone())),
        ("single-numa-node", "container", &["6", "8"], Ok(())),
        ("single-numa-node", "pod", &["6", "8"], Err(locality.clone())),
        ("single-numa-node", "pod", &["4", "4"], Ok(())),
    ] {
        let mut setup = Setup::new(&all);
        setup.set("topology", topology);
        setup.set("scope", scope);
        // Memory is of one node, which more than one node of processors does not suit.
        if cpus == ["10"] {
            setup.set("memory", "None");
        }
        let managers = setup.load().unwrap();
        let pod = guaranteed("a", cpus);
        assert_eq!(setup.admit(&managers, &pod).await, expected, "{topology} {scope} {cpus:?}");
        let refused = u64::from(expected.is_err() && topology != "none");
        assert_eq!(managers.metrics.refusals.get(), refused, "{topology} {scope} {cpus:?}");
        if cpus == ["10"] && expected.is_ok() {
            assert_eq!(managers.cpu_ids("a", "m0").len(), 10);
        }
    }
    let mut setup = Setup::new(&all);
    setup.set("full-pcpus-only", "true");
    let managers = setup.load().unwrap();
    let (reason, message) = setup.admit(&managers, &guaranteed("a", &["3"])).await.unwrap_err();
    assert_eq!(reason, "SMTAlignmentError");
    assert_eq!(message, "SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2");
    let mut greedy = guaranteed("a", &["2"]);
    for kind in ["requests", "limits"] {
        let containers = greedy.at_mut(&["spec", "containers"]).and_then(Value::as_array_mut).unwrap();
        containers[0].set(&["resources", kind, "memory"], "4Gi");
    }
    let why = "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available";
    assert_eq!(setup.admit(&managers, &greedy).await, Err(unexpected(why)));
    assert_eq!((managers.metrics.cpu_errors.get(), managers.metrics.memory_errors.get()), (1, 1));
}

#[test]
fn settings_that_do_not_fit_the_machine_or_the_files_are_refused() {
    let check = |settings: &[(&str, &str)], message: &str| {
        let error = Setup::new(settings).load().err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some(message), "{settings:?}");
    };
    check(&[("cpu", "dynamic")], "unknown policy: \"dynamic\"");
    check(&[("memory", "BestEffort")], "policy \"BestEffort\" is not available for platform \"linux\"");
    check(
        &[("full-pcpus-only", "true")],
        "new none policy error: None policy: received unsupported options=map[full-pcpus-only:true]",
    );
    check(
        &[("cpu", "static"), ("align-by-socket", "true")],
        "new static policy error: CPU Manager Policy Alpha-level Options not enabled, but option \"align-by-socket\" provided",
    );
    check(
        &[("cpu", "static"), ("reserved", "0")],
        "new static policy error: [cpumanager] unable to reserve the required amount of CPUs (size of 0 did not equal 2)",
    );
    let mut setup = Setup::new(&[("memory", "Static")]);
    setup.file.managers.reserved_memory.pop();
    let error = setup.load().err().unwrap().to_string();
    assert_eq!(
        error,
        "the total amount \"64Mi\" of type \"memory\" is not equal to the value \"128Mi\" determined by Node Allocatable feature"
    );
    let mut setup = Setup::new(&[("cpu", "static")]);
    setup.load().unwrap();
    setup.set("cpu", "none");
    let error = setup.load().err().unwrap().to_string();
    let file = setup.dir.path().join("cpu_manager_state");
    assert_eq!(
        error,
        format!(
            "could not restore state from checkpoint: configured policy \"none\" differs from state checkpoint policy \
             \"static\", please drain this node and delete the CPU manager checkpoint file {file:?} before restarting Kubelet"
        )
    );
    let sys = setup.dir.path().join("sys");
    setup.set("cpu", "static");
    let nothing = Kept { cpu: 0, memory: 0 };
    let error = Managers::load(&setup.file, setup.dir.path(), &sys, nothing, 0).err().unwrap().to_string();
    assert_eq!(error, "[cpumanager] unable to determine reserved CPU resources for static policy");
}
