//! Probes and hooks, and the actions that both are made of.

use api::names;

use super::spec::Pod;
use super::windows;
use crate::kinds::Errors;
use crate::kinds::check::At;

/// Checks the probes of a container.
pub(super) fn validate_probes(container: &At<'_>, errors: &mut Errors) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.get(name);
        if probe.is_set() {
            validate_probe(&probe, name == "readinessProbe", errors);
        }
    }
}

fn validate_probe(probe: &At<'_>, readiness: bool, errors: &mut Errors) {
    validate_action(probe, &["exec", "httpGet", "tcpSocket", "grpc"], None, errors);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        probe.get(field).not_negative(errors);
    }
    let grace = probe.get("terminationGracePeriodSeconds");
    if grace.is_set() && grace.int() <= 0 {
        grace.invalid(errors, "must be greater than 0");
    }
    let threshold = probe.get("successThreshold");
    if readiness {
        if grace.is_set() {
            grace.invalid(errors, "must not be set for readinessProbes");
        }
    } else if threshold.int() != 1 {
        threshold.invalid_as(errors, threshold.int(), "must be 1");
    }
}

/// Checks the hooks of a container.
pub(super) fn validate_lifecycle(lifecycle: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    for name in ["postStart", "preStop"] {
        let hook = lifecycle.get(name);
        if hook.is_set() {
            validate_action(&hook, &["exec", "httpGet", "tcpSocket", "sleep"], pod.grace(), errors);
        }
    }
    let signal = lifecycle.get("stopSignal");
    if signal.is_set() {
        windows::validate_stop_signal(&signal, &pod.spec.get("os"), errors);
    }
}

fn validate_action(at: &At<'_>, kinds: &[&str], grace: Option<i64>, errors: &mut Errors) {
    let mut first = true;
    for kind in kinds {
        let action = at.get(kind);
        if !action.is_set() {
            continue;
        }
        if !first {
            action.forbidden(errors, "may not specify more than 1 handler type");
            continue;
        }
        first = false;
        match *kind {
            "exec" => {
                action.get("command").not_empty(errors);
            }
            "httpGet" => validate_http(&action, errors),
            "sleep" => validate_sleep(&action, grace, errors),
            "grpc" => action.get("port").port(errors),
            _ => action.get("port").port_or_name(errors),
        }
    }
    if first {
        at.required(errors, "must specify a handler type");
    }
}

fn validate_http(action: &At<'_>, errors: &mut Errors) {
    action.get("path").not_empty(errors);
    action.get("port").port_or_name(errors);
    let scheme = action.get("scheme");
    if !["HTTP", "HTTPS"].contains(&scheme.text()) {
        scheme.unsupported(errors, &["HTTP", "HTTPS"]);
    }
    let headers = action.get("httpHeaders");
    for header in headers.items() {
        headers.with(header.value.get("name")).named(errors, names::http_header);
    }
}

fn validate_sleep(action: &At<'_>, grace: Option<i64>, errors: &mut Errors) {
    let seconds = action.get("seconds").int();
    if let Some(grace) = grace
        && !(0..=grace).contains(&seconds)
    {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        action.invalid_as(errors, seconds, why);
    }
}
