//! What of the host a container sees: its volumes, `/etc/hosts`, and the file for its last words.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use api::Value;
use k8s_cri::v1 as cri;

use super::actor::Actor;
use super::spec;
use super::start::{Around, make_dir};
use crate::cri::ImagePart;
use crate::env;
use crate::network;
use crate::volumes;

impl Actor {
    /// The mounts of a container whose pod has these addresses.
    pub(super) fn mounts(
        &self,
        pod: &Value,
        definition: &Value,
        (env, ips): (&[(String, String)], &[String]),
        around: &Around,
    ) -> io::Result<(Vec<cri::Mount>, Vec<ImagePart>)> {
        let name = definition.str_at(&["name"]);
        let dir = self.kubelet.config.pod_dir(pod.uid());
        let (mut mounts, mut parts) = (Vec::new(), Vec::new());
        let mut hosts_given = false;
        for (i, mount) in definition.array_at(&["volumeMounts"]).iter().enumerate() {
            let volume = mount.str_at(&["name"]);
            let recursive = self.recursive_read_only(mount, &around.handler).map_err(io::Error::other)?;
            if let Some(image) = around.image_volumes.get(volume) {
                let part = subpath(mount, env)?;
                match part.is_empty() {
                    true => mounts.push(of_image(image, mount, recursive)),
                    false => parts.push(part_of_image(image, mount, recursive, part)),
                }
                continue;
            }
            let Some(path) = self.mounted.get(volume) else {
                return Err(io::Error::other(format!(
                    "volume {volume:?} of container {name:?} is not mounted"
                )));
            };
            let part = subpath(mount, env)?;
            let host = match part.as_str() {
                "" => path.clone(),
                part => {
                    let target = dir.join("volume-subpaths").join(volume).join(name).join(i.to_string());
                    volumes::prepare_subpath(path, part, &target).map_err(|error| {
                        io::Error::other(format!("failed to prepare subPath for volumeMount {volume:?} of container {name:?}: {error}"))
                    })?
                }
            };
            let inside = absolute(mount.str_at(&["mountPath"]));
            hosts_given |= inside == "/etc/hosts";
            mounts.push(cri::Mount {
                container_path: inside,
                host_path: host.to_string_lossy().into_owned(),
                readonly: mount.get("readOnly").as_bool().unwrap_or_default(),
                propagation: match mount.str_at(&["mountPropagation"]) {
                    "HostToContainer" => cri::MountPropagation::PropagationHostToContainer as i32,
                    "Bidirectional" => cri::MountPropagation::PropagationBidirectional as i32,
                    _ => cri::MountPropagation::PropagationPrivate as i32,
                },
                recursive_read_only: recursive,
                ..Default::default()
            });
        }
        if !hosts_given {
            mounts.push(plain("/etc/hosts", &self.write_hosts(pod, &dir, ips)?));
        }
        let last_words = definition.str_at(&["terminationMessagePath"]);
        if !last_words.is_empty() {
            mounts.push(plain(last_words, &make_message_file(&dir.join("containers").join(name))?));
        }
        if let Some(users) = around.users {
            for mount in &mut mounts {
                (mount.uid_mappings, mount.gid_mappings) = (vec![users.mapping()], vec![users.mapping()]);
            }
        }
        Ok((mounts, parts))
    }

    /// Whether what is mounted below a read-only mount is read-only as well; the error is a sentence.
    fn recursive_read_only(&self, mount: &Value, handler: &str) -> Result<bool, String> {
        let able = self.kubelet.abilities.read().as_ref().is_some_and(|can| can.recursive_read_only(handler));
        recursive_read_only(mount, able)
    }

    /// The volumes that a container sees as devices.
    pub(super) fn devices(&self, pod: &Value, definition: &Value) -> Result<Vec<cri::Device>, String> {
        let devices = definition.array_at(&["volumeDevices"]).iter();
        let device = |device: &Value| {
            let name = device.str_at(&["name"]);
            let path = self.mounted.get(name).ok_or_else(|| format!("volume {name:?} is not mounted"))?;
            let volume = spec::volumes(pod).iter().find(|volume| volume.str_at(&["name"]) == name);
            let read_only = volume.map(|volume| volume.at(&["persistentVolumeClaim", "readOnly"]).as_bool());
            Ok(cri::Device {
                container_path: device.str_at(&["devicePath"]).to_owned(),
                host_path: path.to_string_lossy().into_owned(),
                permissions: if read_only == Some(Some(true)) { "r" } else { "mrw" }.to_owned(),
            })
        };
        devices.map(device).collect()
    }

    fn write_hosts(&self, pod: &Value, dir: &Path, ips: &[String]) -> io::Result<PathBuf> {
        let path = dir.join("etc-hosts");
        let (hostname, domain) = network::hostname(pod, &self.kubelet.config.file);
        let host_file = match spec::host_network(pod) {
            true => fs::read_to_string("/etc/hosts").unwrap_or_default(),
            false => String::new(),
        };
        fs::write(&path, network::hosts(pod, ips, &hostname, &domain, &host_file))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        Ok(path)
    }
}

