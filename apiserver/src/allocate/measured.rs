//! How many addresses and ports of Services are taken, counted when somebody asks.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, IntGaugeVec, Opts};

use super::addresses::{GROUP, Usable, ranges};
use super::ports::used;
use crate::resources::TABLE;
use crate::storage::Storage;

/// Families of addresses and ports.
pub struct Measured {
    storage: Arc<Storage>,
    /// How many ports there are.
    all_ports: i64,
    taken: IntGaugeVec,
    free: IntGaugeVec,
    taken_ports: IntGauge,
    free_ports: IntGauge,
}

impl Measured {
    /// Measures the addresses that `storage` knows, and these ports.
    ///
    /// # Errors
    /// A metric cannot be made.
    pub fn of(storage: &Arc<Storage>, (first, last): (u16, u16)) -> prometheus::Result<Self> {
        let addresses = |name: &str, help: &str| {
            let name = format!("kube_apiserver_clusterip_allocator_{name}");
            IntGaugeVec::new(Opts::new(name, help), &["cidr"])
        };
        let ports =
            |name: &str, help: &str| IntGauge::new(format!("kube_apiserver_nodeport_allocator_{name}"), help);
        Ok(Self {
            storage: storage.clone(),
            all_ports: i64::from(last) - i64::from(first) + 1,
            taken: addresses(
                "allocated_ips",
                "[ALPHA] Gauge measuring the number of allocated IPs for Services",
            )?,
            free: addresses(
                "available_ips",
                "[ALPHA] Gauge measuring the number of available IPs for Services",
            )?,
            taken_ports: ports(
                "allocated_ports",
                "[ALPHA] Gauge measuring the number of allocated NodePorts for Services",
            )?,
            free_ports: ports(
                "available_ports",
                "[ALPHA] Gauge measuring the number of available NodePorts for Services",
            )?,
        })
    }

    fn all(&self) -> [&dyn Collector; 4] {
        [&self.taken, &self.free, &self.taken_ports, &self.free_ports]
    }

    fn count(&self) {
        self.taken.reset();
        self.free.reset();
        let snapshot = self.storage.cache(TABLE.store(GROUP, "ipaddresses")).snapshot();
        for range in ["IPv4", "IPv6"].iter().flat_map(|family| ranges(&self.storage, family)) {
            let usable = Usable::of(&range);
            let addresses = snapshot.objects.keys().filter_map(|key| key.parse().ok());
            let taken = addresses.filter(|address| usable.contains(*address)).count() as u64;
            let shown = range.to_string();
            let amount = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            self.taken.with_label_values(&[shown.as_str()]).set(amount(taken));
            self.free.with_label_values(&[shown.as_str()]).set(amount(usable.count.saturating_sub(taken)));
        }
        let taken = i64::try_from(used(&self.storage).len()).unwrap_or(i64::MAX);
        self.taken_ports.set(taken);
        self.free_ports.set(self.all_ports.saturating_sub(taken));
    }
}

impl Collector for Measured {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.count();
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}
