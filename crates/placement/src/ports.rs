//! Ports on the node that pods ask for.

use api::Value;
use compact_str::CompactString;

/// A port on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Address; empty for all.
    pub ip: CompactString,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: CompactString,
    /// Number.
    pub port: i64,
}

impl HostPort {
    fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip.is_empty() || other.ip.is_empty() || self.ip == other.ip)
    }
}

/// Ports on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPorts(pub Vec<HostPort>);

impl HostPorts {
    /// The host ports of a pod's containers and sidecars.
    pub fn of(spec: &Value) -> Self {
        let sidecars = spec.array_at(&["initContainers"]).iter();
        let sidecars = sidecars.filter(|c| c.str_at(&["restartPolicy"]) == "Always");
        let containers = spec.array_at(&["containers"]).iter().chain(sidecars);
        let ports = containers.flat_map(|c| c.array_at(&["ports"])).filter_map(|p| {
            let port = p.get("hostPort").as_i64().filter(|n| *n > 0)?;
            let ip = match p.str_at(&["hostIP"]) {
                "0.0.0.0" | "::" => "",
                ip => ip,
            };
            let protocol = match p.str_at(&["protocol"]) {
                "" => "TCP",
                protocol => protocol,
            };
            Some(HostPort { ip: ip.into(), protocol: protocol.into(), port })
        });
        Self(ports.collect())
    }

    /// Whether both can be had at once.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.0.iter().any(|a| other.0.iter().any(|b| a.conflicts(b)))
    }
}
