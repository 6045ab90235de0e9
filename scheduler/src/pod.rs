//! What the scheduler keeps of a pod.

use api::selector::LabelSelector;
use api::{Value, time};
use client::Key;
use compact_str::CompactString;
use jiff::Timestamp;
use placement::{Labels, PodView};

/// A pod that has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) key: Key,
    pub(crate) uid: CompactString,
    pub(crate) resource_version: CompactString,
    pub(crate) scheduler: CompactString,
    pub(crate) priority: i64,
    pub(crate) never_preempts: bool,
    pub(crate) created: Timestamp,
    pub(crate) terminating: bool,
    pub(crate) gated: bool,
    /// The node that preemption made room on.
    pub(crate) nominated: CompactString,
    pub(crate) labels: Labels,
    /// The uid of the controller.
    pub(crate) owner: CompactString,
    pub(crate) view: PodView,
    /// Names of claims it mounts.
    pub(crate) claims: Vec<CompactString>,
    pub(crate) relations: Option<Box<Relations>>,
    /// What the `PodScheduled` condition says now.
    pub(crate) condition: CompactString,
}

/// What a pod asks about other pods.
#[derive(Clone, Debug, Default)]
pub(crate) struct Relations {
    pub(crate) near: Vec<PodTerm>,
    pub(crate) apart: Vec<PodTerm>,
    /// Weights are negative for anti-affinity.
    pub(crate) preferred: Vec<(i64, PodTerm)>,
    pub(crate) spread: Vec<Spread>,
}

/// A term of affinity between pods.
#[derive(Clone, Debug)]
pub(crate) struct PodTerm {
    pub(crate) topology: CompactString,
    selector: Option<LabelSelector>,
    namespaces: Vec<CompactString>,
    namespace_selector: Option<LabelSelector>,
}

/// A constraint on how pods spread.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    pub(crate) topology: CompactString,
    pub(crate) max_skew: i64,
    pub(crate) hard: bool,
    pub(crate) min_domains: i64,
    pub(crate) selector: LabelSelector,
    pub(crate) honor_affinity: bool,
    pub(crate) honor_taints: bool,
}

impl PodTerm {
    fn of(term: &Value, pod: &Value) -> Self {
        let listed =
            term.array_at(&["namespaces"]).iter().filter_map(|n| n.as_str().map(CompactString::from));
        let mut namespaces: Vec<CompactString> = listed.collect();
        let namespace_selector = LabelSelector::from_object(term.get("namespaceSelector")).ok().flatten();
        if namespaces.is_empty() && namespace_selector.is_none() {
            namespaces.push(pod.namespace().into());
        }
        Self {
            topology: term.str_at(&["topologyKey"]).into(),
            selector: selector_with_keys(term, pod),
            namespaces,
            namespace_selector,
        }
    }

    /// Whether the pod is one the term speaks of; `labels_of` gives the labels of a namespace.
    pub(crate) fn matches(&self, pod: &Pod, labels_of: &dyn Fn(&str) -> Option<Labels>) -> bool {
        let namespace = pod.key.namespace();
        let by_selector = || {
            self.namespace_selector.as_ref().is_some_and(|s| {
                s.is_everything() || labels_of(namespace).is_some_and(|l| s.matches(|k| l.get(k)))
            })
        };
        (self.namespaces.iter().any(|n| n == namespace) || by_selector())
            && self.selector.as_ref().is_some_and(|s| s.matches(|k| pod.labels.get(k)))
    }
}

/// The `labelSelector`, narrowed to the pod's own values of `matchLabelKeys`.
fn selector_with_keys(of: &Value, pod: &Value) -> Option<LabelSelector> {
    let selector = LabelSelector::from_object(of.get("labelSelector")).ok().flatten()?;
    let mut requirements = selector.requirements().to_vec();
    for (list, same) in [("matchLabelKeys", true), ("mismatchLabelKeys", false)] {
        for key in of.array_at(&[list]).iter().filter_map(Value::as_str) {
            let Some(value) = pod.label(key) else { continue };
            let values = vec![value.to_owned()];
            let operator = if same {
                api::selector::Operator::In(values)
            } else {
                api::selector::Operator::NotIn(values)
            };
            requirements.push(api::selector::Requirement { key: key.to_owned(), operator });
        }
    }
    Some(LabelSelector::new(requirements))
}

