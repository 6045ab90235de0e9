//! When a node was last heard of, and what becomes of the conditions of one that is not.

use std::time::Duration;

use api::{Value, object, time};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::objects::{condition, created};

/// What a node renews: its lease, and its status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Beat {
    lease: String,
    status: String,
}

impl Beat {
    pub(super) fn of(node: &Value, lease: Option<&Value>) -> Self {
        Self {
            lease: lease.map(|l| l.str_at(&["spec", "renewTime"]).to_owned()).unwrap_or_default(),
            status: condition(node, "Ready").str_at(&["lastHeartbeatTime"]).to_owned(),
        }
    }
}

/// What was last heard of a node, and when by our own clock.
#[derive(Clone, Debug)]
pub(super) struct Health {
    beat: Beat,
    pub(super) heard: Instant,
}

impl Health {
    /// A node that is seen for the first time: heard of now, unless it has never said anything since it was created.
    pub(super) fn first(node: &Value, beat: Beat, wall: Timestamp, now: Instant) -> Self {
        let never = condition(node, "Ready").is_null() && beat.lease.is_empty();
        let age = if never { Duration::try_from(wall.duration_since(created(node))).ok() } else { None };
        Self { beat, heard: age.and_then(|age| now.checked_sub(age)).unwrap_or(now) }
    }

    pub(super) fn observe(&mut self, beat: Beat, now: Instant) {
        if self.beat != beat {
            *self = Self { beat, heard: now };
        }
    }

    /// Notes conditions that were not written by the node, so that they are not taken for its own.
    pub(super) fn wrote(&mut self, node: &Value) {
        self.beat.status = Beat::of(node, None).status;
    }

    pub(super) fn is_silent(&self, grace: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) > grace
    }
}

/// The node with the conditions of one that is silent; none when it has them already.
pub(super) fn gone_silent(node: &Value, now: Timestamp) -> Option<Value> {
    let mut conditions = node.array_at(&["status", "conditions"]).to_vec();
    let mut changed = false;
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let stamp = time::format(now);
        match conditions.iter_mut().find(|c| c.str_at(&["type"]) == kind) {
            None => {
                conditions.push(object!({
                    "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                    "message": "Kubelet never posted node status.",
                    "lastHeartbeatTime": (time::format(created(node))), "lastTransitionTime": stamp,
                }));
                changed = true;
            }
            Some(c) if c.str_at(&["status"]) != "Unknown" => {
                c.set(&["status"], "Unknown");
                c.set(&["reason"], "NodeStatusUnknown");
                c.set(&["message"], "Kubelet stopped posting node status.");
                c.set(&["lastTransitionTime"], stamp);
                changed = true;
            }
            Some(_) => {}
        }
    }
    let mut updated = node.clone();
    updated.set(&["status", "conditions"], conditions);
    changed.then_some(updated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(heartbeat: &str) -> Value {
        object!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat},
        ]}})
    }

    #[test]
    fn a_silent_node_becomes_unknown_once() {
        let now = Timestamp::UNIX_EPOCH;
        let silent = gone_silent(&ready("x"), now).unwrap();
        assert_eq!(condition(&silent, "Ready").str_at(&["reason"]), "NodeStatusUnknown");
        assert_eq!(condition(&silent, "DiskPressure").str_at(&["reason"]), "NodeStatusNeverUpdated");
        assert!(gone_silent(&silent, now).is_none());
    }

    #[test]
    fn a_lease_or_a_status_is_a_sign_of_life_and_our_own_writing_is_not() {
        let (start, wall) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let second = |s| start + Duration::from_secs(s);
        let grace = Duration::from_secs(50);
        let lease = |renewed: &str| object!({"spec": {"renewTime": renewed}});
        let mut health = Health::first(&ready("1"), Beat::of(&ready("1"), Some(&lease("1"))), wall, start);
        assert!(!health.is_silent(grace, second(50)));
        assert!(health.is_silent(grace, second(51)));
        health.observe(Beat::of(&ready("1"), Some(&lease("2"))), second(51));
        assert!(!health.is_silent(grace, second(101)));
        health.observe(Beat::of(&ready("2"), Some(&lease("2"))), second(101));
        assert!(!health.is_silent(grace, second(151)));
        health.wrote(&ready("3"));
        health.observe(Beat::of(&ready("3"), Some(&lease("2"))), second(151));
        assert!(health.is_silent(grace, second(152)));
    }

    #[test]
    fn a_node_that_never_said_anything_is_silent_since_it_was_created() {
        let (wall, now) = (Timestamp::from_second(100).unwrap(), Instant::now() + Duration::from_secs(1000));
        let new = object!({"metadata": {"creationTimestamp": "1970-01-01T00:00:30Z"}});
        let check = |node: &Value, lease: Option<&Value>, want: u64| {
            let health = Health::first(node, Beat::of(node, lease), wall, now);
            assert_eq!((now - health.heard).as_secs(), want, "{node}");
        };
        check(&new, None, 70);
        check(&new, Some(&object!({"spec": {"renewTime": "x"}})), 0);
        check(&ready("1"), None, 0);
    }
}
