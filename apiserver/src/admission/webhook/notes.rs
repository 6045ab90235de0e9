//! What mutating webhooks leave in the audit log.

use api::{Value, object};

use super::hook::{Failure, Hook};
use crate::audit::Level;
use crate::registry::Call;

/// Notes about one question to a webhook.
pub(super) struct Notes<'a> {
    pub call: &'a Call,
    pub hook: &'a Hook,
    pub round: usize,
    pub place: usize,
}

impl Notes<'_> {
    fn key(&self, prefix: &str) -> String {
        format!("{prefix}webhook.admission.k8s.io/round_{}_index_{}", self.round, self.place)
    }

    fn configuration(&self) -> &str {
        self.hook.id.rsplit_once('/').map_or("", |(name, _)| name)
    }

    /// Whether it changed the object.
    pub(super) fn mutated(&self, mutated: bool) {
        if self.call.trail.level() < Level::Metadata {
            return;
        }
        let value = object!({
            "configuration": (self.configuration()), "webhook": (self.hook.name.as_str()), "mutated": mutated,
        });
        self.call.trail.annotate(self.key("mutation."), value.to_string());
    }

    /// How it changes the object, where bodies are recorded.
    pub(super) fn patched(&self, patch: &Value) {
        if self.call.trail.level() < Level::Request {
            return;
        }
        let mut value =
            object!({"configuration": (self.configuration()), "webhook": (self.hook.name.as_str())});
        value.set(&["patch"], patch);
        value.set(&["patchType"], "JSONPatch");
        self.call.trail.annotate(self.key("patch."), value.to_string());
    }

    /// That it gave no answer, where that does not matter.
    pub(super) fn refused(&self, failure: &Failure) {
        if self.hook.ignores(failure) {
            self.call.trail.annotate(self.key("failed-open.mutation."), self.hook.name.as_str());
        }
    }
}
