//! Operating systems: what a pod that names one may have, and the options of Windows.

use std::sync::LazyLock;

use api::names;
use regex::Regex;

use super::spec::each_container;
use crate::kinds::Errors;
use crate::kinds::check::At;

const CREDENTIALS_MAX: usize = 64 * 1024;
const DOMAIN_MAX: usize = 256;
const USER_MAX: usize = 104;

static NET_BIOS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]{0,14}$"#).expect("the pattern is valid")
});
static DNS: LazyLock<Regex> = LazyLock::new(|| {
    const LABEL: &str = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?";
    Regex::new(&format!(r"^{LABEL}(?:\.{LABEL})*$")).expect("the pattern is valid")
});

/// Checks Windows' part of a security context.
pub(super) fn validate_options(options: &At<'_>, errors: &mut Errors) {
    let name = options.get("gmsaCredentialSpecName");
    if name.is_set() {
        name.named(errors, names::dns_subdomain);
    }
    let credentials = options.get("gmsaCredentialSpec");
    if credentials.is_set() {
        if credentials.text().is_empty() {
            credentials.invalid(errors, "gmsaCredentialSpec cannot be an empty string");
        } else if credentials.text().len() > CREDENTIALS_MAX {
            credentials.invalid(errors, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    let user = options.get("runAsUserName");
    if user.is_set() {
        validate_user(&user, errors);
    }
}

fn validate_user(at: &At<'_>, errors: &mut Errors) {
    let text = at.text();
    if text.is_empty() {
        return at.invalid(errors, "runAsUserName cannot be an empty string");
    }
    if text.chars().any(char::is_control) {
        return at.invalid(errors, "runAsUserName cannot contain control characters");
    }
    let (domain, user) = match text.split_once('\\') {
        Some((_, rest)) if rest.contains('\\') => {
            return at.invalid(errors, "runAsUserName cannot contain more than one backslash");
        }
        Some((domain, user)) => (Some(domain), user),
        None => (None, text),
    };
    if domain.is_some_and(|d| d.len() >= DOMAIN_MAX) {
        let why = format!("runAsUserName's Domain length must be under {DOMAIN_MAX} characters");
        at.invalid(errors, why);
    }
    if domain.is_some_and(|d| !NET_BIOS.is_match(d) && !DNS.is_match(d)) {
        at.invalid(errors, "runAsUserName's Domain doesn't match the NetBios nor the DNS format");
    }
    if user.is_empty() {
        at.invalid(errors, "runAsUserName's User cannot be empty");
    } else if user.len() > USER_MAX {
        let why = format!("runAsUserName's User length must not be longer than {USER_MAX} characters");
        at.invalid(errors, why);
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        at.invalid(errors, "runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(|c| r#""/\:;|=,+*?<>@[]"#.contains(c)) {
        let why = r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#;
        at.invalid(errors, why);
    }
}

/// All containers are processes of the host, or none is.
pub(super) fn validate_host_process(spec: &At<'_>, errors: &mut Errors) {
    let whole = spec.get("securityContext.windowsOptions.hostProcess").value.as_bool();
    let (mut all, mut host) = (0, 0);
    each_container(spec, |container| {
        all += 1;
        let at = container.get("securityContext.windowsOptions.hostProcess");
        let own = at.value.as_bool();
        if let (Some(whole), Some(own)) = (whole, own)
            && whole != own
        {
            let why = format!("pod hostProcess value must be identical if both are specified, was {whole}");
            at.invalid(errors, why);
        }
        if own.or(whole) == Some(true) {
            host += 1;
        }
    });
    if host == 0 {
        return;
    }
    if host != all {
        let why =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        spec.invalid_as(errors, "", why);
    }
    if !spec.get("hostNetwork").is_true() {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        spec.get("hostNetwork").invalid_as(errors, false, why);
    }
}

/// Fields of a pod that Windows has not.
const POD_FIELDS: [&str; 15] = [
    "securityContext.appArmorProfile",
    "securityContext.seLinuxOptions",
    "hostUsers",
    "hostPID",
    "hostIPC",
    "securityContext.seccompProfile",
    "securityContext.fsGroup",
    "securityContext.fsGroupChangePolicy",
    "securityContext.sysctls",
    "shareProcessNamespace",
    "securityContext.runAsUser",
    "securityContext.runAsGroup",
    "securityContext.supplementalGroups",
    "securityContext.supplementalGroupsPolicy",
    "securityContext.seLinuxChangePolicy",
];

/// Fields of a container's security context that Windows has not.
const CONTAINER_FIELDS: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// Checks a pod that names its operating system.
pub(super) fn validate_os(spec: &At<'_>, errors: &mut Errors) {
    let os = spec.get("os");
    let name = os.get("name");
    match name.text() {
        "" => name.required(errors, ""),
        "linux" => {
            let why = "windows options cannot be set for a linux pod";
            if spec.get("securityContext.windowsOptions").is_set() {
                spec.get("securityContext.windowsOptions").forbidden(errors, why);
            }
            each_container(spec, |container| {
                let options = container.get("securityContext.windowsOptions");
                if options.is_set() {
                    options.forbidden(errors, why);
                }
            });
        }
        "windows" => {
            let why = "cannot be set for a windows pod";
            for field in POD_FIELDS {
                let at = spec.get(field);
                let set = match field {
                    "hostPID" | "hostIPC" => at.is_true(),
                    "securityContext.sysctls" => at.len() > 0,
                    _ => at.is_set(),
                };
                if set {
                    at.forbidden(errors, why);
                }
            }
            each_container(spec, |container| {
                let context = container.get("securityContext");
                for field in CONTAINER_FIELDS.iter().map(|f| context.get(f)).filter(At::is_set) {
                    field.forbidden(errors, why);
                }
            });
        }
        _ => os.with(name.value).unsupported(errors, &["linux", "windows"]),
    }
}

const SIGNALS: &str = "SIGABRT SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGFPE SIGHUP SIGILL SIGINT SIGIO SIGIOT SIGKILL SIGPIPE SIGPOLL SIGPROF SIGPWR SIGQUIT SIGRTMAX SIGRTMAX-1 SIGRTMAX-10 SIGRTMAX-11 SIGRTMAX-12 SIGRTMAX-13 SIGRTMAX-14 SIGRTMAX-2 SIGRTMAX-3 SIGRTMAX-4 SIGRTMAX-5 SIGRTMAX-6 SIGRTMAX-7 SIGRTMAX-8 SIGRTMAX-9 SIGRTMIN SIGRTMIN+1 SIGRTMIN+10 SIGRTMIN+11 SIGRTMIN+12 SIGRTMIN+13 SIGRTMIN+14 SIGRTMIN+15 SIGRTMIN+2 SIGRTMIN+3 SIGRTMIN+4 SIGRTMIN+5 SIGRTMIN+6 SIGRTMIN+7 SIGRTMIN+8 SIGRTMIN+9 SIGSEGV SIGSTKFLT SIGSTOP SIGSYS SIGTERM SIGTRAP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ";

/// Checks the signal that ends a container.
pub(super) fn validate_stop_signal(signal: &At<'_>, os: &At<'_>, errors: &mut Errors) {
    if !os.is_set() {
        return signal.forbidden(errors, "may not be set for containers with empty `spec.os.name`");
    }
    match os.get("name").text() {
        "windows" => signal.one_of(errors, &["SIGKILL", "SIGTERM"]),
        "linux" => signal.one_of(errors, &SIGNALS.split(' ').collect::<Vec<_>>()),
        _ => {}
    }
}
