//! Kernel settings the proxy depends on.

use std::fs;
use std::net::Ipv4Addr;

use crate::config::{Config, Tracking};

const CONNTRACK: &str = "net/netfilter/nf_conntrack_";

/// A setting: its path under /proc/sys, and its value.
fn wanted(config: &Config, cpus: u32, current_max: u64) -> Vec<(String, u64)> {
    let Tracking { max_per_core, min, be_liberal, established, close_wait } = config.tracking;
    let max = u64::from(max_per_core.saturating_mul(cpus).max(if max_per_core == 0 { 0 } else { min }));
    let mut settings = Vec::new();
    if config.localhost_node_ports {
        settings.push(("net/ipv4/conf/all/route_localnet".to_owned(), 1));
    }
    // A higher limit is somebody's decision.
    if max > current_max {
        settings.push((format!("{CONNTRACK}max"), max));
    }
    if be_liberal {
        settings.push((format!("{CONNTRACK}tcp_be_liberal"), 1));
    }
    for (name, time) in [("established", established), ("close_wait", close_wait)] {
        if !time.is_zero() {
            settings.push((format!("{CONNTRACK}tcp_timeout_{name}"), time.as_secs()));
        }
    }
    settings
}

fn read(name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Applies them. What cannot be set (in a container without the right, say) is logged: traffic flows without.
pub(crate) fn apply(config: &Config) {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    for (name, value) in wanted(config, cpus, read(&format!("{CONNTRACK}max"))) {
        if read(&name) == value {
            continue;
        }
        match fs::write(format!("/proc/sys/{name}"), value.to_string()) {
            Ok(()) => tracing::info!(name, value, "Set sysctl"),
            Err(e) => tracing::warn!(name, value, err = %e, "Cannot set sysctl"),
        }
    }
    if read("net/bridge/bridge-nf-call-iptables") != 1 {
        tracing::warn!(
            "net.bridge.bridge-nf-call-iptables is not 1: traffic between pods of a bridge does not meet the rules"
        );
    }
}

/// The addresses of this machine's interfaces.
pub(crate) fn interface_addresses() -> Vec<std::net::IpAddr> {
    let Ok(list) = nix::ifaddrs::getifaddrs() else { return vec![Ipv4Addr::LOCALHOST.into()] };
    list.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| a.ip().into());
        v4.or_else(|| address.as_sockaddr_in6().map(|a| a.ip().into()))
    })
    .collect()
}
