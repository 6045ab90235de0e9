//! Files and folders as upstream's file server shows them.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::Stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serve::Body;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};

/// What a link to a file need not escape.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// A request for a file.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Where it is in the folder.
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) headers: &'a HeaderMap,
}

/// Shows a file, or what is in a folder. Links lead wherever the machine's owner has them lead.
pub(super) async fn serve(root: &Path, wanted: Wanted<'_>) -> Response<Body> {
    show(root, wanted).await.unwrap_or_else(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => super::not_found(),
        io::ErrorKind::PermissionDenied => serve::text(StatusCode::FORBIDDEN, "403 Forbidden\n"),
        _ => serve::text(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error\n"),
    })
}

async fn show(root: &Path, wanted: Wanted<'_>) -> io::Result<Response<Body>> {
    let asked = format!("/{}", wanted.path.trim_start_matches('/'));
    if asked.ends_with("/index.html") {
        return Ok(elsewhere("./", wanted.query));
    }
    let path = below(root, &asked);
    let about = tokio::fs::metadata(&path).await?;
    let name = asked.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match (about.is_dir(), asked.ends_with('/')) {
        (true, false) => return Ok(elsewhere(&format!("{name}/"), wanted.query)),
        (false, true) => return Ok(elsewhere(&format!("../{name}"), wanted.query)),
        (false, false) => return file(&path, &about, wanted.headers).await,
        (true, true) => {}
    }
    let index = path.join("index.html");
    if let Ok(about) = tokio::fs::metadata(&index).await {
        return file(&index, &about, wanted.headers).await;
    }
    let changed = modified(&about);
    if is_known(wanted.headers, changed) {
        return Ok(status(StatusCode::NOT_MODIFIED));
    }
    let mut response = Response::new(serve::full(list(&path)?));
    set(&mut response, header::CONTENT_TYPE, "text/html; charset=utf-8");
    set_time(&mut response, changed);
    Ok(response)
}

/// A path that does not leave the folder by its name.
fn below(root: &Path, asked: &str) -> PathBuf {
    let mut parts = Vec::new();
    for part in asked.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    root.join(parts.join("/"))
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(serve::empty());
    *response.status_mut() = code;
    response
}

fn set(response: &mut Response<Body>, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn elsewhere(path: &str, query: Option<&str>) -> Response<Body> {
    let mut response = status(StatusCode::MOVED_PERMANENTLY);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    set(&mut response, header::LOCATION, &format!("{path}{query}"));
    response
}

/// When a file was changed, to the second.
fn modified(about: &Metadata) -> Option<Timestamp> {
    let since = about.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Timestamp::from_second(since.as_secs().try_into().ok()?).ok()
}

fn stamp(time: Timestamp) -> Option<String> {
    DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()
}

fn set_time(response: &mut Response<Body>, changed: Option<Timestamp>) {
    if let Some(time) = changed.and_then(stamp) {
        set(response, header::LAST_MODIFIED, &time);
    }
}

/// Whether the client has the newest already.
fn is_known(headers: &HeaderMap, changed: Option<Timestamp>) -> bool {
    let since = headers.get(header::IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok());
    let since = since.and_then(|since| DateTimeParser::new().parse_timestamp(since).ok());
    since.zip(changed).is_some_and(|(since, changed)| changed <= since)
}

/// What is in a folder, as a page of links.
fn list(folder: &Path) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        names.push(if entry.file_type()?.is_dir() { format!("{name}/") } else { name });
    }
    names.sort();
    let lines = names.iter().map(|name| {
        let link = utf8_percent_encode(name, PATH).to_string();
        // Without this the part before the colon would be a scheme.
        let here = if name.contains(':') { "./" } else { "" };
        format!("<a href=\"{here}{link}\">{}</a>\n", escaped(name))
    });
    let lines: String = lines.collect();
    Ok(format!(
        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n{lines}</pre>\n"
    ))
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&#34;").replace('\'', "&#39;")
}

async fn file(path: &Path, about: &Metadata, headers: &HeaderMap) -> io::Result<Response<Body>> {
    let (size, changed) = (about.len(), modified(about));
    if is_known(headers, changed) {
        let mut response = status(StatusCode::NOT_MODIFIED);
        set_time(&mut response, changed);
        return Ok(response);
    }
    let mut file = tokio::fs::File::open(path).await?;
    let mut start = [0; 512];
    let length = file.read(&mut start).await?;
    let kind = kind(path, &start[..length]);
    let whole = 0..size;
    let Some(part) = range(headers, size, changed) else {
        let mut refusal =
            serve::text(StatusCode::RANGE_NOT_SATISFIABLE, "invalid range: failed to overlap\n");
        set(&mut refusal, header::CONTENT_RANGE, &format!("bytes */{size}"));
        return Ok(refusal);
    };
    file.seek(SeekFrom::Start(part.start)).await?;
    let length = part.end - part.start;
    let mut response = Response::new(serve::stream(pieces(file, length)));
    if part != whole {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let shown = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        set(&mut response, header::CONTENT_RANGE, &shown);
    }
    set(&mut response, header::CONTENT_TYPE, kind);
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    set_time(&mut response, changed);
    Ok(response)
}

