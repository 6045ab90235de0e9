//! From the ways in which single resources could be had to the one in which all are.

use super::{Hint, Hints, Mask, Policy, Strictness};

/// It does not matter, or it cannot be.
const ANYWHERE: Hint = Hint { affinity: None, preferred: true };
const NOWHERE: Hint = Hint { affinity: None, preferred: false };

/// The ways of each resource, one after the other.
fn flatten(providers: &[Hints]) -> Vec<Vec<Hint>> {
    let mut all = Vec::new();
    for hints in providers {
        if hints.is_empty() {
            all.push(vec![ANYWHERE]);
        }
        all.extend(hints.values().map(|hints| match hints.as_deref() {
            None => vec![ANYWHERE],
            Some([]) => vec![NOWHERE],
            Some(hints) => hints.to_vec(),
        }));
    }
    all
}

/// A way that was found, with its nodes.
#[derive(Debug, Clone, Copy)]
struct Found {
    mask: Mask,
    preferred: bool,
}

impl Policy {
    /// The best combination of all.
    pub(super) fn merge(&self, providers: &[Hints]) -> Hint {
        let mut all = flatten(providers);
        let single = self.strictness == Strictness::SingleNode;
        if single {
            for hints in &mut all {
                hints.retain(|hint| hint.preferred && hint.affinity.is_none_or(|mask| mask.count() == 1));
            }
        }
        // The most nodes that any one of the resources needs at least.
        let least = |hints: &Vec<Hint>| hints.iter().filter_map(|hint| hint.affinity).map(Mask::count).min();
        let widest = all.iter().filter_map(least).max().unwrap_or_default();
        let mut best = None;
        self.combine(&all, Combination { merged: self.all, first: None, preferred: true }, &mut |found| {
            best = self.better(best, found, widest);
        });
        let best = best.unwrap_or(Found { mask: self.all, preferred: false });
        let affinity = Some(best.mask).filter(|mask| !single || *mask != self.all);
        Hint { affinity, preferred: best.preferred }
    }

    fn combine(&self, rest: &[Vec<Hint>], so_far: Combination, found: &mut dyn FnMut(Found)) {
        let Some((hints, rest)) = rest.split_first() else {
            return found(Found { mask: so_far.merged, preferred: so_far.preferred });
        };
        for hint in hints {
            let mut next = so_far;
            next.preferred &= hint.preferred;
            if let Some(mask) = hint.affinity {
                // Resources that prefer different nodes cannot all have their way.
                next.preferred &= next.first.is_none_or(|first| first == mask);
                next.first = next.first.or(Some(mask));
                next.merged = next.merged.and(mask);
            }
            self.combine(rest, next, found);
        }
    }

    fn better(&self, current: Option<Found>, candidate: Found, widest: usize) -> Option<Found> {
        if candidate.mask.count() == 0 {
            return current;
        }
        let Some(current) = current else { return Some(candidate) };
        let (have, offered) = (current.mask.count(), candidate.mask.count());
        let better = match (current.preferred, candidate.preferred) {
            (false, true) => true,
            (true, false) => false,
            (true, true) => self.nearer(current.mask, candidate.mask),
            // Those that are not preferred should at least be as wide as it takes, or as near to that as can be.
            (false, false) if have > widest => self.nearer(current.mask, candidate.mask),
            (false, false) if have == widest => {
                offered == widest && self.nearer(current.mask, candidate.mask)
            }
            (false, false) if offered > widest => false,
            (false, false) if offered != have => offered > have,
            (false, false) => self.nearer(current.mask, candidate.mask),
        };
        Some(if better { candidate } else { current })
    }

    /// Whether the candidate has fewer nodes, or as many that are nearer to each other.
    fn nearer(&self, current: Mask, candidate: Mask) -> bool {
        let by_distance = self.prefer_closest
            && self.strictness != Strictness::SingleNode
            && current.count() == candidate.count();
        let (one, other) = (self.distance(current), self.distance(candidate));
        if by_distance && one != other { other < one } else { candidate.narrower(current) }
    }

    /// How far the nodes of a set are from each other, on average.
    fn distance(&self, mask: Mask) -> f64 {
        let of = |from: usize, to: usize| {
            let from = self.distances.get(&from)?;
            // Distances come in the order of the nodes.
            let place = self.distances.keys().position(|node| *node == to)?;
            from.get(place).map(|distance| *distance as f64)
        };
        let pairs = mask.nodes().flat_map(|from| mask.nodes().filter_map(move |to| of(from, to)));
        let (sum, count) = pairs.fold((0.0, 0.0), |(sum, count), distance| (sum + distance, count + 1.0));
        if count == 0.0 { 0.0 } else { sum / count }
    }
}

/// One way of each resource looked at so far.
#[derive(Debug, Clone, Copy)]
struct Combination {
    merged: Mask,
    first: Option<Mask>,
    preferred: bool,
}
