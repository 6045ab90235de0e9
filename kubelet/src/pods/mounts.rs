//! What of the host a container sees: its volumes, `/etc/hosts`, and the file for its last words.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use api::Value;
use k8s_cri::v1 as cri;

use super::actor::Actor;
use super::spec;
use super::start::make_dir;
use crate::env;
use crate::network;
use crate::volumes;

impl Actor {
    /// The mounts of a container whose pod has these addresses.
    pub(super) fn mounts(
        &self,
        pod: &Value,
        definition: &Value,
        env: &[(String, String)],
        ips: &[String],
    ) -> io::Result<Vec<cri::Mount>> {
        let name = definition.str_at(&["name"]);
        let dir = self.kubelet.config.pod_dir(pod.uid());
        let mut mounts = Vec::new();
        let mut hosts_given = false;
        for (i, mount) in definition.array_at(&["volumeMounts"]).iter().enumerate() {
            let volume = mount.str_at(&["name"]);
            let Some(path) = self.mounted.get(volume) else {
                return Err(io::Error::other(format!(
                    "volume {volume:?} of container {name:?} is not mounted"
                )));
            };
            if mount.str_at(&["recursiveReadOnly"]) == "Enabled" {
                return Err(io::Error::other(
                    "recursiveReadOnly: Enabled is not supported by the container runtime",
                ));
            }
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
        Ok(mounts)
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
