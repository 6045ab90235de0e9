//! The ways that connections of the server take (`--egress-selector-config-file`): straight to their hosts, or through a
//! proxy that is part of the network of the nodes.
//!
//! What goes to nodes, pods, Services and those who extend the API there takes the way of the cluster; what goes to
//! webhooks of authentication, authorization and audit, and to webhooks named by a URL, that of the control plane.
//!
//! Source: <https://kubernetes.io/docs/tasks/extend-kubernetes/setup-konnectivity/>, KEP-1281.

mod config;
mod connect;
mod konnectivity;

use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use serve::outbound::Route;

/// What is being connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Nodes, and what runs on them.
    Cluster,
    /// Other parts of the control plane.
    ControlPlane,
}

/// The way of each selection; none for those that the configuration does not name.
#[derive(Debug, Default, PartialEq)]
struct Ways {
    cluster: Option<config::Way>,
    control_plane: Option<config::Way>,
}

/// The ways of this process. It is in one network, and where it is has no more owners than that.
static WAYS: OnceLock<Ways> = OnceLock::new();

/// Reads the ways of this process from a file, once.
///
/// # Errors
/// It cannot be read, is no valid configuration, or asks for what is not supported.
pub(crate) fn install(path: &Path) -> Result<()> {
    let text = crate::config_file::text(path)
        .with_context(|| format!("unable to read egress selector configuration from {:?}", path.display()))?;
    let ways = config::parse(&text)?;
    drop(WAYS.set(ways));
    Ok(())
}

/// The way to take.
pub(crate) fn route(selection: Selection) -> Route {
    way(selection).and_then(config::Way::route)
}

/// True when the configuration names the selection.
pub(crate) fn is_configured(selection: Selection) -> bool {
    way(selection).is_some()
}

fn way(selection: Selection) -> Option<&'static config::Way> {
    let ways = WAYS.get()?;
    match selection {
        Selection::Cluster => ways.cluster.as_ref(),
        Selection::ControlPlane => ways.control_plane.as_ref(),
    }
}
