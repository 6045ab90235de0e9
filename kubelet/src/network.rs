//! What a pod sees of the network by files: `/etc/resolv.conf` and `/etc/hosts`.

use std::fmt::Write as _;

use api::Value;
use k8s_cri::v1 as cri;

use crate::config::KubeletConfiguration;
use crate::pods::spec;

/// The limits of the resolver library, as upstream holds them.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// The longest name that the kernel takes.
const MAX_KERNEL_NAME: usize = 64;

/// The resolver settings of a pod, by its DNS policy. `host` is the text of the host's resolver file.
pub(crate) fn dns(pod: &Value, config: &KubeletConfiguration, host: &str) -> cri::DnsConfig {
    let from_host = parse_resolv_conf(host);
    let cluster = !config.cluster_dns.is_empty();
    let mut dns = match pod.str_at(&["spec", "dnsPolicy"]) {
        "None" => cri::DnsConfig::default(),
        "ClusterFirst" if cluster && !spec::host_network(pod) => cluster_dns(pod, config, from_host),
        "ClusterFirstWithHostNet" if cluster => cluster_dns(pod, config, from_host),
        _ => from_host,
    };
    let own = pod.at(&["spec", "dnsConfig"]);
    let strings = |field: &str| -> Vec<String> {
        own.array_at(&[field]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    append_new(&mut dns.servers, strings("nameservers"));
    append_new(&mut dns.searches, strings("searches"));
    for option in own.array_at(&["options"]) {
        let name = option.str_at(&["name"]);
        dns.options.retain(|old| old.split(':').next() != Some(name));
        dns.options.push(match option.get("value").as_str() {
            Some(value) => format!("{name}:{value}"),
            None => name.to_owned(),
        });
    }
    dns.servers.truncate(MAX_SERVERS);
    dns.searches.truncate(MAX_SEARCHES);
    while dns.searches.join(" ").len() > MAX_SEARCH_CHARS {
        dns.searches.pop();
    }
    dns
}

fn cluster_dns(pod: &Value, config: &KubeletConfiguration, host: cri::DnsConfig) -> cri::DnsConfig {
    let mut searches = Vec::new();
    if !config.cluster_domain.is_empty() {
        let domain = &config.cluster_domain;
        searches = vec![format!("{}.svc.{domain}", pod.namespace()), format!("svc.{domain}"), domain.clone()];
    }
    append_new(&mut searches, host.searches);
    cri::DnsConfig { servers: config.cluster_dns.clone(), searches, options: vec!["ndots:5".to_owned()] }
}

fn append_new(to: &mut Vec<String>, more: Vec<String>) {
    for text in more {
        if !to.contains(&text) {
            to.push(text);
        }
    }
}

fn parse_resolv_conf(text: &str) -> cri::DnsConfig {
    let mut dns = cri::DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.servers.extend(words.next()),
            // The last line of each kind wins.
            Some("search") => {
                dns.searches = words
                    .map(|word| if word == "." { word } else { word.trim_end_matches('.').to_owned() })
                    .collect();
            }
            Some("options") => dns.options = words.collect(),
            _ => {}
        }
    }
    dns
}

/// The lines that `hostAliases` add.
fn aliases(pod: &Value) -> String {
    let aliases = pod.array_at(&["spec", "hostAliases"]);
    if aliases.is_empty() {
        return String::new();
    }
    let mut out = "\n# Entries added by HostAliases.\n".to_owned();
    for alias in aliases {
        let names: Vec<_> = alias.array_at(&["hostnames"]).iter().filter_map(Value::as_str).collect();
        let _ = writeln!(out, "{}\t{}", alias.str_at(&["ip"]), names.join("\t"));
    }
    out
}

/// The pod's `/etc/hosts`: its own, or the host's when it shares the host's network.
pub(crate) fn hosts(pod: &Value, ips: &[String], hostname: &str, domain: &str, host_file: &str) -> String {
    if spec::host_network(pod) {
        return format!("# Kubernetes-managed hosts file (host network).\n{host_file}{}", aliases(pod));
    }
    let mut out = "# Kubernetes-managed hosts file.\n\
                   127.0.0.1\tlocalhost\n\
                   ::1\tlocalhost ip6-localhost ip6-loopback\n\
                   fe00::0\tip6-localnet\n\
                   fe00::0\tip6-mcastprefix\n\
                   fe00::1\tip6-allnodes\n\
                   fe00::2\tip6-allrouters\n"
        .to_owned();
    for ip in ips {
        let _ = match domain {
            "" => writeln!(out, "{ip}\t{hostname}"),
            domain => writeln!(out, "{ip}\t{hostname}.{domain}\t{hostname}"),
        };
    }
    out + &aliases(pod)
}

