use api::object;
use proptest::prelude::*;

use super::*;
use crate::managers::machine::tests::machine;
use crate::managers::topology::{Hint, Hints};

/// A guaranteed pod: init containers and main ones with the processors that they ask for; `+` makes a sidecar.
fn pod(uid: &str, init: &[&str], main: &[&str]) -> Value {
    let container = |prefix: &str, i: usize, cpu: &str| {
        let resources = object!({"cpu": (cpu.trim_end_matches('+')), "memory": "1Gi"});
        let mut container = object!({
            "name": (format!("{prefix}{i}")),
            "resources": {"requests": (resources.clone()), "limits": (resources)},
        });
        if cpu.ends_with('+') {
            container.set(&["restartPolicy"], "Always");
        }
        container
    };
    let all = |prefix: &str, cpus: &[&str]| {
        Value::Array(cpus.iter().enumerate().map(|(i, cpu)| container(prefix, i, cpu)).collect())
    };
    object!({
        "metadata": {"uid": uid},
        "spec": {"initContainers": (all("i", init)), "containers": (all("m", main))},
    })
}

fn policy(shape: [usize; 4], options: CpuOptions, reserved: &str) -> (Static, State) {
    let [sockets, nodes, cores, per_cache] = shape;
    let reserved: CpuSet = reserved.parse().unwrap();
    let machine = Arc::new(machine(sockets, nodes, cores, per_cache));
    let policy = Static::new(machine, options, reserved.len(), &reserved).unwrap();
    let mut state = State::default();
    policy.check(&mut state).unwrap();
    (policy, state)
}

/// Two packages with four cores and eight threads each; the first core is reserved.
fn dual(options: CpuOptions) -> (Static, State) {
    policy([2, 1, 4, 4], options, "0,8")
}

fn admit(policy: &Static, state: &mut State, pod: &Value, affinity: Option<Mask>) -> Result<(), Refusal> {
    let mut reusable = CpuSet::new();
    for container in spec::all_containers(pod) {
        policy.allocate(state, pod, container, affinity, &mut reusable)?;
    }
    Ok(())
}

fn shown(state: &State, uid: &str) -> Vec<String> {
    let containers = state.pods.get(uid).into_iter().flatten();
    containers.map(|(name, cpus)| format!("{name}={cpus}")).collect()
}

#[test]
fn whole_processors_of_guaranteed_pods_are_their_own_until_they_end() {
    let (policy, mut state) = dual(CpuOptions::default());
    admit(&policy, &mut state, &pod("a", &[], &["2", "500m", "1"]), None).unwrap();
    assert_eq!(shown(&state, "a"), ["m0=1,9", "m2=2"]);
    assert_eq!(state.shared.to_string(), "0,3-8,10-15");
    let burstable = object!({"metadata": {"uid": "b"}, "spec": {"containers": [
        {"name": "m", "resources": {"requests": {"cpu": "2"}}},
    ]}});
    admit(&policy, &mut state, &burstable, None).unwrap();
    let mut whole = pod("w", &[], &["2"]);
    whole.set(&["spec", "resources", "limits", "cpu"], "2");
    admit(&policy, &mut state, &whole, None).unwrap();
    assert_eq!(state.pods.len(), 1);
    // A second look changes nothing.
    let before = state.clone();
    admit(&policy, &mut state, &pod("a", &[], &["2", "500m", "1"]), None).unwrap();
    assert_eq!(state, before);
    assert!(state.forget("a") && !state.forget("a"));
    assert_eq!(state.shared.to_string(), "0-15");
}

#[test]
fn main_containers_use_again_what_init_containers_had_but_not_what_sidecars_have() {
    let (policy, mut state) = dual(CpuOptions::default());
    admit(&policy, &mut state, &pod("a", &["4", "2+", "2"], &["2", "2"]), None).unwrap();
    assert_eq!(shown(&state, "a"), ["i0=1-2,9-10", "i1=1,9", "i2=2,10", "m0=2,10", "m1=3,11"]);
    assert_eq!(policy.available(&state).to_string(), "4-7,12-15");
    assert!(state.forget("a"));
    assert_eq!(state.shared.to_string(), "0-15");
}

