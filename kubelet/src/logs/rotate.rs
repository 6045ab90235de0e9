//! Rotation: a log that has grown to its limit is renamed, and the runtime told to start another. Older ones are named by
//! time and compressed, but for the newest, which whoever gathers logs may not have read to its end; a few are kept.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::quantity::Quantity;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_cri::v1 as cri;

use super::remove::remove_file;
use super::{log_of, rotated};
use crate::Kubelet;

/// The ending of compressed logs.
const COMPRESSED: &str = ".gz";
/// The ending of logs that are being compressed.
const UNFINISHED: &str = ".tmp";

/// Rotates until the process ends.
pub(crate) async fn run(kubelet: Arc<Kubelet>) {
    let file = &kubelet.config.file;
    let limit = file.container_log_max_size.parse::<Quantity>().map_or(0, |size| size.units());
    let keep = file.container_log_max_files.max(2) as usize;
    let workers = usize::try_from(file.container_log_max_workers).unwrap_or(1);
    loop {
        tokio::time::sleep(file.container_log_monitor_interval.0).await;
        let Ok(limit) = u64::try_from(limit) else { continue };
        if limit == 0 {
            continue;
        }
        let Ok(containers) = kubelet.runtime.containers(None).await else { continue };
        let running = cri::ContainerState::ContainerRunning as i32;
        let running = containers.into_iter().filter(|container| container.state == running);
        let kubelet = &*kubelet;
        let looks = stream::iter(running).for_each_concurrent(workers, |container| async move {
            let Some(path) = log_of(kubelet, &container) else { return };
            if let Err(error) = look(kubelet, &container.id, &path, (limit, keep)).await {
                tracing::warn!(log = %path.display(), err = %error, "Cannot rotate a log");
            }
        });
        looks.await;
    }
}

/// Rotates a log if it is big enough; one that is not there is started.
async fn look(kubelet: &Kubelet, id: &str, log: &Path, (limit, keep): (u64, usize)) -> anyhow::Result<()> {
    let size = match fs::metadata(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(kubelet.runtime.reopen_log(id).await?);
        }
        about => about?.len(),
    };
    if size < limit {
        return Ok(());
    }
    let path = log.to_owned();
    tokio::task::spawn_blocking(move || make_room(&path, keep)).await??;
    let aside = set_aside(log, Timestamp::now())?;
    if let Err(error) = kubelet.runtime.reopen_log(id).await {
        // It is still written to, and rotated at the next look.
        fs::rename(&aside, log)?;
        return Err(error.into());
    }
    Ok(())
}

/// Removes what earlier rotations did not finish and what is too old, so that with the log and its successor there are at most
/// `keep`, and compresses the rest.
fn make_room(log: &Path, keep: usize) -> io::Result<()> {
    let (used, unused) = sorted(rotated(log)?);
    unused.iter().try_for_each(|path| remove_file(path))?;
    let surplus = used.len().saturating_sub(keep.saturating_sub(2));
    let (old, kept) = used.split_at(surplus);
    old.iter().try_for_each(|path| remove_file(path))?;
    kept.iter().filter(|path| !ends_with(path, COMPRESSED)).try_for_each(|path| compress(path))
}

/// The logs that count, the oldest first, and those that do not: unfinished ones, and those that there are compressed already.
fn sorted(mut all: Vec<PathBuf>) -> (Vec<PathBuf>, Vec<PathBuf>) {
    // They are named by time.
    all.sort();
    let is_used = |path: &PathBuf| {
        !ends_with(path, UNFINISHED)
            && (ends_with(path, COMPRESSED) || all.binary_search(&extended(path, COMPRESSED)).is_err())
    };
    let used = all.iter().map(is_used).collect::<Vec<_>>();
    let mut used = used.into_iter();
    all.into_iter().partition(|_| used.next().unwrap_or_default())
}

fn ends_with(path: &Path, ending: &str) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(ending.as_bytes())
}

fn extended(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Puts a log's compressed form in its place, which is whole as soon as it is there.
fn compress(log: &Path) -> io::Result<()> {
    let mut from = File::open(log)?;
    let mode = from.metadata()?.permissions().mode();
    let unfinished = extended(log, UNFINISHED);
    let mut write = || {
        let to = File::options().write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
        let mut encoder = GzEncoder::new(to, Compression::default());
        io::copy(&mut from, &mut encoder)?;
        encoder.finish()?;
        fs::rename(&unfinished, extended(log, COMPRESSED))
    };
    if let Err(error) = write() {
        remove_file(&unfinished)?;
        return Err(error);
    }
    remove_file(log)
}

/// Renames the log by the time.
fn set_aside(log: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let aside = extended(log, &format!(".{}", now.strftime("%Y%m%d-%H%M%S")));
    fs::rename(log, &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn check(keep: usize, before: &[&str], after: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        for name in before {
            fs::write(dir.path().join(name), "text").unwrap();
        }
        make_room(&dir.path().join("0.log"), keep).unwrap();
        assert_eq!(names(dir.path()), after, "{before:?}");
    }

    #[test]
    fn the_oldest_logs_go_first_and_the_others_are_compressed() {
        check(
            4,
            &["0.log", "0.log.20260101-000000.gz", "0.log.20260102-000000.gz", "0.log.20260103-000000"],
            &["0.log", "0.log.20260102-000000.gz", "0.log.20260103-000000.gz"],
        );
        check(2, &["0.log", "0.log.20260103-000000"], &["0.log"]);
        check(5, &["0.log"], &["0.log"]);
        // Another container's, by one digit.
        check(
            2,
            &["0.log", "00.log.20260103-000000", "0.log2"],
            &["0.log", "0.log2", "00.log.20260103-000000"],
        );
    }

    #[test]
    fn what_a_rotation_did_not_finish_is_removed() {
        check(
            5,
            &["0.log", "0.log.20260101-000000", "0.log.20260101-000000.gz", "0.log.20260102-000000.tmp"],
            &["0.log", "0.log.20260101-000000.gz"],
        );
        // The log itself is still whole.
        check(
            5,
            &["0.log", "0.log.20260102-000000", "0.log.20260102-000000.tmp"],
            &["0.log", "0.log.20260102-000000.gz"],
        );
    }

    #[test]
    fn a_compressed_log_has_the_same_text_and_the_same_rights() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        let text = "2026-01-01T00:00:01Z stdout F line\n".repeat(10_000);
        fs::write(&log, &text).unwrap();
        fs::set_permissions(&log, fs::Permissions::from_mode(0o600)).unwrap();
        let aside = set_aside(&log, "2026-02-03T04:05:06Z".parse().unwrap()).unwrap();
        assert_eq!(aside, dir.path().join("0.log.20260203-040506"));
        compress(&aside).unwrap();
        assert_eq!(names(dir.path()), ["0.log.20260203-040506.gz"]);
        let compressed = extended(&aside, COMPRESSED);
        assert_eq!(fs::metadata(&compressed).unwrap().permissions().mode() & 0o777, 0o600);
        let mut read = String::new();
        GzDecoder::new(File::open(&compressed).unwrap()).read_to_string(&mut read).unwrap();
        assert!(read == text);
        assert!(fs::metadata(&compressed).unwrap().len() < text.len() as u64 / 10);
    }
}
