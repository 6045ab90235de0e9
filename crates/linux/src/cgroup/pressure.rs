//! How long a group has waited for resources ("pressure stall information"), which version 2 alone knows.

use std::fs;

use super::Cgroups;

/// Waiting, of some tasks or of all of them at once.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Waited {
    /// Microseconds since the group was made.
    pub total: u64,
    /// The share of time, in percent, over the last 10, 60 and 300 seconds.
    pub averages: [f64; 3],
}

/// The waiting for one resource.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// While no task could go on.
    pub full: Waited,
    /// While at least one could not.
    pub some: Waited,
}

pub(super) fn read(groups: &Cgroups, group: &str, resource: &str) -> Option<Pressure> {
    if !groups.is_v2() {
        return None;
    }
    let directory = groups.directory(resource, group)?;
    parse(&fs::read_to_string(directory.join(format!("{resource}.pressure"))).ok()?)
}

/// Lines as in `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn parse(text: &str) -> Option<Pressure> {
    let line = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let field = |name: &str| line.split(' ').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let average = |name: &str| field(name)?.parse().ok();
        let averages = [average("avg10")?, average("avg60")?, average("avg300")?];
        Some(Waited { total: field("total")?.parse().ok()?, averages })
    };
    // Older kernels do not say of processors when nothing could go on.
    Some(Pressure { some: line("some")?, full: line("full").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_where_there_is_one_hierarchy() {
        let root = tempfile::tempdir().unwrap();
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=12345\nfull avg10=0.10 avg60=0.00 avg300=0.00 total=7\n";
        fs::write(root.path().join("memory.pressure"), text).unwrap();
        let v2 = Cgroups::V2 { root: root.path().to_owned() };
        let expected = Pressure {
            some: Waited { total: 12345, averages: [1.5, 0.25, 0.0] },
            full: Waited { total: 7, averages: [0.1, 0.0, 0.0] },
        };
        assert_eq!(v2.pressure("/", "memory"), Some(expected));
        assert_eq!(v2.pressure("/", "io"), None);
        let controllers = [("memory".to_owned(), root.path().to_owned())].into();
        let v1 = Cgroups::V1 { controllers, others: Vec::new() };
        assert_eq!(v1.pressure("/", "memory"), None);
    }

    #[test]
    fn what_is_not_pressure_is_none() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("some avg10=x avg60=0.00 avg300=0.00 total=1"), None);
        let some = parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n").unwrap();
        assert_eq!((some.some.total, some.full), (1, Waited::default()));
    }
}
