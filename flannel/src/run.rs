//! Wiring: learn this node's subnet, set up the backend, tell the others, and follow them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::{object, time};
use client::resource::NODES;
use client::{Client, Connection, Informer, Patch, connect};
use daemon::{KUBERNETES_VERSION, Tasks};
use ipnet::Ipv4Net;
use linux::iptables::{Family, Iptables};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::args::Args;
use crate::config::{self, Backend, Network};
use crate::net::{self, Interface, Net};
use crate::peers::{self, Peer};
use crate::rules;

/// Pause before trying again what failed.
const RETRY: Duration = Duration::from_secs(5);

/// Runs the daemon: returns when everything is started.
pub async fn run(args: Args, tasks: Tasks) -> anyhow::Result<()> {
    ensure!(args.kube_subnet_mgr, "only --kube-subnet-mgr is supported");
    ensure!(!args.node_name.is_empty(), "the node's name is needed: set NODE_NAME or --node-name");
    let network = config::read(&args.net_config_path)?;
    let mut connection =
        Connection::from_path(&args.kubeconfig_file, &format!("flanneld/{KUBERNETES_VERSION}"));
    connection.server = (!args.kube_api_url.is_empty()).then(|| args.kube_api_url.clone());
    let client = connect(&connection).await.context("kubeconfig")?;
    let nodes = Informer::of(NODES, |node| Some(Peer::of(&node))).build();
    let changed = Arc::new(Notify::new());
    let wake = Arc::clone(&changed);
    nodes.on_change(move |change| {
        if change.old().is_none_or(|old| old != change.object()) {
            wake.notify_one();
        }
    });
    let running = nodes.clone().run(client.clone(), tasks.token());
    tasks.critical("informer", async move {
        running.await;
        Ok(())
    });
    let (netlink, handle, _) = rtnetlink::new_connection().context("netlink")?;
    let stop = tasks.token();
    tasks.critical("netlink", async move {
        tokio::select! {
            () = netlink => anyhow::bail!("the netlink connection ended"),
            () = stop.cancelled() => Ok(()),
        }
    });
    let stop = tasks.token();
    let flannel = Flannel { args, network, client, nodes, net: Net(handle), changed };
    tasks.critical("network", async move {
        tokio::select! {
            result = flannel.run() => result,
            // Devices, routes and rules stay: pods must not notice a restart.
            () = stop.cancelled() => Ok(()),
        }
    });
    Ok(())
}

struct Flannel {
    args: Args,
    network: Network,
    client: Client,
    nodes: Informer<Peer>,
    net: Net,
    changed: Arc<Notify>,
}

impl Flannel {
    async fn run(self) -> anyhow::Result<()> {
        self.nodes.synced().await;
        let subnet = self.subnet().await;
        let outer = self.net.interface(&self.args.iface).await?;
        let public_ip = self.args.public_ip.or(outer.address);
        let public_ip = public_ip.context("the interface has no IPv4 address: --public-ip is needed")?;
        let mtu = self.network.mtu.unwrap_or(outer.mtu) - self.network.backend.overhead();
        info!(%subnet, %public_ip, mtu, backend = self.network.backend.name(), "Starting");
        let device = match self.network.backend {
            Backend::Vxlan { vni, port } => self.net.ensure_vxlan((vni, port), &outer, mtu, subnet).await?,
            Backend::HostGw => outer,
        };
        enable_forwarding();
        self.announce(public_ip, &device).await;
        let env = config::subnet_env(&self.network, subnet, mtu, self.args.ip_masq);
        config::write_file(&self.args.subnet_file, &env)
            .with_context(|| format!("write {}", self.args.subnet_file))?;
        if !self.args.cni_conf_file.is_empty() {
            config::write_file(&self.args.cni_conf_file, config::CONFLIST)
                .with_context(|| format!("write {}", self.args.cni_conf_file))?;
        }
        let _ = tokio::join!(self.follow(device.index), self.keep_rules(subnet));
        Ok(())
    }

    /// This node's pod range, when it has got one.
    async fn subnet(&self) -> Ipv4Net {
        loop {
            let node = self.nodes.store().find("", &self.args.node_name);
            if let Some(subnet) = node.as_ref().and_then(|n| n.subnet) {
                return subnet.trunc();
            }
            info!(node = self.args.node_name, found = node.is_some(), "Waiting for the node's pod CIDR");
            self.changed.notified().await;
        }
    }

    /// Tells the other nodes, until it worked.
    async fn announce(&self, public_ip: Ipv4Addr, device: &Interface) {
        let patch = peers::announcement(self.network.backend, public_ip, device.mac);
        let name = self.args.node_name.as_str();
        let now = time::format(jiff::Timestamp::now());
        let status = object!({"status": {"conditions": [{
            "type": "NetworkUnavailable",
            "status": "False",
            "reason": "FlannelIsUp",
            "message": "Flannel is running on this node",
            "lastTransitionTime": (now.as_str()),
            "lastHeartbeatTime": (now.as_str()),
        }]}});
        let mut patches = vec![(patch, Patch::Merge)];
        if self.args.set_node_network_unavailable {
            patches.push((status, Patch::Strategic));
        }
        for (patch, kind) in patches {
            // Annotations may be written through the status too, for which fewer rights are needed.
            while let Err(e) = self.client.patch(&NODES, ("", name, "status"), kind, &patch).await {
                warn!(err = e.message(), "Cannot write to the node");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Follows the other nodes.
    async fn follow(&self, interface: u32) {
        let mut done = BTreeMap::new();
        match self.net.known(interface, self.network.range).await {
            // What an earlier run left is replaced or removed.
            Ok(known) => self.drop_unknown(interface, known).await,
            Err(e) => warn!(err = format!("{e:#}"), "Cannot read routes"),
        }
        loop {
            let ways = peers::plan(&self.nodes.store().list(), &self.args.node_name, self.network.backend);
            match net::apply(&self.net, interface, &mut done, ways).await {
                Ok(()) => self.changed.notified().await,
                Err(e) => {
                    error!(err = format!("{e:#}"), "Cannot reach a node");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn drop_unknown(&self, interface: u32, known: Vec<Ipv4Net>) {
        let ways = peers::plan(&self.nodes.store().list(), &self.args.node_name, self.network.backend);
        for subnet in known.into_iter().filter(|s| !ways.contains_key(s)) {
            if let Err(e) = self.net.remove(interface, subnet, None).await {
                warn!(%subnet, err = format!("{e:#}"), "Cannot remove a stale route");
            }
        }
    }

    /// Looks after the packet rules.
    async fn keep_rules(&self, subnet: Ipv4Net) {
        let iptables = Iptables::detect(Family::V4).await;
        let mut rewrite = true;
        loop {
            let range = self.network.range;
            match rules::ensure(&iptables, range, subnet, self.args.ip_masq, rewrite).await {
                Ok(written) => {
                    if written && !rewrite {
                        info!("Packet rules were gone and are there again");
                    }
                    rewrite = false;
                }
                Err(e) => error!(err = %e, "Cannot write packet rules"),
            }
            tokio::time::sleep(Duration::from_secs(self.args.iptables_resync.max(1))).await;
        }
    }
}

fn enable_forwarding() {
    if let Err(e) = std::fs::write("/proc/sys/net/ipv4/ip_forward", "1") {
        warn!(err = %e, "Cannot enable IP forwarding");
    }
}
