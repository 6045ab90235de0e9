//! What a container needs in order to use its devices, for the runtime.

use std::collections::BTreeMap;

use k8s_cri::v1 as cri;

use super::api::Allocated;

/// What goes into the configuration of a container.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Options {
    /// Variables; those of the container itself come after them.
    pub envs: Vec<(String, String)>,
    /// Paths of the host.
    pub mounts: Vec<cri::Mount>,
    /// Devices of the host.
    pub devices: Vec<cri::Device>,
    /// Annotations for the runtime.
    pub annotations: BTreeMap<String, String>,
    /// Devices by their names in the Container Device Interface.
    pub cdi_devices: Vec<cri::CdiDevice>,
}

impl Options {
    /// Adds what one plug-in answered. Of two that want the same thing the first gets it.
    pub(super) fn add(&mut self, answer: &Allocated) {
        let mut envs: Vec<_> = answer.envs.iter().collect();
        envs.sort_unstable();
        for (name, value) in envs {
            match self.envs.iter().find(|(known, _)| known == name) {
                Some((_, known)) => warn_unless(known == value, "Environment variable", name),
                None => self.envs.push((name.clone(), value.clone())),
            }
        }
        for device in &answer.devices {
            match self.devices.iter().find(|known| known.container_path == device.container_path) {
                Some(known) => {
                    warn_unless(known.host_path == device.host_path, "Device", &device.container_path)
                }
                None => self.devices.push(cri::Device {
                    container_path: device.container_path.clone(),
                    host_path: device.host_path.clone(),
                    permissions: device.permissions.clone(),
                }),
            }
        }
        for mount in &answer.mounts {
            match self.mounts.iter().find(|known| known.container_path == mount.container_path) {
                Some(known) => {
                    warn_unless(known.host_path == mount.host_path, "Mount", &mount.container_path)
                }
                None => self.mounts.push(cri::Mount {
                    container_path: mount.container_path.clone(),
                    host_path: mount.host_path.clone(),
                    readonly: mount.read_only,
                    ..Default::default()
                }),
            }
        }
        for (key, value) in &answer.annotations {
            let kept = self.annotations.entry(key.clone()).or_insert_with(|| value.clone());
            warn_unless(kept == value, "Annotation", key);
        }
        self.name_devices(answer.cdi_devices.iter().map(|device| device.name.clone()));
    }

    /// Adds devices by their names in the Container Device Interface.
    pub(crate) fn name_devices(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            if !self.cdi_devices.iter().any(|known| known.name == name) {
                self.cdi_devices.push(cri::CdiDevice { name });
            }
        }
    }
}

fn warn_unless(same: bool, what: &str, name: &str) {
    if !same {
        tracing::error!(name, "{what} of two devices of a container has conflicting settings");
    }
}

#[cfg(test)]
mod tests {
    use super::super::api::{CdiDevice, DeviceSpec, Mount};
    use super::*;

    #[test]
    fn the_first_of_two_conflicting_settings_counts() {
        let answer = |host: &str| Allocated {
            envs: [("E".to_owned(), host.to_owned())].into(),
            mounts: vec![Mount {
                container_path: "/m".to_owned(),
                host_path: host.to_owned(),
                read_only: true,
            }],
            devices: vec![DeviceSpec {
                container_path: "/dev/x".to_owned(),
                host_path: host.to_owned(),
                permissions: "rw".to_owned(),
            }],
            annotations: [("a".to_owned(), host.to_owned())].into(),
            cdi_devices: vec![CdiDevice { name: "vendor.com/d=1".to_owned() }],
        };
        let (mut one, mut both) = (Options::default(), Options::default());
        one.add(&answer("/one"));
        both.add(&answer("/one"));
        both.add(&answer("/two"));
        assert_eq!(one, both);
        assert_eq!((one.mounts[0].host_path.as_str(), one.mounts[0].readonly), ("/one", true));
        assert_eq!(one.cdi_devices.len(), 1);
    }
}
