//! Rotation: a log that grows beyond its limit is renamed, and the runtime told to start another. Older ones are numbered by
//! time; of them a few are kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::quantity::Quantity;

use crate::Kubelet;
use crate::cri::labels;

/// Rotates until the process ends.
pub(crate) async fn run(kubelet: Arc<Kubelet>) {
    let file = &kubelet.config.file;
    let limit = file.container_log_max_size.parse::<Quantity>().map_or(0, |size| size.units());
    let keep = file.container_log_max_files.max(2) as usize;
    loop {
        tokio::time::sleep(file.container_log_monitor_interval.0).await;
        if limit <= 0 {
            continue;
        }
        let Ok(containers) = kubelet.runtime.containers(None).await else { continue };
        // 1 is a running container.
        for container in containers.into_iter().filter(|container| container.state == 1) {
            let Some(path) = log_path(&kubelet, &container.labels, &container.annotations) else { continue };
            let big = fs::metadata(&path).is_ok_and(|metadata| metadata.len() as i64 > limit);
            if !big {
                continue;
            }
            if let Err(error) = make_room(&path, keep) {
                tracing::warn!(log = %path.display(), err = %error, "Cannot rotate a log");
                continue;
            }
            if let Err(error) = kubelet.runtime.reopen_log(&container.id).await {
                tracing::warn!(log = %path.display(), err = %error, "Cannot have a log reopened");
            }
        }
    }
}

type Strings = std::collections::HashMap<String, String>;

fn log_path(kubelet: &Kubelet, names: &Strings, annotations: &Strings) -> Option<PathBuf> {
    let pod = kubelet.config.pod_logs(
        names.get(labels::POD_NAMESPACE)?,
        names.get(labels::POD_NAME)?,
        names.get(labels::POD_UID)?,
    );
    let count = annotations.get(labels::RESTART_COUNT)?;
    Some(pod.join(names.get(labels::CONTAINER_NAME)?).join(format!("{count}.log")))
}

/// Renames the log and removes the oldest ones beyond `keep` in all, the new one included.
fn make_room(path: &Path, keep: usize) -> io::Result<()> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    fs::rename(path, path.with_file_name(format!("{name}.{stamp}")))?;
    let Some(dir) = path.parent() else { return Ok(()) };
    let prefix = format!("{name}.");
    let mut old: Vec<_> = fs::read_dir(dir)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
        .collect();
    // The stamps sort by time.
    old.sort();
    let surplus = old.len().saturating_sub(keep - 1);
    old.iter().take(surplus).try_for_each(fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_logs_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        for old in ["20260101-000000", "20260102-000000", "20260103-000000"] {
            fs::write(dir.path().join(format!("0.log.{old}")), "").unwrap();
        }
        fs::write(&log, "x").unwrap();
        make_room(&log, 3).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left.len(), 2);
        assert_eq!(left[0], "0.log.20260103-000000");
    }
}