/// Whether what is mounted below a read-only mount is read-only as well, with a runtime that is able to do that or not; the
/// error is a sentence.
pub(super) fn recursive_read_only(mount: &Value, able: bool) -> Result<bool, String> {
    let (name, mode) = (mount.str_at(&["name"]), mount.str_at(&["recursiveReadOnly"]));
    if matches!(mode, "" | "Disabled") {
        return Ok(false);
    }
    let propagation = mount.str_at(&["mountPropagation"]);
    if !mount.get("readOnly").as_bool().unwrap_or_default() {
        return Err(format!("volume {name:?} requested recursive read-only mode, but it is not read-only"));
    }
    if !matches!(propagation, "" | "None") {
        return Err(format!(
            "volume {name:?} requested recursive read-only mode, but it is not compatible with propagation {propagation:?}"
        ));
    }
    match (mode, able) {
        (_, true) => Ok(true),
        ("IfPossible", false) => Ok(false),
        _ => Err(format!(
            "volume {name:?} requested recursive read-only mode, but it is not supported by the runtime"
        )),
    }
}

fn of_image(image: &cri::ImageSpec, mount: &Value, recursive: bool) -> cri::Mount {
    cri::Mount {
        container_path: absolute(mount.str_at(&["mountPath"])),
        readonly: true,
        recursive_read_only: recursive,
        image: Some(image.clone()),
        ..Default::default()
    }
}

fn part_of_image(image: &cri::ImageSpec, mount: &Value, recursive: bool, part: String) -> ImagePart {
    ImagePart {
        container_path: absolute(mount.str_at(&["mountPath"])),
        readonly: true,
        recursive_read_only: recursive,
        image: Some(image.clone()),
        image_sub_path: part,
    }
}

/// The part of a volume that a mount shows, variables expanded.
fn subpath(mount: &Value, env: &[(String, String)]) -> io::Result<String> {
    let expression = mount.str_at(&["subPathExpr"]);
    let part = match expression {
        "" => mount.str_at(&["subPath"]).to_owned(),
        expression => env::expand(expression, |name| {
            env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
        }),
    };
    if !expression.is_empty() && (part.contains("$(") || part.is_empty()) {
        return Err(io::Error::other(format!("cannot expand subPathExpr {expression:?}")));
    }
    if part.starts_with('/') || part.split('/').any(|component| component == "..") {
        return Err(io::Error::other(format!(
            "subPath {part:?} must be relative and must not contain \"..\""
        )));
    }
    Ok(part)
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn plain(inside: &str, host: &Path) -> cri::Mount {
    cri::Mount {
        container_path: inside.to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        ..Default::default()
    }
}

/// An empty file for the container's last words, which any user may write.
fn make_message_file(dir: &Path) -> io::Result<PathBuf> {
    make_dir(dir, 0o750)?;
    let path = dir.join(format!("{:08x}", rand::random::<u32>()));
    fs::write(&path, "")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn mounts_are_read_only_all_the_way_down_where_that_can_be() {
        for (mount, able, expected) in [
            (object!({}), true, Ok(false)),
            (object!({"readOnly": true, "recursiveReadOnly": "Disabled"}), true, Ok(false)),
            (object!({"readOnly": true, "recursiveReadOnly": "IfPossible"}), true, Ok(true)),
            (object!({"readOnly": true, "recursiveReadOnly": "IfPossible"}), false, Ok(false)),
            (object!({"readOnly": true, "recursiveReadOnly": "Enabled"}), true, Ok(true)),
            (object!({"readOnly": true, "recursiveReadOnly": "Enabled"}), false, Err(())),
            (object!({"recursiveReadOnly": "Enabled"}), true, Err(())),
            (
                object!({"readOnly": true, "recursiveReadOnly": "Enabled", "mountPropagation": "HostToContainer"}),
                true,
                Err(()),
            ),
        ] {
            assert_eq!(recursive_read_only(&mount, able).map_err(drop), expected, "{mount:?} {able}");
        }
    }

    #[test]
    fn a_sub_path_stays_inside_and_has_its_variables() {
        let env = [("POD".to_owned(), "p-0".to_owned())];
        for (mount, expected) in [
            (object!({"subPath": "a/b"}), Some("a/b")),
            (object!({"subPathExpr": "$(POD)/x"}), Some("p-0/x")),
            (object!({"subPathExpr": "$(NONE)"}), None),
            (object!({"subPath": "../x"}), None),
            (object!({}), Some("")),
        ] {
            assert_eq!(subpath(&mount, &env).ok().as_deref(), expected, "{mount:?}");
        }
    }
}
