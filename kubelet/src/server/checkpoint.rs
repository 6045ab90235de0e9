//! `/checkpoint`: a running container as a file, as far as the runtime can do that.

use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

use api::object;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serve::Body;

use super::{pairs, pods};
use crate::Kubelet;
use crate::pods::observed::Observed;
use crate::pods::spec;

/// Where checkpoints are kept, below the kubelet's folder.
const FOLDER: &str = "checkpoints";

/// Has the runtime write a checkpoint, and says where it is.
pub(super) async fn serve(
    kubelet: &Kubelet,
    (namespace, name, container): (&str, &str, &str),
    query: Option<&str>,
) -> Response<Body> {
    let not_found = |why: &str| serve::text(StatusCode::NOT_FOUND, why.to_owned());
    let Some((pod, _)) = pods::find(kubelet, namespace, name) else { return not_found("pod does not exist") };
    let mut all = spec::all_containers(&pod).chain(spec::ephemeral_containers(&pod));
    if !all.any(|other| other.str_at(&["name"]) == container) {
        return not_found(&format!("container {container} does not exist"));
    }
    let Ok(seconds) = timeout(query) else { return not_found("cannot parse value of timeout parameter") };
    match write(kubelet, (pod.uid(), &format!("{name}_{namespace}")), container, seconds).await {
        Ok(location) => serve::json(StatusCode::OK, object!({"items": [(location.as_str())]}).to_json()),
        Err(why) => {
            let why = format!("checkpointing of {namespace}/{name}/{container} failed ({why})");
            serve::text(StatusCode::INTERNAL_SERVER_ERROR, why)
        }
    }
}

/// The seconds that a caller is willing to wait; the last word counts.
fn timeout(query: Option<&str>) -> Result<i64, std::num::ParseIntError> {
    let given = pairs(query).into_iter().rfind(|(key, _)| key == "timeout");
    given.map_or(Ok(0), |(_, seconds)| seconds.parse())
}

async fn write(
    kubelet: &Kubelet,
    (uid, full_name): (&str, &str),
    container: &str,
    seconds: i64,
) -> Result<String, String> {
    if seconds < 0 {
        return Err("CheckpointContainer requires the timeout value to be > 0".to_owned());
    }
    let observed = Observed::of_pod(&kubelet.runtime, uid).await.map_err(|error| error.to_string())?;
    let found = observed.newest(container).ok_or_else(|| format!("container {container} not found"))?;
    let folder = kubelet.config.root.join(FOLDER);
    // A checkpoint holds whatever the container had in its memory.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(|error| error.to_string())?;
    let now = api::time::format(Timestamp::now());
    let location = folder.join(format!("checkpoint-{full_name}-{container}-{now}.tar"));
    let location = location.to_string_lossy().into_owned();
    let patience = Duration::from_secs(seconds.unsigned_abs());
    let written = kubelet.runtime.checkpoint(&found.id, &location, patience).await;
    written.map(|()| location).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_timeout_counts() {
        for (query, expected) in
            [(None, Some(0)), (Some("timeout=5&timeout=7"), Some(7)), (Some("timeout=soon"), None)]
        {
            assert_eq!(timeout(query).ok(), expected, "{query:?}");
        }
    }
}
