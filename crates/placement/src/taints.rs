//! Taints of nodes and tolerations of pods.

use api::Value;
use compact_str::CompactString;

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// New pods stay away.
    NoSchedule,
    /// New pods stay away if they can.
    PreferNoSchedule,
    /// Pods stay away, and those that are there go.
    NoExecute,
}

impl Effect {
    fn of(text: &str) -> Option<Self> {
        match text {
            "NoSchedule" => Some(Effect::NoSchedule),
            "PreferNoSchedule" => Some(Effect::PreferNoSchedule),
            "NoExecute" => Some(Effect::NoExecute),
            _ => None,
        }
    }
}

/// A taint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Key.
    pub key: CompactString,
    /// Value.
    pub value: CompactString,
    /// Effect.
    pub effect: Effect,
}

impl Taint {
    /// Reads a taint; none when its effect is unknown.
    pub fn of(taint: &Value) -> Option<Self> {
        let effect = Effect::of(taint.str_at(&["effect"]))?;
        Some(Self { key: taint.str_at(&["key"]).into(), value: taint.str_at(&["value"]).into(), effect })
    }
}

/// A toleration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toleration {
    /// Key; empty for every key.
    pub key: CompactString,
    /// The value to equal; none when any will do.
    pub value: Option<CompactString>,
    /// The effect tolerated; none for every effect.
    pub effect: Option<Effect>,
    /// How long a `NoExecute` taint is tolerated; none for ever.
    pub seconds: Option<i64>,
}

impl Toleration {
    /// Reads a toleration.
    pub fn of(toleration: &Value) -> Self {
        let exists = toleration.str_at(&["operator"]) == "Exists";
        Self {
            key: toleration.str_at(&["key"]).into(),
            value: (!exists).then(|| toleration.str_at(&["value"]).into()),
            effect: Effect::of(toleration.str_at(&["effect"])),
            seconds: toleration.get("tolerationSeconds").as_i64(),
        }
    }

    /// Whether it covers the taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|e| e == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && self.value.as_ref().is_none_or(|v| *v == taint.value)
    }
}

/// The first taint that no toleration covers.
pub fn untolerated<'t>(
    taints: impl IntoIterator<Item = &'t Taint>,
    tolerations: &[Toleration],
) -> Option<&'t Taint> {
    taints.into_iter().find(|taint| !tolerations.iter().any(|t| t.tolerates(taint)))
}