/// The host name that a pod sees, and its domain if it has one.
pub(crate) fn hostname(pod: &Value, config: &KubeletConfiguration) -> (String, String) {
    let own = pod.str_at(&["spec", "hostname"]);
    let mut name = if own.is_empty() { pod.name() } else { own };
    if own.is_empty() && name.len() > 63 {
        // A host name has 63 characters at most and ends in a letter or digit.
        name = name[..63].trim_end_matches(['-', '.']);
    }
    let subdomain = pod.str_at(&["spec", "subdomain"]);
    let domain = match subdomain {
        "" => String::new(),
        subdomain => format!("{subdomain}.{}.svc.{}", pod.namespace(), config.cluster_domain),
    };
    if let Some(full) = pod.at(&["spec", "hostnameOverride"]).as_str().filter(|full| !full.is_empty()) {
        return (full.to_owned(), String::new());
    }
    (name.to_owned(), domain)
}

/// The host name that the kernel has for a pod: with its domain, where the pod wants that. An error is a sentence.
pub(crate) fn kernel_hostname(pod: &Value, config: &KubeletConfiguration) -> Result<String, String> {
    let (name, domain) = hostname(pod, config);
    if domain.is_empty() || pod.at(&["spec", "setHostnameAsFQDN"]).as_bool() != Some(true) {
        return Ok(name);
    }
    let full = format!("{name}.{domain}");
    if full.len() > MAX_KERNEL_NAME {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({MAX_KERNEL_NAME} \
             characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    const HOST: &str = "# host\nnameserver 192.0.2.53\nsearch example.org.\noptions timeout:1\n";

    fn config() -> KubeletConfiguration {
        KubeletConfiguration {
            cluster_dns: vec!["10.43.0.10".to_owned()],
            cluster_domain: "cluster.local".to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn the_dns_policy_decides_whose_servers_are_asked() {
        for (policy, host_network, server, searches) in [
            ("ClusterFirst", false, "10.43.0.10", 4),
            ("ClusterFirst", true, "192.0.2.53", 1),
            ("ClusterFirstWithHostNet", true, "10.43.0.10", 4),
            ("Default", false, "192.0.2.53", 1),
        ] {
            let pod = object!({
                "metadata": {"namespace": "ns"},
                "spec": {"dnsPolicy": policy, "hostNetwork": host_network},
            });
            let dns = dns(&pod, &config(), HOST);
            assert_eq!((dns.servers[0].as_str(), dns.searches.len()), (server, searches), "{policy}");
        }
    }

    #[test]
    fn a_pods_own_dns_settings_are_added() {
        let pod = object!({"metadata": {"namespace": "ns"}, "spec": {"dnsPolicy": "ClusterFirst", "dnsConfig": {
            "nameservers": ["192.0.2.9", "10.43.0.10"],
            "searches": ["mine"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
        }}});
        let dns = dns(&pod, &config(), HOST);
        assert_eq!(dns.servers, ["10.43.0.10", "192.0.2.9"]);
        assert_eq!(
            dns.searches,
            ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org", "mine"]
        );
        assert_eq!(dns.options, ["ndots:2", "edns0"]);
    }

    #[test]
    fn the_hosts_file_names_the_pod_and_its_aliases() {
        let pod = object!({"spec": {"hostAliases": [{"ip": "192.0.2.7", "hostnames": ["a", "b"]}]}});
        let text = hosts(&pod, &["10.42.0.2".to_owned()], "web-0", "web.ns.svc.cluster.local", "");
        assert!(text.contains("10.42.0.2\tweb-0.web.ns.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.ends_with("# Entries added by HostAliases.\n192.0.2.7\ta\tb\n"), "{text}");
    }

    #[test]
    fn the_kernel_knows_a_pod_by_its_whole_name_if_that_is_wished_and_fits() {
        let named = |name: &str, full: bool| {
            let spec = object!({"subdomain": "web", "setHostnameAsFQDN": full});
            let pod = object!({"metadata": {"name": name, "namespace": "ns"}, "spec": (spec)});
            kernel_hostname(&pod, &config())
        };
        assert_eq!(named("p", false).as_deref(), Ok("p"));
        assert_eq!(named("p", true).as_deref(), Ok("p.web.ns.svc.cluster.local"));
        let why = named(&"a".repeat(40), true).unwrap_err();
        assert!(why.ends_with("is too long (64 characters is the max, 65 characters requested)"), "{why}");
    }

    #[test]
    fn host_names_are_cut_to_what_is_legal() {
        let long = format!("{}-{}", "a".repeat(62), "b");
        let pod = object!({"metadata": {"name": long, "namespace": "ns"}, "spec": {"subdomain": "web"}});
        let (name, domain) = hostname(&pod, &config());
        assert_eq!(name, "a".repeat(62));
        assert_eq!(domain, "web.ns.svc.cluster.local");
    }
}
