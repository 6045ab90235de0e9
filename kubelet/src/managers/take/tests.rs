use proptest::prelude::*;

use super::*;
use crate::managers::machine::tests::machine;

fn options(names: &str) -> CpuOptions {
    let has = |name: &str| names.split(' ').any(|option| option == name);
    CpuOptions {
        full_pcpus_only: has("full"),
        distribute_cpus_across_numa: has("numa"),
        distribute_cpus_across_cores: has("cores"),
        prefer_align_cpus_by_uncorecache: has("cache"),
        ..CpuOptions::default()
    }
}

/// Machines by packages, nodes in each, cores in each, cores to a cache.
fn check(shape: [usize; 4], names: &str, free: &str, count: usize, expected: Result<&str, &str>) {
    let [sockets, nodes, cores, per_cache] = shape;
    let machine = machine(sockets, nodes, cores, per_cache);
    let taken = take(&machine, &options(names), &free.parse().unwrap(), count).map(|cpus| cpus.to_string());
    assert_eq!(
        taken.as_deref(),
        expected.map_err(str::to_owned).as_ref().map(|cpus| *cpus),
        "{names} {free} {count}"
    );
}

/// One package with 4 cores and 8 threads; two packages with 6 cores and 12 threads in all.
const SINGLE: [usize; 4] = [1, 1, 4, 4];
const DUAL: [usize; 4] = [2, 1, 3, 3];

#[test]
fn whole_packages_and_cores_come_first_and_then_what_is_left_of_cores() {
    check(SINGLE, "", "0-7", 1, Ok("0"));
    check(SINGLE, "", "1-7", 1, Ok("4"));
    check(SINGLE, "", "0-7", 2, Ok("0,4"));
    check(SINGLE, "", "0-3,5-7", 3, Ok("0-1,5"));
    check(SINGLE, "", "0-7", 8, Ok("0-7"));
    check(DUAL, "", "0-11", 1, Ok("0"));
    check(DUAL, "", "0-11", 6, Ok("0-2,6-8"));
    check(DUAL, "", "1-11", 6, Ok("3-5,9-11"));
    check(DUAL, "", "1-11", 8, Ok("1,3-5,7,9-11"));
    check(DUAL, "", "0-1", 0, Ok(""));
    let lacking = "not enough cpus available to satisfy request: requested=3, available=2";
    check(DUAL, "", "0-1", 3, Err(lacking));
}

#[test]
fn processors_may_be_spread_over_cores() {
    check(SINGLE, "cores", "0-7", 2, Ok("0-1"));
    check(SINGLE, "cores", "0-7", 4, Ok("0-3"));
    check(DUAL, "cores", "0-11", 4, Ok("0-2,6"));
}

#[test]
fn processors_may_be_spread_over_nodes() {
    // Two packages with two nodes each, three cores in each node.
    let quad = [2, 2, 3, 3];
    check(quad, "numa", "0-23", 4, Ok("0-1,12-13"));
    check(quad, "numa", "0-23", 6, Ok("0-2,12-14"));
    check(quad, "numa", "0-23", 8, Ok("0-1,3-4,12-13,15-16"));
    check(quad, "numa full", "0-23", 8, Ok("0-1,3-4,12-13,15-16"));
    check(quad, "numa", "0-23", 9, Ok("0-4,12-13,15-16"));
    check(quad, "numa full", "0-23", 24, Ok("0-23"));
    // Odd ones out of whole cores cannot be spread.
    check(quad, "numa full", "0-23", 7, Ok("0-3,12-14"));
}

#[test]
fn processors_of_one_cache_come_first() {
    let caches = [1, 1, 8, 2];
    check(caches, "cache", "0-15", 4, Ok("0-1,8-9"));
    check(caches, "cache", "1-7,9-15", 4, Ok("2-3,10-11"));
    check(caches, "cache", "1-7,9-15", 2, Ok("1,9"));
    check(caches, "cache", "0-15", 3, Ok("0-1,8"));
    check(caches, "cache", "1,3,5,7,9,11,13,15", 4, Ok("1,3,9,11"));
}

/// A machine, options, what is free, and how much is wanted.
fn cases() -> impl Strategy<Value = ([usize; 4], &'static str, CpuSet, usize)> {
    let shapes =
        prop::sample::select(vec![[1, 1, 4, 4], [2, 1, 4, 2], [1, 2, 4, 2], [2, 2, 2, 1], [4, 1, 2, 2]]);
    let names = prop::sample::select(vec!["", "full", "numa", "full numa", "cores", "cache", "full cache"]);
    (shapes, names, any::<u64>(), 0_usize..20).prop_map(|(shape, names, bits, count)| {
        let threads = 2 * shape[0] * shape[1] * shape[2];
        let free = (0..threads).filter(|cpu| bits >> cpu & 1 == 1).collect();
        (shape, names, free, count)
    })
}

proptest! {
    /// Exactly as many as wanted are taken, all of them free; or there are too few.
    #[test]
    fn nothing_is_taken_that_is_not_free(case in cases()) {
        let ([sockets, nodes, cores, per_cache], names, free, count) = case;
        let machine = machine(sockets, nodes, cores, per_cache);
        match take(&machine, &options(names), &free, count) {
            Ok(taken) => {
                prop_assert_eq!(taken.len(), count);
                prop_assert!(taken.is_subset(&free));
            }
            Err(_) => prop_assert!(count > free.len()),
        }
    }

    /// Where whole cores are free and even numbers wanted, no core is broken.
    #[test]
    fn whole_cores_stay_whole(case in cases()) {
        let ([sockets, nodes, cores, per_cache], names, free, count) = case;
        let names = if matches!(names, "cores" | "numa") { "full numa" } else { names };
        let machine = machine(sockets, nodes, cores, per_cache);
        let whole = |cpu: usize| machine.of(Level::Core, machine.cpus[&cpu].core).is_subset(&free);
        let free: CpuSet = free.iter().filter(|cpu| whole(*cpu)).collect();
        let count = count % (free.len() + 1) / 2 * 2;
        let taken = take(&machine, &options(names), &free, count).unwrap();
        for cpu in taken.iter() {
            prop_assert!(machine.of(Level::Core, machine.cpus[&cpu].core).is_subset(&taken));
        }
    }
}
