//! Addresses and ports of Services: handed out before a Service is written, given back when it was not, or no longer
//! has them. What a server that dies in between leaves behind is found by repairs.

mod addresses;
mod measured;
mod ports;
mod repair;

use std::net::IpAddr;

use api::error::Result;
use api::field::{FieldError, Path};
use api::{ApiError, Value};
use ipnet::IpNet;

pub use self::measured::Measured;
pub use self::repair::{keep as keep_repaired, once as repair};

use self::addresses::family_of;
use self::ports::{PortSet, Ports};
use crate::kinds::service;
use crate::registry::Call;
use crate::resources::TABLE;
use crate::storage::Storage;

/// Hands out addresses and ports.
pub struct Allocators {
    /// Ranges of Service addresses, one for each family; the first is the one that Services have by default.
    pub ranges: Vec<IpNet>,
    ports: Ports,
}

/// Addresses and ports.
#[derive(Default)]
struct Held {
    addresses: Vec<IpAddr>,
    ports: Vec<i64>,
}

/// What one write took, and what it makes superfluous.
#[must_use]
#[derive(Default)]
pub struct Allocated {
    taken: Held,
    /// What the old object had and the new one has not.
    outdated: Held,
}

impl Allocated {
    /// The write happened.
    pub async fn keep(self, call: &Call) {
        call.server.allocators.give_back(call, self.outdated).await;
    }

    /// The write did not happen.
    pub async fn release(self, call: &Call) {
        call.server.allocators.give_back(call, self.taken).await;
    }
}

impl Allocators {
    /// Hands out addresses of the families of `ranges` and ports of `ports`.
    pub fn new(ranges: Vec<IpNet>, ports: (u16, u16)) -> Self {
        Self { ranges, ports: Ports::new(ports) }
    }

    /// The families of addresses that the cluster has.
    fn families(&self) -> Vec<&'static str> {
        self.ranges.iter().map(|range| family_of(range.addr())).collect()
    }

    /// Fills in the addresses and ports of a Service that has none; other objects are left alone. What was taken
    /// is in `allocated`, also when this fails.
    pub async fn allocate(
        &self,
        call: &Call,
        object: &mut Value,
        old: Option<&Value>,
        allocated: &mut Allocated,
    ) -> Result<()> {
        if call.row.built_in() != "services" || !call.subresource.is_empty() {
            return Ok(());
        }
        if let Some(old) = old {
            service::carry_over(object, old);
        }
        service::normalize(object, old);
        let settled = old.is_some_and(|old| service::same_dual_stack(object, old));
        if !settled {
            let refuse = |errors: Vec<FieldError>| ApiError::invalid("", "Service", object.name(), &errors);
            let mut named = object.clone();
            service::init_families(&mut named, old, &self.families()).map_err(refuse)?;
            *object = named;
            self.fill_addresses(call, object, old, allocated).await?;
        }
        self.fill_ports(call, object, old, allocated).await
    }

    async fn fill_addresses(
        &self,
        call: &Call,
        object: &mut Value,
        old: Option<&Value>,
        allocated: &mut Allocated,
    ) -> Result<()> {
        const ALL: [&str; 2] = ["spec", "clusterIPs"];
        let before = old.map(addresses_of).unwrap_or_default();
        if is_external_name(object) || !service::wants_address(object) {
            if is_external_name(object) {
                allocated.outdated.addresses = before;
            }
            return Ok(());
        }
        let families = object.array_at(&["spec", "ipFamilies"]).to_vec();
        let asked = |i: usize| object.array_at(&ALL).get(i).and_then(Value::as_str).unwrap_or_default();
        let mut now: Vec<String> = Vec::with_capacity(families.len());
        for (i, family) in families.iter().enumerate() {
            let wish = asked(i);
            if i < before.len() && !wish.is_empty() {
                // What it had it keeps; whether it may want another is for validation to say.
                now.push(wish.to_owned());
                continue;
            }
            let address = addresses::take(call, object, family.as_str().unwrap_or_default(), wish).await?;
            allocated.taken.addresses.push(address);
            now.push(address.to_string());
        }
        allocated.outdated.addresses = before.into_iter().skip(now.len()).collect();
        if let Some(first) = now.first() {
            object.set(&["spec", "clusterIP"], first.as_str());
            object.set(&ALL, now);
        }
        Ok(())
    }

    async fn fill_ports(
        &self,
        call: &Call,
        object: &mut Value,
        old: Option<&Value>,
        allocated: &mut Allocated,
    ) -> Result<()> {
        if let Some(old) = old.filter(|old| service::needs_health_check(old))
            && !service::needs_health_check(object)
            && old.at(&HEALTH) == object.at(&HEALTH)
        {
            object.remove_at(&HEALTH);
        }
        if service::uses_node_ports(object) || service::needs_health_check(object) {
            let dry_run = call.write.dry_run;
            let wanted: &Value = object;
            let change = |set: &mut PortSet| {
                let mut taking = Taking { set, dry_run, taken: Vec::new() };
                let filled = taking.fill(wanted, old)?;
                Ok((filled, taking.taken))
            };
            let (filled, taken) = self.ports.change(&call.server.storage, change).await?;
            *object = filled;
            allocated.taken.ports = taken;
        }
        if let Some(old) = old {
            // The ports of a type that has none go later.
            let now = if service::uses_node_ports(object) { node_ports(object) } else { Vec::new() };
            allocated.outdated.ports =
                node_ports(old).into_iter().filter(|port| !now.contains(port)).collect();
        }
        Ok(())
    }

    /// Gives back what a removed Service held.
    pub async fn release(&self, call: &Call, object: &Value) {
        if call.row.built_in() != "services" || !call.row.group.is_empty() {
            return;
        }
        let held = Held { addresses: addresses_of(object), ports: node_ports(object) };
        self.give_back(call, held).await;
    }

    async fn give_back(&self, call: &Call, held: Held) {
        if call.write.dry_run {
            return;
        }
        for address in held.addresses {
            addresses::give_back(call, address).await;
        }
        if held.ports.is_empty() {
            return;
        }
        let change = |set: &mut PortSet| {
            held.ports.iter().for_each(|port| set.give_back(*port));
            Ok(())
        };
        if let Err(e) = self.ports.change(&call.server.storage, change).await {
            tracing::warn!(error = %e, ports = ?held.ports, "ports of nodes stay taken for a while");
        }
    }
}

