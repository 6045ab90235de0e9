//! `/logs/`: the machine's own logs. They are read as files, or asked for by a query, which finds the logs of services with
//! journalctl and in files that are called like them.

mod files;
mod journal;
mod query;

use std::path::Path;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use serve::Body;

use super::{not_found, pairs};
use crate::Kubelet;
use query::Query;

/// Where the logs of a machine are.
const LOGS: &str = "/var/log/";

/// Serves a log, a folder of them, or what a query finds.
pub(super) async fn serve(
    kubelet: &Kubelet,
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
) -> Response<Body> {
    let file = &kubelet.config.file;
    if !file.enable_system_log_handler {
        return serve::text(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.\n");
    }
    if method != Method::GET {
        let mut refusal = serve::text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
        refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return refusal;
    }
    if uri.path() == "/logs" {
        let mut moved = Response::new(serve::empty());
        *moved.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        moved.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/logs/"));
        return moved;
    }
    let decoded = percent_encoding::percent_decode_str(uri.path()).decode_utf8_lossy();
    let Some(path) = decoded.strip_prefix("/logs/") else { return not_found() };
    let wanted = files::Wanted { path, query: uri.query(), headers };
    if !file.enable_system_log_query {
        return files::serve(Path::new(LOGS), wanted).await;
    }
    match asked(uri.query(), Path::new(LOGS)) {
        Err((code, why)) => serve::text(code, format!("{why}\n")),
        Ok(Some(query)) if !query.services.is_empty() => {
            let gzip = headers.get(header::ACCEPT_ENCODING).is_some_and(|accepted| accepted == "gzip");
            journal::answer(&kubelet.tasks, Path::new(LOGS).to_owned(), query, gzip)
        }
        Ok(Some(Query { files, .. })) => {
            let path = files.first().map(String::as_str).unwrap_or_default();
            files::serve(Path::new(LOGS), files::Wanted { path, ..wanted }).await
        }
        Ok(None) => files::serve(Path::new(LOGS), wanted).await,
    }
}

/// The query of a request, if it is one, or why it cannot be answered.
fn asked(query: Option<&str>, logs: &Path) -> Result<Option<Query>, (StatusCode, String)> {
    let refuse = |code| move |why| (code, why);
    let Some(query) = Query::parse(&pairs(query)).map_err(refuse(StatusCode::BAD_REQUEST))? else {
        return Ok(None);
    };
    query.check(logs).map_err(refuse(StatusCode::NOT_ACCEPTABLE))?;
    Ok(Some(query))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_bad_and_what_cannot_be_done_is_not_acceptable() {
        let logs = tempfile::tempdir().unwrap();
        let code = |query| asked(Some(query), logs.path()).map_err(|(code, _)| code);
        assert!(asked(None, logs.path()).unwrap().is_none());
        assert_eq!(code("query=").err(), Some(StatusCode::BAD_REQUEST));
        assert_eq!(code("query=a&boot=x").err(), Some(StatusCode::BAD_REQUEST));
        assert_eq!(code("query=a&boot=1").err(), Some(StatusCode::NOT_ACCEPTABLE));
        assert_eq!(code("pattern=x").err(), Some(StatusCode::NOT_ACCEPTABLE));
        assert_eq!(code("query=a&query=b").unwrap().unwrap().services, ["a", "b"]);
    }
}