#[test]
fn reserved_processors_are_nobodys_own_and_with_strictness_nobodys_at_all() {
    let (policy, mut state) = dual(CpuOptions::default());
    admit(&policy, &mut state, &pod("a", &[], &["14"]), None).unwrap();
    assert_eq!(state.shared.to_string(), "0,8");
    let refused = admit(&policy, &mut state, &pod("b", &[], &["1"]), None).unwrap_err();
    let why = "not enough cpus available to satisfy request: requested=1, available=0";
    assert_eq!(refused, Refusal::Unexpected(why.to_owned()));
    let strict = CpuOptions { strict_cpu_reservation: true, ..CpuOptions::default() };
    let (_, state) = dual(strict);
    assert_eq!(state.shared.to_string(), "1-7,9-15");
}

#[test]
fn cores_are_whole_or_refused() {
    let options = CpuOptions { full_pcpus_only: true, ..CpuOptions::default() };
    let (policy, mut state) = policy([1, 1, 4, 4], options, "0");
    let refused =
        |state: &mut State, cpu: &str| admit(&policy, state, &pod("x", &[], &[cpu]), None).unwrap_err();
    assert_eq!(
        refused(&mut state, "3"),
        Refusal::Alignment("SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2".to_owned())
    );
    let why = "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 6, requested CPUs = 8, CPUs per core = 2";
    assert_eq!(refused(&mut state, "8"), Refusal::Alignment(why.to_owned()));
    // All that there is goes from the init container to the main one, and stays.
    for _ in 0..2 {
        admit(&policy, &mut state, &pod("a", &["6"], &["6"]), None).unwrap();
        assert_eq!(shown(&state, "a"), ["i0=1-3,5-7", "m0=1-3,5-7"]);
    }
}

#[test]
fn containers_are_on_their_nodes_as_far_as_these_have_room() {
    let (policy, mut state) = dual(CpuOptions::default());
    let second = Some([1].into_iter().collect());
    admit(&policy, &mut state, &pod("a", &[], &["2"]), second).unwrap();
    assert_eq!(shown(&state, "a"), ["m0=4,12"]);
    admit(&policy, &mut state, &pod("b", &[], &["8"]), second).unwrap();
    assert_eq!(shown(&state, "b"), ["m0=1,5-7,9,13-15"]);
}

fn affinities(hints: &Hints) -> Vec<(Vec<usize>, bool)> {
    let hints = hints.get("cpu").cloned().flatten().unwrap_or_default();
    let nodes = |hint: Hint| (hint.affinity.unwrap().nodes().collect(), hint.preferred);
    hints.into_iter().map(nodes).collect()
}

#[test]
fn hints_tell_where_there_is_room() {
    let (policy, mut state) = dual(CpuOptions::default());
    let hints = |state: &State, pod: &Value| {
        let container = &spec::containers(pod)[0];
        affinities(&policy.hints(state, pod, container, &CpuSet::new()))
    };
    let (zero, one, both) = (vec![0], vec![1], vec![0, 1]);
    let small = pod("a", &[], &["2"]);
    assert_eq!(hints(&state, &small), [(zero, true), (one.clone(), true), (both.clone(), false)]);
    // The first node has but six that are not reserved; ten need both.
    assert_eq!(hints(&state, &pod("b", &[], &["8"])), [(one.clone(), true), (both.clone(), false)]);
    assert_eq!(hints(&state, &pod("b", &[], &["10"])), [(both.clone(), true)]);
    assert!(hints(&state, &pod("b", &[], &["20"])).is_empty());
    assert!(policy.hints(&state, &pod("b", &[], &["500m"]), &Value::object(), &CpuSet::new()).is_empty());
    let second = Some([1].into_iter().collect());
    admit(&policy, &mut state, &small, second).unwrap();
    assert_eq!(hints(&state, &small), [(one.clone(), true), (both.clone(), false)]);
    assert!(hints(&state, &pod("a", &[], &["3"])).is_empty());
    // A pod needs what its containers need at one time.
    let many = affinities(&policy.pod_hints(&state, &pod("c", &["2"], &["4", "2"])));
    assert_eq!(many, [(vec![0], true), (one.clone(), true), (both.clone(), false)]);
    assert_eq!(affinities(&policy.pod_hints(&state, &small)), [(one, true), (both, false)]);
}

#[test]
fn packages_may_count_instead_of_nodes() {
    let options = CpuOptions { align_by_socket: true, ..CpuOptions::default() };
    let (policy, state) = policy([2, 2, 2, 2], options, "0,8");
    let pod = pod("a", &[], &["2"]);
    let hints = affinities(&policy.hints(&state, &pod, &spec::containers(&pod)[0], &CpuSet::new()));
    let preferred: Vec<_> =
        hints.into_iter().filter(|(_, preferred)| *preferred).map(|(nodes, _)| nodes).collect();
    assert_eq!(preferred, [vec![0], vec![1], vec![2], vec![3], vec![0, 1], vec![2, 3]]);
    assert_eq!(policy.near([2].into_iter().collect()).to_string(), "4-7,12-15");
}

