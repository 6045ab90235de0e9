//! Network namespaces: named ones as `ip netns` makes them, and work done inside of one.
//!
//! A namespace belongs to a thread, so all of this happens on threads of its own that end with the work.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Where named namespaces are kept.
const DIRECTORY: &str = "/run/netns";

/// The path of a named namespace.
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Makes a named namespace; it stays until [`delete`].
pub fn create(name: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(DIRECTORY)?;
    let target = path(name);
    File::options().write(true).create_new(true).open(&target)?;
    let bound = {
        let target = target.clone();
        on_own_thread(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let own = Path::new("/proc/thread-self/ns/net");
            mount(Some(own), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        })
    };
    match bound {
        Ok(()) => Ok(target),
        Err(error) => {
            fs::remove_file(&target)?;
            Err(error)
        }
    }
}

/// Removes a named namespace; one that is not there is no error.
pub fn delete(name: &str) -> io::Result<()> {
    let target = path(name);
    crate::mount::unmount(&target)?;
    match fs::remove_file(&target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Runs `work` inside of the namespace at `path` and returns what it returns. Blocks; sockets that `work` opens stay in
/// that namespace wherever they are used later.
pub fn within<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = File::open(path)?;
    on_own_thread(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

fn on_own_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let thread = std::thread::Builder::new().name("netns".to_owned()).spawn(work)?;
    thread.join().map_err(|_| io::Error::other("the namespace thread panicked"))?
}
