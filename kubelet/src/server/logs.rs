//! `/containerLogs`.

use std::path::PathBuf;
use std::sync::Arc;

use api::Value;
use futures::Stream;
use http::{HeaderValue, Response, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serve::Body;
use tokio::sync::mpsc;

use super::{pairs, pods};
use crate::Kubelet;
use crate::logs::{Options, follow};
use crate::pods::observed::{Container, Observed, State};

/// Serves the log of a container.
pub(super) async fn serve(
    kubelet: &Arc<Kubelet>,
    (namespace, name, container): (&str, &str, &str),
    query: Option<&str>,
) -> Response<Body> {
    let (options, previous) = match options(query) {
        Ok(options) => options,
        Err(why) => return serve::text(StatusCode::BAD_REQUEST, why),
    };
    let Some((pod, status)) = pods::find(kubelet, namespace, name) else {
        return serve::text(StatusCode::NOT_FOUND, format!("pod {name:?} not found\n"));
    };
    let observed = match Observed::of_pod(&kubelet.runtime, pod.uid()).await {
        Ok(observed) => observed,
        Err(error) => return serve::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let mut of_name = observed.containers.iter().filter(|c| c.name == container && c.state != State::Created);
    let found = if previous {
        of_name.find(|c| c.state == State::Exited && is_previous(&observed, c))
    } else {
        of_name.next()
    };
    let Some(found) = found else {
        return serve::text(StatusCode::BAD_REQUEST, absent(&pod, &status, container, previous));
    };
    let path = PathBuf::from(&found.log);
    if !path.exists() {
        let why = format!("failed to try resolving symlinks in path {path:?}: no such file");
        return serve::text(StatusCode::INTERNAL_SERVER_ERROR, why);
    }
    stream(kubelet, found, path, options)
}

/// Whether this is the container before the newest of its name.
fn is_previous(observed: &Observed, container: &Container) -> bool {
    observed.newest(&container.name).is_some_and(|newest| newest.id != container.id)
}

fn absent(pod: &Value, status: &Value, container: &str, previous: bool) -> String {
    let name = pod.name();
    if previous {
        return format!("previous terminated container {container:?} in pod {name:?} not found");
    }
    let fields = ["containerStatuses", "initContainerStatuses"];
    let mut all = fields.iter().flat_map(|field| status.array_at(&[field]));
    let shown = all.find(|status| status.str_at(&["name"]) == container);
    match shown.map(|shown| shown.str_at(&["state", "waiting", "reason"])) {
        Some(reason) if !reason.is_empty() => {
            let what = match reason {
                "ErrImagePull" | "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
                reason => reason.to_owned(),
            };
            format!("container {container:?} in pod {name:?} is waiting to start: {what}")
        }
        Some(_) => format!("container {container:?} in pod {name:?} is not available"),
        None => format!("container {container:?} not found in pod {name:?}"),
    }
}

fn options(query: Option<&str>) -> Result<(Options, bool), String> {
    let mut options = Options::default();
    let mut previous = false;
    for (key, value) in pairs(query) {
        let on = matches!(value.as_str(), "true" | "1");
        let number = || value.parse::<usize>().map_err(|_| format!("invalid {key}: {value:?}"));
        match key.as_str() {
            "follow" => options.follow = on,
            "timestamps" => options.timestamps = on,
            "previous" => previous = on,
            "tailLines" if value != "all" => options.tail = Some(number()?),
            "limitBytes" => options.limit = Some(number()?),
            "sinceSeconds" => {
                // What is too long ago for a time is everything.
                let ago = i64::try_from(number()?).ok().map(SignedDuration::from_secs);
                options.since = ago.and_then(|ago| Timestamp::now().checked_sub(ago).ok());
            }
            "sinceTime" => options.since = api::time::parse(&value),
            "stream" if value != "All" && !value.is_empty() => options.stream = Some(value),
            _ => {}
        }
    }
    Ok((options, previous))
}

fn stream(kubelet: &Arc<Kubelet>, container: &Container, path: PathBuf, options: Options) -> Response<Body> {
    // Full: the reading waits for the client.
    let (sender, receiver) = mpsc::channel(4);
    let runtime = kubelet.runtime.clone();
    let id = container.id.clone();
    let stop = kubelet.tasks.token();
    kubelet.tasks.plain("log", async move {
        let last = std::sync::Arc::new(parking_lot::Mutex::new(None::<tokio::time::Instant>));
        let running = || {
            let (runtime, id, last) = (runtime.clone(), id.clone(), last.clone());
            async move {
                // The file is looked at often, the runtime is asked once a second.
                if last.lock().is_some_and(|at| at.elapsed() < std::time::Duration::from_secs(1)) {
                    return true;
                }
                *last.lock() = Some(tokio::time::Instant::now());
                matches!(runtime.container_status(&id).await, Ok(Some(status)) if status.state == 1)
            }
        };
        tokio::select! {
            result = follow(path, options, sender, running) => Ok(result?),
            () = stop.cancelled() => Ok(()),
        }
    });
    let mut response = Response::new(serve::stream(pieces(receiver)));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn pieces<T>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> {
    futures::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) })
}
