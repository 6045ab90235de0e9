//! The logs of services: journalctl's where it knows them, else files that are called like them.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use daemon::Tasks;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, Response, header};
use jiff::Timestamp;
use serve::Body;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::mpsc;

use super::query::{NotOpened, Options, Query, open_beneath};

const JOURNALCTL: &str = "journalctl";
/// An answer takes no longer than this.
const LIMIT: Duration = Duration::from_secs(30);

/// Answers a query of services; what goes wrong is part of the text.
pub(super) fn answer(tasks: &Tasks, logs: PathBuf, query: Query, gzip: bool) -> Response<Body> {
    // Full: the reading waits for the client.
    let (sender, receiver) = mpsc::channel(4);
    let stop = tasks.token();
    tasks.plain("node-log", async move {
        let out = Out { sender, packer: gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast())) };
        tokio::select! {
            // Nobody has to hear that the client has gone.
            _ = copy(Path::new(JOURNALCTL), &logs, &query, out) => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    });
    let pieces = futures::stream::unfold(receiver, |mut receiver| async {
        Some((Ok::<Bytes, io::Error>(receiver.recv().await?), receiver))
    });
    let mut response = Response::new(serve::stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=UTF-8"));
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// The answer on its way to the client.
struct Out {
    sender: mpsc::Sender<Bytes>,
    packer: Option<GzEncoder<Vec<u8>>>,
}

/// The client reads no more.
#[derive(Debug)]
struct Gone;

impl Out {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let Some(packer) = &mut self.packer else { return self.send(bytes.to_vec()).await };
        packer.write_all(bytes).expect("memory takes everything");
        let packed = std::mem::take(packer.get_mut());
        self.send(packed).await
    }

    async fn send(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        if bytes.is_empty() { Ok(()) } else { self.sender.send(bytes.into()).await.map_err(|_| Gone) }
    }

    async fn finish(mut self) -> Result<(), Gone> {
        let Some(packer) = self.packer.take() else { return Ok(()) };
        self.send(packer.finish().expect("memory takes everything")).await
    }
}

/// Writes what is found, as far as there is time.
async fn copy(journalctl: &Path, logs: &Path, query: &Query, mut out: Out) -> Result<(), Gone> {
    match tokio::time::timeout(LIMIT, find(journalctl, logs, query, &mut out)).await {
        Ok(Err(gone)) => Err(gone),
        _ => out.finish().await,
    }
}

async fn find(journalctl: &Path, logs: &Path, query: &Query, out: &mut Out) -> Result<(), Gone> {
    let units = units(journalctl).await;
    let known = |service: &&String| units.contains(&format!("{service}.service"));
    let (native, filed): (Vec<_>, Vec<_>) = query.services.iter().partition(known);
    if !native.is_empty() {
        of_journal(journalctl, &native, &query.options, out).await?;
    }
    if !filed.is_empty() && query.options != Options::default() {
        let names: Vec<_> = filed.iter().map(|service| service.as_str()).collect();
        let names = names.join(" ");
        let why = format!(
            "\noptions present and query resolved to log files for [{names}]\ntry without specifying options\n"
        );
        return out.write(why.as_bytes()).await;
    }
    for service in filed {
        of_file(logs, service, out).await?;
    }
    Ok(())
}

/// The units that the journal has anything of, as a text; nothing where there is no journal.
async fn units(journalctl: &Path) -> String {
    let mut command = Command::new(journalctl);
    command.args(["--field", "_SYSTEMD_UNIT"]).stdin(Stdio::null()).kill_on_drop(true);
    match command.output().await {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        _ => String::new(),
    }
}

fn arguments(services: &[&String], options: &Options) -> Vec<String> {
    // DIVERGES: upstream writes times without a zone, which journalctl takes for local ones, and the first for both.
    let time = |time: Timestamp| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let mut all: Vec<String> = ["--utc", "--no-pager", "--output=short-precise"].map(str::to_owned).into();
    all.extend(options.since.map(|since| format!("--since={}", time(since))));
    all.extend(options.until.map(|until| format!("--until={}", time(until))));
    if let Some(tail) = options.tail {
        all.extend(["--pager-end".to_owned(), format!("--lines={tail}")]);
    }
    all.extend(services.iter().map(|service| format!("--unit={service}")));
    if !options.pattern.is_empty() {
        all.extend([format!("--grep={}", options.pattern), "--case-sensitive=false".to_owned()]);
    }
    if let Some(boot) = options.boot {
        all.extend(["--boot".to_owned(), boot.to_string()]);
    }
    all
}

async fn of_journal(
    journalctl: &Path,
    services: &[&String],
    options: &Options,
    out: &mut Out,
) -> Result<(), Gone> {
    let started = Command::new(journalctl)
        .args(arguments(services, options))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut child) = started else {
        // Of an older boot there may be none.
        let missing = options.boot.is_none_or(|boot| boot == 0);
        return if missing { out.write(b"\nerror: journal output not available\n").await } else { Ok(()) };
    };
    let (mut said, mut complained) = (child.stdout.take(), child.stderr.take());
    let (mut first, mut second) = (vec![0; 64 << 10], vec![0; 4 << 10]);
    while said.is_some() || complained.is_some() {
        tokio::select! {
            length = read(&mut said, &mut first), if said.is_some() => out.write(&first[..length]).await?,
            length = read(&mut complained, &mut second), if complained.is_some() => {
                out.write(&second[..length]).await?;
            }
        }
    }
    // What it ends with has been said already.
    let _ = child.wait().await;
    Ok(())
}

