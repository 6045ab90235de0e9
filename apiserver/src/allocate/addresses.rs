//! Addresses of Services: each has an object of its own in storage, so that no two servers hand out the same one. The
//! ranges they are taken from are those of the ServiceCIDRs.

use std::net::IpAddr;

use api::error::Result;
use api::field::{FieldError, Path};
use api::{ApiError, Value, object};
use ipnet::IpNet;
use rand::Rng;

use crate::registry::{Call, DeleteOptions};
use crate::resources::{Row, TABLE};
use crate::storage::Storage;

pub(super) const GROUP: &str = "networking.k8s.io";

/// How many addresses of a large range are looked at in turn before it counts as full.
const TRIES: u64 = 1 << 20;

/// The family of an address or a range, as Services name it.
pub(super) fn family_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The ranges that addresses of a family can be taken from now.
pub(super) fn ranges(storage: &Storage, family: &str) -> Vec<IpNet> {
    let snapshot = storage.cache(TABLE.store(GROUP, "servicecidrs")).snapshot();
    let mut ranges = Vec::new();
    for range in snapshot.objects.values().map(|s| s.object()) {
        // Without a controller that says otherwise a range can be used.
        let conditions = range.array_at(&["status", "conditions"]);
        let ready = conditions.iter().find(|c| c.str_at(&["type"]) == "Ready");
        if range.is_terminating() || ready.is_some_and(|c| c.str_at(&["status"]) != "True") {
            continue;
        }
        let cidrs = range.array_at(&["spec", "cidrs"]).iter().filter_map(|c| c.as_str()?.parse().ok());
        let ours = cidrs.filter(|cidr: &IpNet| family_of(cidr.addr()) == family);
        ranges.extend(ours);
    }
    ranges
}

/// True when some range that can be used has the address.
pub(super) fn in_range(storage: &Storage, address: IpAddr) -> bool {
    ranges(storage, family_of(address)).iter().any(|range| Usable::of(range).contains(address))
}

/// The addresses of a range that Services may have, by number from its first on.
pub(super) struct Usable {
    first: u128,
    pub(super) count: u64,
    four: bool,
}

impl Usable {
    pub(super) fn of(range: &IpNet) -> Self {
        let first = match range.network() {
            IpAddr::V4(a) => u128::from(u32::from(a)),
            IpAddr::V6(a) => u128::from(a),
        };
        let four = range.addr().is_ipv4();
        let hosts = 1_u64.checked_shl(u32::from(range.max_prefix_len() - range.prefix_len()));
        // Neither the network's own address nor, in IPv4, that of everybody.
        let count = hosts.map_or(u64::MAX, |hosts| hosts.saturating_sub(if four { 2 } else { 1 }));
        Self { first: first + 1, count, four }
    }

    fn at(&self, n: u64) -> IpAddr {
        let number = self.first + u128::from(n);
        match self.four {
            true => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
            false => IpAddr::V6(number.into()),
        }
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let number = match address {
            IpAddr::V4(a) => u128::from(u32::from(a)),
            IpAddr::V6(a) => u128::from(a),
        };
        address.is_ipv4() == self.four && number >= self.first && number - self.first < u128::from(self.count)
    }

    /// All of them, from a random one on; the first ones come last, they are left for those who choose.
    fn in_turn(self) -> impl Iterator<Item = IpAddr> {
        let chosen = match self.count {
            n if n <= 16 => 0,
            n => (n / 16).clamp(16, 256),
        };
        let from = |low: u64, high: u64| {
            let start = if low < high { rand::rng().random_range(low..high) } else { low };
            (start..high).chain(low..start).take(usize::try_from(TRIES).unwrap_or(usize::MAX))
        };
        from(chosen, self.count).chain(from(0, chosen)).map(move |n| self.at(n))
    }
}

fn row() -> &'static Row {
    TABLE.find_any_version(GROUP, "ipaddresses").expect("a built-in resource")
}

