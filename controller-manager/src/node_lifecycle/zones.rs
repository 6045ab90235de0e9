//! Zones of nodes, and how much of each is unhealthy. When most of a zone is, the fault may lie between it and us rather than
//! in its nodes: then nodes are evicted slowly or not at all, and from nowhere when no zone has a healthy node.

use std::collections::BTreeMap;

use api::Value;
use tracing::info;

use crate::config::EvictionLimits;

/// A label with which a node does not count for the state of its zone.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";
/// Fewer unhealthy nodes are no disruption, whatever part of their zone they are.
const FEW: usize = 2;

/// What upstream calls the zone of a node: region and zone, or nothing. The older labels go before the newer ones.
pub(super) fn zone(node: &Value) -> String {
    let of = |old: &str, new: &str| node.label(old).or_else(|| node.label(new)).unwrap_or_default();
    let zone = of("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone");
    let region = of("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region");
    if zone.is_empty() && region.is_empty() { String::new() } else { format!("{region}:\0:{zone}") }
}

/// Whether the node counts for the state of its zone.
pub(super) fn counts(node: &Value) -> bool {
    node.label(EXCLUDED).is_none()
}

/// The nodes of a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) healthy: usize,
    pub(super) unhealthy: usize,
}

/// The tallies of zones by their names.
pub(super) type Tallies = BTreeMap<String, Tally>;

impl Tally {
    pub(super) fn add(&mut self, healthy: bool) {
        if healthy {
            self.healthy += 1;
        } else {
            self.unhealthy += 1;
        }
    }

    pub(super) fn size(self) -> usize {
        self.healthy + self.unhealthy
    }
}

/// How bad it is in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZoneState {
    /// Nodes that are unhealthy are themselves to blame.
    Normal,
    /// More nodes are unhealthy than the limits allow.
    PartialDisruption,
    /// All are.
    FullDisruption,
}

impl ZoneState {
    pub(super) fn of(tally: Tally, limits: &EvictionLimits) -> Self {
        if tally.healthy == 0 && tally.unhealthy > 0 {
            return Self::FullDisruption;
        }
        // In single precision, in which the threshold was given.
        let share = tally.unhealthy as f32 / tally.size() as f32;
        if tally.unhealthy > FEW && share >= limits.unhealthy_zone {
            Self::PartialDisruption
        } else {
            Self::Normal
        }
    }
}

/// What a look at all zones changes for the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    None,
    /// No zone has a healthy node any more: evictions halt, and those under way are called off.
    Halt,
    /// Some zone has a healthy node again.
    Resume,
}

/// The states of all zones that have nodes which count.
#[derive(Debug, Default)]
pub(super) struct Zones {
    states: BTreeMap<String, (ZoneState, Tally)>,
    halted: bool,
}

impl Zones {
    /// Takes in what zones look like now.
    pub(super) fn observe(&mut self, tallies: &Tallies, limits: &EvictionLimits) -> Turn {
        let (mut states, mut unseen) = (BTreeMap::new(), false);
        for (zone, tally) in tallies {
            let state = ZoneState::of(*tally, limits);
            let before = self.states.get(zone).map(|(state, _)| *state);
            unseen |= before.is_none();
            if before != Some(state) {
                info!(zone, ?state, "Zone is in a new state");
            }
            states.insert(zone.clone(), (state, *tally));
        }
        let halted =
            !states.is_empty() && states.values().all(|(state, _)| *state == ZoneState::FullDisruption);
        let turn = match (self.halted, halted) {
            (true, false) => Turn::Resume,
            (was, true) if !was || unseen => Turn::Halt,
            _ => Turn::None,
        };
        *self = Self { states, halted };
        turn
    }

    /// Whether evictions have halted in all zones.
    pub(super) fn halted(&self) -> bool {
        self.halted
    }

