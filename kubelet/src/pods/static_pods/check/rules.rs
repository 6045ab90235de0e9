//! Rules for single fields, as tables: where a field is, and what holds for it.

use std::net::IpAddr;

use api::field::{FieldError, Path};
use api::quantity::Quantity;
use api::{Value, names};

use super::Checked;

/// What holds for a field. What is absent passes, unless the rule says that it has to be there.
pub(super) enum Rule {
    /// It has to be there.
    Given,
    NotNegative,
    Positive,
    Within(i64, i64),
    /// Bits of who may do what with a file.
    Mode,
    OneOf(&'static [&'static str]),
    /// If there is a name, it follows a rule.
    Named(fn(&str) -> Vec<String>),
    /// There is a name, and it follows a rule.
    Name(fn(&str) -> Vec<String>),
    /// It is the number of a port.
    Port,
    PortOrName,
    /// There may be none.
    HostPort,
    Address,
    /// An amount that is not negative.
    Amount,
    /// So many items at most; the word for them where the message has one.
    Most(usize, &'static str),
}

use Rule::{
    Address, Amount, Given, HostPort, Mode, Most, Name, Named, NotNegative, OneOf, Port, PortOrName,
    Positive, Within,
};

/// A field by the names on the way to it, `[]` behind those of lists of which every item counts, and its rule.
pub(super) type Row = (&'static str, Rule);

const ID: Rule = Within(0, i32::MAX as i64);
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const HOST_PATHS: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Of a pod's spec.
pub(super) const POD: &[Row] = &[
    ("restartPolicy", OneOf(&RESTART_POLICIES)),
    ("dnsPolicy", OneOf(&["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"])),
    ("securityContext.fsGroup", ID),
    ("securityContext.runAsUser", ID),
    ("securityContext.runAsGroup", ID),
    ("securityContext.supplementalGroups[]", ID),
    ("securityContext.sysctls[].name", Name(sysctl)),
    ("securityContext.fsGroupChangePolicy", OneOf(&["Always", "OnRootMismatch"])),
    ("securityContext.supplementalGroupsPolicy", OneOf(&["Merge", "Strict"])),
    ("securityContext.seLinuxChangePolicy", OneOf(&["MountOption", "Recursive"])),
    ("dnsConfig.nameservers", Most(3, "nameservers")),
    ("dnsConfig.nameservers[]", Address),
    ("dnsConfig.searches", Most(32, "search paths")),
    ("dnsConfig.searches[]", Named(search)),
    ("dnsConfig.options[].name", Given),
    ("readinessGates[].conditionType", Name(names::qualified_name)),
    ("activeDeadlineSeconds", Within(1, i32::MAX as i64)),
    ("hostname", Named(names::dns_label)),
    ("subdomain", Named(names::dns_label)),
    ("hostnameOverride", Named(names::dns_subdomain)),
    ("hostAliases[].ip", Address),
    ("hostAliases[].hostnames[]", Name(names::dns_subdomain)),
    ("resources.limits.*", Amount),
    ("resources.requests.*", Amount),
    ("overhead.*", Amount),
];

/// Of a volume.
pub(super) const VOLUME: &[Row] = &[
    ("hostPath.path", Given),
    ("hostPath.type", OneOf(&HOST_PATHS)),
    ("downwardAPI.defaultMode", Mode),
    ("downwardAPI.items[].mode", Mode),
    ("projected.defaultMode", Mode),
    ("projected.sources[].downwardAPI.items[].mode", Mode),
];

/// Of any container.
pub(super) const CONTAINER: &[Row] = &[
    ("image", Given),
    ("terminationMessagePolicy", OneOf(&["FallbackToLogsOnError", "File"])),
    ("ports[].name", Named(names::port_name)),
    ("ports[].containerPort", Given),
    ("ports[].containerPort", Port),
    ("ports[].hostPort", HostPort),
    ("ports[].protocol", OneOf(&["SCTP", "TCP", "UDP"])),
    ("env[].name", Name(names::environment_variable)),
    ("volumeMounts[].mountPropagation", OneOf(&["Bidirectional", "HostToContainer", "None"])),
    ("volumeMounts[].recursiveReadOnly", OneOf(&["Disabled", "Enabled", "IfPossible"])),
    ("imagePullPolicy", OneOf(&PULL_POLICIES)),
    ("resources.limits.*", Amount),
    ("resources.requests.*", Amount),
    ("securityContext.runAsUser", ID),
    ("securityContext.runAsGroup", ID),
    ("securityContext.procMount", OneOf(&["Default", "Unmasked"])),
    ("restartPolicy", OneOf(&["Always", "Never", "OnFailure"])),
    ("restartPolicyRules", Most(20, "")),
    ("restartPolicyRules[].action", OneOf(&["Restart", "RestartAllContainers"])),
    ("restartPolicyRules[].exitCodes", Given),
    ("restartPolicyRules[].exitCodes.operator", OneOf(&["In", "NotIn"])),
    ("restartPolicyRules[].exitCodes.values", Most(255, "")),
];

/// Of a probe.
pub(super) const PROBE: &[Row] = &[
    ("initialDelaySeconds", NotNegative),
    ("timeoutSeconds", NotNegative),
    ("periodSeconds", NotNegative),
    ("successThreshold", NotNegative),
    ("failureThreshold", NotNegative),
    ("terminationGracePeriodSeconds", Positive),
];

/// Of what probes and hooks do.
pub(super) const ACTION: &[Row] = &[
    ("exec.command", Given),
    ("httpGet.path", Given),
    ("httpGet.port", PortOrName),
    ("httpGet.scheme", OneOf(&["HTTP", "HTTPS"])),
    ("httpGet.httpHeaders[].name", Name(names::http_header)),
    ("tcpSocket.port", PortOrName),
    ("grpc.port", Port),
];

/// The first field of `object` for which a rule does not hold.
pub(super) fn hold(rules: &[Row], object: &Value, path: &Path<'_>) -> Checked {
    rules.iter().try_for_each(|(steps, rule)| walk(steps, rule, object, path))
}

fn walk(steps: &str, rule: &Rule, value: &Value, path: &Path<'_>) -> Checked {
    if steps.is_empty() {
        return rule.check(value, path);
    }
    let (step, rest) = steps.split_once('.').unwrap_or((steps, ""));
    if value.is_null() {
        return Ok(());
    }
    if step == "*" {
        let mut members = value.as_object().into_iter().flat_map(|map| map.iter());
        return members.try_for_each(|(key, member)| walk(rest, rule, member, &path.key(key)));
    }
    let Some(list) = step.strip_suffix("[]") else {
        return walk(rest, rule, value.get(step), &path.child(step));
    };
    let path = path.child(list);
    let mut items = value.array_at(&[list]).iter().enumerate();
    items.try_for_each(|(i, item)| walk(rest, rule, item, &path.index(i)))
}

impl Rule {
    fn check(&self, value: &Value, path: &Path<'_>) -> Checked {
        let text = value.as_str().unwrap_or_default();
        let number = value.as_i64().unwrap_or_default();
        let invalid = |why: &str| Err(FieldError::invalid(path, value.clone(), why));
        let named = |rule: fn(&str) -> Vec<String>| rule(text).pop().map_or(Ok(()), |why| invalid(&why));
        let between = |low: i64, high: i64| match (low..=high).contains(&number) {
            true => Ok(()),
            false => {
                Err(FieldError::invalid(path, number, format!("must be between {low} and {high}, inclusive")))
            }
        };
        match *self {
            Given | Name(_) if value.is_empty() => Err(FieldError::required(path, "")),
            Name(rule) => named(rule),
            Named(rule) if !text.is_empty() => named(rule),
            PortOrName if value.as_str().is_some() => named(names::port_name),
            Port | PortOrName => between(1, 65_535),
            HostPort if number != 0 => between(1, 65_535),
            Within(low, high) if !value.is_null() => between(low, high),
            Mode if !(0..=0o777).contains(&number) => {
                invalid("must be a number between 0 and 0777 (octal), both inclusive")
            }
            NotNegative if number < 0 => invalid("must be greater than or equal to 0"),
            Positive if number <= 0 && !value.is_null() => invalid("must be greater than 0"),
            OneOf(supported) if !text.is_empty() && !supported.contains(&text) => {
                Err(FieldError::not_supported(path, text, supported))
            }
            Address => address(text).or_else(invalid),
            Amount if amount(value).is_some_and(|amount| amount.is_negative()) => {
                invalid("must be greater than or equal to 0")
            }
            Most(most, "") if length(value) > most => Err(FieldError::too_many(path, length(value), most)),
            Most(most, what) if length(value) > most => {
                invalid(&format!("must not have more than {most} {what}"))
            }
            _ => Ok(()),
        }
    }
}

fn length(value: &Value) -> usize {
    value.as_array().map_or(0, Vec::len)
}

/// An amount of a resource.
pub(super) fn amount(value: &Value) -> Option<Quantity> {
    value.as_str().and_then(|text| text.parse().ok())
}

fn address(text: &str) -> Result<(), &'static str> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(six)) if six.to_ipv4_mapped().is_some() => {
            Err("must not be an IPv4-mapped IPv6 address")
        }
        Ok(_) => Ok(()),
        Err(_) => Err("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
    }
}

/// A domain to search in; the root may end it.
fn search(text: &str) -> Vec<String> {
    if text == "." { Vec::new() } else { names::search_domain(text.strip_suffix('.').unwrap_or(text)) }
}

/// The name of a kernel parameter.
fn sysctl(text: &str) -> Vec<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let segment = |s: &str| {
        s.starts_with(plain) && s.ends_with(plain) && s.chars().all(|c| plain(c) || "-_".contains(c))
    };
    if text.len() <= 253 && text.split(['.', '/']).all(segment) {
        return Vec::new();
    }
    vec!["must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$".to_owned()]
}