/// Takes an address of `family` for a Service: the one it asks for, or any when `asked` is empty.
///
/// # Errors
/// There is none, or not this one.
pub(super) async fn take(call: &Call, service: &Value, family: &str, asked: &str) -> Result<IpAddr> {
    let invalid = |why: String| {
        let all = service.at(&["spec", "clusterIPs"]).clone();
        let error = FieldError::invalid(&Path::new("spec").child("clusterIPs"), all, why);
        ApiError::invalid("", "Service", service.name(), &[error])
    };
    let storage = &call.server.storage;
    let ranges = ranges(storage, family);
    if asked.is_empty() {
        return take_any(call, service, &ranges).await;
    }
    let fail = |why: &str| invalid(format!("failed to allocate IP {asked}: {why}"));
    let address: IpAddr =
        asked.parse().map_err(|_| ApiError::internal(format!("failed to parse service IP {asked:?}")))?;
    if !ranges.iter().any(|range| Usable::of(range).contains(address)) {
        // A server that only tries looks at one range.
        let of = ranges.first().filter(|_| call.write.dry_run);
        return Err(match of {
            Some(range) => fail(&format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
            )),
            None => fail("the provided network does not match the current range"),
        });
    }
    if !call.write.dry_run && !record(call, address, service).await? {
        return Err(fail("provided IP is already allocated"));
    }
    Ok(address)
}

async fn take_any(call: &Call, service: &Value, ranges: &[IpNet]) -> Result<IpAddr> {
    if call.write.dry_run
        && let Some(range) = ranges.first()
    {
        return Ok(range.network());
    }
    let cache = call.server.storage.cache(TABLE.store(GROUP, "ipaddresses"));
    let addresses = ranges.iter().flat_map(|range| Usable::of(range).in_turn());
    for address in addresses {
        if cache.get(&address.to_string()).is_none() && record(call, address, service).await? {
            return Ok(address);
        }
    }
    let name = api::field::go_quote(service.name());
    Err(ApiError::internal(format!("failed to allocate a serviceIP for Service {name}: range is full")))
}

/// Writes the object that stands for an address in use; false when there is one.
pub(super) async fn record(call: &Call, address: IpAddr, service: &Value) -> Result<bool> {
    let object = object_of(address, service);
    match call.internal(row(), "", &address.to_string()).create_within(object).await {
        Ok(_) => Ok(true),
        Err(e) if e.reason() == "AlreadyExists" => Ok(false),
        Err(e) => Err(e),
    }
}

fn object_of(address: IpAddr, service: &Value) -> Value {
    object!({
        "metadata": {
            "name": (address.to_string()),
            "labels": {"ipaddress.kubernetes.io/ip-family": (family_of(address)), "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"},
        },
        "spec": {"parentRef": {"resource": "services", "namespace": (service.namespace()), "name": (service.name())}},
    })
}

/// Gives an address back.
pub(super) async fn give_back(call: &Call, address: IpAddr) {
    let inner = call.internal(row(), "", &address.to_string());
    if let Err(e) = inner.delete_within(&DeleteOptions::default()).await
        && !e.is_not_found()
    {
        tracing::warn!(error = %e, %address, "an address stays recorded as in use");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable(range: &str) -> Usable {
        Usable::of(&range.parse().unwrap())
    }

    #[test]
    fn the_ends_of_a_range_are_not_used() {
        let small: Vec<String> = usable("10.0.0.0/30").in_turn().map(|a| a.to_string()).collect();
        assert_eq!(small.len(), 2);
        assert!(small.contains(&"10.0.0.1".to_owned()) && small.contains(&"10.0.0.2".to_owned()));
        assert_eq!(usable("10.0.0.0/32").in_turn().count(), 0);
        assert_eq!(usable("fd00::/126").in_turn().count(), 3);
        assert!(!usable("10.0.0.0/24").contains("10.0.0.255".parse().unwrap()));
        assert!(usable("fd00::/64").contains("fd00::1".parse().unwrap()));
        assert!(!usable("fd00::/64").contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_first_addresses_are_left_for_those_who_choose() {
        let all: Vec<IpAddr> = usable("10.0.0.0/24").in_turn().collect();
        assert_eq!(all.len(), 254);
        assert!(all[..238].iter().all(|a| *a > "10.0.0.16".parse::<IpAddr>().unwrap()));
        assert!(usable("fd00::/64").in_turn().take(100).all(|a| a > "fd00::100".parse::<IpAddr>().unwrap()));
    }
}
