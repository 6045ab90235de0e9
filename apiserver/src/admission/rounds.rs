//! Which policies and webhooks are asked a second time: those that want to, when the object has changed since.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#reinvocation-policy>.

use std::collections::HashSet;

use api::Value;

/// The two rounds of one request through one sort of hooks.
#[derive(Default)]
pub(super) struct Rounds {
    second: bool,
    /// Asked since the last change, and want to know of the next.
    asked: Vec<String>,
    again: HashSet<String>,
    /// The object when the first round ended, if anybody wants to know whether it has changed.
    left: Option<Value>,
}

impl Rounds {
    /// Begins the first or the `second` round, on the object as it is now.
    pub(super) fn begin(&mut self, second: bool, object: &Value) {
        self.second = second;
        if self.left.take().is_some_and(|left| left != *object) {
            self.changed();
        }
    }

    /// Which round it is, from 0.
    pub(super) fn number(&self) -> usize {
        usize::from(self.second)
    }

    /// Ends a round.
    pub(super) fn end(&mut self, object: &Value) {
        if !self.asked.is_empty() && !self.second {
            self.left = Some(object.clone());
        }
    }

    /// True when the hook `id` is asked in this round.
    pub(super) fn asks(&self, id: &str) -> bool {
        !self.second || self.again.contains(id)
    }

    /// Notes that a hook has been asked which wants to know of later changes.
    pub(super) fn asked(&mut self, id: String) {
        self.asked.push(id);
    }

    /// Notes a change of the object.
    pub(super) fn changed(&mut self) {
        self.again.extend(self.asked.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn who_was_asked_before_a_change_is_asked_again() {
        let (before, after) = (object!({"a": 1}), object!({"a": 2}));
        let check = |change: bool, last: &Value, want: [bool; 2]| {
            let mut rounds = Rounds::default();
            rounds.asked("first".to_owned());
            if change {
                rounds.changed();
            }
            rounds.asked("second".to_owned());
            rounds.end(&before);
            rounds.begin(true, last);
            assert_eq!([rounds.asks("first"), rounds.asks("second")], want);
            assert!(!rounds.asks("new"));
        };
        check(false, &before, [false, false]);
        check(true, &before, [true, false]);
        check(false, &after, [true, true]);
    }
}
