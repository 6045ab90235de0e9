//! What pods and containers may do, and what of the node they share.

use api::Value;
use api::field::{FieldError, Path, Problem};

use super::{Checked, below};
use crate::pods::spec;

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

/// Parameters of the kernel that belong to the network, or to processes that talk to each other.
const NETWORK: &[&str] = &["net."];
const IPC: &[&str] = &["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];

/// Checks what holds for a pod as a whole.
pub(super) fn of_pod(pod: &Value, path: &Path<'_>) -> Checked {
    let is = |field: &str| pod.at(&["spec", field]).as_bool() == Some(true);
    if pod.at(&["spec", "hostUsers"]).as_bool() == Some(false) {
        for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
        {
            if is(field) {
                return Err(FieldError::forbidden(&path.child(shown), "when `hostUsers` is false"));
            }
        }
    }
    let context = path.child("securityContext");
    if is("shareProcessNamespace") && is("hostPID") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        return Err(FieldError::invalid(&context.child("shareProcessNamespace"), true, why));
    }
    let list = context.child("sysctls");
    for (i, sysctl) in pod.array_at(&["spec", "securityContext", "sysctls"]).iter().enumerate() {
        let name = sysctl.str_at(&["name"]);
        for (shared, prefixes) in [("hostNetwork", NETWORK), ("hostIPC", IPC)] {
            let dotted = name.replace('/', ".");
            if is(shared) && prefixes.iter().any(|prefix| dotted.starts_with(prefix)) {
                let why = format!("may not be specified when '{shared}' is true");
                return Err(FieldError::invalid(&list.index(i).child("name"), name, why));
            }
        }
    }
    profiles(pod.at(&["spec", "securityContext"]), &context)?;
    if is("hostNetwork") { ports_are_the_hosts(pod, path) } else { Ok(()) }
}

fn ports_are_the_hosts(pod: &Value, path: &Path<'_>) -> Checked {
    let list = path.child("containers");
    for (i, container) in spec::containers(pod).iter().enumerate() {
        let container_path = list.index(i);
        let list = container_path.child("ports");
        for (i, port) in container.array_at(&["ports"]).iter().enumerate() {
            let number = |field: &str| port.get(field).as_i64().unwrap_or_default();
            if number("hostPort") != number("containerPort") {
                let why = "must match `containerPort` when `hostNetwork` is true";
                return Err(FieldError::invalid(&list.index(i).child("hostPort"), number("hostPort"), why));
            }
        }
    }
    Ok(())
}

/// Checks the security context of a container.
pub(super) fn of_container(pod: &Value, container: &Value, path: &Path<'_>) -> Checked {
    let (context, path) = (container.get("securityContext"), path.child("securityContext"));
    let own_users = pod.at(&["spec", "hostUsers"]).as_bool() == Some(false);
    if context.str_at(&["procMount"]) == "Unmasked" && !own_users {
        let why = "`hostUsers` must be false to use `Unmasked`";
        return Err(FieldError::invalid(&path.child("procMount"), "Unmasked", why));
    }
    if context.get("allowPrivilegeEscalation").as_bool() == Some(false) {
        let added = context.array_at(&["capabilities", "add"]).iter();
        let mut added = added.filter_map(Value::as_str);
        let contradiction = match context.get("privileged").as_bool() {
            Some(true) => Some("`privileged` to true"),
            _ => added.any(|name| name == "CAP_SYS_ADMIN").then_some("`capabilities.Add` CAP_SYS_ADMIN"),
        };
        if let Some(other) = contradiction {
            let why = format!("cannot set `allowPrivilegeEscalation` to false and {other}");
            return Err(FieldError::new(&path, Problem::InvalidPart, why));
        }
    }
    profiles(context, &path)
}

/// Checks which profiles of seccomp and AppArmor a context names. Those of the node lie below a folder.
fn profiles(context: &Value, path: &Path<'_>) -> Checked {
    for (field, what) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let (profile, path) = (context.get(field), path.child(field));
        if profile.is_null() {
            continue;
        }
        let (kind, local) = (profile.str_at(&["type"]), profile.str_at(&["localhostProfile"]));
        let local_path = path.child("localhostProfile");
        match kind {
            "" => {
                let why = format!("type is required when {field} is set");
                return Err(FieldError::required(&path.child("type"), why));
            }
            "Localhost" if local.is_empty() => {
                let why = format!("must be set when {what} type is Localhost");
                return Err(FieldError::required(&local_path, why));
            }
            "Localhost" if field == "seccompProfile" => below(local, &local_path)?,
            "Localhost" if local.trim() != local => {
                return Err(FieldError::invalid(&local_path, local, "must not be padded with whitespace"));
            }
            "Localhost" => {}
            other if !PROFILES.contains(&other) => {
                return Err(FieldError::not_supported(&path.child("type"), other, &PROFILES));
            }
            _ if !local.is_empty() => {
                let why = format!("can only be set when {what} type is Localhost");
                return Err(FieldError::invalid(&local_path, local, why));
            }
            _ => {}
        }
    }
    Ok(())
}
