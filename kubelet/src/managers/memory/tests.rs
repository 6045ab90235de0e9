use api::object;

use super::*;
use crate::managers::machine::tests::machine;
use crate::managers::topology::{Hint, Hints, Mask};

const MI: u64 = 1 << 20;

/// A guaranteed pod: containers with MiB of memory and of huge pages; the first ones are init containers, `true` makes a
/// sidecar.
fn pod(uid: &str, init: &[(u64, bool)], main: &[(u64, u64)]) -> Value {
    let amounts = |memory: u64, huge: u64| {
        let mut amounts = object!({"cpu": "500m", "memory": (format!("{memory}Mi"))});
        if huge > 0 {
            amounts.set(&["hugepages-2Mi"], format!("{huge}Mi"));
        }
        object!({"requests": (amounts.clone()), "limits": (amounts)})
    };
    let inits = init.iter().enumerate().map(|(i, (memory, sidecar))| {
        let mut container = object!({"name": (format!("i{i}")), "resources": (amounts(*memory, 0))});
        if *sidecar {
            container.set(&["restartPolicy"], "Always");
        }
        container
    });
    let mains = main.iter().enumerate();
    let mains = mains.map(
        |(i, (memory, huge))| object!({"name": (format!("m{i}")), "resources": (amounts(*memory, *huge))}),
    );
    object!({"metadata": {"uid": uid}, "spec": {
        "initContainers": (Value::Array(inits.collect())), "containers": (Value::Array(mains.collect())),
    }})
}

/// Two nodes with 1024 MiB each: 128 in huge pages, 96 reserved, 800 to be given away.
fn dual() -> (Static, State) {
    let kept = |id: usize| (id, [(MEMORY.to_owned(), 96 * MI)].into());
    let policy = Static::new(&machine(2, 1, 2, 2), &[kept(0), kept(1)].into()).unwrap();
    let mut state = State::default();
    policy.check(&mut state).unwrap();
    (policy, state)
}

fn mask(nodes: &[usize]) -> Option<Mask> {
    Some(nodes.iter().copied().collect())
}

fn admit(policy: &Static, state: &mut State, pod: &Value, affinity: Option<Mask>) -> Result<(), String> {
    let mut reusable = Reusable::default();
    for container in spec::all_containers(pod) {
        let hint = Hint { affinity, preferred: affinity.is_some() };
        policy.allocate(state, pod, container, hint, &mut reusable)?;
    }
    policy.check(&mut state.clone())
}

fn shown(state: &State, uid: &str, container: &str) -> Vec<String> {
    let blocks = state.of(uid, container).unwrap_or_default().iter();
    blocks.map(|block| format!("{}={}{:?}", block.kind, block.size / MI, block.numa_affinity)).collect()
}

fn left(state: &State, kind: &str) -> Vec<u64> {
    state.nodes.values().map(|node| node.memory_map[kind].free / MI).collect()
}

#[test]
fn memory_and_huge_pages_are_of_the_first_node_that_has_them() {
    let (policy, mut state) = dual();
    assert_eq!((left(&state, MEMORY), left(&state, "hugepages-2Mi")), (vec![800, 800], vec![128, 128]));
    admit(&policy, &mut state, &pod("a", &[], &[(300, 100)]), None).unwrap();
    assert_eq!(shown(&state, "a", "m0"), ["hugepages-2Mi=100[0]", "memory=300[0]"]);
    // There is memory there, but no huge pages any more.
    admit(&policy, &mut state, &pod("b", &[], &[(300, 100)]), None).unwrap();
    assert_eq!(shown(&state, "b", "m0"), ["hugepages-2Mi=100[1]", "memory=300[1]"]);
    assert_eq!((left(&state, MEMORY), left(&state, "hugepages-2Mi")), (vec![500, 500], vec![28, 28]));
    let mut burstable = pod("c", &[], &[(300, 0)]);
    burstable.set(&["status", "qosClass"], "Burstable");
    admit(&policy, &mut state, &burstable, None).unwrap();
    let mut whole = pod("d", &[], &[(300, 0)]);
    whole.set(&["spec", "resources"], object!({"limits": {"cpu": "1", "memory": "1Gi"}}));
    admit(&policy, &mut state, &whole, None).unwrap();
    assert!(!state.knows("c") && !state.knows("d"));
    assert!(state.forget("a") && !state.forget("a"));
    assert_eq!((left(&state, MEMORY), left(&state, "hugepages-2Mi")), (vec![800, 500], vec![128, 28]));
}

