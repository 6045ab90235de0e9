//! The kernel's side, by netlink: the interface to other nodes, the VXLAN device, routes and neighbours.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, bail};
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkUnspec, LinkVxlan, RouteMessageBuilder};

use crate::peers::{Mac, Way};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<Mac>,
    pub(crate) address: Option<Ipv4Addr>,
}

/// A netlink connection.
#[derive(Clone)]
pub(crate) struct Net(pub(crate) Handle);

fn attribute<T>(link: &LinkMessage, get: impl Fn(&LinkAttribute) -> Option<T>) -> Option<T> {
    link.attributes.iter().find_map(get)
}

impl Net {
    async fn link(&self, name: &str) -> Option<LinkMessage> {
        // The kernel answers a name nobody has with an error.
        self.0.link().get().match_name(name).execute().try_next().await.ok().flatten()
    }

    async fn addresses(&self) -> anyhow::Result<Vec<(u32, Ipv4Addr, u8)>> {
        let messages: Vec<_> = self.0.address().get().execute().try_collect().await?;
        let of = |m: &rtnetlink::packet_route::address::AddressMessage| {
            let local = m.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
                _ => None,
            });
            Some((m.header.index, local?, m.header.prefix_len))
        };
        Ok(messages.iter().filter_map(of).collect())
    }

    /// The interface that traffic between nodes takes: by name, by address, or that of the default route.
    pub(crate) async fn interface(&self, wanted: &str) -> anyhow::Result<Interface> {
        let addresses = self.addresses().await?;
        let index = match (wanted, wanted.parse::<Ipv4Addr>()) {
            ("", _) => self.default_route().await?.context("no default route: --iface is needed")?,
            (_, Ok(ip)) => {
                let found = addresses.iter().find(|(_, a, _)| *a == ip);
                found.with_context(|| format!("no interface has the address {ip}"))?.0
            }
            (name, Err(_)) => {
                let link = self.link(name).await;
                link.with_context(|| format!("there is no interface {name:?}"))?.header.index
            }
        };
        let link = self.0.link().get().match_index(index).execute().try_next().await?;
        let link = link.context("the interface is gone")?;
        let address = wanted.parse().ok().or_else(|| {
            addresses.iter().find(|(i, a, _)| *i == index && !a.is_link_local()).map(|(_, a, _)| *a)
        });
        Ok(Interface { address, ..describe(&link) })
    }

    async fn routes(&self) -> anyhow::Result<Vec<RouteMessage>> {
        let any = RouteMessageBuilder::<Ipv4Addr>::new().build();
        Ok(self.0.route().get(any).execute().try_collect().await?)
    }

    async fn default_route(&self) -> anyhow::Result<Option<u32>> {
        let routes = self.routes().await?;
        Ok(routes.iter().filter(|r| r.header.destination_prefix_length == 0).find_map(output))
    }

    /// Makes sure that the VXLAN device is there, is up and has the subnet's first address.
    pub(crate) async fn ensure_vxlan(
        &self,
        (vni, port): (u32, u16),
        outer: &Interface,
        mtu: u32,
        subnet: Ipv4Net,
    ) -> anyhow::Result<Interface> {
        let name = format!("flannel.{vni}");
        let local = outer.address.context("the interface has no IPv4 address")?;
        if self.link(&name).await.is_none() {
            let device = LinkVxlan::new(&name, vni).dev(outer.index).local(local).port(port);
            let device = device.learning(false).mtu(mtu).build();
            self.0.link().add(device).execute().await.with_context(|| format!("create {name}"))?;
        }
        let link = self.link(&name).await.with_context(|| format!("{name} did not appear"))?;
        let device = describe(&link);
        for (index, address, prefix) in self.addresses().await? {
            if index == device.index && (address, prefix) != (subnet.network(), 32) {
                bail!(
                    "{name} has the address {address}/{prefix}: delete the device after a change of the subnet"
                );
            }
        }
        let up = LinkUnspec::new_with_index(device.index).up().mtu(mtu).build();
        self.0.link().change(up).execute().await.with_context(|| format!("bring up {name}"))?;
        let address = self.0.address().add(device.index, subnet.network().into(), 32).replace();
        address.execute().await.with_context(|| format!("address of {name}"))?;
        Ok(device)
    }

    /// Subnets of `network` that routes through this interface lead to now.
    pub(crate) async fn known(&self, interface: u32, network: Ipv4Net) -> anyhow::Result<Vec<Ipv4Net>> {
        let routes = self.routes().await?;
        let ours = routes.iter().filter(|r| output(r) == Some(interface) && has_gateway(r));
        Ok(ours.filter_map(destination).filter(|d| network.contains(d)).collect())
    }

    /// Makes a way, or replaces the one that is there.
    pub(crate) async fn add(&self, interface: u32, subnet: Ipv4Net, way: Way) -> anyhow::Result<()> {
        if let Some((outer, mac)) = way.tunnel {
            let neighbour = self.0.neighbours().add(interface, way.gateway.into());
            neighbour.link_layer_address(&mac).replace().execute().await.context("neighbour")?;
            let forward = self.0.neighbours().add_bridge(interface, &mac).destination(outer.into());
            let forward = forward.flags(NeighbourFlags::Own).replace();
            forward.execute().await.context("forwarding entry")?;
        }
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(subnet.network(), subnet.prefix_len())
            .gateway(way.gateway)
            .output_interface(interface);
        if way.tunnel.is_some() {
            route = route.onlink();
        }
        self.0.route().add(route.build()).replace().execute().await.context("route")
    }

    /// Takes a way back.
    pub(crate) async fn remove(
        &self,
        interface: u32,
        subnet: Ipv4Net,
        way: Option<Way>,
    ) -> anyhow::Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(subnet.network(), subnet.prefix_len())
            .output_interface(interface)
            .scope(RouteScope::NoWhere);
        self.0.route().del(route.build()).execute().await.context("route")?;
        let Some((outer, mac)) = way.and_then(|w| w.tunnel) else { return Ok(()) };
        for (bridge, destination) in [(false, subnet.network()), (true, outer)] {
            let entry = self.entry(interface, bridge, destination, mac);
            self.0.neighbours().del(entry).execute().await.context("neighbour")?;
        }
        Ok(())
    }

    fn entry(&self, interface: u32, bridge: bool, destination: Ipv4Addr, mac: Mac) -> NeighbourMessage {
        let mut request = if bridge {
            self.0.neighbours().add_bridge(interface, &mac).destination(destination.into())
        } else {
            self.0.neighbours().add(interface, destination.into())
        };
        if bridge {
            request = request.flags(NeighbourFlags::Own);
        }
        request.message_mut().clone()
    }
}

