//! The few packet rules that are the kubelet's: the hint by which everyone on the host agrees on an iptables flavour
//! (KEP-3178), and the protection of loopback services against packets from outside.

use std::sync::Arc;
use std::time::Duration;

use linux::iptables::{Error, Family, HINT_CHAIN, Iptables, Position};

use crate::Kubelet;

/// Somebody may flush the tables; this often the rules are looked for.
const PERIOD: Duration = Duration::from_secs(60);
const FIREWALL: &str = "KUBE-FIREWALL";
/// What a host that routes packets to loopback addresses must not let in.
const BLOCK_MARTIANS: [&str; 14] = [
    "-m",
    "comment",
    "--comment",
    "block incoming localnet connections",
    "--dst",
    "127.0.0.0/8",
    "!",
    "--src",
    "127.0.0.0/8",
    "-m",
    "conntrack",
    "!",
    "--ctstate",
    "RELATED,ESTABLISHED,DNAT",
];

/// Keeps the rules in place until the process ends.
pub(crate) async fn run(kubelet: Arc<Kubelet>) {
    let mut families = vec![Iptables::detect(Family::V4).await];
    if kubelet.config.node_ips.iter().any(|ip| ip.is_ipv6()) {
        families.push(Iptables::detect(Family::V6).await);
    }
    let mut failing = false;
    loop {
        for iptables in &families {
            match ensure(iptables).await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(err = %error, "Cannot set up the kubelet's packet rules");
                }
                Err(_) => {}
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn ensure(iptables: &Iptables) -> Result<(), Error> {
    // The hint comes last, so that its presence means that all is there.
    if iptables.chain_exists("mangle", HINT_CHAIN).await? {
        return Ok(());
    }
    if iptables.family() == Family::V4 {
        iptables.ensure_chain("filter", FIREWALL).await?;
        let drop = [&BLOCK_MARTIANS[..], &["-j", "DROP"]].concat();
        iptables.ensure_rule(Position::Append, "filter", FIREWALL, &drop).await?;
        for chain in ["OUTPUT", "INPUT"] {
            iptables.ensure_rule(Position::Prepend, "filter", chain, &["-j", FIREWALL]).await?;
        }
    }
    iptables.ensure_chain("mangle", HINT_CHAIN).await.map(drop)
}
