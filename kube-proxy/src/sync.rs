//! Writing rule sets: only what differs from what was written last, in one transaction; now and then everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use linux::iptables::{Error, Family, Iptables, Position, Restore, chains};
use tokio::time::Instant;

use crate::rules::{
    EXTERNAL, FIREWALL, FORWARD, LOCALNET, NODE_PORTS, POSTROUTING, Rules, SERVICES, Table, is_service_chain,
};

const CANARY: &str = "KUBE-PROXY-CANARY";
/// Everything is written again this often, whatever the canary says.
const FULL_SYNC: Duration = Duration::from_secs(3600);

/// Rules that lead from the kernel's chains into ours: table, from, to, matches, comment.
const JUMPS: [(&str, &str, &str, &[&str], &str); 14] = [
    ("filter", "INPUT", EXTERNAL, NEW, "kubernetes externally-visible service portals"),
    ("filter", "FORWARD", EXTERNAL, NEW, "kubernetes externally-visible service portals"),
    ("filter", "INPUT", NODE_PORTS, &[], "kubernetes health check service ports"),
    ("filter", "FORWARD", SERVICES, NEW, "kubernetes service portals"),
    ("filter", "OUTPUT", SERVICES, NEW, "kubernetes service portals"),
    ("filter", "FORWARD", FORWARD, &[], "kubernetes forwarding rules"),
    ("filter", "INPUT", FIREWALL, NEW, "kubernetes load balancer firewall"),
    ("filter", "OUTPUT", FIREWALL, NEW, "kubernetes load balancer firewall"),
    ("filter", "FORWARD", FIREWALL, NEW, "kubernetes load balancer firewall"),
    ("nat", "OUTPUT", SERVICES, &[], "kubernetes service portals"),
    ("nat", "PREROUTING", SERVICES, &[], "kubernetes service portals"),
    ("nat", "POSTROUTING", POSTROUTING, &[], "kubernetes postrouting rules"),
    ("filter", "INPUT", LOCALNET, &[], ""),
    ("filter", "OUTPUT", LOCALNET, &[], ""),
];
const NEW: &[&str] = &["-m", "conntrack", "--ctstate", "NEW"];

/// One IP family's rules in the kernel.
pub(crate) struct Sync {
    iptables: Iptables,
    /// What was written last; none when everything must be written.
    written: Option<Rules>,
    last_full: Instant,
}

impl Sync {
    pub(crate) async fn new(family: Family) -> Self {
        let iptables = Iptables::detect(family).await;
        tracing::info!(?family, flavour = ?iptables.flavour(), "Using iptables");
        Self { iptables, written: None, last_full: Instant::now() }
    }

    /// Brings the kernel to these rules.
    pub(crate) async fn apply(&mut self, rules: Rules) -> Result<(), Error> {
        if self.last_full.elapsed() > FULL_SYNC {
            self.written = None;
        }
        // A failure half-way leaves the unknown behind.
        let written = self.written.take();
        let text = match &written {
            Some(written) => transaction(Some(written), &BTreeSet::new(), &rules),
            None => {
                self.jumps().await?;
                let there = self.iptables.save("nat").await?;
                let stale = chains(&there).filter(|c| is_service_chain(c)).map(str::to_owned).collect();
                self.last_full = Instant::now();
                transaction(None, &stale, &rules)
            }
        };
        if !text.is_empty() {
            tracing::debug!(lines = text.lines().count(), full = written.is_none(), "Writing rules");
            self.iptables.restore(&text, Restore::default()).await?;
        }
        self.written = Some(rules);
        Ok(())
    }

    async fn jumps(&self) -> Result<(), Error> {
        for table in ["mangle", "nat", "filter"] {
            self.iptables.ensure_chain(table, CANARY).await?;
        }
        for (table, from, to, matches, comment) in JUMPS {
            self.iptables.ensure_chain(table, to).await?;
            let mut rule = matches.to_vec();
            if !comment.is_empty() {
                rule.extend(["-m", "comment", "--comment", comment]);
            }
            rule.extend(["-j", to]);
            self.iptables.ensure_rule(Position::Prepend, table, from, &rule).await?;
        }
        Ok(())
    }