#[test]
fn memory_that_one_node_does_not_have_is_of_a_group_of_nodes() {
    let (policy, mut state) = dual();
    admit(&policy, &mut state, &pod("a", &[], &[(1000, 0)]), None).unwrap();
    assert_eq!(shown(&state, "a", "m0"), ["memory=1000[0, 1]"]);
    assert_eq!(left(&state, MEMORY), [0, 600]);
    // A node of a group gives nothing alone, but the group may give more.
    let why = "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available";
    assert_eq!(admit(&policy, &mut state, &pod("b", &[], &[(700, 0)]), None).unwrap_err(), why);
    admit(&policy, &mut state, &pod("b", &[], &[(500, 0)]), None).unwrap();
    assert_eq!(shown(&state, "b", "m0"), ["memory=500[0, 1]"]);
    assert!(state.forget("a") && state.forget("b"));
    assert_eq!(state, dual().1);
    // Nodes that give alone are not grouped.
    admit(&policy, &mut state, &pod("c", &[], &[(100, 0)]), mask(&[1])).unwrap();
    assert_eq!(shown(&state, "c", "m0"), ["memory=100[1]"]);
    assert_eq!(admit(&policy, &mut state, &pod("d", &[], &[(1000, 0)]), None).unwrap_err(), why);
    let why = "[memorymanager] failed to find NUMA nodes to extend the current topology hint";
    assert_eq!(admit(&policy, &mut state, &pod("e", &[], &[(790, 0)]), mask(&[1])).unwrap_err(), why);
    let why = "[memorymanager] preferred hint violates NUMA node allocation";
    assert_eq!(admit(&policy, &mut state, &pod("e", &[], &[(9, 0)]), mask(&[0, 1])).unwrap_err(), why);
}

#[test]
fn main_containers_use_again_what_init_containers_had() {
    let (policy, mut state) = dual();
    let pod = pod("a", &[(300, false), (50, true)], &[(200, 0), (200, 0)]);
    admit(&policy, &mut state, &pod, None).unwrap();
    // At any one time it is 450 at most, of which 300 were the init container's.
    assert_eq!(left(&state, MEMORY), [350, 800]);
    assert_eq!(shown(&state, "a", "i0"), ["memory=0[0]"]);
    assert_eq!(shown(&state, "a", "m1"), ["memory=200[0]"]);
    // When the first main container starts, the init container has nothing any more.
    assert!(!state.clone().started(&pod, "i0"));
    assert!(state.started(&pod, "m0") && !state.started(&pod, "m1"));
    assert!(state.of("a", "i0").is_none() && state.of("a", "i1").is_some());
    assert_eq!(policy.check(&mut state.clone()), Ok(()));
    assert!(state.forget("a"));
    assert_eq!(state, dual().1);
}

fn affinities(hints: &Hints, kind: &str) -> Vec<(Vec<usize>, bool)> {
    let hints = hints.get(kind).cloned().flatten().unwrap_or_default();
    hints.into_iter().map(|hint| (hint.affinity.unwrap().nodes().collect(), hint.preferred)).collect()
}

