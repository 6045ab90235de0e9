//! What is left of pods on this node: their folders, the folders of their logs, and their control groups. Of a pod that is gone
//! all of it goes the way it goes after any other pod.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::Kubelet;

/// What is left of pods is looked for this often.
pub(crate) const PERIOD: Duration = Duration::from_secs(60);

/// What a pod is called, as far as its traces tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// The pods that have left something here, by uid.
pub(super) fn find(kubelet: &Kubelet) -> io::Result<HashMap<String, Names>> {
    let config = &kubelet.config;
    let mut found = in_folders(&config.root.join("pods"), Path::new(&config.file.pod_logs_dir))?;
    if config.file.cgroups_per_qos {
        let names = &config.groups;
        let above = [names.kubepods(), names.class("burstable"), names.class("besteffort")];
        let groups = above.iter().flat_map(|group| kubelet.cgroups.children(group));
        for uid in groups.filter_map(|group| names.uid(&group)) {
            found.entry(uid).or_default();
        }
    }
    Ok(found)
}

fn in_folders(pods: &Path, logs: &Path) -> io::Result<HashMap<String, Names>> {
    let mut found: HashMap<_, _> = folders(pods)?.into_iter().map(|uid| (uid, Names::default())).collect();
    found.extend(folders(logs)?.iter().filter_map(|folder| of_logs(folder)));
    Ok(found)
}

/// The names of the folders in a folder, which may not be there, but for hidden ones, which are nobody's.
fn folders(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        if !name.is_empty() && !name.starts_with('.') && entry.file_type()?.is_dir() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whose logs a folder is for: `<namespace>_<name>_<uid>`, in none of which there is another such line.
fn of_logs(folder: &str) -> Option<(String, Names)> {
    let parts: Vec<&str> = folder.split('_').collect();
    let [namespace, name, uid] = parts.as_slice() else { return None };
    let whole = parts.iter().all(|part| !part.is_empty());
    whole.then(|| ((*uid).to_owned(), Names { namespace: (*namespace).to_owned(), name: (*name).to_owned() }))
}

/// Removes a folder of a pod; that it is not there is no error. While anything is mounted in it nothing is removed.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    let removed = || {
        if let Some(mounted) = linux::mount::mounted_below(dir)?.first() {
            let why = format!("{} is still mounted", mounted.display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
        }
        fs::remove_dir_all(dir)
    };
    match removed() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_found_by_their_folders_and_named_by_those_of_their_logs() {
        let dir = tempfile::tempdir().unwrap();
        let (pods, logs) = (dir.path().join("pods"), dir.path().join("logs"));
        for folder in ["a-1/volumes", "b-2", ".snapshot"] {
            fs::create_dir_all(pods.join(folder)).unwrap();
        }
        fs::write(pods.join("file"), "").unwrap();
        for folder in ["n_web-0_a-1/c", "kube-system_x.y_c-3", "lost+found", "a_b_c_d", "__e-5"] {
            fs::create_dir_all(logs.join(folder)).unwrap();
        }
        std::os::unix::fs::symlink("/", logs.join("n_link_d-4")).unwrap();
        fs::write(logs.join("n_file_f-6"), "").unwrap();
        let mut found: Vec<_> = in_folders(&pods, &logs).unwrap().into_iter().collect();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        let expected = [("a-1", "n", "web-0"), ("b-2", "", ""), ("c-3", "kube-system", "x.y")];
        let names =
            |namespace: &str, name: &str| Names { namespace: namespace.to_owned(), name: name.to_owned() };
        assert_eq!(found, expected.map(|(uid, namespace, name)| (uid.to_owned(), names(namespace, name))));
    }

    #[test]
    fn a_folder_is_removed_unless_something_is_mounted_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("pod");
        fs::create_dir_all(pod.join("volumes/kubernetes.io~empty-dir/v")).unwrap();
        fs::write(pod.join("volumes/kubernetes.io~empty-dir/v/file"), "").unwrap();
        // What a link leads to is not the pod's.
        std::os::unix::fs::symlink(dir.path(), pod.join("link")).unwrap();
        remove(&pod).unwrap();
        remove(&pod).unwrap();
        assert!(!pod.exists() && dir.path().exists());
        let link = dir.path().join("system");
        std::os::unix::fs::symlink("/", &link).unwrap();
        for mounted in [Path::new("/proc"), &link] {
            assert_eq!(remove(mounted).unwrap_err().kind(), io::ErrorKind::ResourceBusy, "{mounted:?}");
        }
    }
}