impl Spread {
    fn of(constraint: &Value, pod: &Value) -> Self {
        Self {
            topology: constraint.str_at(&["topologyKey"]).into(),
            max_skew: constraint.get("maxSkew").as_i64().unwrap_or(1),
            hard: constraint.str_at(&["whenUnsatisfiable"]) != "ScheduleAnyway",
            min_domains: constraint.get("minDomains").as_i64().unwrap_or(1),
            selector: selector_with_keys(constraint, pod).unwrap_or_default(),
            honor_affinity: constraint.str_at(&["nodeAffinityPolicy"]) != "Ignore",
            honor_taints: constraint.str_at(&["nodeTaintsPolicy"]) == "Honor",
        }
    }
}

impl Relations {
    fn of(pod: &Value) -> Option<Box<Self>> {
        const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
        const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
        let affinity = pod.at(&["spec", "affinity"]);
        let required = |kind: &str| -> Vec<PodTerm> {
            affinity.array_at(&[kind, REQUIRED]).iter().map(|t| PodTerm::of(t, pod)).collect()
        };
        let preferred = |kind: &str, sign: i64| -> Vec<(i64, PodTerm)> {
            let terms = affinity.array_at(&[kind, PREFERRED]).iter();
            let weight = |t: &Value| sign * t.get("weight").as_i64().unwrap_or(0);
            terms.map(|t| (weight(t), PodTerm::of(t.get("podAffinityTerm"), pod))).collect()
        };
        let spread = pod.array_at(&["spec", "topologySpreadConstraints"]).iter();
        let relations = Self {
            near: required("podAffinity"),
            apart: required("podAntiAffinity"),
            preferred: [preferred("podAffinity", 1), preferred("podAntiAffinity", -1)].concat(),
            spread: spread.map(|c| Spread::of(c, pod)).collect(),
        };
        let none = relations.near.is_empty()
            && relations.apart.is_empty()
            && relations.preferred.is_empty()
            && relations.spread.is_empty();
        (!none).then(|| Box::new(relations))
    }
}

impl Pod {
    /// What to keep of a pod; nothing of one that has ended.
    pub(crate) fn of(pod: &Value) -> Option<Self> {
        if matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed") {
            return None;
        }
        let spec = pod.get("spec");
        let claims = spec.array_at(&["volumes"]).iter().filter_map(|v| {
            if !v.get("ephemeral").is_null() {
                return Some(format!("{}-{}", pod.name(), v.str_at(&["name"])).into());
            }
            let name = v.str_at(&["persistentVolumeClaim", "claimName"]);
            (!name.is_empty()).then(|| name.into())
        });
        let owners = pod.array_at(&["metadata", "ownerReferences"]).iter();
        let controller = owners.clone().find(|o| o.get("controller").as_bool() == Some(true));
        let conditions = pod.array_at(&["status", "conditions"]).iter();
        let condition = conditions.clone().find(|c| c.str_at(&["type"]) == "PodScheduled");
        Some(Self {
            key: Key::of(pod),
            uid: pod.uid().into(),
            resource_version: pod.resource_version().into(),
            scheduler: spec.str_at(&["schedulerName"]).into(),
            priority: spec.get("priority").as_i64().unwrap_or(0),
            never_preempts: spec.str_at(&["preemptionPolicy"]) == "Never",
            created: time::parse(pod.str_at(&["metadata", "creationTimestamp"])).unwrap_or_default(),
            terminating: pod.is_terminating(),
            gated: !spec.array_at(&["schedulingGates"]).is_empty(),
            nominated: pod.str_at(&["status", "nominatedNodeName"]).into(),
            labels: Labels::of(pod),
            owner: controller.map(|o| o.str_at(&["uid"]).into()).unwrap_or_default(),
            view: PodView::of(pod),
            claims: claims.collect(),
            relations: Relations::of(pod),
            condition: condition.map(|c| c.str_at(&["message"]).into()).unwrap_or_default(),
        })
    }

    pub(crate) fn is_assigned(&self) -> bool {
        !self.view.node_name.is_empty()
    }

    /// A reference for events and bindings.
    pub(crate) fn head(&self) -> Value {
        api::object!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": (self.key.namespace()), "name": (self.key.name()),
                "uid": (self.uid.clone()), "resourceVersion": (self.resource_version.clone()),
            },
        })
    }
}
