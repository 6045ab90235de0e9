//! From the security contexts of a pod and its containers to what the runtime is told of them.

use api::Value;
use k8s_cri::v1 as cri;
use k8s_cri::v1::security_profile::ProfileType;

use super::container::Inputs;
use super::{sandbox, spec};

/// The paths below `/proc` and `/sys` that containers cannot see, as upstream has them.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// The paths that containers can only read.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// The annotations that named AppArmor profiles before there was a field; the container's name follows.
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// A field of the container's security context, or else of the pod's.
fn effective<'a>(inputs: &Inputs<'a>, field: &str) -> &'a Value {
    match inputs.container.at(&["securityContext", field]) {
        Value::Null => inputs.pod.at(&["spec", "securityContext", field]),
        own => own,
    }
}

/// The security context of a container; an error is a sentence for its status.
#[expect(deprecated, reason = "older runtimes know AppArmor profiles by their names alone")]
pub(super) fn of(inputs: &Inputs<'_>) -> Result<cri::LinuxContainerSecurityContext, String> {
    let own = inputs.container.get("securityContext");
    let is = |field: &str| own.get(field).as_bool().unwrap_or_default();
    let privileged = is("privileged");
    let int = |field: &str| effective(inputs, field).as_i64();
    let image = inputs.image;
    let image_user = image.uid.as_ref().map(|uid| uid.value);
    // An image that names nobody runs as root.
    let default = image.username.is_empty().then(|| image_user.unwrap_or_default());
    let user = int("runAsUser").or(default);
    check_non_root(inputs, int("runAsUser"), image_user)?;
    let capabilities = |field: &str| -> Vec<String> {
        let names = own.array_at(&["capabilities", field]).iter().filter_map(Value::as_str);
        names.map(|name| name.trim_start_matches("CAP_").to_owned()).collect()
    };
    let unmasked = privileged || own.str_at(&["procMount"]) == "Unmasked";
    let paths =
        |all: &[&str]| if unmasked { Vec::new() } else { all.iter().map(|p| (*p).to_owned()).collect() };
    let (apparmor, apparmor_profile) = app_armor(inputs.pod, inputs.container).unzip();
    let apparmor_profile = apparmor_profile.unwrap_or_default();
    Ok(cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: capabilities("add"),
            drop_capabilities: capabilities("drop"),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(namespaces(inputs)),
        run_as_user: user.map(|value| cri::Int64Value { value }),
        // A group without a user would be refused.
        run_as_group: int("runAsGroup")
            .filter(|_| user.is_some() || !image.username.is_empty())
            .map(|value| cri::Int64Value { value }),
        run_as_username: if user.is_none() { image.username.clone() } else { String::new() },
        readonly_rootfs: is("readOnlyRootFilesystem"),
        supplemental_groups: sandbox::supplemental_groups(inputs.pod),
        no_new_privs: own.get("allowPrivilegeEscalation").as_bool() == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp(inputs, privileged)?),
        supplemental_groups_policy: groups_policy(inputs.pod),
        selinux_options: selinux(effective(inputs, "seLinuxOptions")),
        apparmor,
        apparmor_profile,
        ..Default::default()
    })
}

fn namespaces(inputs: &Inputs<'_>) -> cri::NamespaceOption {
    let mut options = sandbox::namespaces(inputs.pod, inputs.users);
    if let Some(target) = &inputs.target {
        options.pid = cri::NamespaceMode::Target as i32;
        options.target_id.clone_from(target);
    }
    options
}

fn check_non_root(inputs: &Inputs<'_>, user: Option<i64>, image_user: Option<i64>) -> Result<(), String> {
    if effective(inputs, "runAsNonRoot").as_bool() != Some(true) {
        return Ok(());
    }
    let place =
        format!("(pod: {:?}, container: {})", spec::describe(inputs.pod), inputs.container.str_at(&["name"]));
    match (user, image_user) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {place}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        (None, None) if !inputs.image.username.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {place}",
            inputs.image.username
        )),
        (None, None) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        (None, Some(_)) => Ok(()),
    }
}

