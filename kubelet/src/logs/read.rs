//! Reading the runtime's log files: lines of `time stream P|F text`.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncSeekExt, BufReader, SeekFrom};
use tokio::sync::mpsc;

/// How often a log that is followed is looked at.
const POLL: Duration = Duration::from_millis(250);
/// How much is sent at once.
const CHUNK: usize = 16 << 10;

/// What of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only the last lines.
    pub tail: Option<usize>,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// With the time of every line.
    pub timestamps: bool,
    /// Not more than this.
    pub limit: Option<usize>,
    /// `Stdout` or `Stderr` only.
    pub stream: Option<String>,
}

/// One line of the file.
struct Line<'a> {
    time: &'a str,
    stream: &'a str,
    /// The line goes on in the next one.
    partial: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let partial = parts.next()?.starts_with(b"P");
    Some(Line { time, stream, partial, text: parts.next().unwrap_or_default() })
}

impl Options {
    /// The line as it is shown, if it is.
    fn render(&self, raw: &[u8], out: &mut BytesMut) {
        let Some(line) = parse(raw) else { return };
        let skipped = self.stream.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(line.stream))
            || self.since.is_some_and(|since| line.time.parse::<Timestamp>().is_ok_and(|time| time < since));
        if skipped {
            return;
        }
        if self.timestamps {
            out.put_slice(line.time.as_bytes());
            out.put_u8(b' ');
        }
        out.put_slice(line.text);
        if !line.partial {
            out.put_u8(b'\n');
        }
    }
}

/// Sends a log piece by piece until its end, or, when it is followed, until `running` says that the container has ended.
/// A receiver that is gone ends it too.
pub(crate) async fn follow<F>(
    path: PathBuf,
    options: Options,
    sender: mpsc::Sender<io::Result<Bytes>>,
    mut running: impl FnMut() -> F,
) -> io::Result<()>
where
    F: Future<Output = bool>,
{
    let mut left = options.limit.unwrap_or(usize::MAX);
    let mut file = BufReader::new(File::open(&path).await?);
    if let Some(tail) = options.tail {
        let start = tail_start(&path, tail).await?;
        file.seek(SeekFrom::Start(start)).await?;
    }
    let mut line = Vec::new();
    let mut out = BytesMut::new();
    let mut last_look = false;
    loop {
        let n = file.read_until(b'\n', &mut line).await?;
        if line.ends_with(b"\n") {
            line.pop();
            options.render(&line, &mut out);
            line.clear();
            if out.len() < CHUNK {
                continue;
            }
        }
        if !out.is_empty() {
            out.truncate(left);
            left -= out.len();
            if sender.send(Ok(out.split().freeze())).await.is_err() || left == 0 {
                return Ok(());
            }
        }
        if n > 0 {
            continue;
        }
        if !options.follow || last_look {
            return Ok(());
        }
        if let Some(fresh) = rotated(&path, file.get_ref()).await {
            file = BufReader::new(fresh);
            continue;
        }
        // What was written just before the end must not be missed.
        last_look = !running().await;
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

/// The file that has taken the place of the open one.
async fn rotated(path: &Path, open: &File) -> Option<File> {
    use std::os::unix::fs::MetadataExt;
    let there = tokio::fs::metadata(path).await.ok()?;
    let here = open.metadata().await.ok()?;
    if there.ino() == here.ino() { None } else { File::open(path).await.ok() }
}

/// Where the last lines start.
async fn tail_start(path: &Path, lines: usize) -> io::Result<u64> {
    let mut file = BufReader::new(File::open(path).await?);
    let mut starts = VecDeque::new();
    let (mut at, mut line) = (0, Vec::new());
    let mut whole = true;
    loop {
        let n = file.read_until(b'\n', &mut line).await? as u64;
        if n == 0 || !line.ends_with(b"\n") {
            break;
        }
        if whole {
            starts.push_back(at);
            if starts.len() > lines {
                starts.pop_front();
            }
        }
        // A line in several parts counts once.
        whole = parse(&line).is_none_or(|line| !line.partial);
        at += n;
        line.clear();
    }
    Ok(if lines == 0 { at } else { starts.front().copied().unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n\
                       2026-01-01T00:00:02Z stderr P tw\n\
                       2026-01-01T00:00:02Z stderr F o\n\
                       2026-01-01T00:00:03Z stdout F three\n";

    async fn check(options: Options, expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let (sender, mut receiver) = mpsc::channel(64);
        follow(path, options.clone(), sender, || async { false }).await.unwrap();
        let mut all = Vec::new();
        while let Some(piece) = receiver.recv().await {
            all.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(String::from_utf8(all).unwrap(), expected, "{options:?}");
    }

    #[tokio::test]
    async fn a_log_is_cut_as_the_options_say() {
        let all = Options::default();
        check(all.clone(), "one\ntwo\nthree\n").await;
        check(Options { tail: Some(2), ..all.clone() }, "two\nthree\n").await;
        check(Options { tail: Some(0), ..all.clone() }, "").await;
        check(Options { limit: Some(5), ..all.clone() }, "one\nt").await;
        check(Options { timestamps: true, tail: Some(1), ..all.clone() }, "2026-01-01T00:00:03Z three\n")
            .await;
        check(Options { stream: Some("Stderr".to_owned()), ..all.clone() }, "two\n").await;
        check(Options { since: Some("2026-01-01T00:00:03Z".parse().unwrap()), ..all.clone() }, "three\n")
            .await;
        check(Options { follow: true, ..all }, "one\ntwo\nthree\n").await;
    }
}
