//! The options of policies, by upstream's names.

use std::collections::BTreeMap;

use daemon::features::FeatureGates;

/// Options as they are configured.
pub(crate) type Given = BTreeMap<String, String>;

/// The options of the static policy for processors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CpuOptions {
    /// Cores are given away whole, or not at all.
    pub(crate) full_pcpus_only: bool,
    /// When one NUMA node is not enough, all that are needed give the same.
    pub(crate) distribute_cpus_across_numa: bool,
    /// Packages count instead of NUMA nodes.
    pub(crate) align_by_socket: bool,
    /// Different cores come before threads of the same.
    pub(crate) distribute_cpus_across_cores: bool,
    /// Nobody but the system runs on reserved processors.
    pub(crate) strict_cpu_reservation: bool,
    /// Processors that share a cache come first.
    pub(crate) prefer_align_cpus_by_uncorecache: bool,
}

/// The gate that an option needs, if any.
const CPU_GATES: [(&str, Option<(&str, &str)>); 6] = [
    ("full-pcpus-only", None),
    ("strict-cpu-reservation", None),
    ("prefer-align-cpus-by-uncorecache", None),
    ("distribute-cpus-across-numa", Some(("CPUManagerPolicyBetaOptions", "Beta"))),
    ("align-by-socket", Some(("CPUManagerPolicyAlphaOptions", "Alpha"))),
    ("distribute-cpus-across-cores", Some(("CPUManagerPolicyAlphaOptions", "Alpha"))),
];

/// Pairs of options that contradict each other.
const CPU_CONFLICTS: [(&str, &str); 4] = [
    ("full-pcpus-only", "distribute-cpus-across-cores"),
    ("distribute-cpus-across-numa", "distribute-cpus-across-cores"),
    ("prefer-align-cpus-by-uncorecache", "distribute-cpus-across-cores"),
    ("prefer-align-cpus-by-uncorecache", "distribute-cpus-across-numa"),
];

/// A truth value as upstream reads it.
fn boolean(name: &str, text: &str) -> Result<bool, String> {
    daemon::flags::boolean(text).ok_or_else(|| {
        format!("bad value for option {name:?}: strconv.ParseBool: parsing {text:?}: invalid syntax")
    })
}

impl CpuOptions {
    /// Reads options; the error is a sentence.
    pub(crate) fn parse(given: &Given, gates: &FeatureGates) -> Result<Self, String> {
        let mut on = BTreeMap::new();
        for (name, value) in given {
            let known = CPU_GATES.iter().find(|(known, _)| known == name);
            let (_, gate) = known.ok_or_else(|| format!("unknown CPU Manager Policy option: {name:?}"))?;
            if let Some((_, level)) = gate.filter(|(gate, _)| !gates.enabled(gate)) {
                return Err(format!(
                    "CPU Manager Policy {level}-level Options not enabled, but option {name:?} provided"
                ));
            }
            on.insert(name.as_str(), boolean(name, value)?);
        }
        let is = |name: &str| on.get(name).copied().unwrap_or_default();
        if let Some((one, other)) = CPU_CONFLICTS.into_iter().find(|(one, other)| is(one) && is(other)) {
            return Err(format!("static policy options {one} and {other} can not be used at the same time"));
        }
        Ok(Self {
            full_pcpus_only: is("full-pcpus-only"),
            distribute_cpus_across_numa: is("distribute-cpus-across-numa"),
            align_by_socket: is("align-by-socket"),
            distribute_cpus_across_cores: is("distribute-cpus-across-cores"),
            strict_cpu_reservation: is("strict-cpu-reservation"),
            prefer_align_cpus_by_uncorecache: is("prefer-align-cpus-by-uncorecache"),
        })
    }
}

/// The options of all policies of topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopologyOptions {
    /// Of several NUMA nodes those are better that are near each other.
    pub(crate) prefer_closest: bool,
    /// With how many NUMA nodes the machine is still one that can be managed.
    pub(crate) max_nodes: usize,
}

/// With more nodes there are too many ways to combine them.
const MAX_NODES: usize = 8;

impl TopologyOptions {
    /// Reads options; the error is a sentence.
    pub(crate) fn parse(given: &Given) -> Result<Self, String> {
        let mut options = Self { prefer_closest: false, max_nodes: MAX_NODES };
        for (name, value) in given {
            match name.as_str() {
                "prefer-closest-numa-nodes" => options.prefer_closest = boolean(name, value)?,
                "max-allowable-numa-nodes" => {
                    options.max_nodes = value.parse().map_err(|_| {
                        format!(
                            "unable to convert policy option to integer {name:?}: strconv.Atoi: parsing {value:?}: \
                             invalid syntax"
                        )
                    })?;
                    if options.max_nodes < MAX_NODES {
                        return Err(format!(
                            "the minimum value of {name:?} should not be less than {MAX_NODES}"
                        ));
                    }
                }
                _ => return Err(format!("unknown Topology Manager Policy option: {name:?}")),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Given {
        text.parse::<daemon::KeyValues>().unwrap().0
    }

    #[test]
    fn options_are_read_or_refused_in_upstreams_words() {
        let parse = |text: &str, gates: &str| CpuOptions::parse(&given(text), &gates.parse().unwrap());
        let all =
            parse("full-pcpus-only=true,distribute-cpus-across-numa=1,strict-cpu-reservation=false", "");
        let expected =
            CpuOptions { full_pcpus_only: true, distribute_cpus_across_numa: true, ..CpuOptions::default() };
        assert_eq!(all, Ok(expected));
        let alpha = "CPUManagerPolicyAlphaOptions=true";
        assert!(parse("align-by-socket=true", alpha).unwrap().align_by_socket);
        for (text, gates, message) in [
            ("x=true", "", "unknown CPU Manager Policy option: \"x\""),
            (
                "align-by-socket=true",
                "",
                "CPU Manager Policy Alpha-level Options not enabled, but option \"align-by-socket\" provided",
            ),
            (
                "distribute-cpus-across-numa=true",
                "CPUManagerPolicyBetaOptions=false",
                "CPU Manager Policy Beta-level Options not enabled, but option \"distribute-cpus-across-numa\" provided",
            ),
            (
                "full-pcpus-only=yes",
                "",
                "bad value for option \"full-pcpus-only\": strconv.ParseBool: parsing \"yes\": invalid syntax",
            ),
            (
                "full-pcpus-only=true,distribute-cpus-across-cores=true",
                alpha,
                "static policy options full-pcpus-only and distribute-cpus-across-cores can not be used at the same time",
            ),
        ] {
            assert_eq!(parse(text, gates).unwrap_err(), message);
        }
    }

    #[test]
    fn options_of_topology_are_read_or_refused() {
        let parse = |text: &str| TopologyOptions::parse(&given(text));
        let expected = TopologyOptions { prefer_closest: true, max_nodes: 9 };
        assert_eq!(parse("prefer-closest-numa-nodes=true,max-allowable-numa-nodes=9"), Ok(expected));
        for (text, message) in [
            ("x=1", "unknown Topology Manager Policy option: \"x\""),
            (
                "max-allowable-numa-nodes=7",
                "the minimum value of \"max-allowable-numa-nodes\" should not be less than 8",
            ),
            (
                "max-allowable-numa-nodes=x",
                "unable to convert policy option to integer \"max-allowable-numa-nodes\": strconv.Atoi: parsing \"x\": \
                 invalid syntax",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), message);
        }
    }
}
