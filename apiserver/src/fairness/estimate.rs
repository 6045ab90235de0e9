//! How much work a request is, in seats.
//!
//! Mirrors upstream's work estimators: lists by the bytes they hold in memory, writes by the watchers who are told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::queues::Work;
use crate::request::{Query, RequestInfo};
use crate::resources::Row;
use crate::storage::{Cache, Storage};

/// Bytes that one seat stands for.
const BYTES: usize = 100_000;
/// A list is sent in pieces, and never holds more than this.
const MOST_BYTES: usize = 1_000_000;
/// Watchers that one seat tells of a change, in that time.
const WATCHERS: usize = 10;
const TELLING: Duration = Duration::from_millis(5);
/// The most seats of a write, whatever the level allows.
const MOST_FOR_WRITES: u32 = 10;
/// So many objects say how large they are.
const SAMPLE: usize = 8;

/// What a request is expected to take; `most` is what its level allows.
pub(super) fn estimate(
    storage: &Storage,
    watchers: &Watchers,
    info: &RequestInfo,
    query: &Query,
    most: u32,
) -> Work {
    if !info.is_resource {
        return Work::ONE;
    }
    match info.verb {
        "list" => list(storage, info, query, most),
        "watch" => {
            let from_start = matches!(query.get("resourceVersion"), "" | "0");
            if from_start || query.is_true("sendInitialEvents") {
                list(storage, info, query, most)
            } else {
                Work::ONE
            }
        }
        "create" | "update" | "patch" | "delete" => write(watchers.interested(info), info, most),
        _ => Work::ONE,
    }
}

fn list(storage: &Storage, info: &RequestInfo, query: &Query, most: u32) -> Work {
    if !info.name.is_empty() {
        return Work::ONE;
    }
    let Some(row) = storage.resource(&info.group, &info.version, &info.resource) else { return Work::ONE };
    let Some(cache) = cache_of(storage, &row) else { return Work::ONE };
    let snapshot = cache.snapshot();
    let count = snapshot.objects.len();
    let sampled = count.min(SAMPLE);
    if sampled == 0 {
        return Work::ONE;
    }
    let bytes: usize = snapshot.objects.values().take(sampled).map(|o| o.json.len()).sum();
    let limit = query.get("limit").parse().ok().filter(|l| *l > 0).unwrap_or(count);
    seats((count.min(limit)).saturating_mul(bytes / sampled), most)
}

fn cache_of(storage: &Storage, row: &Row) -> Option<Arc<Cache>> {
    match (&row.custom, row.store) {
        (Some(custom), _) => Some(custom.cache.clone()),
        (None, Some(store)) => Some(storage.cache(store).clone()),
        (None, None) => None,
    }
}

fn seats(bytes: usize, most: u32) -> Work {
    let wanted = u32::try_from(bytes.min(MOST_BYTES).div_ceil(BYTES)).unwrap_or(1);
    Work { initial: wanted.clamp(1, most.max(1)), ..Work::ONE }
}

fn write(watchers: usize, info: &RequestInfo, most: u32) -> Work {
    // A token changes nothing that can be watched.
    if watchers < WATCHERS || (info.resource == "serviceaccounts" && info.subresource == "token") {
        return Work::ONE;
    }
    let wanted = u32::try_from(watchers.div_ceil(WATCHERS)).unwrap_or(u32::MAX);
    let last = wanted.min(most.clamp(1, MOST_FOR_WRITES));
    Work { initial: 1, last, extra: TELLING.mul_f64(f64::from(wanted) / f64::from(last)) }
}

/// Group, resource, namespace and name of what is watched.
type Watched = (String, String, String, String);

/// How many watch what.
#[derive(Clone, Default)]
pub(super) struct Watchers(Arc<Mutex<HashMap<Watched, usize>>>);

/// A watch, as long as it lasts.
pub(super) struct Watching(Watchers, Option<Watched>);

impl Watchers {
    /// A watch begins.
    pub(super) fn begin(&self, info: &RequestInfo, query: &Query) -> Watching {
        // Kubelets watch the pods of one node; what happens to others is not told to them.
        let by_node = info.resource == "pods" && query.get("fieldSelector").contains("spec.nodeName=");
        if by_node {
            return Watching(self.clone(), None);
        }
        let watched = (info.group.clone(), info.resource.clone(), info.namespace.clone(), info.name.clone());
        *self.0.lock().entry(watched.clone()).or_default() += 1;
        Watching(self.clone(), Some(watched))
    }

    /// How many are told of a write.
    fn interested(&self, info: &RequestInfo) -> usize {
        let counts = self.0.lock();
        if counts.is_empty() {
            return 0;
        }
        let mut watched = (info.group.clone(), info.resource.clone(), String::new(), String::new());
        let mut sum = counts.get(&watched).copied().unwrap_or(0);
        if !info.namespace.is_empty() {
            watched.2.clone_from(&info.namespace);
            sum += counts.get(&watched).copied().unwrap_or(0);
        }
        if !info.name.is_empty() {
            watched.3.clone_from(&info.name);
            sum += counts.get(&watched).copied().unwrap_or(0);
        }
        sum
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let Some(watched) = self.1.take() else { return };
        let mut counts = self.0.0.lock();
        if let Some(count) = counts.get_mut(&watched) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&watched);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn lists_take_seats_by_their_bytes() {
        let check =
            |bytes: usize, most: u32, want: u32| assert_eq!(seats(bytes, most).initial, want, "{bytes}");
        check(0, 10, 1);
        check(100_000, 10, 1);
        check(100_001, 10, 2);
        check(900_000, 4, 4);
        check(1 << 30, 100, 10);
    }

    #[test]
    fn writes_that_many_watch_hold_seats_after_their_answer() {
        let info = |path: &str| RequestInfo::new(&Method::POST, path, &Query::default());
        let pods = info("/api/v1/namespaces/a/pods");
        assert_eq!(write(9, &pods, 10), Work::ONE);
        assert_eq!(write(20, &pods, 10), Work { initial: 1, last: 2, extra: TELLING });
        assert_eq!(write(1000, &pods, 10), Work { initial: 1, last: 10, extra: TELLING * 10 });
        assert_eq!(write(1000, &pods, 2), Work { initial: 1, last: 2, extra: TELLING * 50 });
        let token = info("/api/v1/namespaces/a/serviceaccounts/s/token");
        assert_eq!(write(1000, &token, 10), Work::ONE);
    }

    #[test]
    fn watches_of_all_of_a_namespace_and_of_one_object_count() {
        let watchers = Watchers::default();
        let info = |path: &str| RequestInfo::new(&Method::GET, path, &Query::parse(Some("watch=1")));
        let node = Query::parse(Some("fieldSelector=spec.nodeName%3Dn"));
        let all = watchers.begin(&info("/api/v1/pods"), &Query::default());
        let one = watchers.begin(&info("/api/v1/namespaces/a/pods"), &Query::default());
        let other = watchers.begin(&info("/api/v1/namespaces/b/pods"), &Query::default());
        let kubelet = watchers.begin(&info("/api/v1/pods"), &node);
        let write = RequestInfo::new(&Method::PUT, "/api/v1/namespaces/a/pods/p", &Query::default());
        assert_eq!(watchers.interested(&write), 2);
        drop((all, one, other, kubelet));
        assert_eq!(watchers.interested(&write), 0);
        assert!(watchers.0.lock().is_empty());
    }
}
