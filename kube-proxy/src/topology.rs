//! Which endpoints of a Service port take its traffic on this node: by traffic policy, readiness and hints.

use crate::endpoint::Endpoint;

/// The choice. Each list is in the order of the endpoints given.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice<'e> {
    /// For the `Cluster` policy.
    pub(crate) cluster: Vec<&'e Target>,
    /// For the `Local` policy.
    pub(crate) local: Vec<&'e Target>,
    /// Whether any endpoint anywhere could take traffic.
    pub(crate) any: bool,
}

/// An endpoint with the port of the Service port asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    pub(crate) port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Any,
    SameZone,
    SameNode,
}

/// Chooses. `uses_cluster` and `uses_local` say which policies the Service has.
pub(crate) fn choose<'e>(
    targets: &'e [Target],
    zone: &str,
    uses_cluster: bool,
    uses_local: bool,
) -> Choice<'e> {
    let pick = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<&'e Target> {
        targets.iter().filter(|t| wanted(&t.endpoint)).collect()
    };
    // Endpoints that are going away but still answer are better than none.
    let fading = |e: &Endpoint| e.serving && e.terminating;
    let or_fading = |ready: Vec<&'e Target>, near: &dyn Fn(&Endpoint) -> bool| {
        if ready.is_empty() { pick(&|e| near(e) && fading(e)) } else { ready }
    };
    let mut choice = Choice::default();
    if uses_cluster {
        let mode = mode(targets, zone);
        let near = |e: &Endpoint| match mode {
            Mode::Any => true,
            Mode::SameNode => e.node_hint == Some(true),
            Mode::SameZone => e.zone_hints.iter().any(|z| z == zone),
        };
        choice.cluster = or_fading(pick(&|e| e.ready && near(e)), &|_| true);
    }
    if uses_local {
        choice.local = or_fading(pick(&|e| e.ready && e.local), &|e| e.local);
    }
    choice.any = targets.iter().any(|t| t.endpoint.ready || fading(&t.endpoint));
    choice
}

/// Hints count only when every ready endpoint has them and one of them is for us.
fn mode(targets: &[Target], zone: &str) -> Mode {
    let ready = || targets.iter().map(|t| &t.endpoint).filter(|e| e.ready);
    if ready().next().is_none() {
        return Mode::Any;
    }
    if ready().all(|e| e.node_hint.is_some()) && ready().any(|e| e.node_hint == Some(true)) {
        return Mode::SameNode;
    }
    let in_zone = |e: &Endpoint| e.zone_hints.iter().any(|z| z == zone);
    if ready().all(|e| !e.zone_hints.is_empty()) && ready().any(in_zone) { Mode::SameZone } else { Mode::Any }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `1:r` is a ready endpoint, `2:Lt` a local one that is serving and terminating, `3:rza` ready and hinted for zone a.
    fn targets(text: &str) -> Vec<Target> {
        let one = |word: &str| {
            let (id, flags) = word.split_once(':').unwrap();
            let has = |c| flags.contains(c);
            let zone_hints = if has('z') { vec![flags.chars().last().unwrap().to_string()] } else { vec![] };
            let endpoint = Endpoint {
                ip: format!("10.0.0.{id}").parse().unwrap(),
                local: has('L'),
                ready: has('r'),
                serving: has('r') || has('t'),
                terminating: has('t'),
                zone_hints,
                node_hint: None,
            };
            Target { endpoint, port: 80 }
        };
        text.split_whitespace().map(one).collect()
    }

    #[test]
    fn endpoints_are_chosen_by_policy_readiness_and_hints() {
        let ids = |list: &[&Target]| {
            let ids = list.iter().map(|t| t.endpoint.ip.to_string().rsplit('.').next().unwrap().to_owned());
            ids.collect::<Vec<_>>().join(" ")
        };
        for (given, cluster, local, any) in [
            ("", "", "", false),
            ("1:r 2:Lr 3:L", "1 2", "2", true),
            ("1:t 2:Lt 3:", "1 2", "2", true),
            ("1:r 2:Lt", "1", "2", true),
            ("1:r", "1", "", true),
            ("1:rza 2:rzb", "1", "", true),
            ("1:rzb 2:rzb", "1 2", "", true),
            ("1:rza 2:r", "1 2", "", true),
            ("1: 2:L", "", "", false),
        ] {
            let targets = targets(given);
            let choice = choose(&targets, "a", true, true);
            assert_eq!((ids(&choice.cluster), ids(&choice.local)), (cluster.into(), local.into()), "{given}");
            assert_eq!(choice.any, any, "{given}");
        }
    }
}