fn seccomp(inputs: &Inputs<'_>, privileged: bool) -> Result<cri::SecurityProfile, String> {
    let profile = effective(inputs, "seccompProfile");
    let of = |kind: ProfileType| cri::SecurityProfile { profile_type: kind as i32, ..Default::default() };
    if privileged {
        return Ok(of(ProfileType::Unconfined));
    }
    match profile.str_at(&["type"]) {
        "RuntimeDefault" => Ok(of(ProfileType::RuntimeDefault)),
        "Localhost" => {
            let path = inputs.config.root.join("seccomp").join(profile.str_at(&["localhostProfile"]));
            let localhost_ref = path.to_string_lossy().into_owned();
            Ok(cri::SecurityProfile { profile_type: ProfileType::Localhost as i32, localhost_ref })
        }
        "" if inputs.config.file.seccomp_default => Ok(of(ProfileType::RuntimeDefault)),
        "" | "Unconfined" => Ok(of(ProfileType::Unconfined)),
        other => Err(format!("unknown seccomp profile type {other:?}")),
    }
}

/// The profile that a pod or container names; none when it names none.
fn app_armor(pod: &Value, container: &Value) -> Option<(cri::SecurityProfile, String)> {
    let own = container.at(&["securityContext", "appArmorProfile"]);
    let noted =
        pod.at(&["metadata", "annotations"]).get(&format!("{APP_ARMOR}{}", container.str_at(&["name"])));
    let common = pod.at(&["spec", "securityContext", "appArmorProfile"]);
    let (kind, name) = match (own.is_null(), noted.as_str()) {
        (false, _) => (own.str_at(&["type"]), own.str_at(&["localhostProfile"])),
        (true, Some("runtime/default")) => ("RuntimeDefault", ""),
        (true, Some("unconfined")) => ("Unconfined", ""),
        (true, Some(named)) if named.starts_with("localhost/") => ("Localhost", &named["localhost/".len()..]),
        _ => (common.str_at(&["type"]), common.str_at(&["localhostProfile"])),
    };
    let (kind, older) = match kind {
        "RuntimeDefault" => (ProfileType::RuntimeDefault, "runtime/default".to_owned()),
        "Unconfined" => (ProfileType::Unconfined, "unconfined".to_owned()),
        "Localhost" => (ProfileType::Localhost, format!("localhost/{name}")),
        _ => return None,
    };
    Some((cri::SecurityProfile { profile_type: kind as i32, localhost_ref: name.to_owned() }, older))
}

/// Whether some container of a pod is to be confined by AppArmor.
pub(crate) fn needs_app_armor(pod: &Value) -> bool {
    let confined = |container| app_armor(pod, container).is_some_and(|(_, older)| older != "unconfined");
    spec::all_containers(pod).any(confined)
}

/// The label of a container's processes, or of a sandbox's.
pub(super) fn selinux(options: &Value) -> Option<cri::SeLinuxOption> {
    options.as_object()?;
    let text = |field: &str| options.str_at(&[field]).to_owned();
    Some(cri::SeLinuxOption {
        user: text("user"),
        role: text("role"),
        r#type: text("type"),
        level: text("level"),
    })
}

/// How the groups that an image gives to its users count.
pub(super) fn groups_policy(pod: &Value) -> i32 {
    match pod.str_at(&["spec", "securityContext", "supplementalGroupsPolicy"]) {
        "Strict" => cri::SupplementalGroupsPolicy::Strict as i32,
        _ => cri::SupplementalGroupsPolicy::Merge as i32,
    }
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn the_app_armor_profile_is_the_containers_or_else_the_pods() {
        let with = |field: Value, note: Value, common: Value| {
            let container = object!({"name": "c", "securityContext": {"appArmorProfile": (field)}});
            let pod = object!({
                "metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/c": (note)}},
                "spec": {
                    "securityContext": {"appArmorProfile": (common)},
                    "containers": [(container.clone())],
                },
            });
            (app_armor(&pod, &container).map(|(_, older)| older), needs_app_armor(&pod))
        };
        let of = |kind: &str| object!({"type": kind});
        let local = object!({"type": "Localhost", "localhostProfile": "mine"});
        for (field, note, common, expected, needed) in [
            (Value::Null, Value::Null, Value::Null, None, false),
            (Value::Null, Value::Null, of("RuntimeDefault"), Some("runtime/default"), true),
            (of("Unconfined"), Value::Null, of("RuntimeDefault"), Some("unconfined"), false),
            (Value::Null, "localhost/noted".into(), of("Unconfined"), Some("localhost/noted"), true),
            (local, "unconfined".into(), Value::Null, Some("localhost/mine"), true),
        ] {
            assert_eq!(with(field, note, common), (expected.map(str::to_owned), needed), "{expected:?}");
        }
    }
}
