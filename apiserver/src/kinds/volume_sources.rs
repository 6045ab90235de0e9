//! Sources of volumes that pods and PersistentVolumes have in common.

use std::sync::LazyLock;

use api::{Value, names};
use regex::Regex;

use super::Errors;
use super::check::At;
use super::pod::no_back_steps;

/// Where a source stands: those of PersistentVolumes name the namespaces of what they refer to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner<'a> {
    /// A volume of a pod.
    Pod,
    /// A PersistentVolume of that name.
    Persistent(&'a str),
}

/// Fields that a source must have, for those that need no more.
const REQUIRED: &[(&str, &[&str])] = &[
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("glusterfs", &["endpoints", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("rbd", &["monitors", "image"]),
    ("cinder", &["volumeID"]),
    ("cephfs", &["monitors"]),
    ("azureFile", &["secretName", "shareName"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("flexVolume", &["driver"]),
    ("nfs", &["server", "path"]),
];

/// Checks the source `kind`.
pub(super) fn validate(kind: &str, source: &At<'_>, owner: Owner<'_>, errors: &mut Errors) {
    let required = REQUIRED.iter().filter(|(k, _)| *k == kind).flat_map(|(_, fields)| fields.iter());
    for field in required {
        source.get(field).not_empty(errors);
    }
    match kind {
        "hostPath" => validate_host_path(source, errors),
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            let partition = source.get("partition");
            if !(0..=255).contains(&partition.int()) {
                partition.invalid(errors, "must be between 1 and 255, inclusive");
            }
        }
        "nfs" => {
            let path = source.get("path");
            if !path.text().starts_with('/') {
                path.invalid_as(errors, path.text(), "must be an absolute path");
            }
        }
        "iscsi" => validate_iscsi(source, owner, errors),
        "glusterfs" if owner != Owner::Pod => {
            let namespace = source.get("endpointsNamespace");
            if namespace.is_set() && namespace.text().is_empty() {
                let why = "if the endpointnamespace is set, it must be a valid namespace name";
                namespace.invalid(errors, why);
            } else {
                namespace.named_if_any(errors, names::dns_label);
            }
        }
        "flocker" => validate_flocker(source, errors),
        "cinder" => validate_secret(&source.get("secretRef"), owner, errors),
        "quobyte" => validate_quobyte(source, errors),
        "fc" => validate_fibre_channel(source, errors),
        "flexVolume" => validate_flex(source, errors),
        "azureFile" if owner != Owner::Pod => {
            let namespace = source.get("secretNamespace");
            if namespace.is_set() {
                namespace.not_empty(errors);
            }
        }
        "azureDisk" => validate_azure_disk(source, errors),
        "storageos" => {
            source.get("volumeName").required_name(errors, names::dns_label);
            source.get("volumeNamespace").named_if_any(errors, names::dns_label);
            validate_secret(&source.get("secretRef"), owner, errors);
        }
        "csi" => validate_csi(source, owner, errors),
        "local" => {
            let path = source.get("path");
            if path.not_empty(errors) {
                no_back_steps(&path, errors);
            }
        }
        _ => {}
    }
}

fn validate_secret(secret: &At<'_>, owner: Owner<'_>, errors: &mut Errors) {
    if secret.is_set() {
        secret.get("name").not_empty(errors);
        if owner != Owner::Pod {
            secret.get("namespace").not_empty(errors);
        }
    }
}

fn validate_host_path(source: &At<'_>, errors: &mut Errors) {
    let path = source.get("path");
    if !path.not_empty(errors) {
        return;
    }
    no_back_steps(&path, errors);
    let kinds =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    source.get("type").one_of(errors, &kinds);
}

static IQN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"iqn\.\d{4}-\d{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$").expect("the pattern is valid")
});
static EUI: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^eui.[[:alnum:]]{16}$").expect("the pattern is valid"));
static NAA: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^naa.[[:alnum:]]{32}$").expect("the pattern is valid"));

fn validate_iscsi(source: &At<'_>, owner: Owner<'_>, errors: &mut Errors) {
    const TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
    let (portal, initiator) = (source.get("targetPortal"), source.get("initiatorName"));
    portal.not_empty(errors);
    if let Owner::Persistent(name) = owner
        && initiator.is_set()
        && name.len() + 1 + portal.text().len() > 64
    {
        source.get("targetportal").invalid_as(errors, portal.text(), TOO_LONG);
    }
    let prefix = match owner {
        Owner::Pod => "must be valid format starting with iqn, eui, or naa",
        Owner::Persistent(_) => "must be valid format",
    };
    let name = source.get("iqn");
    if name.not_empty(errors) {
        validate_initiator(&name, prefix, errors);
    }
    let unit = source.get("lun");
    if !(0..=255).contains(&unit.int()) {
        unit.invalid(errors, "must be between 0 and 255, inclusive");
    }
    let secret = source.get("secretRef");
    let authenticates = source.get("chapAuthDiscovery").is_true() || source.get("chapAuthSession").is_true();
    if authenticates && !secret.is_set() {
        secret.required(errors, "");
    }
    if owner != Owner::Pod && secret.is_set() {
        secret.get("name").not_empty(errors);
    }
    if initiator.is_set() {
        validate_initiator(&source.get("initiatorname").with(initiator.value), prefix, errors);
    }
}

