//! Last words: what a container says about its end.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::observed::{Container, State};
use crate::cri::labels;

/// The longest message, and the longest piece of log in place of one.
const MAX_MESSAGE: u64 = 4096;
const MAX_LOG: u64 = 2048;
const MAX_LINES: usize = 80;

/// Fills in the message of a container that has ended.
pub(super) fn fill(container: &mut Container) {
    if container.state != State::Exited {
        return;
    }
    let annotation = |key: &str| container.annotations.get(key).map(String::as_str).unwrap_or_default();
    let inside = annotation(labels::TERMINATION_PATH);
    let fallback = annotation(labels::TERMINATION_POLICY) == "FallbackToLogsOnError";
    let file = container.mounts.iter().find(|(path, _)| !inside.is_empty() && path == inside);
    let mut message = file.and_then(|(_, host)| head(Path::new(host))).unwrap_or_default();
    if message.is_empty() && fallback && (container.exit_code != 0 || container.reason == "OOMKilled") {
        message = last_lines(Path::new(&container.log));
    }
    if message.is_empty() {
        return;
    }
    container.message = match container.message.as_str() {
        "" => message,
        own => format!("{own}: {message}"),
    };
}

fn head(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_MESSAGE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The end of a log, without the runtime's own columns.
fn last_lines(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        // The columns of the runtime take a good part of every line.
        let start = length.saturating_sub(MAX_LOG * 4);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(MAX_LOG * 4).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<(&str, &str)> = text.lines().filter_map(said).collect();
    let kept = &lines[lines.len().saturating_sub(MAX_LINES)..];
    let mut out: String = kept.iter().flat_map(|(line, end)| [*line, *end]).collect();
    if out.len() as u64 > MAX_LOG {
        let mut cut = out.len() - MAX_LOG as usize;
        while !out.is_char_boundary(cut) {
            cut += 1;
        }
        out = out.split_off(cut);
    }
    out
}

/// The text of a line of the log, and its end: a part of a line (`P`) has none.
fn said(line: &str) -> Option<(&str, &str)> {
    let mut columns = line.splitn(4, ' ').skip(2);
    let end = if columns.next()?.starts_with('P') { "" } else { "\n" };
    Some((columns.next()?, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(dir: &Path, policy: &str, exit_code: i32) -> Container {
        let annotations =
            [(labels::TERMINATION_PATH, "/dev/termination-log"), (labels::TERMINATION_POLICY, policy)];
        let words = ("/dev/termination-log".to_owned(), dir.join("words").to_string_lossy().into_owned());
        Container {
            state: State::Exited,
            exit_code,
            reason: "Error".to_owned(),
            log: dir.join("0.log").to_string_lossy().into_owned(),
            annotations: annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            mounts: vec![words],
            ..Container::named("c")
        }
    }

    #[test]
    fn the_message_comes_from_the_file_or_the_end_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("0.log"), "2026-01-01T00:00:00Z stderr F oh no\n").unwrap();
        for (file, policy, code, expected) in [
            ("", "File", 1, ""),
            ("", "FallbackToLogsOnError", 0, ""),
            ("", "FallbackToLogsOnError", 1, "oh no\n"),
            ("bye", "FallbackToLogsOnError", 1, "bye"),
            ("bye", "File", 0, "bye"),
        ] {
            std::fs::write(dir.path().join("words"), file).unwrap();
            let mut container = container(dir.path(), policy, code);
            fill(&mut container);
            assert_eq!(container.message, expected, "{file:?} {policy} {code}");
        }
        let parts = "2026-01-01T00:00:00Z stdout P half\n2026-01-01T00:00:00Z stdout P  done\n";
        std::fs::write(dir.path().join("0.log"), parts).unwrap();
        let mut container = container(dir.path(), "FallbackToLogsOnError", 1);
        std::fs::write(dir.path().join("words"), "").unwrap();
        fill(&mut container);
        assert_eq!(container.message, "half done");
    }
}
