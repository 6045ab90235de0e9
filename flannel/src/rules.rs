//! The packet rules: masquerade what leaves the pod network, and let its traffic be forwarded. Upstream's chains.

use ipnet::Ipv4Net;
use linux::iptables::{Error, Iptables, Position, Restore};

const MASQ_CHAIN: &str = "FLANNEL-POSTRTG";
const FORWARD_CHAIN: &str = "FLANNEL-FWD";
const MASQ: [&str; 6] = ["-m", "comment", "--comment", "flanneld masq", "-j", MASQ_CHAIN];
const FORWARD: [&str; 6] = ["-m", "comment", "--comment", "flanneld forward", "-j", FORWARD_CHAIN];

/// Input for `iptables-restore --noflush`.
fn plan(network: Ipv4Net, subnet: Ipv4Net, masquerade: bool) -> String {
    let mut lines = vec!["*filter".to_owned(), format!(":{FORWARD_CHAIN} - [0:0]")];
    for side in ["-s", "-d"] {
        lines.push(format!(
            "-A {FORWARD_CHAIN} {side} {network} -m comment --comment \"flanneld forward\" -j ACCEPT"
        ));
    }
    lines.push("COMMIT".to_owned());
    if masquerade {
        lines.extend(["*nat".to_owned(), format!(":{MASQ_CHAIN} - [0:0]")]);
        for (what, target) in [
            // kube-proxy has marked these for its own masquerading.
            ("-m mark --mark 0x4000/0x4000".to_owned(), "RETURN"),
            (format!("-s {subnet} -d {network}"), "RETURN"),
            (format!("-s {network} -d {subnet}"), "RETURN"),
            (format!("! -s {network} -d {subnet}"), "RETURN"),
            (format!("-s {network} ! -d 224.0.0.0/4"), "MASQUERADE --random-fully"),
            (format!("! -s {network} -d {network}"), "MASQUERADE --random-fully"),
        ] {
            lines.push(format!("-A {MASQ_CHAIN} {what} -m comment --comment \"flanneld masq\" -j {target}"));
        }
        lines.push("COMMIT".to_owned());
    }
    lines.join("\n") + "\n"
}

/// Makes sure that the rules are there. True when they were not.
pub(crate) async fn ensure(
    iptables: &Iptables,
    network: Ipv4Net,
    subnet: Ipv4Net,
    masquerade: bool,
    rewrite: bool,
) -> Result<bool, Error> {
    let mut jumps = vec![("filter", "FORWARD", FORWARD, FORWARD_CHAIN)];
    if masquerade {
        jumps.push(("nat", "POSTROUTING", MASQ, MASQ_CHAIN));
    }
    let mut missing = rewrite;
    for (table, chain, rule, ours) in &jumps {
        // Asking for a rule with a target that does not exist fails.
        missing = missing
            || !iptables.chain_exists(table, ours).await?
            || !iptables.rule_exists(table, chain, rule).await?;
    }
    if missing {
        iptables.restore(&plan(network, subnet, masquerade), Restore::default()).await?;
        for (table, chain, rule, _) in &jumps {
            iptables.ensure_rule(Position::Append, table, chain, rule).await?;
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masquerading_is_asked_for() {
        let (network, subnet) = ("10.42.0.0/16".parse().unwrap(), "10.42.1.0/24".parse().unwrap());
        let with = plan(network, subnet, true);
        assert!(with.contains("-A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 "));
        assert_eq!(with.matches("COMMIT\n").count(), 2);
        let without = plan(network, subnet, false);
        assert!(!without.contains("nat") && without.contains("-A FLANNEL-FWD -d 10.42.0.0/16 "));
    }
}
