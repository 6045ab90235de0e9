//! Tokens of accounts: a kubelet gets those of pods that run on its node, for audiences that these pods ask for.

use api::error::Result;
use api::{Value, field};

use super::Write;
use crate::admission::{Operation, forbid};
use crate::authz::{Attributes, Decision};
use crate::resources::TABLE;

pub(super) async fn check(write: &Write<'_>) -> Result<()> {
    if write.operation != Operation::Create {
        return Ok(());
    }
    let reference = write.object.at(&["spec", "boundObjectRef"]);
    let (name, uid) = (reference.str_at(&["name"]), reference.str_at(&["uid"]));
    if reference.api_version() != "v1" || reference.kind() != "Pod" || name.is_empty() {
        return refuse(write, "node requested token not bound to a pod");
    }
    if uid.is_empty() {
        return refuse(write, "node requested token with a pod binding without a uid");
    }
    let pod = write.find("pods", name)?;
    if uid != pod.uid() {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return refuse(write, why);
    }
    if pod.str_at(&["spec", "nodeName"]) != write.node {
        return refuse(write, "node requested token bound to a pod scheduled on a different node");
    }
    audience(write, &pod).await
}

fn refuse(write: &Write<'_>, why: impl AsRef<str>) -> Result<()> {
    Err(forbid(write.call, &write.call.name, why))
}

/// The pod must ask for the audience of its token in a volume, or the kubelet be allowed it by an authorizer.
async fn audience(write: &Write<'_>, pod: &Value) -> Result<()> {
    let audience = match write.object.array_at(&["spec", "audiences"]) {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return refuse(write, "node may only request 0 or 1 audiences"),
    };
    let quoted = field::go_quote(audience);
    match volumes_ask(write, pod, audience) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(why) => return refuse(write, format!("error validating audience {quoted}: {why}")),
    }
    let call = write.call;
    let what = Attributes {
        verb: "request-serviceaccounts-token-audience",
        namespace: &call.namespace,
        version: "v1",
        resource: audience,
        name: &call.name,
        ..Attributes::default()
    };
    let asks = !audience.is_empty();
    let server = &call.server;
    if asks && let Decision::Allow(_) = server.authorizer.authorize(&server.storage, &call.user, &what).await
    {
        return Ok(());
    }
    let user = &call.user.name;
    refuse(
        write,
        format!(
            "audience {quoted} not found in pod spec volume, {user} is not authorized to request tokens for this audience"
        ),
    )
}

/// True when a volume of the pod needs a token for the audience; or why that cannot be told.
fn volumes_ask(write: &Write<'_>, pod: &Value, audience: &str) -> std::result::Result<bool, String> {
    let mut wrong = Vec::new();
    for volume in pod.array_at(&["spec", "volumes"]) {
        let mut sources = volume.array_at(&["projected", "sources"]).iter();
        let asks = |token: &Value| !token.is_null() && token.str_at(&["audience"]) == audience;
        if sources.any(|source| asks(source.get("serviceAccountToken"))) {
            return Ok(true);
        }
        let driver = driver_of(write, pod, volume);
        match driver.and_then(|driver| driver.map_or(Ok(false), |d| driver_asks(write, &d, audience))) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(why) => wrong.push(why),
        }
    }
    match wrong.as_slice() {
        [] => Ok(false),
        [one] => Err(one.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}

/// The CSI driver that mounts a volume, if one does.
fn driver_of(write: &Write<'_>, pod: &Value, volume: &Value) -> std::result::Result<Option<String>, String> {
    let claim = match volume.get("ephemeral").is_null() {
        true => volume.str_at(&["persistentVolumeClaim", "claimName"]).to_owned(),
        false => format!("{}-{}", pod.name(), volume.str_at(&["name"])),
    };
    if claim.is_empty() {
        return Ok(driver_in(volume));
    }
    let (storage, namespace) = (&write.call.server.storage, &write.call.namespace);
    let find = |plural: &str, key: &str| storage.cache(TABLE.store("", plural)).get(key).map(|s| s.object());
    let missing = |kind: &str, name: &str| format!("{kind} {} not found", field::go_quote(name));
    let bound = find("persistentvolumeclaims", &format!("{namespace}/{claim}"))
        .ok_or_else(|| missing("persistentvolumeclaim", &claim))?;
    let name = bound.str_at(&["spec", "volumeName"]);
    let volume = find("persistentvolumes", name).ok_or_else(|| missing("persistentvolume", name))?;
    Ok(driver_in(volume.get("spec")))
}

/// The CSI driver that a source of volumes names, or that has taken its place.
fn driver_in(source: &Value) -> Option<String> {
    const MIGRATED: [(&str, &str); 7] = [
        ("awsElasticBlockStore", "ebs.csi.aws.com"),
        ("azureDisk", "disk.csi.azure.com"),
        ("azureFile", "file.csi.azure.com"),
        ("cinder", "cinder.csi.openstack.org"),
        ("gcePersistentDisk", "pd.csi.storage.gke.io"),
        ("portworxVolume", "pxd.portworx.com"),
        ("vsphereVolume", "csi.vsphere.vmware.com"),
    ];
    let named = Some(source.str_at(&["csi", "driver"])).filter(|driver| !driver.is_empty());
    let migrated = || MIGRATED.iter().find(|(old, _)| !source.get(old).is_null()).map(|(_, driver)| *driver);
    named.or_else(migrated).map(str::to_owned)
}

fn driver_asks(write: &Write<'_>, driver: &str, audience: &str) -> std::result::Result<bool, String> {
    let cache = write.call.server.storage.cache(TABLE.store("storage.k8s.io", "csidrivers"));
    let missing = || format!("csidriver.storage.k8s.io {} not found", field::go_quote(driver));
    let driver = cache.get(driver).ok_or_else(missing)?.object();
    let requests = driver.array_at(&["spec", "tokenRequests"]);
    Ok(requests.iter().any(|request| request.str_at(&["audience"]) == audience))
}
