//! The control groups of pods: what they are called, and who makes them.
//!
//! With the driver `cgroupfs` the kubelet makes folders. With `systemd` every group is a slice, which systemd makes when it
//! is asked over D-Bus, so that there is one who decides about the tree; limits that systemd knows nothing of are written to
//! the files all the same. Reading is the same with both.

mod systemd;

use std::fmt;
use std::io;
use std::ops::Deref;
use std::time::Duration;

use api::Value;
use linux::cgroup::{Cgroups, Limits};
use prometheus::{Histogram, Registry};

use crate::metrics::{Maker, SECONDS};
use crate::pods::spec;
use systemd::Systemd;

/// Whoever has been killed takes a moment to end: the milliseconds, each time, before a group of such is tried again.
const PAUSES: [u64; 5] = [10, 20, 40, 80, 160];

/// What control groups are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupNames {
    /// Groups are slices.
    pub systemd: bool,
    /// The group that all are in.
    pub root: String,
}

impl GroupNames {
    /// The names with a driver, below a group.
    pub fn new(driver: &str, root: &str) -> Self {
        Self { systemd: driver == "systemd", root: root.to_owned() }
    }

    /// The group of all pods, by its path below the root of the hierarchy.
    pub(crate) fn kubepods(&self) -> String {
        self.path(&["kubepods"])
    }

    /// The group of the pods of a class of service below the best.
    pub(crate) fn class(&self, class: &str) -> String {
        self.path(&["kubepods", class])
    }

    /// A pod's group.
    pub(crate) fn pod(&self, pod: &Value) -> String {
        let own = format!("pod{}", pod.uid());
        match spec::qos(pod) {
            "Guaranteed" => self.path(&["kubepods", &own]),
            "Burstable" => self.path(&["kubepods", "burstable", &own]),
            _ => self.path(&["kubepods", "besteffort", &own]),
        }
    }

    /// Where the group of a pod may be whose class is not known.
    pub(crate) fn anywhere(&self, uid: &str) -> [String; 3] {
        let own = format!("pod{uid}");
        [&["kubepods", &own] as &[&str], &["kubepods", "burstable", &own], &["kubepods", "besteffort", &own]]
            .map(|names| self.path(names))
    }

    /// The uid of the pod whose group has this name in the group of its class; none of a group that is no pod's.
    pub(crate) fn uid(&self, name: &str) -> Option<String> {
        let own = match self.systemd {
            true => name.strip_suffix(".slice")?.rsplit('-').next()?.replace('_', "-"),
            false => name.to_owned(),
        };
        own.strip_prefix("pod").filter(|uid| !uid.is_empty()).map(str::to_owned)
    }

    /// The group that all are in.
    pub(crate) fn whole(&self) -> Existing {
        let names = self.root.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        Existing { path: self.path(&[]), names }
    }

    /// A group that is there already, by the name that the configuration has for it: a slice's own, or a path.
    pub(crate) fn existing(&self, name: &str) -> Existing {
        if !self.systemd {
            let names: Vec<_> = name.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            return Existing { path: names.join("/"), names };
        }
        let slice = name.rsplit('/').next().unwrap_or_default();
        let parts = slice.strip_suffix(".slice").unwrap_or(slice).split('-');
        let names: Vec<_> = parts.map(|part| part.replace('_', "-")).collect();
        let path = slices(names.iter().map(String::as_str));
        Existing { path, names }
    }

    /// The group that the runtime makes for a container in its pod's.
    pub(crate) fn container(&self, pod: &str, id: &str) -> String {
        if self.systemd { format!("{pod}/cri-containerd-{id}.scope") } else { format!("{pod}/{id}") }
    }

    fn path(&self, names: &[&str]) -> String {
        let parts = self.root.split('/').filter(|part| !part.is_empty()).chain(names.iter().copied());
        if !self.systemd {
            return parts.collect::<Vec<_>>().join("/");
        }
        slices(parts)
    }
}

