//! Amounts of resources, and what a pod asks for.

use api::Value;
use api::quantity::Quantity;
use compact_str::CompactString;

/// Amounts: processors in thousandths, everything else in its own unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a processor.
    pub milli_cpu: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of local storage.
    pub storage: i64,
    /// Pods.
    pub pods: i64,
    /// Extended resources and huge pages, by name.
    pub other: Vec<(CompactString, i64)>,
}

impl Resources {
    /// Reads a resource list; what is no quantity counts for nothing.
    pub fn of(list: &Value) -> Self {
        let mut amounts = Self::default();
        for (name, value) in list.as_object().into_iter().flat_map(api::Map::iter) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let Ok(quantity) = text.parse::<Quantity>() else { continue };
            match name {
                "cpu" => amounts.milli_cpu = quantity.millis(),
                "memory" => amounts.memory = quantity.units(),
                "ephemeral-storage" => amounts.storage = quantity.units(),
                "pods" => amounts.pods = quantity.units(),
                other => amounts.other.push((other.into(), quantity.units())),
            }
        }
        amounts
    }

    /// The amount of an extended resource.
    pub fn get(&self, name: &str) -> i64 {
        self.other.iter().find(|(n, _)| n == name).map_or(0, |(_, n)| *n)
    }

    fn each(&mut self, with: &Self, f: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = f(self.milli_cpu, with.milli_cpu);
        self.memory = f(self.memory, with.memory);
        self.storage = f(self.storage, with.storage);
        for (name, amount) in &with.other {
            match self.other.iter_mut().find(|(n, _)| n == name) {
                Some((_, have)) => *have = f(*have, *amount),
                None => self.other.push((name.clone(), f(0, *amount))),
            }
        }
    }

    /// Adds other amounts.
    pub fn add(&mut self, with: &Self) {
        self.each(with, |a, b| a.saturating_add(b));
    }

    /// Takes other amounts away.
    pub fn subtract(&mut self, with: &Self) {
        self.each(with, |a, b| a.saturating_sub(b));
    }

    /// Takes the larger of each amount.
    pub fn max(&mut self, with: &Self) {
        self.each(with, i64::max);
    }

    /// The names of what `self` asks for and `total` does not have besides `used`.
    pub(crate) fn lacking(&self, total: &Self, used: &Self) -> impl Iterator<Item = String> {
        let mut names = Vec::new();
        for (name, asked, total, used) in [
            ("cpu", self.milli_cpu, total.milli_cpu, used.milli_cpu),
            ("memory", self.memory, total.memory, used.memory),
            ("ephemeral-storage", self.storage, total.storage, used.storage),
        ] {
            if asked > 0 && asked > total - used {
                names.push(name.to_owned());
            }
        }
        for (name, asked) in self.other.iter().filter(|(_, n)| *n > 0) {
            if *asked > total.get(name) - used.get(name) {
                names.push(name.to_string());
            }
        }
        names.into_iter()
    }
}

/// What a pod asks for: the sum of its containers, or of its init containers and the sidecars beside them where that is more,
/// or what the pod itself asks for; and its overhead.
pub fn pod_requests(pod: &Value) -> Resources {
    let spec = pod.get("spec");
    let of = |c: &Value| Resources::of(c.at(&["resources", "requests"]));
    let mut total = Resources::default();
    for container in spec.array_at(&["containers"]) {
        total.add(&of(container));
    }
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for container in spec.array_at(&["initContainers"]) {
        let mut at_once = of(container);
        if container.str_at(&["restartPolicy"]) == "Always" {
            total.add(&at_once);
            sidecars.add(&at_once);
            at_once = sidecars.clone();
        } else {
            at_once.add(&sidecars);
        }
        peak.max(&at_once);
    }
    total.max(&peak);
    let own = of(spec);
    for (have, asked) in [(&mut total.milli_cpu, own.milli_cpu), (&mut total.memory, own.memory)] {
        if asked > 0 {
            *have = asked;
        }
    }
    total.add(&Resources::of(spec.get("overhead")));
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn a_pod_asks_for_its_peak() {
        let asks = |cpu: &str| object!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar =
            |cpu: &str| object!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        let check = |spec: Value, want: i64| {
            assert_eq!(pod_requests(&object!({"spec": (&spec)})).milli_cpu, want, "{spec}");
        };
        check(object!({"containers": [(asks("1")), (asks("500m"))]}), 1500);
        check(object!({"containers": [(asks("1"))], "initContainers": [(asks("2"))]}), 2000);
        check(object!({"containers": [(asks("1"))], "initContainers": [(sidecar("1")), (asks("2"))]}), 3000);
        check(object!({"containers": [(asks("3"))], "initContainers": [(sidecar("1"))]}), 4000);
        check(object!({"containers": [(asks("1"))], "overhead": {"cpu": "250m"}}), 1250);
        check(object!({"containers": [(asks("1"))], "resources": {"requests": {"cpu": "5"}}}), 5000);
    }
}
