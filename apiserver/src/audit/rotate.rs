//! A file that begins anew when it has grown, and keeps a number of older ones, for a time.
//!
//! Older files are named by the time when they were put aside, as upstream does: `audit-2026-01-31T12-00-00.000.log`.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};

const STAMP: &str = "%Y-%m-%dT%H-%M-%S.%3f";

/// Which file, and when it begins anew.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The file.
    pub path: PathBuf,
    /// Its greatest size in bytes; none never begins anew.
    pub max_size: Option<u64>,
    /// How long older files are kept; none for ever.
    pub max_age: Option<SignedDuration>,
    /// How many older files are kept; none for all.
    pub max_backups: Option<usize>,
    /// Older files are compressed.
    pub compress: bool,
}

/// The open file.
pub struct Rotating {
    rotation: Rotation,
    file: File,
    size: u64,
    cleaner: Option<std::thread::JoinHandle<()>>,
}

impl Rotation {
    /// Opens the file, which is made if needed, with its folder.
    ///
    /// # Errors
    /// That is not possible.
    pub fn open(self) -> Result<Rotating> {
        if let Some(folder) = self.path.parent().filter(|f| !f.as_os_str().is_empty()) {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.with_context(|| format!("making the folder {} of the audit log", folder.display()))?;
        }
        let file = open(&self.path, 0o600);
        let file = file.with_context(|| format!("opening the audit log {}", self.path.display()))?;
        let size = file.metadata().with_context(|| format!("reading {}", self.path.display()))?.len();
        Ok(Rotating { rotation: self, file, size, cleaner: None })
    }

    fn parts(&self) -> (&Path, String, String) {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let extension =
            self.path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
        (folder, text(self.path.file_stem()), extension)
    }

    /// Where the file goes when it is put aside.
    fn aside(&self, now: Timestamp) -> PathBuf {
        let (folder, stem, extension) = self.parts();
        folder.join(format!("{stem}-{}{extension}", now.strftime(STAMP)))
    }

    /// When a file was put aside, by its name; none for other files.
    fn put_aside(&self, name: &str) -> Option<Timestamp> {
        let (_, stem, extension) = self.parts();
        let stamp = name.strip_prefix(&format!("{stem}-"))?;
        let stamp = stamp.strip_suffix(".gz").unwrap_or(stamp).strip_suffix(&extension)?;
        Timestamp::strptime("%Y-%m-%dT%H-%M-%S.%f %z", format!("{stamp} +0000")).ok()
    }

    /// Removes older files that are too many or too old, and compresses the others.
    fn clean(&self, now: Timestamp) -> io::Result<()> {
        let (folder, ..) = self.parts();
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let mut files: Vec<(Timestamp, PathBuf)> = std::fs::read_dir(folder)?
            .filter_map(Result::ok)
            .filter_map(|entry| Some((self.put_aside(entry.file_name().to_str()?)?, entry.path())))
            .collect();
        files.sort_by(|a, b| b.cmp(a));
        let mut times: Vec<Timestamp> = Vec::new();
        for (at, path) in files {
            if times.last() != Some(&at) {
                times.push(at);
            }
            let many = self.max_backups.is_some_and(|max| times.len() > max);
            let old = self.max_age.is_some_and(|max| now.duration_since(at) > max);
            if many || old {
                std::fs::remove_file(&path)?;
            } else if self.compress && path.extension().is_none_or(|e| e != "gz") {
                compress(&path)?;
            }
        }
        Ok(())
    }
}

fn open(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(mode).open(path)
}

fn compress(path: &Path) -> io::Result<()> {
    let mut name = OsString::from(path);
    name.push(".gz");
    let mode = std::fs::metadata(path)?.permissions().mode();
    let target = OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(&name)?;
    let mut encoder = flate2::write::GzEncoder::new(target, flate2::Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    std::fs::remove_file(path)
}

impl Rotating {
    /// Puts the file aside and begins a new one.
    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        let mode = self.file.metadata()?.permissions().mode() & 0o777;
        std::fs::rename(&self.rotation.path, self.rotation.aside(now))?;
        self.file = open(&self.rotation.path, mode)?;
        self.size = 0;
        if self.cleaner.as_ref().is_none_or(std::thread::JoinHandle::is_finished) {
            let rotation = self.rotation.clone();
            self.cleaner = std::thread::Builder::new()
                .name("audit-clean".to_owned())
                .spawn(move || {
                    if let Err(e) = rotation.clean(Timestamp::now()) {
                        tracing::warn!(error = %e, "older audit logs could not be removed or compressed");
                    }
                })
                .ok();
        }
        Ok(())
    }
}

impl Write for Rotating {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let length = event.len() as u64;
        if let Some(max) = self.rotation.max_size {
            if length > max {
                let why = format!("write length {length} exceeds maximum file size {max}");
                return Err(io::Error::other(why));
            }
            if self.size + length > max {
                self.rotate(Timestamp::now())?;
            }
        }
        self.file.write_all(event)?;
        self.size += length;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_put_aside_and_only_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/audit.log");
        let rotation = Rotation {
            path: path.clone(),
            max_size: Some(10),
            max_age: None,
            max_backups: Some(2),
            compress: false,
        };
        let mut file = rotation.clone().open().unwrap();
        for i in 0..5 {
            file.write_all(format!("event {i}\n").as_bytes()).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert!(file.write_all(&[b'x'; 11]).is_err());
        file.cleaner.take().unwrap().join().unwrap();
        rotation.clean(Timestamp::now()).unwrap();
        let names = names(path.parent().unwrap());
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "event 4\n");
        let older = path.parent().unwrap().join(&names[1]);
        assert_eq!(std::fs::read_to_string(older).unwrap(), "event 3\n");
    }

    #[test]
    fn older_files_are_compressed_and_removed_by_age() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| std::fs::write(folder.path().join(name), "x").unwrap();
        file("audit-2026-01-01T00-00-00.000.log");
        file("audit-2026-01-09T00-00-00.500.log");
        file("audit-other.log");
        let rotation = Rotation {
            path: folder.path().join("audit.log"),
            max_size: None,
            max_age: Some(SignedDuration::from_hours(7 * 24)),
            max_backups: None,
            compress: true,
        };
        rotation.clean("2026-01-10T00:00:00Z".parse().unwrap()).unwrap();
        assert_eq!(names(folder.path()), ["audit-2026-01-09T00-00-00.500.log.gz", "audit-other.log"]);
    }
}