    /// Looks for the canary; when it is gone somebody flushed the rules, and the next [`Sync::apply`] writes all of them.
    pub(crate) async fn check_canary(&mut self) -> bool {
        let alive = self.iptables.chain_exists("mangle", CANARY).await.unwrap_or(false);
        if !alive && self.written.is_some() {
            tracing::info!("The canary chain is gone: somebody flushed the rules");
            self.written = None;
        }
        self.written.is_some()
    }

    /// Makes the next [`Sync::apply`] write everything.
    pub(crate) fn forget(&mut self) {
        self.written = None;
    }
}

/// Input for `iptables-restore --noflush`; empty when nothing differs. `stale` names service chains that are there although
/// nothing is known of having written them.
fn transaction(written: Option<&Rules>, stale: &BTreeSet<String>, rules: &Rules) -> String {
    let nothing = Table::new();
    let old = |table: fn(&Rules) -> &Table| written.map_or(&nothing, table);
    let mut text = String::new();
    table(&mut text, "filter", old(|r| &r.filter), &BTreeSet::new(), &rules.filter, written.is_none());
    table(&mut text, "nat", old(|r| &r.nat), stale, &rules.nat, written.is_none());
    text
}

fn table(text: &mut String, name: &str, old: &Table, stale: &BTreeSet<String>, new: &Table, full: bool) {
    let changed: BTreeMap<&String, &Vec<String>> =
        new.iter().filter(|(chain, rules)| full || old.get(*chain) != Some(rules)).collect();
    let known = stale.iter().chain(old.keys());
    let gone: BTreeSet<&String> =
        known.filter(|chain| is_service_chain(chain) && !new.contains_key(*chain)).collect();
    if changed.is_empty() && gone.is_empty() {
        return;
    }
    let _ = writeln!(text, "*{name}");
    for chain in changed.keys().chain(&gone) {
        let _ = writeln!(text, ":{chain} - [0:0]");
    }
    for (chain, rules) in changed {
        for rule in rules {
            let _ = writeln!(text, "-A {chain} {rule}");
        }
    }
    for chain in gone {
        let _ = writeln!(text, "-X {chain}");
    }
    text.push_str("COMMIT\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(nat: &[(&str, &[&str])]) -> Rules {
        let nat =
            nat.iter().map(|(c, rules)| ((*c).to_owned(), rules.iter().map(|r| (*r).to_owned()).collect()));
        Rules { filter: Table::new(), nat: nat.collect() }
    }

    #[test]
    fn only_what_differs_is_written() {
        let old = rules(&[("KUBE-SERVICES", &["-j A"]), ("KUBE-SVC-A", &["-j X"]), ("KUBE-SVC-B", &[])]);
        let new =
            rules(&[("KUBE-SERVICES", &["-j C"]), ("KUBE-SVC-A", &["-j X"]), ("KUBE-SVC-C", &["-j Y"])]);
        let stale = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        for (written, stale, want) in [
            (Some(&new), stale(&[]), ""),
            (
                Some(&old),
                stale(&[]),
                "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-C - [0:0]\n:KUBE-SVC-B - [0:0]\n\
                 -A KUBE-SERVICES -j C\n-A KUBE-SVC-C -j Y\n-X KUBE-SVC-B\nCOMMIT\n",
            ),
            (
                None,
                stale(&["KUBE-SEP-OLD", "KUBE-SVC-A"]),
                "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-A - [0:0]\n:KUBE-SVC-C - [0:0]\n:KUBE-SEP-OLD - [0:0]\n\
                 -A KUBE-SERVICES -j C\n-A KUBE-SVC-A -j X\n-A KUBE-SVC-C -j Y\n-X KUBE-SEP-OLD\nCOMMIT\n",
            ),
        ] {
            assert_eq!(transaction(written, &stale, &new), want);
        }
    }
}