/// The path of the slice with these names, in which a dash leads from a slice to one inside of it.
fn slices<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let (mut path, mut slice) = (Vec::new(), String::new());
    for name in names {
        let name = name.replace('-', "_");
        slice = if slice.is_empty() { name } else { format!("{slice}-{name}") };
        path.push(format!("{slice}.slice"));
    }
    path.join("/")
}

/// A group that somebody else has made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Existing {
    /// Its path below the root of the hierarchy.
    pub(crate) path: String,
    /// The names that lead to it.
    pub(crate) names: Vec<String>,
}

/// As upstream shows the names: each quoted.
impl fmt::Display for Existing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.names.iter().map(|name| format!("{name:?}")).collect();
        write!(f, "[{}]", names.join(" "))
    }
}

/// The machine's control groups, made by the configured driver.
pub(crate) struct Groups {
    files: Cgroups,
    systemd: Option<Systemd>,
    /// How long it takes to make, to change and to remove a group.
    durations: [Histogram; 3],
    /// What a scrape is answered from.
    pub(crate) registry: Registry,
}

impl Deref for Groups {
    type Target = Cgroups;

    fn deref(&self) -> &Cgroups {
        &self.files
    }
}

impl Groups {
    /// The groups of this machine.
    pub(crate) fn new(files: Cgroups, names: &GroupNames) -> Self {
        let systemd = names.systemd.then(|| Systemd::at(None));
        let registry = Registry::new();
        let durations = Maker(&registry).histograms(
            "cgroup_manager_duration_seconds",
            "Duration in seconds for cgroup manager operations. Broken down by method.",
            &["operation_type"],
            SECONDS.to_vec(),
        );
        let durations = ["create", "update", "destroy"].map(|kind| durations.with_label_values(&[kind]));
        Self { files, systemd, durations, registry }
    }

    /// Makes a group with its missing parents and sets its limits; what exists already is only updated.
    pub(crate) async fn create(&self, group: &str, limits: &Limits) -> io::Result<()> {
        let _timer = self.durations[0].start_timer();
        let Some(systemd) = &self.systemd else { return self.files.create(group, limits) };
        let limits = systemd::rounded(limits);
        systemd.start(group, self.files.is_v2(), &limits).await?;
        // What systemd has no controllers for it makes no folders for.
        self.files.create(group, &limits)
    }

    /// Sets the limits of a group that exists.
    pub(crate) async fn update(&self, group: &str, limits: &Limits) -> io::Result<()> {
        let _timer = self.durations[1].start_timer();
        let Some(systemd) = &self.systemd else { return self.files.update(group, limits) };
        let limits = systemd::rounded(limits);
        systemd.set(group, self.files.is_v2(), &limits).await?;
        self.files.update(group, &limits)
    }

    /// Removes a group and the groups inside of it. Processes that are left are killed; when they do not end in a moment it
    /// fails with `ResourceBusy`.
    pub(crate) async fn delete(&self, group: &str) -> io::Result<()> {
        let _timer = self.durations[2].start_timer();
        patiently(PAUSES, || self.try_delete(group)).await
    }

