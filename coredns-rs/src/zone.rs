//! A server block with its plug-ins made ready.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::cache::Cache;
use crate::cluster::Options;
use crate::corefile::{Block, Directive, absolute};
use crate::forward::Forward;
use crate::hosts::Hosts;

/// What a server block does.
#[derive(Default)]
pub(crate) struct Zone {
    pub(crate) names: Vec<(String, u16)>,
    pub(crate) log: bool,
    pub(crate) errors: bool,
    pub(crate) hosts: Option<HostsPlugin>,
    pub(crate) kubernetes: Option<Options>,
    pub(crate) forward: Vec<Forward>,
    pub(crate) cache: Option<Cache>,
    pub(crate) loop_check: bool,
    pub(crate) reload: Option<Duration>,
    pub(crate) shuffle: bool,
    pub(crate) health: Option<String>,
    pub(crate) lameduck: Duration,
    pub(crate) ready: Option<String>,
    pub(crate) prometheus: Option<String>,
}

/// The hosts plug-in.
pub(crate) struct HostsPlugin {
    pub(crate) hosts: Hosts,
    pub(crate) ttl: u32,
    pub(crate) fallthrough: bool,
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    text.parse::<daemon::GoDuration>().map(Into::into).map_err(anyhow::Error::msg)
}

fn zones(words: &[String]) -> Vec<String> {
    if words.is_empty() { vec![".".to_owned()] } else { words.iter().map(|w| absolute(w)).collect() }
}

/// The address of an endpoint: `:8080` is on all addresses.
fn address(args: &[String], default: &str) -> String {
    let text = args.first().map_or(default, String::as_str);
    if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() }
}

impl Zone {
    /// Makes a block's plug-ins ready; refuses what is not supported.
    pub(crate) fn new(block: &Block) -> anyhow::Result<Self> {
        let mut zone = Self { names: block.zones.clone(), ..Self::default() };
        for directive in &block.directives {
            zone.add(directive).with_context(|| format!("plugin/{}", directive.name))?;
        }
        Ok(zone)
    }

    fn add(&mut self, d: &Directive) -> anyhow::Result<()> {
        match d.name.as_str() {
            "errors" => self.errors = true,
            "log" => self.log = true,
            "loop" => self.loop_check = true,
            "loadbalance" => self.shuffle = d.args.first().is_none_or(|a| a == "round_robin"),
            "reload" => {
                let every = d.args.first().map(|a| duration(a)).transpose()?;
                self.reload = Some(every.unwrap_or(Duration::from_secs(30)));
            }
            "health" => {
                self.health = Some(address(&d.args, ":8080"));
                for line in &d.block {
                    match line.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                        ["lameduck", time] => self.lameduck = duration(time)?,
                        _ => bail!("unknown property {line:?}"),
                    }
                }
            }
            "ready" => self.ready = Some(address(&d.args, ":8181")),
            "prometheus" => self.prometheus = Some(address(&d.args, "localhost:9153")),
            "kubernetes" => self.kubernetes = Some(kubernetes(d, &self.names)?),
            "hosts" => self.hosts = Some(hosts(d)?),
            "forward" => self.forward.push(forward(d)?),
            "cache" => self.cache = Some(cache(d)?),
            other => bail!("{other:?} is not supported"),
        }
        Ok(())
    }
}

fn kubernetes(d: &Directive, names: &[(String, u16)]) -> anyhow::Result<Options> {
    let zones_of = |words: &[String]| {
        if words.is_empty() { names.iter().map(|(n, _)| n.clone()).collect() } else { zones(words) }
    };
    // `in-addr.arpa` and `ip6.arpa` after the cluster's zone, which is the one names are made in.
    let mut options =
        Options { zones: zones_of(&d.args), ttl: 5, pods_insecure: false, fallthrough: Vec::new() };
    options.zones.sort_by_key(|z| z.ends_with("arpa."));
    for line in &d.block {
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["pods", "insecure"] => options.pods_insecure = true,
            ["pods", "disabled"] => options.pods_insecure = false,
            ["ttl", seconds] => {
                options.ttl = seconds.parse().context("ttl")?;
                ensure!(options.ttl <= 3600, "ttl must be in range [0, 3600]");
            }
            ["fallthrough", ..] => options.fallthrough = zones(&line[1..]),
            [
                "endpoint_pod_names" | "noendpoints" | "pods" | "namespaces" | "labels" | "endpoint" | "tls"
                | "kubeconfig" | "transfer" | "ignore" | "namespace_labels",
                ..,
            ] => {
                bail!("{:?} is not supported", line.join(" "))
            }
            _ => bail!("unknown property {:?}", line.join(" ")),
        }
    }
    Ok(options)
}