/// Makes the kernel's ways these: adds and replaces first, then removes. `done` is what was made before.
pub(crate) async fn apply(
    net: &Net,
    interface: u32,
    done: &mut BTreeMap<Ipv4Net, Way>,
    wanted: BTreeMap<Ipv4Net, Way>,
) -> anyhow::Result<()> {
    for (subnet, way) in &wanted {
        if done.get(subnet) != Some(way) {
            net.add(interface, *subnet, *way).await.with_context(|| format!("way to {subnet}"))?;
            tracing::info!(%subnet, gateway = %way.gateway, "Added the way to a node");
            done.insert(*subnet, *way);
        }
    }
    let gone: Vec<_> = done.keys().filter(|s| !wanted.contains_key(s)).copied().collect();
    for subnet in gone {
        let way = done.remove(&subnet);
        net.remove(interface, subnet, way).await.with_context(|| format!("way to {subnet}"))?;
        tracing::info!(%subnet, "Removed the way to a node");
    }
    Ok(())
}

fn describe(link: &LinkMessage) -> Interface {
    let mac = attribute(link, |a| match a {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    });
    let mtu = attribute(link, |a| match a {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    Interface { index: link.header.index, mtu: mtu.unwrap_or(1500), mac, address: None }
}

fn output(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn has_gateway(route: &RouteMessage) -> bool {
    route.attributes.iter().any(|a| matches!(a, RouteAttribute::Gateway(_)))
}

fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    let address = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(*ip),
        _ => None,
    })?;
    Ipv4Net::new(address, route.header.destination_prefix_length).ok()
}
