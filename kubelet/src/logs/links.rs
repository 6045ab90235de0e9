//! Links to logs by what they are logs of: `<pod>_<namespace>_<container>-<id>.log`. Agents that gather logs go by these.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_cri::v1 as cri;

use super::remove::remove_file;
use crate::Kubelet;
use crate::cri::labels;

/// Where the links are.
pub(crate) const DIR: &str = "/var/log/containers";
/// Links that lead nowhere are looked for this often.
const PERIOD: Duration = Duration::from_secs(60);
const SUFFIX: &str = ".log";
/// The most bytes of a file's name.
const LONGEST: usize = 255;
/// With fewer characters of an id nobody can be meant.
const SHORTEST_ID: usize = 6;

/// Whose log it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    /// The pod's name.
    pub(crate) pod: &'a str,
    /// The pod's namespace.
    pub(crate) namespace: &'a str,
    /// The container's name.
    pub(crate) container: &'a str,
    /// The runtime's id of the container.
    pub(crate) id: &'a str,
}

impl<'a> Names<'a> {
    /// The names that a container's labels give; none of a container that is not Kubernetes'.
    pub(crate) fn of_labels(labels: &'a HashMap<String, String>, id: &'a str) -> Option<Self> {
        let label = |key: &str| labels.get(key).map(String::as_str);
        Some(Self {
            pod: label(labels::POD_NAME)?,
            namespace: label(labels::POD_NAMESPACE)?,
            container: label(labels::CONTAINER_NAME)?,
            id,
        })
    }

    /// The link's name, cut where it is too long for a file system.
    fn file_name(&self) -> String {
        let Self { pod, namespace, container, id } = self;
        let mut name = format!("{pod}_{namespace}_{container}-{id}");
        name.truncate(name.floor_char_boundary(LONGEST - SUFFIX.len()));
        name + SUFFIX
    }
}

/// Links to a log, unless there is none.
pub(crate) fn make(dir: &Path, names: &Names<'_>, log: &Path) -> io::Result<()> {
    match fs::metadata(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => symlink(log, dir.join(names.file_name())),
    }
}

/// Removes the link to a log; that there is none is no error.
pub(super) fn remove(dir: &Path, names: &Names<'_>) -> io::Result<()> {
    remove_file(&dir.join(names.file_name()))
}

/// Removes links that lead nowhere, now and then, until the process ends.
pub(crate) async fn sweep(kubelet: Arc<Kubelet>) {
    let dir = Path::new(DIR);
    loop {
        let links = dangling(dir);
        if !links.is_empty() {
            match kubelet.runtime.containers(None).await {
                Ok(containers) => remove_dead(&links, &containers),
                Err(error) => tracing::warn!(err = %error, "Cannot tell which logs are still written"),
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// The links whose logs are not there.
fn dangling(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_gone = |path: &PathBuf| {
        path.to_string_lossy().ends_with(SUFFIX)
            && fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    entries.filter(is_gone).collect()
}

/// The log of a container that goes on may be missing while it is being rotated: its link stays.
fn remove_dead(links: &[PathBuf], containers: &[cri::Container]) {
    for link in links.iter().filter(|link| !goes_on(link, containers)) {
        match remove_file(link) {
            Ok(()) => tracing::debug!(link = %link.display(), "Removed a link to a log that is gone"),
            Err(error) => {
                tracing::warn!(link = %link.display(), err = %error, "Cannot remove a link to a log that is gone");
            }
        }
    }
}

/// Whether the container that a link is named after has not ended. Its id may have been cut.
fn goes_on(link: &Path, containers: &[cri::Container]) -> bool {
    let name = link.file_stem().unwrap_or_default().to_string_lossy();
    let id = name.rsplit('-').next().unwrap_or_default();
    let exited = cri::ContainerState::ContainerExited as i32;
    id.len() >= SHORTEST_ID
        && containers.iter().any(|container| container.id.starts_with(id) && container.state != exited)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<'a>(container: &'a str, id: &'a str) -> Names<'a> {
        Names { pod: "p", namespace: "n", container, id }
    }

    #[test]
    fn a_link_is_named_after_its_container_within_the_limit_of_file_names() {
        assert_eq!(names("c", "0123abcd").file_name(), "p_n_c-0123abcd.log");
        let long = "c".repeat(200);
        let name = names(&long, &"f".repeat(64)).file_name();
        assert_eq!(name.len(), 255);
        assert_eq!(name, format!("p_n_{long}-{}.log", "f".repeat(46)));
    }

    #[test]
    fn a_link_leads_to_the_log_and_goes_with_its_container() {
        let dir = tempfile::tempdir().unwrap();
        let (links, log) = (dir.path().join("containers"), dir.path().join("0.log"));
        fs::create_dir(&links).unwrap();
        make(&links, &names("c", "id"), &log).unwrap();
        assert_eq!(fs::read_dir(&links).unwrap().count(), 0, "there is nothing to link to");
        fs::write(&log, "text").unwrap();
        make(&links, &names("c", "id"), &log).unwrap();
        let link = links.join("p_n_c-id.log");
        assert_eq!(fs::read_link(&link).unwrap(), log);
        remove(&links, &names("c", "other")).unwrap();
        assert!(link.exists());
        remove(&links, &names("c", "id")).unwrap();
        remove(&links, &names("c", "id")).unwrap();
        assert!(fs::symlink_metadata(&link).is_err());
        assert!(log.exists());
    }

    #[test]
    fn links_that_lead_nowhere_go_unless_their_container_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("real");
        fs::write(&log, "").unwrap();
        let link = |name: &str, to: &Path| symlink(to, dir.path().join(name)).unwrap();
        let nowhere = Path::new("/nowhere/0.log");
        for name in ["p_n_c-aaaaaa11.log", "p_n_c-bbbbbb22.log", "p_n_c-cccccc.log", "p_n_c-dd.log", "other"]
        {
            link(name, nowhere);
        }
        link("p_n_c-eeeeee55.log", &log);
        let container = |id: &str, state: cri::ContainerState| cri::Container {
            id: id.to_owned(),
            state: state as i32,
            ..Default::default()
        };
        let containers = [
            container("aaaaaa11", cri::ContainerState::ContainerRunning),
            container("bbbbbb22", cri::ContainerState::ContainerExited),
            container("cccccc33", cri::ContainerState::ContainerCreated),
            container("dd", cri::ContainerState::ContainerRunning),
        ];
        remove_dead(&dangling(dir.path()), &containers);
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, ["other", "p_n_c-aaaaaa11.log", "p_n_c-cccccc.log", "p_n_c-eeeeee55.log", "real"]);
    }

    #[test]
    fn containers_of_others_have_no_link() {
        let mut known: HashMap<_, _> =
            [(labels::POD_NAME, "p"), (labels::POD_NAMESPACE, "n"), (labels::CONTAINER_NAME, "c")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into();
        assert_eq!(Names::of_labels(&known, "id").unwrap().file_name(), "p_n_c-id.log");
        known.remove(labels::CONTAINER_NAME);
        assert!(Names::of_labels(&known, "id").is_none());
    }
}
