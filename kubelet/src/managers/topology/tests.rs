use super::*;
use crate::managers::machine::tests::machine;

fn mask(nodes: &[usize]) -> Mask {
    nodes.iter().copied().collect()
}

fn hint(nodes: &[usize], preferred: bool) -> Hint {
    Hint { affinity: Some(mask(nodes)), preferred }
}

fn of(hints: &[Hint]) -> Hints {
    [("r".to_owned(), Some(hints.to_vec()))].into()
}

fn policy(name: &str, options: &str, nodes: usize) -> Policy {
    let options = TopologyOptions::parse(&options.parse::<daemon::KeyValues>().unwrap().0);
    Policy::new(name, "container", || options, &machine(nodes, 1, 2, 2)).unwrap().unwrap()
}

#[test]
fn sets_of_nodes_come_from_small_to_big() {
    let all = Mask::all(&[0, 1, 2].into());
    let nodes: Vec<Vec<usize>> = all.iter().map(|mask| mask.nodes().collect()).collect();
    assert_eq!(nodes, [vec![0], vec![1], vec![2], vec![0, 1], vec![0, 2], vec![1, 2], vec![0, 1, 2]]);
    assert!(mask(&[5]).narrower(mask(&[0, 1])) && mask(&[0]).narrower(mask(&[1])));
}

#[test]
fn ways_are_merged_by_policy() {
    let (zero, one, both) = (hint(&[0], true), hint(&[1], true), hint(&[0, 1], false));
    let (anywhere, nothing) = (Hints::new(), [("r".to_owned(), Some(Vec::new()))].into());
    let unpreferred = |mut hint: Hint| {
        hint.preferred = false;
        hint
    };
    let none = Hint { affinity: None, preferred: true };
    let all = Hint { affinity: Some(mask(&[0, 1])), preferred: true };
    for (providers, best_effort, restricted, single) in [
        // Nobody cares.
        (vec![anywhere.clone()], Some(all), Some(all), Some(none)),
        // Both can be had of one node, of which the lower is taken.
        (vec![of(&[zero, one, both]), of(&[zero, one, both])], Some(zero), Some(zero), Some(zero)),
        (vec![of(&[zero, both]), of(&[zero, one, both])], Some(zero), Some(zero), Some(zero)),
        (vec![of(&[one, both]), anywhere.clone()], Some(one), Some(one), Some(one)),
        // What each prefers is elsewhere.
        (vec![of(&[zero, both]), of(&[one, both])], Some(unpreferred(zero)), None, None),
        // It needs both nodes.
        (vec![of(&[hint(&[0, 1], true)])], Some(all), Some(all), None),
        (vec![of(&[both]), of(&[zero])], Some(unpreferred(zero)), None, None),
        // It cannot be had at all.
        (vec![nothing], Some(unpreferred(all)), None, None),
    ] {
        let decide = |name| policy(name, "", 2).decide(&providers);
        assert_eq!(decide("best-effort"), best_effort, "{providers:?}");
        assert_eq!(decide("restricted"), restricted, "{providers:?}");
        assert_eq!(decide("single-numa-node"), single, "{providers:?}");
    }
}

#[test]
fn a_way_as_wide_as_it_takes_is_better_than_a_narrower_one_that_nobody_prefers() {
    let wide = of(&[hint(&[0, 1], true), hint(&[0, 1, 2, 3], false)]);
    let narrow = of(&[hint(&[0], true), hint(&[0, 1], false), hint(&[0, 1, 2, 3], false)]);
    let decided = policy("best-effort", "", 4).decide(&[wide, narrow]).unwrap();
    assert_eq!(decided, hint(&[0, 1], false));
}

#[test]
fn nodes_near_each_other_may_be_better() {
    let mut near = policy("best-effort", "prefer-closest-numa-nodes=true", 3);
    let far = policy("best-effort", "", 3);
    near.distances = [(0, vec![10, 31, 11]), (1, vec![31, 10, 31]), (2, vec![11, 31, 10])].into();
    let hints = [of(&[hint(&[0, 1], true), hint(&[0, 2], true), hint(&[1, 2], true)])];
    assert_eq!(near.decide(&hints), Some(hint(&[0, 2], true)));
    assert_eq!(far.decide(&hints), Some(hint(&[0, 1], true)));
}

#[test]
fn policies_are_made_or_refused() {
    let options = || Ok(TopologyOptions { prefer_closest: true, max_nodes: 8 });
    let make = |policy: &str, scope: &str, machine: &Machine| Policy::new(policy, scope, options, machine);
    let small = machine(2, 1, 1, 1);
    assert!(make("none", "pod", &small).unwrap().is_none());
    assert!(make("single-numa-node", "pod", &small).unwrap().unwrap().guarantees());
    assert_eq!(make("x", "pod", &small).unwrap_err(), "unknown policy: \"x\"");
    assert_eq!(make("restricted", "x", &small).unwrap_err(), "unknown scope: \"x\"");
    let error = make("restricted", "pod", &machine(9, 1, 1, 1)).unwrap_err();
    assert_eq!(error, "unsupported on machines with more than 8 NUMA Nodes");
    let mut silent = small;
    silent.nodes[1].distances.clear();
    assert!(make("restricted", "pod", &silent).unwrap_err().starts_with("cannot discover NUMA topology"));
}
