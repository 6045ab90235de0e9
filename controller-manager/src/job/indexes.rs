//! Sets of completion indexes, as the status writes them: `1,3-5,7`.

use std::collections::BTreeSet;

/// Reads indexes below `limit`; what cannot be read is left out.
pub(super) fn parse(text: &str, limit: i64) -> BTreeSet<i64> {
    let mut set = BTreeSet::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) {
            set.extend((first..=last.min(limit - 1)).filter(|i| *i >= 0));
        }
    }
    set
}

/// Writes them.
pub(super) fn format(set: &BTreeSet<i64>) -> String {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for index in set {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let texts: Vec<String> = runs
        .into_iter()
        .map(|(first, last)| match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        })
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_runs() {
        for (text, want) in [("", ""), ("0,1", "0,1"), ("0-2,4,6-7", "0-2,4,6,7"), ("8-20", "8,9"), ("x", "")]
        {
            assert_eq!(format(&parse(text, 10)), want, "{text}");
        }
    }
}