fn hosts(d: &Directive) -> anyhow::Result<HostsPlugin> {
    let path = d.args.first().map_or("/etc/hosts", String::as_str);
    ensure!(d.args.len() < 2, "zones are not supported");
    // The file may come later: it is read again with every reload.
    let mut text = fs::read_to_string(path).unwrap_or_default();
    let (mut ttl, mut fallthrough) = (3600, false);
    for line in &d.block {
        match line.first().map(String::as_str) {
            Some("ttl") => ttl = line.get(1).context("ttl")?.parse().context("ttl")?,
            Some("fallthrough") => fallthrough = true,
            Some("reload" | "no_reverse") => {}
            Some(word) if word.parse::<std::net::IpAddr>().is_ok() => {
                text.push('\n');
                text.push_str(&line.join(" "));
            }
            _ => bail!("unknown property {:?}", line.join(" ")),
        }
    }
    Ok(HostsPlugin { hosts: Hosts::parse(&text), ttl, fallthrough })
}

fn forward(d: &Directive) -> anyhow::Result<Forward> {
    let (from, to) = d.args.split_first().context("from which zone, and to whom?")?;
    let (mut except, mut force_tcp) = (Vec::new(), false);
    for line in &d.block {
        match line.first().map(String::as_str) {
            Some("except") => except = zones(&line[1..]),
            Some("force_tcp") => force_tcp = true,
            // Every server is tried in turn, and nothing is counted: these have nothing to set.
            Some("prefer_udp" | "policy" | "max_concurrent" | "max_fails" | "expire" | "health_check") => {}
            _ => bail!("{:?} is not supported", line.join(" ")),
        }
    }
    Forward::new(absolute(from), to, except, force_tcp)
}

fn cache(d: &Directive) -> anyhow::Result<Cache> {
    let ttl = d.args.first().map(|t| t.parse()).transpose().context("ttl")?;
    for line in &d.block {
        match line.first().map(String::as_str) {
            // The cluster's own names never enter the cache.
            Some("disable" | "success" | "denial" | "prefetch" | "servfail") => {}
            _ => bail!("{:?} is not supported", line.join(" ")),
        }
    }
    Ok(Cache::new(ttl.unwrap_or(3600)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::parse;

    #[test]
    fn the_corefile_of_kubeadm_is_understood() {
        let text = ".:53 {\n errors\n health {\n lameduck 5s\n }\n ready\n kubernetes cluster.local in-addr.arpa ip6.arpa {\n pods insecure\n fallthrough in-addr.arpa ip6.arpa\n ttl 30\n }\n prometheus :9153\n forward . 192.0.2.1 {\n max_concurrent 1000\n }\n cache 30 {\n disable success cluster.local\n }\n loop\n reload\n loadbalance\n}\n";
        let zone = Zone::new(&parse(text, 53).unwrap()[0]).unwrap();
        let kubernetes = zone.kubernetes.unwrap();
        assert_eq!((kubernetes.ttl, kubernetes.zones[0].as_str()), (30, "cluster.local."));
        assert_eq!(zone.prometheus.as_deref(), Some("0.0.0.0:9153"));
        assert_eq!(zone.lameduck, Duration::from_secs(5));
        assert!(zone.loop_check && zone.shuffle && zone.errors && zone.cache.is_some());
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for text in
            [".{\n}", ". {\n dnssec\n}", ". {\n kubernetes {\n pods verified\n }\n}", ". {\n forward .\n}"]
        {
            let zones = parse(text, 53).and_then(|b| Zone::new(&b[0]).map(drop));
            assert!(zones.is_err(), "{text}");
        }
    }
}