fn validate_initiator(name: &At<'_>, prefix: &str, errors: &mut Errors) {
    let text = name.text();
    let why = match text.get(..3) {
        Some("iqn") if IQN.is_match(text) => return,
        Some("eui") if EUI.is_match(text) => return,
        Some("naa") if NAA.is_match(text) => return,
        Some("iqn" | "eui" | "naa") => "must be valid format",
        _ => prefix,
    };
    name.invalid_as(errors, text, why);
}

fn validate_flocker(source: &At<'_>, errors: &mut Errors) {
    let (name, id) = (source.get("datasetName"), source.get("datasetUUID"));
    if name.text().is_empty() && id.text().is_empty() {
        source.required(errors, "one of datasetName and datasetUUID is required");
    }
    if !name.text().is_empty() && !id.text().is_empty() {
        let why = "datasetName and datasetUUID can not be specified simultaneously";
        source.invalid_as(errors, "resource", why);
    }
    if name.text().contains('/') {
        name.invalid(errors, "must not contain '/'");
    }
}

fn validate_quobyte(source: &At<'_>, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let (registry, tenant) = (source.get("registry"), source.get("tenant"));
    if registry.text().is_empty() {
        registry.required(errors, PAIRS);
    } else if tenant.text().len() >= 65 {
        tenant.required(errors, "must be a UUID and may not exceed a length of 64 characters");
    } else {
        let pair = |p: &&str| {
            p.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.starts_with('['))
        };
        for _ in registry.text().split(',').filter(|p| !pair(p)) {
            registry.invalid(errors, PAIRS);
        }
    }
    source.get("volume").not_empty(errors);
}

fn validate_fibre_channel(source: &At<'_>, errors: &mut Errors) {
    let (targets, ids, unit) = (source.get("targetWWNs"), source.get("wwids"), source.get("lun"));
    if targets.len() == 0 && ids.len() == 0 {
        targets.required(errors, "must specify either targetWWNs or wwids, but not both");
    }
    if targets.len() != 0 && ids.len() != 0 {
        targets.invalid(errors, "targetWWNs and wwids can not be specified simultaneously");
    }
    if targets.len() != 0 {
        if unit.is_set() {
            unit.within(errors, 0, 255);
        } else {
            unit.required(errors, "lun is required if targetWWNs is specified");
        }
    }
}

fn validate_flex(source: &At<'_>, errors: &mut Errors) {
    for (key, option) in source.get("options").entries() {
        let namespace = format!(".{}", key.split('/').next().unwrap_or_default().to_ascii_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            option.invalid_as(errors, key, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

fn validate_azure_disk(source: &At<'_>, errors: &mut Errors) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    source.get("cachingMode").one_of(errors, &["None", "ReadOnly", "ReadWrite"]);
    let (kind, uri) = (source.get("kind"), source.get("diskURI"));
    kind.one_of(errors, &["Dedicated", "Managed", "Shared"]);
    let (prefix, shown) = match kind.text() {
        "Managed" => ("/subscriptions/", MANAGED),
        _ => ("https://", BLOB),
    };
    if kind.is_set() && !uri.text().starts_with(prefix) {
        uri.unsupported(errors, &[shown]);
    }
}

fn validate_csi(source: &At<'_>, owner: Owner<'_>, errors: &mut Errors) {
    validate_driver_name(&source.get("driver"), errors);
    if owner == Owner::Pod {
        let secret = source.get("nodePublishSecretRef");
        if secret.is_set() && secret.get("name").not_empty(errors) {
            let name = secret.get("name");
            source.get("name").with(name.value).named(errors, names::dns_subdomain);
        }
        return;
    }
    source.get("volumeHandle").not_empty(errors);
    for field in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = source.get(field);
        if secret.is_set() {
            secret.get("name").required_name(errors, names::dns_subdomain);
            secret.get("namespace").required_name(errors, names::dns_label);
        }
    }
}

/// Checks the name of a CSI driver.
pub(super) fn validate_driver_name(name: &At<'_>, errors: &mut Errors) {
    if !name.not_empty(errors) {
        return;
    }
    name.not_longer(errors, 63);
    let lower = Value::from(name.text().to_ascii_lowercase());
    for why in names::dns_subdomain(lower.as_str().unwrap_or_default()) {
        name.invalid(errors, why);
    }
}

/// Checks the mode of a file.
pub(super) fn validate_mode(mode: &At<'_>, errors: &mut Errors) {
    if mode.is_set() && !(0..=0o777).contains(&mode.int()) {
        mode.invalid(errors, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}
