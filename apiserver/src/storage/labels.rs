//! The labels of a stored object, with a sieve that spares most objects the comparison with a selector.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use api::Value;
use api::selector::{LabelSelector, Operator};
use compact_str::CompactString;

/// Bits for what labels say, or for what a selector wants them to say: one for each key, one for each key with its value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sieve(u64);

impl Sieve {
    /// What all objects have that the selector selects.
    pub fn of(selector: &LabelSelector) -> Self {
        let wanted = selector.requirements().iter().map(|r| match &r.operator {
            Operator::Equals(value) => Self::label(&r.key, value),
            Operator::In(values) => match values.as_slice() {
                [value] => Self::label(&r.key, value),
                _ => Self::bit(&r.key),
            },
            Operator::Exists | Operator::GreaterThan(_) | Operator::LessThan(_) => Self::bit(&r.key),
            // These also select what has no such label.
            Operator::NotEquals(_) | Operator::NotIn(_) | Operator::DoesNotExist => Self::default(),
        });
        wanted.fold(Self::default(), Self::and)
    }

    /// False when an object whose labels have this sieve is certainly not selected.
    pub fn passes(self, labels: Self) -> bool {
        self.0 & !labels.0 == 0
    }

    fn label(key: &str, value: &str) -> Self {
        Self::bit(key).and(Self::bit((key, value)))
    }

    fn bit(what: impl std::hash::Hash) -> Self {
        Self(1 << (BuildHasherDefault::<DefaultHasher>::default().hash_one(what) % 64))
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The labels of an object.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    sieve: Sieve,
    pairs: Box<[(CompactString, CompactString)]>,
}

impl Labels {
    /// The labels in the metadata of an object.
    pub fn of(object: &Value) -> Self {
        let labels = object.at(&["metadata", "labels"]).as_object();
        let text = |v: &Value| CompactString::from(v.as_str().unwrap_or_default());
        let pairs: Box<[(CompactString, CompactString)]> =
            labels.into_iter().flat_map(|m| m.iter()).map(|(k, v)| (k.into(), text(v))).collect();
        let sieve = pairs.iter().fold(Sieve::default(), |all, (k, v)| all.and(Sieve::label(k, v)));
        Self { sieve, pairs }
    }

    /// What they say, in short.
    pub fn sieve(&self) -> Sieve {
        self.sieve
    }

    /// The value of the label `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn nothing_that_is_selected_is_sieved_out() {
        let labels = Labels::of(&object!({"metadata": {"labels": {"app": "web", "size": "3"}}}));
        let none = Labels::of(&object!({"metadata": {}}));
        for (text, selects_labels, selects_none) in [
            ("", true, true),
            ("app=web,size=3", true, false),
            ("app in (web)", true, false),
            ("app in (db,web)", true, false),
            ("app,size>2,size<4", true, false),
            ("app!=db,other notin (a),!more", true, true),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(|k| labels.get(k)), selects_labels, "{text}");
            assert_eq!(selector.matches(|k| none.get(k)), selects_none, "{text}");
            assert!(Sieve::of(&selector).passes(labels.sieve()), "{text}");
            assert_eq!(Sieve::of(&selector).passes(none.sieve()), selects_none, "{text}");
        }
    }

    #[test]
    fn most_of_what_is_not_selected_is_sieved_out() {
        let sieve = Sieve::of(&LabelSelector::parse("app=service,group=g7").unwrap());
        let passed = (0..1000).filter(|n| {
            let labels = object!({"metadata": {"labels": {"app": "service", "group": (format!("g{n}"))}}});
            sieve.passes(Labels::of(&labels).sieve())
        });
        assert!((1..100).contains(&passed.count()));
    }
}
