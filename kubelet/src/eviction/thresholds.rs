//! When the node counts as running short: the thresholds of the configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use api::quantity::{Format, Quantity};

use crate::config::{KubeletConfiguration, reserved};

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Signal {
    /// Memory of the node.
    Memory,
    /// Memory of all pods together.
    PodsMemory,
    /// Bytes of the disk with the kubelet's folder.
    NodeDisk,
    /// Inodes of that disk.
    NodeInodes,
    /// Bytes of the disk with the images.
    ImageDisk,
    /// Inodes of that disk.
    ImageInodes,
    /// Process numbers.
    Pids,
}

/// A condition of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Pressure {
    /// Memory.
    Memory,
    /// Disks.
    Disk,
    /// Process numbers.
    Pid,
}

impl Pressure {
    /// The condition's type.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pid => "PIDPressure",
        }
    }
}

/// The names in the configuration.
const NAMES: [(&str, Signal); 6] = [
    ("memory.available", Signal::Memory),
    ("nodefs.available", Signal::NodeDisk),
    ("nodefs.inodesFree", Signal::NodeInodes),
    ("imagefs.available", Signal::ImageDisk),
    ("imagefs.inodesFree", Signal::ImageInodes),
    ("pid.available", Signal::Pids),
];
/// What else upstream knows; containers' layers are always on one of the two disks here.
const IGNORED: [&str; 3] = ["containerfs.available", "containerfs.inodesFree", "allocatableMemory.available"];

impl Signal {
    /// What the configuration and metrics call it.
    pub(crate) fn name(self) -> &'static str {
        match NAMES.iter().find(|(_, signal)| *signal == self) {
            Some((name, _)) => name,
            // It follows from the memory that is available, and is none of the configuration's own.
            None => "allocatableMemory.available",
        }
    }

    /// The resource that is short, as messages name it.
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::Memory | Self::PodsMemory => "memory",
            Self::NodeDisk | Self::ImageDisk => "ephemeral-storage",
            Self::NodeInodes | Self::ImageInodes => "inodes",
            Self::Pids => "pids",
        }
    }

    /// The node's condition.
    pub(super) fn pressure(self) -> Pressure {
        match self {
            Self::Memory | Self::PodsMemory => Pressure::Memory,
            Self::Pids => Pressure::Pid,
            _ => Pressure::Disk,
        }
    }
}

/// An amount, or a part of what there is in all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Amount {
    Fixed(Quantity),
    Part(f64),
}

impl Amount {
    /// The amount, given what there is in all.
    pub(super) fn of(self, capacity: i64) -> Quantity {
        match self {
            Self::Fixed(quantity) => quantity,
            Self::Part(part) => Quantity::from_units((capacity as f64 * part) as i64, Format::BinarySi),
        }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let Some(percent) = text.strip_suffix('%') else {
            return Ok(Self::Fixed(text.parse().with_context(|| format!("invalid quantity {text:?}"))?));
        };
        let part = percent.parse::<f64>().with_context(|| format!("invalid percentage {text:?}"))? / 100.0;
        Ok(Self::Part(part))
    }
}

/// What must be left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Threshold {
    pub signal: Signal,
    pub value: Amount,
    /// How long it may be missed; zero for a hard threshold.
    pub grace: Duration,
    /// How much more must be left before it counts as kept again.
    pub reclaim: Option<Amount>,
}

fn signal(name: &str) -> anyhow::Result<Option<Signal>> {
    match NAMES.iter().find(|(known, _)| *known == name) {
        Some((_, signal)) => Ok(Some(*signal)),
        None if IGNORED.contains(&name) => Ok(None),
        None => bail!("unsupported eviction signal {name}"),
    }
}

/// The thresholds that the configuration asks for.
pub(super) fn parse(file: &KubeletConfiguration) -> anyhow::Result<Vec<Threshold>> {
    let mut all = statements(&file.hard_thresholds())?;
    let mut soft = statements(&file.eviction_soft)?;
    for threshold in &mut soft {
        let name = threshold.signal.name();
        let Some(grace) = file.eviction_soft_grace_period.get(name) else {
            bail!("grace period must be specified for the soft eviction threshold {name}");
        };
        threshold.grace = grace.0;
    }
    all.extend(soft);
    for (name, text) in &file.eviction_minimum_reclaim {
        let Some(signal) = signal(name)? else { continue };
        let amount = Amount::parse(text)?;
        let negative = match amount {
            Amount::Fixed(quantity) => quantity.is_negative(),
            Amount::Part(part) => part <= 0.0,
        };
        if negative {
            bail!("negative eviction minimum reclaim specified for {name}");
        }
        for threshold in all.iter_mut().filter(|threshold| threshold.signal == signal) {
            threshold.reclaim = Some(amount);
        }
    }
    // Pods together have a limit too, below which the kernel would kill.
    let limited = file.reserved.enforces(reserved::PODS);
    let mut hard =
        all.iter().filter(|threshold| threshold.signal == Signal::Memory && threshold.grace.is_zero());
    let hard = hard.next().filter(|_| limited);
    let together = hard.map(|hard| Threshold { signal: Signal::PodsMemory, ..*hard });
    all.extend(together);
    Ok(all)
}

fn statements(statements: &BTreeMap<String, String>) -> anyhow::Result<Vec<Threshold>> {
    let mut out = Vec::new();
    for (name, text) in statements {
        let found = signal(name)?;
        // These are ways to turn a threshold off.
        if matches!(text.as_str(), "0%" | "100%") {
            continue;
        }
        let value = Amount::parse(text)?;
        match value {
            Amount::Part(part) if !(0.0..=1.0).contains(&part) => {
                bail!("eviction percentage threshold {name} must be between 0% and 100%: {text}");
            }
            Amount::Fixed(quantity) if quantity.is_negative() || quantity.is_zero() => {
                bail!("eviction threshold {name} must be positive: {text}");
            }
            _ => {}
        }
        if let Some(signal) = found {
            out.push(Threshold { signal, value, grace: Duration::ZERO, reclaim: None });
        } else {
            tracing::warn!(signal = name, "This eviction threshold follows from the others and is ignored");
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn config(hard: &[(&str, &str)], soft: &[(&str, &str)]) -> KubeletConfiguration {
        let mut file = KubeletConfiguration { eviction_hard: map(hard), ..KubeletConfiguration::default() };
        file.eviction_soft = map(soft);
        file
    }

    #[test]
    fn thresholds_are_read_or_refused() {
        let hard = config(
            &[("memory.available", "100Mi"), ("nodefs.available", "10%"), ("pid.available", "0%")],
            &[],
        );
        let parsed = parse(&hard).unwrap();
        let signals: Vec<_> = parsed.iter().map(|threshold| threshold.signal).collect();
        assert_eq!(signals, [Signal::Memory, Signal::NodeDisk, Signal::PodsMemory]);
        assert_eq!(parsed[1].value.of(1000).units(), 100);
        let mut free = hard.clone();
        free.reserved.enforce_node_allocatable = vec!["none".to_owned()];
        assert!(parse(&free).unwrap().iter().all(|threshold| threshold.signal != Signal::PodsMemory));
        for (name, text) in
            [("disk", "1"), ("memory.available", "0"), ("memory.available", "101%"), ("pid.available", "x")]
        {
            assert!(parse(&config(&[(name, text)], &[])).is_err(), "{name} {text}");
        }
        let soft = config(&[], &[("memory.available", "1Gi")]);
        let error = parse(&soft).unwrap_err().to_string();
        assert_eq!(error, "grace period must be specified for the soft eviction threshold memory.available");
    }
}
