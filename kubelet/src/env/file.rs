//! Variables that come from files in volumes (KEP-3721): lines of `NAME='value'`, of which containers before this one wrote
//! whatever they liked.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::Path;

/// The longest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Reads a file below a volume's folder, which its path does not leave, whatever links there are.
pub(super) fn read(volume: &Path, path: &str) -> io::Result<String> {
    let opened = linux::mount::open_beneath(volume, Path::new(path))?;
    // What was opened can be looked at, and only then read: other kinds of files may have no end, or never begin.
    let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
    if !fs::metadata(&path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    let mut text = String::new();
    File::open(&path)?.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {LONGEST} bytes")));
    }
    Ok(text)
}

/// The value of a variable; empty when the file does not have it. Lines after it are not looked at; an error is a sentence.
pub(super) fn find<'t>(text: &'t str, key: &str) -> Result<&'t str, String> {
    let mut rest = text;
    while !rest.is_empty() {
        let number = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let invalid = |why: &str| Err(format!("invalid environment variable format at line {number}: {why}"));
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            rest = after;
            continue;
        }
        let Some((name, value)) = line.split_once('=') else { return invalid("missing '='") };
        if name.trim_end_matches([' ', '\t']) != name {
            return invalid("whitespace before '=' is not allowed");
        }
        if name.is_empty() {
            return invalid("empty variable name");
        }
        if value.starts_with([' ', '\t']) {
            // As for a shell, that is the end of an empty value.
            if name == key {
                return Ok("");
            }
            rest = after;
            continue;
        }
        if !value.starts_with('\'') {
            return invalid("value must be enclosed in single quotes");
        }
        // A value goes on over the ends of lines.
        let begins = rest.find('\'').map_or(rest.len(), |at| at + 1);
        let Some((value, after)) = rest[begins..].split_once('\'') else {
            return Err(format!(
                "invalid environment variable format starting at line {number}: unclosed single quote"
            ));
        };
        let (comment, after) = after.split_once('\n').unwrap_or((after, ""));
        let comment = comment.trim_matches([' ', '\t', '\r']);
        if !comment.is_empty() && !comment.starts_with('#') {
            return invalid("unexpected content after closing quote");
        }
        if name == key {
            return Ok(value);
        }
        rest = after;
    }
    Ok("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_in_their_files() {
        let text = "# comment\n\n  A='a b' # more\nB=''\nC='one\ntwo'\nD= 'x'\nE='e'\n";
        for (key, expected) in [("A", "a b"), ("B", ""), ("C", "one\ntwo"), ("D", ""), ("E", "e"), ("F", "")]
        {
            assert_eq!(find(text, key), Ok(expected), "{key}");
        }
        for (text, expected) in [
            ("A", "at line 1: missing '='"),
            ("\n='x'", "at line 2: empty variable name"),
            ("A ='x'", "at line 1: whitespace before '=' is not allowed"),
            ("A=x", "at line 1: value must be enclosed in single quotes"),
            ("A='1\n2'\nB='x' y", "at line 3: unexpected content after closing quote"),
            ("A='x\n\n", "starting at line 1: unclosed single quote"),
        ] {
            let expected = format!("invalid environment variable format {expected}");
            assert_eq!(find(text, "Z"), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn only_files_of_the_volume_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir_all(volume.join("in")).unwrap();
        fs::write(dir.path().join("secret"), "A='x'").unwrap();
        fs::write(volume.join("in/env"), "A='a'").unwrap();
        std::os::unix::fs::symlink("../secret", volume.join("up")).unwrap();
        nix::unistd::mkfifo(&volume.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        fs::write(volume.join("long"), vec![b'#'; 1 + LONGEST as usize]).unwrap();
        assert_eq!(read(&volume, "in/env").unwrap(), "A='a'");
        for path in ["up", "../secret", "fifo", "in", "long", "none"] {
            assert!(read(&volume, path).is_err(), "{path}");
        }
    }
}