const HEALTH: [&str; 2] = ["spec", "healthCheckNodePort"];

/// Takes ports for one Service.
struct Taking<'s> {
    set: &'s mut PortSet,
    /// Looks only.
    dry_run: bool,
    taken: Vec<i64>,
}

impl Taking<'_> {
    /// The Service with its ports of nodes, as far as it wants any.
    fn fill(&mut self, service: &Value, old: Option<&Value>) -> Result<Value> {
        let mut filled = service.clone();
        if service::uses_node_ports(service) {
            self.fill_ports(&mut filled, old)?;
        }
        if service::needs_health_check(service) && !old.is_some_and(service::needs_health_check) {
            let asked = service.at(&HEALTH).as_i64().unwrap_or(0);
            if asked == 0 {
                let what = "failed to allocate a HealthCheck NodePort 0";
                let port = self.any().map_err(|why| ApiError::internal(format!("{what}: {why}")))?;
                filled.set(&HEALTH, port);
            } else {
                let what = "failed to allocate requested HealthCheck NodePort";
                self.this(asked).map_err(|why| ApiError::internal(format!("{what} {asked}: {why}")))?;
            }
        }
        Ok(filled)
    }

    fn fill_ports(&mut self, service: &mut Value, old: Option<&Value>) -> Result<()> {
        let without = service.str_at(&["spec", "type"]) == "LoadBalancer"
            && service.at(&["spec", "allocateLoadBalancerNodePorts"]).as_bool() == Some(false);
        let own = old.map(node_ports).unwrap_or_default();
        let mut ports = service.array_at(&["spec", "ports"]).to_vec();
        for i in 0..ports.len() {
            if number(&ports[i]) == 0 && without {
                continue;
            }
            let asked = wanted_port(&ports, i, old.is_none());
            if asked == 0 {
                let fail = |why| ApiError::internal(format!("failed to allocate a nodePort: {why}"));
                ports[i].set(&["nodePort"], self.any().map_err(fail)?);
                continue;
            }
            let shared = ports[..i]
                .iter()
                .any(|p| number(p) == asked && (old.is_some() || p.get("port") == ports[i].get("port")));
            if !own.contains(&asked) && !shared {
                self.this(asked).map_err(|why| {
                    let list = Path::new("spec.ports");
                    let error = FieldError::invalid(&list.index(i).child("nodePort"), asked, why);
                    ApiError::invalid("", "Service", service.name(), &[error])
                })?;
            }
            ports[i].set(&["nodePort"], asked);
        }
        if !ports.is_empty() {
            service.set(&["spec", "ports"], ports);
        }
        Ok(())
    }

    fn this(&mut self, port: i64) -> std::result::Result<(), String> {
        if !self.dry_run {
            self.set.take(port)?;
        } else if self.set.has(port) || self.taken.contains(&port) {
            return Err("provided port is already allocated".to_owned());
        }
        self.taken.push(port);
        Ok(())
    }

    fn any(&mut self) -> std::result::Result<i64, &'static str> {
        // A dry run shows a number that means nothing.
        let dummy = |taken: &[i64]| taken.iter().max().map_or(32769, |last| last + 1);
        let port = match self.dry_run {
            true => dummy(&self.taken),
            false => self.set.take_any().ok_or("range is full")?,
        };
        self.taken.push(port);
        Ok(port)
    }
}

fn is_external_name(service: &Value) -> bool {
    service.str_at(&["spec", "type"]) == "ExternalName"
}

/// The addresses that a Service holds.
fn addresses_of(service: &Value) -> Vec<IpAddr> {
    if is_external_name(service) || !service::wants_address(service) {
        return Vec::new();
    }
    let all = service.array_at(&["spec", "clusterIPs"]).iter();
    all.filter_map(|a| a.as_str()?.parse().ok()).collect()
}

fn number(port: &Value) -> i64 {
    port.get("nodePort").as_i64().unwrap_or(0)
}

/// The node port that the `i`th port asks for. Ports of one number share it, in a new Service.
fn wanted_port(ports: &[Value], i: usize, new: bool) -> i64 {
    let own = number(&ports[i]);
    if own != 0 || !new {
        return own;
    }
    let mut same = ports.iter().filter(|p| p.get("port") == ports[i].get("port"));
    same.find_map(|p| Some(number(p)).filter(|n| *n != 0)).unwrap_or(0)
}

fn node_ports(service: &Value) -> Vec<i64> {
    let ports = service.array_at(&["spec", "ports"]).iter().map(number);
    let mut all: Vec<i64> = ports.chain(service.at(&HEALTH).as_i64()).filter(|n| *n != 0).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn services(storage: &Storage) -> impl Iterator<Item = Value> {
    let snapshot = storage.cache(TABLE.store("", "services")).snapshot();
    snapshot.objects.values().map(|s| s.object()).collect::<Vec<_>>().into_iter()
}
