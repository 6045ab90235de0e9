//! Probes and lifecycle hooks, and the actions that both are made of.

use api::Value;
use api::field::{FieldError, Path};

use super::Checked;
use super::rules::{ACTION, PROBE, hold};

/// Checks the probes of a container.
pub(super) fn probes(container: &Value, path: &Path<'_>) -> Checked {
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let (probe, path) = (container.get(field), path.child(field));
        if probe.is_null() {
            continue;
        }
        action(probe, &["exec", "httpGet", "tcpSocket", "grpc"], &path)?;
        hold(PROBE, probe, &path)?;
        let grace = probe.get("terminationGracePeriodSeconds");
        let successes = probe.get("successThreshold").as_i64().unwrap_or(1);
        match field {
            "readinessProbe" if !grace.is_null() => {
                let path = path.child("terminationGracePeriodSeconds");
                return Err(FieldError::invalid(&path, grace.clone(), "must not be set for readinessProbes"));
            }
            "livenessProbe" | "startupProbe" if successes != 1 => {
                return Err(FieldError::invalid(&path.child("successThreshold"), successes, "must be 1"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks the hooks of a container that has so many seconds to end.
pub(super) fn hooks(container: &Value, grace: i64, path: &Path<'_>) -> Checked {
    let path = path.child("lifecycle");
    for field in ["postStart", "preStop"] {
        let (hook, path) = (container.at(&["lifecycle", field]), path.child(field));
        if hook.is_null() {
            continue;
        }
        action(hook, &["exec", "httpGet", "tcpSocket", "sleep"], &path)?;
        let seconds = hook.at(&["sleep", "seconds"]).as_i64().unwrap_or_default();
        if !(0..=grace).contains(&seconds) {
            let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            return Err(FieldError::invalid(&path.child("sleep"), seconds, why));
        }
    }
    Ok(())
}

/// What is to be done is one thing.
fn action(of: &Value, kinds: &[&str], path: &Path<'_>) -> Checked {
    let mut given = kinds.iter().filter(|kind| !of.get(kind).is_null());
    if given.next().is_none() {
        return Err(FieldError::required(path, "must specify a handler type"));
    }
    if let Some(second) = given.next() {
        return Err(FieldError::forbidden(&path.child(second), "may not specify more than 1 handler type"));
    }
    hold(ACTION, of, path)
}