    /// Removes a group, or kills what is in it.
    async fn try_delete(&self, group: &str) -> io::Result<()> {
        if let Some(systemd) = self.systemd.as_ref().filter(|_| self.files.exists(group)) {
            systemd.stop(group).await?;
        }
        let deleted = self.files.delete(group);
        if deleted.as_ref().is_err_and(is_busy) {
            self.files.kill(group)?;
        }
        deleted
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ResourceBusy
}

/// Tries something again while it is busy, after each of so many milliseconds.
async fn patiently<F: Future<Output = io::Result<()>>>(
    pauses: [u64; 5],
    mut attempt: impl FnMut() -> F,
) -> io::Result<()> {
    for pause in pauses {
        match attempt().await {
            Err(error) if is_busy(&error) => tokio::time::sleep(Duration::from_millis(pause)).await,
            done => return done,
        }
    }
    attempt().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[tokio::test]
    async fn what_is_busy_is_tried_again_for_a_moment() {
        use io::ErrorKind::{PermissionDenied, ResourceBusy};
        for (failures, expected, times) in [
            (vec![], Ok(()), 1),
            (vec![ResourceBusy; 3], Ok(()), 4),
            (vec![ResourceBusy; 9], Err(ResourceBusy), 6),
            (vec![ResourceBusy, PermissionDenied], Err(PermissionDenied), 2),
        ] {
            let mut tried = 0;
            let done = patiently([0; 5], || {
                tried += 1;
                std::future::ready(failures.get(tried - 1).map_or(Ok(()), |kind| Err(io::Error::from(*kind))))
            });
            let done = done.await.map_err(|error| error.kind());
            assert_eq!((done, tried), (expected, times), "{failures:?}");
        }
    }

    fn pod(class: &str) -> Value {
        object!({"metadata": {"uid": "a-b"}, "status": {"qosClass": class}})
    }

    #[test]
    fn folders_are_named_by_class_and_uid() {
        let names = GroupNames::new("cgroupfs", "/x/");
        assert_eq!(names.pod(&pod("Burstable")), "x/kubepods/burstable/poda-b");
        assert_eq!(names.pod(&pod("BestEffort")), "x/kubepods/besteffort/poda-b");
        assert_eq!(names.pod(&pod("Guaranteed")), "x/kubepods/poda-b");
        assert_eq!(GroupNames::new("cgroupfs", "").kubepods(), "kubepods");
        assert!(names.anywhere("a-b").contains(&names.pod(&pod("Guaranteed"))));
    }

    #[test]
    fn pods_are_known_by_their_groups() {
        for (driver, root) in [("cgroupfs", ""), ("systemd", "/x-y")] {
            let names = GroupNames::new(driver, root);
            for class in ["Guaranteed", "Burstable", "BestEffort"] {
                let group = names.pod(&pod(class));
                let own = group.rsplit('/').next().unwrap();
                assert_eq!(names.uid(own).as_deref(), Some("a-b"), "{group}");
            }
            for group in [names.class("burstable"), names.kubepods(), "pod".to_owned(), "x".to_owned()] {
                assert_eq!(names.uid(group.rsplit('/').next().unwrap()), None, "{group}");
            }
        }
    }

    #[test]
    fn slices_are_inside_of_those_whose_names_they_begin_with() {
        let names = GroupNames::new("systemd", "/");
        assert_eq!(names.class("burstable"), "kubepods.slice/kubepods-burstable.slice");
        let own = names.pod(&pod("Burstable"));
        assert_eq!(own, "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda_b.slice");
        assert!(names.anywhere("a-b").contains(&own));
        assert_eq!(names.pod(&pod("Guaranteed")), "kubepods.slice/kubepods-poda_b.slice");
        assert_eq!(GroupNames::new("systemd", "/x-y").kubepods(), "x_y.slice/x_y-kubepods.slice");
        assert!(names.container(&own, "1").ends_with("-poda_b.slice/cri-containerd-1.scope"));
    }

    #[test]
    fn groups_of_others_are_found_by_path_or_by_slice() {
        for (driver, name, path, names) in [
            ("cgroupfs", "/kube/reserved", "kube/reserved", vec!["kube", "reserved"]),
            ("systemd", "kube-my_own.slice", "kube.slice/kube-my_own.slice", vec!["kube", "my-own"]),
            ("systemd", "/system.slice", "system.slice", vec!["system"]),
        ] {
            let names = names.into_iter().map(str::to_owned).collect();
            let expected = Existing { path: path.to_owned(), names };
            assert_eq!(GroupNames::new(driver, "/root").existing(name), expected, "{driver} {name}");
        }
        for (driver, path) in [("cgroupfs", "a/b-c"), ("systemd", "a.slice/a-b_c.slice")] {
            let whole = GroupNames::new(driver, "/a/b-c").whole();
            assert_eq!((whole.path.as_str(), whole.names), (path, vec!["a".to_owned(), "b-c".to_owned()]));
        }
        assert_eq!(GroupNames::new("systemd", "").whole().path, "");
    }
}
