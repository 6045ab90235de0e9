//! Sets of processors, written as the kernel writes them: `0-3,7`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A set of processors by their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CpuSet(BTreeSet<usize>);

impl CpuSet {
    /// No processors.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The processors, in ascending order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = usize> {
        self.0.iter().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn is_subset(&self, of: &Self) -> bool {
        self.0.is_subset(&of.0)
    }

    /// Those of both.
    pub(crate) fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }

    /// Those that are in both.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    /// Those that are not in the other.
    pub(crate) fn difference(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> Self {
        Self(cpus.into_iter().collect())
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges = Vec::<(usize, usize)>::new();
        for cpu in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == cpu => *last = cpu,
                _ => ranges.push((cpu, cpu)),
            }
        }
        for (i, (first, last)) in ranges.into_iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// Reads a number as upstream does, with its words for what is none.
fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
}

impl FromStr for CpuSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut cpus = BTreeSet::new();
        for range in text.split(',').filter(|_| !text.is_empty()) {
            let Some((first, last)) = range.split_once('-') else {
                cpus.insert(number(range)?);
                continue;
            };
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("invalid range {range:?} ({first} > {last})"));
            }
            // What no kernel can have is not worth a set of millions.
            if last - first > 1 << 16 {
                return Err(format!("invalid range {range:?}: too many processors"));
            }
            cpus.extend(first..=last);
        }
        Ok(Self(cpus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written_as_the_kernel_does() {
        for (text, written) in
            [("", ""), ("3", "3"), ("0,1", "0-1"), ("7,0-3,5", "0-3,5,7"), ("1-1", "1"), ("2,1-4", "1-4")]
        {
            assert_eq!(text.parse::<CpuSet>().unwrap().to_string(), written, "{text}");
        }
        for (text, message) in [
            ("asd", "strconv.Atoi: parsing \"asd\": invalid syntax"),
            ("1,", "strconv.Atoi: parsing \"\": invalid syntax"),
            ("3-1", "invalid range \"3-1\" (3 > 1)"),
        ] {
            assert_eq!(text.parse::<CpuSet>().unwrap_err(), message);
        }
        assert!("0-9999999999".parse::<CpuSet>().is_err());
    }
}