    /// Nodes of a zone that may be evicted, in a second. A zone none of whose nodes counts is a normal one.
    pub(super) fn rate(&self, zone: &str, limits: &EvictionLimits) -> f32 {
        match self.states.get(zone) {
            None | Some((ZoneState::Normal, _)) => limits.rate,
            Some((ZoneState::FullDisruption, _)) if self.halted => 0.0,
            Some((ZoneState::FullDisruption, _)) => limits.rate,
            Some((ZoneState::PartialDisruption, tally)) if limits.is_large(tally.size()) => {
                limits.secondary_rate
            }
            Some((ZoneState::PartialDisruption, _)) => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    const LIMITS: EvictionLimits = EvictionLimits::DEFAULT;

    fn tallies(zones: &[(&str, usize, usize)]) -> Tallies {
        zones.iter().map(|(z, healthy, unhealthy)| ((*z).to_owned(), tally(*healthy, *unhealthy))).collect()
    }

    fn tally(healthy: usize, unhealthy: usize) -> Tally {
        Tally { healthy, unhealthy }
    }

    #[test]
    fn a_zone_is_named_by_region_and_zone() {
        let check = |labels: Value, want: &str| {
            assert_eq!(zone(&object!({"metadata": {"labels": labels}})), want);
        };
        check(object!({}), "");
        check(object!({"topology.kubernetes.io/zone": "a"}), ":\0:a");
        check(object!({"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "a"}), "r:\0:a");
        check(
            object!({"topology.kubernetes.io/zone": "a", "failure-domain.beta.kubernetes.io/zone": "old"}),
            ":\0:old",
        );
    }

    #[test]
    fn the_state_follows_the_share_of_unhealthy_nodes() {
        for (healthy, unhealthy, want) in [
            (1, 0, ZoneState::Normal),
            (0, 1, ZoneState::FullDisruption),
            (0, 60, ZoneState::FullDisruption),
            // Two of three are more than the threshold, but only two.
            (1, 2, ZoneState::Normal),
            (2, 3, ZoneState::PartialDisruption),
            // 0.5 and, exactly, 0.55.
            (3, 3, ZoneState::Normal),
            (9, 11, ZoneState::PartialDisruption),
            (10, 11, ZoneState::Normal),
        ] {
            assert_eq!(ZoneState::of(tally(healthy, unhealthy), &LIMITS), want, "{healthy}/{unhealthy}");
        }
    }

    #[test]
    fn the_rate_follows_state_and_size() {
        for (zones, want) in [
            (&[("a", 3, 1)][..], 0.1),
            (&[("a", 2, 3)], 0.0),
            // The threshold itself is not a large zone.
            (&[("a", 20, 30)], 0.0),
            (&[("a", 20, 31)], 0.01),
            // A zone that is gone while another is there is evicted as one that is well.
            (&[("a", 0, 3), ("b", 1, 0)], 0.1),
            (&[("a", 0, 3)], 0.0),
            (&[("a", 0, 3), ("b", 0, 1)], 0.0),
            (&[("b", 0, 1)], 0.1),
        ] {
            let mut seen = Zones::default();
            seen.observe(&tallies(zones), &LIMITS);
            assert_eq!(seen.rate("a", &LIMITS), want, "{zones:?}");
        }
    }

    #[test]
    fn evictions_halt_only_while_every_zone_is_gone() {
        let mut zones = Zones::default();
        let mut check = |now: &[(&str, usize, usize)], want: Turn| {
            assert_eq!(zones.observe(&tallies(now), &LIMITS), want, "{now:?}");
        };
        check(&[], Turn::None);
        check(&[("a", 1, 1), ("b", 1, 0)], Turn::None);
        check(&[("a", 0, 2), ("b", 1, 0)], Turn::None);
        check(&[("a", 0, 2), ("b", 0, 1)], Turn::Halt);
        check(&[("a", 0, 2), ("b", 0, 1)], Turn::None);
        // The nodes of a zone that appears may have been tainted before.
        check(&[("a", 0, 2), ("b", 0, 1), ("c", 0, 1)], Turn::Halt);
        check(&[("a", 0, 2), ("c", 0, 1)], Turn::None);
        check(&[("a", 1, 1), ("c", 0, 1)], Turn::Resume);
        check(&[("a", 1, 1), ("c", 0, 1)], Turn::None);
    }

    #[test]
    fn a_cluster_that_begins_without_a_healthy_node_halts_at_once() {
        assert_eq!(Zones::default().observe(&tallies(&[("", 0, 1)]), &LIMITS), Turn::Halt);
    }
}