#[test]
fn hints_tell_where_there_is_room() {
    let (policy, mut state) = dual();
    let hints = |state: &State, pod: &Value, kind: &str| {
        let hints = policy.hints(state, pod, &spec::containers(pod)[0], &Reusable::default());
        affinities(&hints, kind)
    };
    let (zero, one, both) = (vec![0], vec![1], vec![0, 1]);
    let small = pod("a", &[], &[(300, 100)]);
    for kind in [MEMORY, "hugepages-2Mi"] {
        let expected = [(zero.clone(), true), (one.clone(), true), (both.clone(), false)];
        assert_eq!(hints(&state, &small, kind), expected);
    }
    assert_eq!(hints(&state, &pod("b", &[], &[(1000, 0)]), MEMORY), [(both, true)]);
    assert!(
        policy.hints(&state, &pod("b", &[], &[(2000, 0)]), &Value::object(), &Reusable::default()).is_empty()
    );
    admit(&policy, &mut state, &small, mask(&[1])).unwrap();
    // What is given stays; a node that gives alone is in no group.
    assert_eq!(hints(&state, &small, MEMORY), [(one.clone(), true)]);
    assert_eq!(affinities(&policy.pod_hints(&state, &small), MEMORY), [(one.clone(), true)]);
    assert_eq!(hints(&state, &pod("b", &[], &[(600, 0)]), MEMORY), [(zero.clone(), true)]);
    let many = pod("c", &[(100, false)], &[(300, 0), (300, 0)]);
    assert_eq!(affinities(&policy.pod_hints(&state, &many), MEMORY), [(zero, true)]);
}

#[test]
fn a_state_that_does_not_fit_the_machine_is_refused() {
    let (policy, mut state) = dual();
    admit(&policy, &mut state, &pod("a", &[], &[(300, 100)]), None).unwrap();
    let check = |change: &dyn Fn(&mut State)| {
        let mut state = state.clone();
        change(&mut state);
        policy.check(&mut state).unwrap_err()
    };
    let block = |state: &mut State, change: &dyn Fn(&mut Block)| {
        change(&mut state.pods.get_mut("a").unwrap().get_mut("m0").unwrap()[0]);
    };
    assert_eq!(
        check(&|state| state.nodes.clear()),
        "[memorymanager] machine state can not be empty when it has memory assignments"
    );
    let different = "[memorymanager] the expected machine state is different from the real one";
    assert_eq!(check(&|state| block(state, &|block| block.size += MI)), different);
    assert_eq!(
        check(&|state| state.nodes.get_mut(&1).unwrap().memory_map.get_mut(MEMORY).unwrap().total += 1),
        different
    );
    let place = "[memorymanager] (pod: a, container: m0) the memory assignment uses";
    assert_eq!(
        check(&|state| block(state, &|block| block.numa_affinity = vec![5])),
        format!("{place} the NUMA that does not exist")
    );
    assert_eq!(
        check(&|state| block(state, &|block| block.kind = "hugepages-1Gi".to_owned())),
        format!("{place} memory resource that does not exist")
    );
    let error = Static::new(&machine(1, 1, 1, 1), &Reserved::new()).unwrap_err();
    assert_eq!(error, "[memorymanager] you should specify the system reserved memory");
}

#[test]
fn reservations_must_be_of_this_machine() {
    let reservation = |node: i32, kind: &str| crate::config::MemoryReservation {
        numa_node: node,
        limits: [(kind.to_owned(), "1Gi".to_owned())].into(),
    };
    let check = |node, kind| reserved(&machine(1, 1, 1, 1), &[reservation(node, kind)], 1 << 30);
    assert_eq!(check(0, MEMORY).unwrap()[&0][MEMORY], 1 << 30);
    let missing =
        "the reserved memory configuration references a NUMA node 1 that does not exist on this machine";
    assert_eq!(check(1, MEMORY).unwrap_err(), missing);
    let huge = "the total amount \"1Gi\" of type \"hugepages-1Gi\" is not equal to the value \"0\" determined by Node Allocatable feature";
    assert_eq!(check(0, "hugepages-1Gi").unwrap_err(), huge);
}
