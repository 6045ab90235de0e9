//! Every node gets its part of the pod ranges (`spec.podCIDR`).

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use api::{Value, object};
use client::resource::NODES;
use client::{Key, Next, Patch, Queue};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::act::{Action, head};
use crate::context::Context;

pub(crate) fn start(cx: &Context) {
    if cx.config.node_cidrs.is_empty() {
        tracing::info!("Nodes get no pod ranges without --allocate-node-cidrs");
        return;
    }
    let queue = Queue::new();
    let nodes = cx.informers.nodes();
    Context::follow(nodes, &queue);
    // One worker: no part may be given away twice.
    cx.work(queue, 1, &[nodes], reconcile);
}

async fn reconcile(cx: Context, key: Key) -> anyhow::Result<Next> {
    let store = cx.informers.nodes().store();
    let Some(node) = store.get(&key) else { return Ok(Next::Done) };
    let actions = plan(&node, &store.list(), &cx.config.node_cidrs, &cx.config.service_cidrs);
    cx.apply(actions).await
}

fn plan(node: &Value, nodes: &[Arc<Value>], ranges: &[(IpNet, u8)], services: &[IpNet]) -> Vec<Action> {
    if node.is_terminating() || !node.str_at(&["spec", "podCIDR"]).is_empty() {
        return Vec::new();
    }
    let taken: HashSet<IpNet> =
        nodes.iter().flat_map(|n| cidrs(n)).filter_map(|c| c.parse::<IpNet>().ok()).collect();
    let mut parts = Vec::new();
    for (range, mask) in ranges {
        let free = subnets(*range, *mask)
            .find(|part| !taken.iter().chain(services).any(|other| overlaps(part, other)));
        match free {
            Some(part) => parts.push(part.to_string()),
            None => {
                let text = format!("Node {} status is now: CIDRNotAvailable", node.name());
                let kind = client::events::Kind::Normal;
                return vec![
                    Action::Event(head(node), kind, "CIDRNotAvailable", text),
                    Action::Later(std::time::Duration::from_secs(30)),
                ];
            }
        }
    }
    let patch = object!({"spec": {"podCIDR": (&parts[0]), "podCIDRs": (parts.clone())}});
    vec![Action::Patch(NODES, head(node), "", Patch::Strategic, patch)]
}

fn cidrs(node: &Value) -> Vec<&str> {
    let all = node.array_at(&["spec", "podCIDRs"]);
    if all.is_empty() {
        return vec![node.str_at(&["spec", "podCIDR"])];
    }
    all.iter().filter_map(Value::as_str).collect()
}

fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The parts of a range, in order.
fn subnets(range: IpNet, mask: u8) -> impl Iterator<Item = IpNet> {
    let bits = u32::from(mask.saturating_sub(range.prefix_len())).min(24);
    (0..(1_u128 << bits)).filter_map(move |i| {
        let shift = u32::from(range.max_prefix_len() - mask);
        let step = i.checked_shl(shift).unwrap_or(0);
        match range.network() {
            IpAddr::V4(base) => {
                let base = u32::from(base) + u32::try_from(step).ok()?;
                Ipv4Net::new(base.into(), mask).ok().map(IpNet::V4)
            }
            IpAddr::V6(base) => Ipv6Net::new((u128::from(base) + step).into(), mask).ok().map(IpNet::V6),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cidr: &str) -> Arc<Value> {
        let mut node = object!({"metadata": {"name": name}, "spec": {}});
        if !cidr.is_empty() {
            node.set(&["spec", "podCIDR"], cidr);
            node.set(&["spec", "podCIDRs"], vec![cidr]);
        }
        Arc::new(node)
    }

    #[test]
    fn the_first_free_part_is_given() {
        let ranges = [("10.42.0.0/16".parse().unwrap(), 24)];
        let check = |nodes: &[Arc<Value>], services: &[IpNet], want: &str| {
            let actions = plan(&nodes[0], nodes, &ranges, services);
            let [Action::Patch(_, _, _, _, patch)] = &actions[..] else { panic!("{actions:?}") };
            assert_eq!(patch.str_at(&["spec", "podCIDR"]), want);
        };
        check(&[node("a", "")], &[], "10.42.0.0/24");
        check(&[node("a", ""), node("b", "10.42.0.0/24"), node("c", "10.42.2.0/24")], &[], "10.42.1.0/24");
        check(&[node("a", "")], &["10.42.0.0/20".parse().unwrap()], "10.42.16.0/24");
        assert!(plan(&node("a", "10.42.0.0/24"), &[], &ranges, &[]).is_empty());
    }

    #[test]
    fn a_full_range_is_told() {
        let ranges = [("10.42.0.0/24".parse().unwrap(), 24)];
        let nodes = [node("a", ""), node("b", "10.42.0.0/24")];
        assert!(matches!(plan(&nodes[0], &nodes, &ranges, &[])[..], [Action::Event(..), Action::Later(_)]));
    }
}
