//! Addresses and ports of Services.
//!
//! Who holds what is derived from the Services themselves: an allocation is a free number picked under a lock, and two
//! servers that pick the same one are kept apart by the address object that each address has in storage.

use std::collections::HashSet;
use std::net::IpAddr;

use api::error::Result;
use api::field::{FieldError, Path};
use api::{ApiError, Value, object};
use ipnet::IpNet;
use parking_lot::Mutex;
use rand::Rng;

use crate::kinds::service;
use crate::registry::Call;
use crate::resources::TABLE;
use crate::storage::Storage;

/// Hands out addresses and ports.
pub struct Allocators {
    /// Range of Service addresses.
    pub range: IpNet,
    /// First and last port of Services of type NodePort.
    pub ports: (u16, u16),
    /// What was handed out and may not be in the cache yet.
    pending: Mutex<HashSet<Held>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Held {
    Address(IpAddr),
    Port(i64),
}

/// What one write took; given back unless the write happens.
#[must_use]
pub struct Allocated {
    held: Vec<Held>,
    address: Option<IpAddr>,
    /// What the old object had and the new one has not.
    outdated: Vec<Held>,
}

impl Allocated {
    const NOTHING: Self = Self { held: Vec::new(), address: None, outdated: Vec::new() };

    /// The write happened.
    pub async fn keep(self, call: &Call) {
        if call.write.dry_run {
            return;
        }
        {
            let mut pending = call.server.allocators.pending.lock();
            for held in &self.outdated {
                pending.remove(held);
            }
        }
        for held in self.outdated {
            if let Held::Address(address) = held {
                forget_address(call, address).await;
            }
        }
    }

    /// The write did not happen.
    pub async fn release(self, call: &Call) {
        let allocators = &call.server.allocators;
        {
            let mut pending = allocators.pending.lock();
            for held in &self.held {
                pending.remove(held);
            }
        }
        if let Some(address) = self.address {
            forget_address(call, address).await;
        }
    }
}

impl Allocators {
    /// Hands out addresses of `range` and ports of `ports`.
    pub fn new(range: IpNet, ports: (u16, u16)) -> Self {
        Self { range, ports, pending: Mutex::default() }
    }

    /// Fills in the address and ports of a Service that has none; other objects are left alone.
    pub async fn allocate(&self, call: &Call, object: &mut Value, old: Option<&Value>) -> Result<Allocated> {
        if call.row.built_in() != "services" || !matches!(call.subresource.as_str(), "") {
            return Ok(Allocated::NOTHING);
        }
        call.server.storage.catch_up().await?;
        let mut taken = Allocated::NOTHING;
        let result = self.fill(call, object, old, &mut taken).await;
        match result {
            Ok(()) => Ok(taken),
            Err(e) => {
                taken.release(call).await;
                Err(e)
            }
        }
    }

    async fn fill(
        &self,
        call: &Call,
        object: &mut Value,
        old: Option<&Value>,
        taken: &mut Allocated,
    ) -> Result<()> {
        if let Some(old) = old {
            service::carry_over(object, old);
        }
        service::normalize(object, old);
        let family = if self.range.addr().is_ipv4() { "IPv4" } else { "IPv6" };
        let refuse = |errors: Vec<FieldError>, name: &str| ApiError::invalid("", "Service", name, &errors);
        if let Err(errors) = service::init_families(object, old, family) {
            return Err(refuse(errors, object.name()));
        }
        if service::wants_address(object) && old.is_none_or(is_external_name) {
            self.take_address(call, object, taken).await?;
        }
        self.take_ports(call, object, old, taken)?;
        self.take_health_port(call, object, old, taken)?;
        if let Some(old) = old {
            if has_address(old) && is_external_name(object) {
                taken.outdated.extend(old.str_at(&["spec", "clusterIP"]).parse().ok().map(Held::Address));
            }
            let kept = if service::uses_node_ports(object) { node_ports(object) } else { HashSet::new() };
            taken.outdated.extend(node_ports(old).difference(&kept).map(|p| Held::Port(*p)));
        }
        Ok(())
    }

    async fn take_address(&self, call: &Call, object: &mut Value, taken: &mut Allocated) -> Result<()> {
        let asked = object.str_at(&["spec", "clusterIP"]).to_owned();
        let invalid = |why: String| {
            let spec = Path::new("spec");
            let error = FieldError::invalid(&spec.child("clusterIPs"), vec![asked.as_str()], why);
            ApiError::invalid("", "Service", object.name(), &[error])
        };
        let address = if asked.is_empty() {
            self.free_address(&call.server.storage)
                .ok_or_else(|| ApiError::internal("failed to allocate a serviceIP: range is full"))?
        } else {
            let fail = |why: &str| invalid(format!("failed to allocate IP {asked}: {why}"));
            let address: IpAddr =
                asked.parse().map_err(|_| fail(&format!("error parsing ip {asked}: invalid IP")))?;
            if !self.range.contains(&address) {
                return Err(fail(&format!(
                    "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                    self.range
                )));
            }
            if used_addresses(&call.server.storage).contains(&address)
                || self.pending.lock().contains(&Held::Address(address))
            {
                return Err(fail("provided IP is already allocated"));
            }
            address
        };
        self.hold(Held::Address(address), taken);
        if !call.write.dry_run {
            record_address(call, address, object).await?;
            taken.address = Some(address);
        }
        object.set(&["spec", "clusterIP"], address.to_string());
        object.set(&["spec", "clusterIPs"], vec![address.to_string()]);
        Ok(())
    }

