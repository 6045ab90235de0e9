//! Container logs: reading the runtime's files, rotating them, linking to them by the names of their containers, and removing
//! all of that.

mod links;
mod read;
mod remove;
mod rotate;

use std::path::PathBuf;

use k8s_cri::v1 as cri;

use crate::Kubelet;
use crate::cri::labels;

pub(crate) use links::{DIR as LINKS, Names, make as link, sweep as sweep_links};
pub(crate) use read::{Options, follow};
pub(crate) use remove::remove;
use remove::rotated;
pub(crate) use rotate::run as rotate;

/// The log of a container; none of one that is not Kubernetes'.
pub(crate) fn log_of(kubelet: &Kubelet, container: &cri::Container) -> Option<PathBuf> {
    let label = |key: &str| container.labels.get(key);
    let pod = kubelet.config.pod_logs(
        label(labels::POD_NAMESPACE)?,
        label(labels::POD_NAME)?,
        label(labels::POD_UID)?,
    );
    let count = container.annotations.get(labels::RESTART_COUNT)?;
    Some(pod.join(label(labels::CONTAINER_NAME)?).join(format!("{count}.log")))
}
