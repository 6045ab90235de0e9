//! Host paths and their types.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;

use api::Value;

use super::Made;

/// Checks that the path is what its type says, making it where the type says so.
pub(super) fn check(volume: &Value) -> Made {
    let path = PathBuf::from(volume.str_at(&["path"]));
    let kind = volume.str_at(&["type"]);
    let failed = |what: &str| Err(format!("hostPath type check failed: {} is not {what}", path.display()));
    let make =
        |made: std::io::Result<()>| made.map_err(|error| format!("cannot make {}: {error}", path.display()));
    match kind {
        "DirectoryOrCreate" if !path.exists() => {
            make(fs::create_dir_all(&path))?;
            make(fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))?;
        }
        "FileOrCreate" if !path.exists() => {
            make(fs::write(&path, ""))?;
            make(fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))?;
        }
        _ => {}
    }
    let found = fs::metadata(&path).map(|metadata| metadata.file_type());
    let is = |wanted: fn(&fs::FileType) -> bool| found.as_ref().is_ok_and(wanted);
    match kind {
        "" => Ok(path),
        "Directory" | "DirectoryOrCreate" if !is(fs::FileType::is_dir) => failed("a directory"),
        "File" | "FileOrCreate" if !is(fs::FileType::is_file) => failed("a file"),
        "Socket" if !is(FileTypeExt::is_socket) => failed("a socket file"),
        "CharDevice" if !is(FileTypeExt::is_char_device) => failed("a character device"),
        "BlockDevice" if !is(FileTypeExt::is_block_device) => failed("a block device"),
        "Directory" | "DirectoryOrCreate" | "File" | "FileOrCreate" | "Socket" | "CharDevice"
        | "BlockDevice" => Ok(path),
        other => Err(format!("unknown hostPath type {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn types_are_checked_and_created() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        for (kind, name, fine) in [
            ("Directory", "a", false),
            ("DirectoryOrCreate", "a", true),
            ("Directory", "a", true),
            ("File", "a", false),
            ("FileOrCreate", "f", true),
            ("File", "f", true),
            ("Socket", "f", false),
            ("", "anything", true),
            ("Nonsense", "f", false),
        ] {
            let checked = check(&object!({"path": (path(name)), "type": kind}));
            assert_eq!(checked.is_ok(), fine, "{kind} {name}");
        }
        assert!(check(&object!({"path": "/dev/null", "type": "CharDevice"})).is_ok());
    }

    #[test]
    fn types_that_lie_are_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        fs::write(path("file"), "").unwrap();
        fs::create_dir(path("folder")).unwrap();
        nix::unistd::mkfifo(path("pipe").as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("loop", path("loop")).unwrap();
        std::os::unix::fs::symlink("/dev/null", path("null")).unwrap();
        for (kind, name, message) in [
            ("DirectoryOrCreate", "file", "is not a directory"),
            ("FileOrCreate", "folder", "is not a file"),
            ("File", "pipe", "is not a file"),
            ("FileOrCreate", "null", "is not a file"),
            ("Socket", "pipe", "is not a socket file"),
            ("CharDevice", "folder", "is not a character device"),
            ("BlockDevice", "null", "is not a block device"),
            ("Directory", "loop", "is not a directory"),
            ("DirectoryOrCreate", "loop", "cannot make"),
            ("File", "a\0b", "is not a file"),
        ] {
            let error = check(&object!({"path": (path(name)), "type": kind})).unwrap_err();
            assert!(error.contains(message), "{kind} {name}: {error}");
        }
    }
}