    fn hold(&self, held: Held, taken: &mut Allocated) {
        self.pending.lock().insert(held.clone());
        taken.held.push(held);
    }

    /// A free address: at random, then the first one. The lower sixteenth is left for those who choose.
    fn free_address(&self, storage: &Storage) -> Option<IpAddr> {
        let used = used_addresses(storage);
        let pending = self.pending.lock().clone();
        let free = |a: &IpAddr| !used.contains(a) && !pending.contains(&Held::Address(*a));
        let hosts = 1_u128 << (self.range.max_prefix_len() - self.range.prefix_len()).min(64);
        let reserved = (hosts / 16).clamp(16.min(hosts), 256);
        let at = |n: u128| -> IpAddr {
            match self.range.network() {
                IpAddr::V4(net) => IpAddr::V4((u32::from(net).wrapping_add(n as u32)).into()),
                IpAddr::V6(net) => IpAddr::V6((u128::from(net).wrapping_add(n)).into()),
            }
        };
        let last = hosts.saturating_sub(1);
        if reserved < last {
            let mut rng = rand::rng();
            let random = (0..64).map(|_| at(rng.random_range(reserved..last))).find(free);
            if random.is_some() {
                return random;
            }
        }
        (1..last.min(1 << 20)).map(at).find(free)
    }

    fn take_ports(
        &self,
        call: &Call,
        object: &mut Value,
        old: Option<&Value>,
        taken: &mut Allocated,
    ) -> Result<()> {
        if !service::uses_node_ports(object) {
            return Ok(());
        }
        let name = object.name().to_owned();
        let without = object.str_at(&["spec", "type"]) == "LoadBalancer"
            && object.at(&["spec", "allocateLoadBalancerNodePorts"]).as_bool() == Some(false);
        let own: HashSet<i64> = old.map(node_ports).unwrap_or_default();
        let mut ports = object.array_at(&["spec", "ports"]).to_vec();
        let mut here: HashSet<i64> = HashSet::new();
        for i in 0..ports.len() {
            let asked = wanted_port(&ports, i, old.is_none());
            if asked == 0 && without {
                continue;
            }
            if asked == 0 {
                let number = self.free_port(call, &here)?;
                self.hold(Held::Port(number), taken);
                here.insert(number);
                ports[i].set(&["nodePort"], number);
                continue;
            }
            if !own.contains(&asked) && here.insert(asked) {
                let list = Path::new("spec.ports");
                let at = list.index(i);
                self.check_port(call, asked).map_err(|why| {
                    let error = FieldError::invalid(&at.child("nodePort"), asked, why);
                    ApiError::invalid("", "Service", &name, &[error])
                })?;
                self.hold(Held::Port(asked), taken);
            }
            ports[i].set(&["nodePort"], asked);
        }
        if !ports.is_empty() {
            object.set(&["spec", "ports"], ports);
        }
        Ok(())
    }

    /// A port of the nodes on which load balancers ask for the health of a Service.
    fn take_health_port(
        &self,
        call: &Call,
        object: &mut Value,
        old: Option<&Value>,
        taken: &mut Allocated,
    ) -> Result<()> {
        const PORT: [&str; 2] = ["spec", "healthCheckNodePort"];
        let needed = old.is_some_and(service::needs_health_check);
        let asked = object.at(&PORT).as_i64().unwrap_or(0);
        match (needed, service::needs_health_check(object)) {
            (false, true) if asked == 0 => {
                let number = self.free_port(call, &HashSet::new())?;
                self.hold(Held::Port(number), taken);
                object.set(&PORT, number);
            }
            (false, true) => {
                self.check_port(call, asked).map_err(|why| {
                    let what = "failed to allocate requested HealthCheck NodePort";
                    ApiError::internal(format!("{what} {asked}: {why}"))
                })?;
                self.hold(Held::Port(asked), taken);
            }
            (true, false) if old.is_some_and(|o| o.at(&PORT) == object.at(&PORT)) => {
                object.remove_at(&PORT);
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a port of the nodes can be had. A dry run takes none.
    fn check_port(&self, call: &Call, port: i64) -> std::result::Result<(), String> {
        if call.write.dry_run {
            return Ok(());
        }
        let (first, last) = self.ports;
        if !(i64::from(first)..=i64::from(last)).contains(&port) {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            ));
        }
        let taken = used_ports(&call.server.storage).contains(&port)
            || self.pending.lock().contains(&Held::Port(port));
        if taken { Err("provided port is already allocated".to_owned()) } else { Ok(()) }
    }

    fn free_port(&self, call: &Call, here: &HashSet<i64>) -> Result<i64> {
        let used = used_ports(&call.server.storage);
        let pending = self.pending.lock().clone();
        let free = |n: &i64| !used.contains(n) && !here.contains(n) && !pending.contains(&Held::Port(*n));
        let (first, last) = (i64::from(self.ports.0), i64::from(self.ports.1));
        let mut rng = rand::rng();
        (0..64)
            .map(|_| rng.random_range(first..=last))
            .find(free)
            .or_else(|| (first..=last).find(free))
            .ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))
    }

