//! What the runtime can do beyond the least, as it says itself: older ones say nothing.

use std::collections::BTreeMap;

use api::{Value, object};
use k8s_cri::v1 as cri;

/// What one handler of a RuntimeClass can do; the default one is called "".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Handler {
    recursive_read_only: bool,
    user_namespaces: bool,
}

/// What the runtime can do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Abilities {
    handlers: BTreeMap<String, Handler>,
    /// None: the runtime does not say.
    supplemental_groups_policy: Option<bool>,
}

impl Abilities {
    pub(super) fn of(status: &cri::StatusResponse) -> Self {
        let handler = |handler: &cri::RuntimeHandler| {
            let features = handler.features.unwrap_or_default();
            let can = Handler {
                recursive_read_only: features.recursive_read_only_mounts,
                user_namespaces: features.user_namespaces,
            };
            (handler.name.clone(), can)
        };
        Self {
            handlers: status.runtime_handlers.iter().map(handler).collect(),
            supplemental_groups_policy: status.features.map(|features| features.supplemental_groups_policy),
        }
    }

    /// Whether mounts below a read-only mount are read-only too, when a container wants that.
    pub(crate) fn recursive_read_only(&self, handler: &str) -> bool {
        self.handlers.get(handler).is_some_and(|handler| handler.recursive_read_only)
    }

    /// Whether pods can have users of their own.
    pub(crate) fn user_namespaces(&self, handler: &str) -> bool {
        self.handlers.get(handler).is_some_and(|handler| handler.user_namespaces)
    }

    /// Whether groups that an image gives to its users can be left out.
    pub(crate) fn strict_groups(&self) -> bool {
        self.supplemental_groups_policy == Some(true)
    }

    /// The node's `runtimeHandlers` and `features`; null where the runtime does not say.
    pub(crate) fn shown(&self) -> (Value, Value) {
        let handler = |(name, can): (&String, &Handler)| {
            let features = object!({
                "recursiveReadOnlyMounts": (can.recursive_read_only),
                "userNamespaces": (can.user_namespaces),
            });
            let mut shown = object!({"features": (features)});
            if !name.is_empty() {
                shown.set(&["name"], name.as_str());
            }
            shown
        };
        let handlers: Vec<Value> = self.handlers.iter().map(handler).collect();
        let handlers = if handlers.is_empty() { Value::Null } else { Value::Array(handlers) };
        let features = self.supplemental_groups_policy.map(|can| object!({"supplementalGroupsPolicy": can}));
        (handlers, features.unwrap_or(Value::Null))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abilities_are_those_that_the_runtime_tells() {
        let silent = Abilities::of(&cri::StatusResponse::default());
        assert!(!silent.user_namespaces("") && !silent.recursive_read_only("") && !silent.strict_groups());
        assert_eq!(silent.shown(), (Value::Null, Value::Null));
        let features =
            cri::RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: true };
        let handler = |name: &str, features| cri::RuntimeHandler { name: name.to_owned(), features };
        let able = Abilities::of(&cri::StatusResponse {
            runtime_handlers: vec![
                handler("runc", Some(features)),
                handler("", Some(features)),
                handler("old", None),
            ],
            features: Some(cri::RuntimeFeatures { supplemental_groups_policy: true }),
            ..cri::StatusResponse::default()
        });
        assert!(able.user_namespaces("") && able.recursive_read_only("runc") && able.strict_groups());
        assert!(!able.user_namespaces("old") && !able.user_namespaces("other"));
        let can = object!({"recursiveReadOnlyMounts": true, "userNamespaces": true});
        let cannot = object!({"recursiveReadOnlyMounts": false, "userNamespaces": false});
        let handlers = object!([
            {"features": (can.clone())}, {"features": (cannot), "name": "old"}, {"features": (can), "name": "runc"},
        ]);
        assert_eq!(able.shown(), (handlers, object!({"supplementalGroupsPolicy": true})));
    }
}
