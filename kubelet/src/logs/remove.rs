//! Removing the logs of a container: the one that it wrote, those that it was rotated to, and the link to it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::links::{self, Names};

/// Removes the logs of a container that has ended, which is to be removed after them: what fails can be tried again.
pub(crate) fn remove(names: &Names<'_>, log: &Path) -> io::Result<()> {
    remove_from(Path::new(links::DIR), names, log)
}

fn remove_from(dir: &Path, names: &Names<'_>, log: &Path) -> io::Result<()> {
    rotated(log)?.iter().try_for_each(|path| remove_file(path))?;
    remove_file(log)?;
    links::remove(dir, names)
}

/// What a log was rotated to, in no order: names that go on after the log's own.
pub(super) fn rotated(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name()) else { return Ok(Vec::new()) };
    let mut prefix = name.as_encoded_bytes().to_vec();
    prefix.push(b'.');
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes a file; that it is not there is no error.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_logs_go_with_their_container_and_those_of_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "1.log",
            "1.log.20260101-000000",
            "1.log.20260101-000000.gz",
            "1.log.20260101-000000.tmp",
            "11.log",
            "11.log.20260101-000000",
            "0.log",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let names = Names { pod: "p", namespace: "n", container: "c", id: "id" };
        let log = dir.path().join("1.log");
        links::make(dir.path(), &names, &log).unwrap();
        remove_from(dir.path(), &names, &log).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, ["0.log", "11.log", "11.log.20260101-000000"]);
        remove_from(dir.path(), &names, &log).unwrap();
        remove_from(dir.path(), &names, Path::new("/nowhere/at/all/0.log")).unwrap();
    }
}