/// Reads on, and forgets the pipe where there is no more.
async fn read<R: tokio::io::AsyncRead + Unpin>(pipe: &mut Option<R>, buffer: &mut [u8]) -> usize {
    let Some(open) = pipe else { return 0 };
    let length = open.read(buffer).await.unwrap_or_default();
    if length == 0 {
        *pipe = None;
    }
    length
}

/// Writes the first file that there is of those that may be a service's log.
async fn of_file(logs: &Path, service: &str, out: &mut Out) -> Result<(), Gone> {
    for name in [service.to_owned(), format!("{service}.log"), format!("{service}/{service}.log")] {
        let file = match open(logs, &name) {
            Ok(file) => file,
            Err(error) if error.0.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                let why = format!("\nerror getting log for {service}: openat {name}: {error}\n");
                return out.write(why.as_bytes()).await;
            }
        };
        let mut file = tokio::fs::File::from_std(file);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(length) => out.write(&buffer[..length]).await?,
                Err(error) => {
                    let why = format!("\nerror getting log for {service}: {}\n", NotOpened(error));
                    return out.write(why.as_bytes()).await;
                }
            }
        }
    }
    out.write(format!("\nlog not found for {service}\n").as_bytes()).await
}

/// Opens a file; a folder is none.
fn open(logs: &Path, name: &str) -> Result<File, NotOpened> {
    let found = open_beneath(logs, name)?;
    let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(NotOpened)?;
    let folder = file.metadata().map_err(NotOpened)?.is_dir();
    if folder { Err(NotOpened(ErrorKind::NotFound.into())) } else { Ok(file) }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A stand-in for journalctl, which knows of one service and shows what it was asked.
    const STAND_IN: &str = "#!/bin/sh\nif [ \"$1\" = --field ]; then echo kubelet.service; exit; fi\necho \"$@\"\n\
                            echo complaint >&2\nexit 1\n";

    struct Logs(tempfile::TempDir);

    impl Logs {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
            std::fs::create_dir_all(dir.path().join("c")).unwrap();
            write("journalctl", STAND_IN);
            write("a", "plain a\n");
            write("a.log", "not looked at\n");
            write("b.log", "log of b\n");
            write("c/c.log", "log of c\n");
            let program = dir.path().join("journalctl");
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", dir.path().join("out")).unwrap();
            Self(dir)
        }

        async fn ask(&self, services: &[&str], options: Options, packed: bool) -> Vec<u8> {
            let services = services.iter().map(|service| (*service).to_owned()).collect();
            let query = Query { services, files: Vec::new(), options };
            let (sender, mut receiver) = mpsc::channel(100);
            let packer = packed.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
            copy(&self.0.path().join("journalctl"), self.0.path(), &query, Out { sender, packer })
                .await
                .unwrap();
            let mut all = Vec::new();
            while let Some(piece) = receiver.recv().await {
                all.extend(piece);
            }
            all
        }

        async fn text(&self, services: &[&str], options: Options) -> String {
            String::from_utf8(self.ask(services, options, false).await).unwrap()
        }
    }

    #[tokio::test]
    async fn services_without_a_journal_have_files() {
        let logs = Logs::new();
        let text = logs.text(&["a", "b", "c", "d"], Options::default()).await;
        assert_eq!(text, "plain a\nlog of b\nlog of c\n\nlog not found for d\n");
        let text = logs.text(&["out"], Options::default()).await;
        assert_eq!(text, "\nerror getting log for out: openat out: path escapes from parent\n");
        let text = logs.text(&["a"], Options { tail: Some(1), ..Options::default() }).await;
        assert_eq!(
            text,
            "\noptions present and query resolved to log files for [a]\ntry without specifying options\n"
        );
    }

    #[tokio::test]
    async fn journalctl_is_asked_for_services_that_it_knows() {
        let logs = Logs::new();
        let time = |text: &str| api::time::parse(text);
        let options = Options {
            since: time("2026-01-02T03:04:05Z"),
            until: time("2026-01-02T04:04:05+01:00"),
            tail: Some(7),
            boot: Some(-1),
            pattern: "a b".to_owned(),
        };
        let text = logs.text(&["kubelet"], options).await;
        let (complaint, rest) = ("complaint\n", text.replace("complaint\n", ""));
        assert!(text.contains(complaint), "{text}");
        assert_eq!(
            rest,
            "--utc --no-pager --output=short-precise --since=2026-01-02 03:04:05 UTC --until=2026-01-02 03:04:05 UTC \
             --pager-end --lines=7 --unit=kubelet --grep=a b --case-sensitive=false --boot -1\n"
        );
    }

    #[tokio::test]
    async fn where_there_is_no_journal_there_are_files() {
        let logs = Logs::new();
        std::fs::remove_file(logs.0.path().join("journalctl")).unwrap();
        assert_eq!(logs.text(&["b"], Options::default()).await, "log of b\n");
    }

    #[tokio::test]
    async fn answers_can_be_packed() {
        let packed = Logs::new().ask(&["b"], Options::default(), true).await;
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "log of b\n");
    }
}
