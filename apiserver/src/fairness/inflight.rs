//! The plain limit on the number of requests at a time, without priorities.

use std::sync::atomic::{AtomicU32, Ordering};

use prometheus::IntGauge;

use crate::authn::UserInfo;

/// How many requests of a sort run, and may run. No limit when that is zero.
pub(super) struct Limit {
    running: AtomicU32,
    most: u32,
    gauge: IntGauge,
}

impl Limit {
    pub(super) fn new(most: u32, gauge: IntGauge) -> Self {
        Self { running: AtomicU32::new(0), most, gauge }
    }

    /// Lets a request run; false when too many do. Administrators always get an answer.
    pub(super) fn enter(&self, user: &UserInfo) -> bool {
        let before = self.running.fetch_add(1, Ordering::Relaxed);
        self.gauge.inc();
        if self.most == 0 || before < self.most || user.is_in("system:masters") {
            return true;
        }
        self.leave();
        false
    }

    pub(super) fn leave(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_requests_run_than_may_but_those_of_administrators() {
        let gauge = || IntGauge::new("g", "g").unwrap();
        let limit = Limit::new(1, gauge());
        let user = UserInfo::anonymous();
        assert!(limit.enter(&user));
        assert!(!limit.enter(&user));
        assert!(limit.enter(&UserInfo::server()));
        limit.leave();
        limit.leave();
        assert!(limit.enter(&user));
        assert_eq!(limit.gauge.get(), 1);
        let none = Limit::new(0, gauge());
        assert!((0..100).all(|_| none.enter(&user)));
    }
}