/// The part that a request asks for, everything unless it names exactly one; none when that is not in the file.
fn range(headers: &HeaderMap, size: u64, changed: Option<Timestamp>) -> Option<std::ops::Range<u64>> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let same = match text(header::IF_RANGE) {
        Some(before) => changed.and_then(stamp).is_some_and(|now| now == before),
        None => true,
    };
    let part = text(header::RANGE).filter(|part| same && !part.contains(','));
    let Some((from, to)) = part.and_then(|part| part.strip_prefix("bytes=")?.split_once('-')) else {
        return Some(0..size);
    };
    let (from, to) = (from.trim(), to.trim());
    if from.is_empty() {
        let last: u64 = to.parse().ok()?;
        return (last > 0 && size > 0).then(|| size.saturating_sub(last)..size);
    }
    let from: u64 = from.parse().ok()?;
    let end = if to.is_empty() { size } else { to.parse::<u64>().ok()?.saturating_add(1).min(size) };
    (from < end).then_some(from..end)
}

/// So many bytes of a file; what has been cut off meanwhile ends the answer early.
fn pieces(file: tokio::fs::File, length: u64) -> impl Stream<Item = io::Result<Bytes>> {
    futures::stream::try_unfold(file.take(length), |mut file| async move {
        let mut buffer = vec![0; 64 << 10];
        let read = file.read(&mut buffer).await?;
        buffer.truncate(read);
        Ok((read > 0).then(|| (buffer.into(), file)))
    })
}

/// What a file is, by its name or by how it starts.
fn kind(path: &Path, start: &[u8]) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "xml" => "text/xml; charset=utf-8",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        _ if start.starts_with(&[0x1f, 0x8b, 0x08]) => "application/x-gzip",
        _ if start.starts_with(b"PK\x03\x04") => "application/zip",
        // These bytes are in no text.
        _ if start.iter().any(|byte| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f)) => {
            "application/octet-stream"
        }
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    struct Answer {
        code: u16,
        headers: HeaderMap,
        body: String,
    }

    async fn get(root: &Path, path: &str, headers: &[(header::HeaderName, &str)]) -> Answer {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let response = serve(root, Wanted { path, query: Some("a=b"), headers: &headers }).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    fn logs() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pods")).unwrap();
        std::fs::write(dir.path().join("syslog"), "0123456789").unwrap();
        std::fs::write(dir.path().join("a:<b>"), "").unwrap();
        std::fs::write(dir.path().join("pods/x.gz"), [0x1f, 0x8b, 8, 0]).unwrap();
        dir
    }

    #[tokio::test]
    async fn folders_are_pages_of_links() {
        let logs = logs();
        let root = get(logs.path(), "", &[]).await;
        assert_eq!(
            (root.code, root.headers["content-type"].to_str().unwrap()),
            (200, "text/html; charset=utf-8")
        );
        assert_eq!(
            root.body,
            "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n\
             <a href=\"./a:%3Cb%3E\">a:&lt;b&gt;</a>\n<a href=\"pods/\">pods/</a>\n<a href=\"syslog\">syslog</a>\n</pre>\n"
        );
        for (path, location) in
            [("pods", "pods/?a=b"), ("syslog/", "../syslog?a=b"), ("index.html", "./?a=b")]
        {
            let moved = get(logs.path(), path, &[]).await;
            assert_eq!((moved.code, moved.headers["location"].to_str().unwrap()), (301, location), "{path}");
        }
    }

    #[tokio::test]
    async fn files_are_served_whole_or_in_part() {
        let logs = logs();
        let whole = get(logs.path(), "pods/../syslog", &[]).await;
        assert_eq!((whole.code, whole.body.as_str()), (200, "0123456789"));
        assert_eq!(whole.headers["content-length"], "10");
        assert_eq!(whole.headers["content-type"], "text/plain; charset=utf-8");
        for (range, code, body) in [
            ("bytes=2-4", 206, "234"),
            ("bytes=7-", 206, "789"),
            ("bytes=-2", 206, "89"),
            ("bytes=8-99", 206, "89"),
            ("bytes=10-", 416, "invalid range: failed to overlap\n"),
            ("bytes=0-1,3-4", 200, "0123456789"),
        ] {
            let part = get(logs.path(), "syslog", &[(header::RANGE, range)]).await;
            assert_eq!((part.code, part.body.as_str()), (code, body), "{range}");
        }
        let stamp = whole.headers["last-modified"].to_str().unwrap();
        let again = get(logs.path(), "syslog", &[(header::IF_MODIFIED_SINCE, stamp)]).await;
        assert_eq!((again.code, again.body.as_str()), (304, ""));
        let old = "Mon, 01 Jan 2001 00:00:00 GMT";
        assert_eq!(get(logs.path(), "syslog", &[(header::IF_MODIFIED_SINCE, old)]).await.code, 200);
        assert_eq!(get(logs.path(), "pods/x.gz", &[]).await.headers["content-type"], "application/x-gzip");
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_found() {
        let logs = logs();
        for path in ["none", "syslog/x", "../../../../../none"] {
            assert_eq!(get(logs.path(), path, &[]).await.code, 404, "{path}");
        }
        assert_eq!(below(Path::new("/var/log"), "/../../etc/./passwd"), Path::new("/var/log/etc/passwd"));
    }
}