    /// Gives back what a removed Service held.
    pub async fn release(&self, call: &Call, object: &Value) {
        if call.row.built_in() != "services" || !call.row.group.is_empty() {
            return;
        }
        {
            let mut pending = self.pending.lock();
            for port in node_ports(object) {
                pending.remove(&Held::Port(port));
            }
        }
        if let Ok(address) = object.str_at(&["spec", "clusterIP"]).parse() {
            self.pending.lock().remove(&Held::Address(address));
            forget_address(call, address).await;
        }
    }

    /// Forgets what is in the cache by now.
    pub fn settle(&self, storage: &Storage) {
        let (addresses, ports) = (used_addresses(storage), used_ports(storage));
        self.pending.lock().retain(|held| match held {
            Held::Address(a) => !addresses.contains(a),
            Held::Port(p) => !ports.contains(p),
        });
    }
}

fn is_external_name(service: &Value) -> bool {
    service.str_at(&["spec", "type"]) == "ExternalName"
}

fn has_address(service: &Value) -> bool {
    service::wants_address(service) && !service.str_at(&["spec", "clusterIP"]).is_empty()
}

/// The node port that the `i`th port asks for. Ports of one number share it, in a new Service.
fn wanted_port(ports: &[Value], i: usize, new: bool) -> i64 {
    let number = |port: &Value| port.get("nodePort").as_i64().unwrap_or(0);
    let own = number(&ports[i]);
    if own != 0 || !new {
        return own;
    }
    let mut same = ports.iter().filter(|p| p.get("port") == ports[i].get("port"));
    same.find_map(|p| Some(number(p)).filter(|n| *n != 0)).unwrap_or(0)
}

fn services(storage: &Storage) -> impl Iterator<Item = Value> {
    let snapshot = storage.cache(TABLE.store("", "services")).snapshot();
    snapshot.objects.values().map(|s| s.object()).collect::<Vec<_>>().into_iter()
}

fn used_addresses(storage: &Storage) -> HashSet<IpAddr> {
    let of_services = services(storage).filter_map(|s| s.str_at(&["spec", "clusterIP"]).parse().ok());
    let recorded = storage.cache(TABLE.store("networking.k8s.io", "ipaddresses")).snapshot();
    let recorded: Vec<IpAddr> = recorded.objects.keys().filter_map(|k| k.parse().ok()).collect();
    of_services.chain(recorded).collect()
}

fn node_ports(service: &Value) -> HashSet<i64> {
    let ports = service.array_at(&["spec", "ports"]).iter().filter_map(|p| p.get("nodePort").as_i64());
    ports.chain(service.at(&["spec", "healthCheckNodePort"]).as_i64()).filter(|n| *n != 0).collect()
}

fn used_ports(storage: &Storage) -> HashSet<i64> {
    services(storage).flat_map(|s| node_ports(&s)).collect()
}

/// Writes the IPAddress object that stands for an address in use.
async fn record_address(call: &Call, address: IpAddr, service: &Value) -> Result<()> {
    let row = TABLE.find_any_version("networking.k8s.io", "ipaddresses").expect("a built-in resource");
    let inner = call.internal(row, "", &address.to_string());
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let object = object!({
        "metadata": {
            "name": (address.to_string()),
            "labels": {"ipaddress.kubernetes.io/ip-family": family, "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"},
        },
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": (service.namespace()), "name": (service.name())}},
    });
    inner.create_within(object).await.map(|_| ())
}

async fn forget_address(call: &Call, address: IpAddr) {
    let row = TABLE.find_any_version("networking.k8s.io", "ipaddresses").expect("a built-in resource");
    let inner = call.internal(row, "", &address.to_string());
    if let Err(e) = inner.delete_within(&crate::registry::DeleteOptions::default()).await
        && !e.is_not_found()
    {
        tracing::warn!(error = %e, %address, "an address stays recorded as in use");
    }
}