#[test]
fn a_state_that_does_not_fit_the_machine_is_refused() {
    let (policy, fresh) = dual(CpuOptions::default());
    let with = |shared: &str, own: &str| State {
        shared: shared.parse().unwrap(),
        pods: [("p".to_owned(), [("c".to_owned(), own.parse().unwrap())].into())].into(),
    };
    assert_eq!(policy.check(&mut fresh.clone()), Ok(()));
    assert_eq!(policy.check(&mut with("0,2-15", "1")), Ok(()));
    for (shared, own, message) in [
        ("", "1", "default cpuset cannot be empty"),
        ("1-15", "0", "not all reserved cpus: \"0,8\" are present in defaultCpuSet: \"1-15\""),
        ("0-15", "1", "pod: p, container: c cpuset: \"1\" overlaps with default cpuset \"0-15\""),
        (
            "0,2-15",
            "1,16",
            "current set of available CPUs \"0-15\" doesn't match with CPUs in state \"0-16\"",
        ),
    ] {
        assert_eq!(policy.check(&mut with(shared, own)).unwrap_err(), message);
    }
    let strict = CpuOptions { strict_cpu_reservation: true, ..CpuOptions::default() };
    let (policy, _) = dual(strict);
    assert_eq!(policy.check(&mut with("2-7,9-15", "1")), Ok(()));
    let message = "some of strictly reserved cpus: \"0,8\" are present in defaultCpuSet: \"0,2-15\"";
    assert_eq!(policy.check(&mut with("0,2-15", "1")).unwrap_err(), message);
    let machine = Arc::new(machine(1, 1, 1, 1));
    let error = Static::new(machine, CpuOptions::default(), 3, &CpuSet::new()).unwrap_err();
    assert_eq!(
        error,
        "[cpumanager] unable to reserve the required amount of CPUs (size of  did not equal 3)"
    );
}

/// Pods that come, by what their containers ask for, and go.
#[derive(Debug, Clone)]
enum Step {
    Come(Vec<usize>, Vec<usize>, Option<usize>),
    Go(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let cpus = || prop::collection::vec(0_usize..5, 0..3);
    let come = (cpus(), prop::collection::vec(0_usize..5, 1..3), prop::option::of(0_usize..2))
        .prop_map(|(init, main, node)| Step::Come(init, main, node));
    prop::collection::vec(prop_oneof![3 => come, 1 => (0_usize..20).prop_map(Step::Go)], 1..20)
}

proptest! {
    /// Whatever comes and goes: no processor belongs to two pods, no reserved one to any, and none is lost.
    #[test]
    fn no_processor_is_given_twice_or_lost(steps in steps(), full in any::<bool>()) {
        let (policy, mut state) = dual(CpuOptions { full_pcpus_only: full, ..CpuOptions::default() });
        let all = state.shared.clone();
        for (i, step) in steps.into_iter().enumerate() {
            match step {
                Step::Go(pod) => { state.forget(&format!("p{pod}")); }
                Step::Come(init, main, node) => {
                    let texts = |cpus: Vec<usize>| cpus.iter().map(usize::to_string).collect::<Vec<_>>();
                    let (init, main) = (texts(init), texts(main));
                    let init: Vec<_> = init.iter().map(String::as_str).collect();
                    let main: Vec<_> = main.iter().map(String::as_str).collect();
                    let uid = format!("p{i}");
                    let affinity = node.map(|node| [node].into_iter().collect());
                    if admit(&policy, &mut state, &pod(&uid, &init, &main), affinity).is_err() {
                        state.forget(&uid);
                    }
                }
            }
            let mut seen = state.shared.clone();
            for containers in state.pods.values() {
                let own = containers.values().fold(CpuSet::new(), |own, cpus| own.union(cpus));
                prop_assert!(own.intersection(&seen).is_empty());
                prop_assert!(own.intersection(&policy.reserved).is_empty());
                seen = seen.union(&own);
            }
            prop_assert_eq!(&seen, &all);
            prop_assert_eq!(policy.check(&mut state.clone()), Ok(()));
        }
    }
}
