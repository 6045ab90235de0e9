//! Which nodes a pod asks for, and which it would rather have.

use api::Value;
use api::selector::{LabelSelector, Operator, Requirement};
use compact_str::CompactString;

use crate::views::NodeView;

/// One term of a node selector: all its requirements must hold. Without any it matches nothing.
#[derive(Clone, Debug, Default)]
pub struct Term {
    labels: LabelSelector,
    names: LabelSelector,
}

fn requirements(list: &[Value]) -> Vec<Requirement> {
    let one = |e: &Value| {
        let values: Vec<String> =
            e.array_at(&["values"]).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
        let bound = || values.first().and_then(|v| v.parse().ok());
        let operator = match e.str_at(&["operator"]) {
            "In" => Operator::In(values),
            "NotIn" => Operator::NotIn(values),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => bound().map_or(Operator::In(Vec::new()), Operator::GreaterThan),
            "Lt" => bound().map_or(Operator::In(Vec::new()), Operator::LessThan),
            // Validation lets nothing else through; what cannot be understood matches nothing.
            _ => Operator::In(Vec::new()),
        };
        Requirement { key: e.str_at(&["key"]).to_owned(), operator }
    };
    list.iter().map(one).collect()
}

impl Term {
    /// Reads a node selector term.
    pub fn of(term: &Value) -> Self {
        Self {
            labels: LabelSelector::new(requirements(term.array_at(&["matchExpressions"]))),
            names: LabelSelector::new(requirements(term.array_at(&["matchFields"]))),
        }
    }

    /// Reads the terms of a node selector.
    pub fn all(selector: &Value) -> Vec<Self> {
        selector.array_at(&["nodeSelectorTerms"]).iter().map(Self::of).collect()
    }

    /// Whether the node meets it.
    pub fn matches(&self, node: &NodeView) -> bool {
        if self.labels.is_everything() && self.names.is_everything() {
            return false;
        }
        self.labels.matches(|key| node.labels.get(key))
            && self.names.matches(|key| (key == "metadata.name").then_some(node.name.as_str()))
    }
}

/// A pod's node selector and node affinity.
#[derive(Clone, Debug, Default)]
pub struct NodeAffinity {
    selector: Vec<(CompactString, CompactString)>,
    required: Option<Vec<Term>>,
    preferred: Vec<(i64, Term)>,
}

impl NodeAffinity {
    /// Reads those of a pod's spec.
    pub fn of(spec: &Value) -> Self {
        let selector = spec.get("nodeSelector").as_object().into_iter().flat_map(api::Map::iter);
        let affinity = spec.at(&["affinity", "nodeAffinity"]);
        let required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution");
        let preferred = affinity.array_at(&["preferredDuringSchedulingIgnoredDuringExecution"]).iter();
        Self {
            selector: selector.map(|(k, v)| (k.into(), v.as_str().unwrap_or_default().into())).collect(),
            required: (!required.is_null()).then(|| Term::all(required)),
            preferred: preferred
                .map(|p| (p.get("weight").as_i64().unwrap_or(0), Term::of(p.get("preference"))))
                .collect(),
        }
    }

    /// Whether the node is one the pod asks for.
    pub fn matches(&self, node: &NodeView) -> bool {
        self.selector.iter().all(|(k, v)| node.labels.get(k) == Some(v.as_str()))
            && self.required.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(node)))
    }

    /// The sum of the weights of the preferences that the node meets.
    pub fn preference(&self, node: &NodeView) -> i64 {
        self.preferred.iter().filter(|(_, t)| t.matches(node)).map(|(weight, _)| weight).sum()
    }
}
