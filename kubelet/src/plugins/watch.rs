//! Which sockets there are in a folder and below it, told as they come and go.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;

/// Folders within folders beyond this depth are left alone.
const DEPTH: usize = 8;

/// Tells when the folder may hold other sockets than before.
pub(super) struct Watch {
    root: PathBuf,
    inotify: Inotify,
    /// The same events as bytes, for the runtime to wait for.
    events: Receiver,
}

/// The sockets by their paths; a socket that was made anew has another number.
pub(super) type Sockets = HashMap<PathBuf, (u64, i64)>;

impl Watch {
    /// Begins to watch; the folder must be there.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let events = Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)?;
        Ok(Self { root: root.to_owned(), inotify, events })
    }

    /// The sockets that there are; from now on their folders are watched.
    pub(super) fn sockets(&self) -> Sockets {
        let mut found = Sockets::new();
        self.look(&self.root, DEPTH, &mut found);
        found
    }

    fn look(&self, dir: &Path, depth: usize, found: &mut Sockets) {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM;
        // Watched before it is read, so that nothing falls between.
        if let Err(error) = self.inotify.add_watch(dir, flags) {
            tracing::warn!(dir = %dir.display(), err = %error, "Cannot watch a folder of plug-ins");
        }
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            // What is gone by now is of no interest.
            let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
            if metadata.is_dir() && depth > 0 {
                self.look(&entry.path(), depth - 1, found);
            } else if metadata.file_type().is_socket() {
                found.insert(entry.path(), (metadata.ino(), metadata.mtime_nsec() ^ metadata.mtime()));
            }
        }
    }

    /// Waits until something changes.
    pub(super) async fn changed(&self) -> io::Result<()> {
        loop {
            self.events.readable().await?;
            // What it was is of no interest: everything is looked at again.
            match self.events.try_read(&mut [0; 4096]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn sockets_are_noticed_wherever_they_appear() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new(dir.path()).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(watch.sockets().is_empty());
        fs::create_dir(dir.path().join("sub")).unwrap();
        watch.changed().await.unwrap();
        assert!(watch.sockets().is_empty());
        let path = dir.path().join("sub/x.sock");
        let _first = UnixListener::bind(&path).unwrap();
        watch.changed().await.unwrap();
        let first = watch.sockets();
        assert_eq!(first.keys().collect::<Vec<_>>(), [&path]);
        fs::remove_file(&path).unwrap();
        watch.changed().await.unwrap();
        let _second = UnixListener::bind(&path).unwrap();
        watch.changed().await.unwrap();
        assert_ne!(watch.sockets(), first);
        let _hidden = UnixListener::bind(dir.path().join(".y.sock")).unwrap();
        watch.changed().await.unwrap();
        assert_eq!(watch.sockets().len(), 1);
    }
}
