//! How the devices of claims are, as far as their drivers tell; kept in upstream's file `dra_health_state`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::api::{Map, Value};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tonic::Code;

use super::drivers::Registry;
use super::state::Device;
use super::{Claims, api, names};
use crate::checkpoint;
use crate::grpc::{self, Plugin};
use crate::pods::spec;

const FILE: &str = "dra_health_state";
/// For how long a word about a device counts when it does not say that itself.
const TIMEOUT: SignedDuration = SignedDuration::from_secs(30);
/// A driver that broke off is listened to again after this.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest message about a device.
const MAX_MESSAGE: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Verdict {
    Healthy,
    Unhealthy,
    Unknown,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Unhealthy => "Unhealthy",
            Self::Unknown => "Unknown",
        }
    }
}

/// How a device is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    pool_name: String,
    device_name: String,
    health: Verdict,
    last_updated: Timestamp,
    /// Nanoseconds for which it counts.
    #[serde(default)]
    health_check_timeout: i64,
    #[serde(default)]
    message: String,
}

impl Health {
    fn of(device: api::DeviceHealth, now: Timestamp) -> Self {
        let id = device.device.unwrap_or_default();
        let seconds = device.health_check_timeout_seconds;
        let timeout = if seconds > 0 { SignedDuration::from_secs(seconds) } else { TIMEOUT };
        Self {
            pool_name: id.pool_name,
            device_name: id.device_name,
            health: match device.health {
                api::HEALTHY => Verdict::Healthy,
                api::UNHEALTHY => Verdict::Unhealthy,
                _ => Verdict::Unknown,
            },
            last_updated: now,
            health_check_timeout: i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX),
            message: shortened(device.message),
        }
    }

    fn is_stale(&self, now: Timestamp) -> bool {
        let timeout = match self.health_check_timeout {
            0 => TIMEOUT,
            nanos => SignedDuration::from_nanos(nanos),
        };
        now.duration_since(self.last_updated) > timeout
    }

    /// Whether it says something else than another word about the device.
    fn differs(&self, other: &Self) -> bool {
        self.health != other.health
            || self.message != other.message
            || self.health_check_timeout != other.health_check_timeout
    }
}

fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE - 3));
        message.push_str("...");
    }
    message
}

/// The devices of a driver, by pool and name.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Devices {
    devices: BTreeMap<String, Health>,
}

/// How all devices are, by driver.
#[derive(Debug, Default)]
pub(super) struct Healths {
    path: PathBuf,
    drivers: BTreeMap<String, Devices>,
}

impl Healths {
    pub(super) fn load(root: &Path) -> Self {
        let path = root.join(FILE);
        let read = checkpoint::read(&path).map_err(|error| error.to_string());
        let parse = |text: String| serde_json::from_str(&text).map_err(|error| error.to_string());
        let drivers = read.and_then(|text| text.map_or_else(|| Ok(BTreeMap::new()), parse));
        let drivers = drivers.unwrap_or_else(|error| {
            tracing::error!(err = error, "Failed to load health checkpoint, proceeding with empty cache");
            BTreeMap::new()
        });
        Self { path, drivers }
    }

    fn write(&self) {
        let text = serde_json::to_string(&self.drivers).map_err(std::io::Error::from);
        if let Err(error) = text.and_then(|text| checkpoint::write(&self.path, &text)) {
            tracing::error!(err = %error, "Cannot write how devices are");
        }
    }

    /// How a device is: as nobody knows, when its driver has not told for too long.
    fn of(&self, driver: &str, device: &Device, now: Timestamp) -> (Verdict, &str) {
        let key = format!("{}/{}", device.pool_name, device.device_name);
        let told = self.drivers.get(driver).and_then(|driver| driver.devices.get(&key));
        match told.filter(|told| !told.is_stale(now)) {
            Some(told) => (told.health, &told.message),
            None => (Verdict::Unknown, ""),
        }
    }

    /// Takes over what a driver says. Returns the devices, by pool and name, of which something else is known now.
    fn update(
        &mut self,
        driver: &str,
        told: Vec<api::DeviceHealth>,
        now: Timestamp,
    ) -> BTreeSet<(String, String)> {
        let devices = &mut self.drivers.entry(driver.to_owned()).or_default().devices;
        let (mut changed, mut reported) = (BTreeSet::new(), BTreeSet::new());
        for device in told {
            let health = Health::of(device, now);
            let key = format!("{}/{}", health.pool_name, health.device_name);
            if devices.get(&key).is_none_or(|before| before.differs(&health)) {
                changed.insert((health.pool_name.clone(), health.device_name.clone()));
            }
            reported.insert(key.clone());
            devices.insert(key, health);
        }
        for (_, health) in devices.iter_mut().filter(|(key, _)| !reported.contains(*key)) {
            if health.health != Verdict::Unknown && health.is_stale(now) {
                health.health = Verdict::Unknown;
                health.message.clear();
                health.last_updated = now;
                changed.insert((health.pool_name.clone(), health.device_name.clone()));
            }
        }
        changed
    }
}

impl Claims {
    /// `allocatedResourcesStatus` of a container, as far as it is about claims.
    pub(crate) fn health(&self, pod: &Value, container: &str) -> Vec<Value> {
        let Some(definition) = spec::containers(pod).iter().find(|c| c.str_at(&["name"]) == container) else {
            return Vec::new();
        };
        let claims = definition.array_at(&["resources", "claims"]);
        claims.iter().filter_map(|claim| self.health_of(pod, claim)).collect()
    }

    fn health_of(&self, pod: &Value, claim: &Value) -> Option<Value> {
        let (local, request) = (claim.str_at(&["name"]), claim.str_at(&["request"]));
        // What cannot be resolved yet has no devices.
        let name = names::named(pod, local).ok().flatten()?;
        let (known, healths, now) = (self.known.lock(), self.health.lock(), Timestamp::now());
        let info = known.get(&(pod.namespace().to_owned(), name))?;
        let mut resources = Vec::<Value>::new();
        for (driver, part) in &info.drivers {
            for device in part.devices.iter().filter(|device| device.serves(request)) {
                let id = match device.cdi_ids.first() {
                    Some(id) => id.clone(),
                    None => format!("{driver}/{}/{}", device.pool_name, device.device_name),
                };
                if resources.iter().any(|shown| shown.str_at(&["resourceID"]) == id) {
                    continue;
                }
                let (health, message) = healths.of(driver, device, now);
                let mut shown = Map::new();
                shown.push("resourceID", id.into());
                shown.push("health", health.name().into());
                if !message.is_empty() {
                    shown.push("message", message.into());
                }
                resources.push(Value::Object(shown));
            }
        }
        let name = match request {
            "" => format!("claim:{local}"),
            request => format!("claim:{local}/{request}"),
        };
        let resources = (!resources.is_empty()).then_some(Value::Array(resources))?;
        Some(::api::object!({"name": (name), "resources": (resources)}))
    }

    /// The pods that have one of these devices.
    fn users(&self, driver: &str, devices: &BTreeSet<(String, String)>) -> BTreeSet<String> {
        let known = self.known.lock();
        let has = |device: &Device| devices.contains(&(device.pool_name.clone(), device.device_name.clone()));
        let using = known
            .values()
            .filter(|info| info.drivers.get(driver).is_some_and(|part| part.devices.iter().any(has)));
        using.flat_map(|info| info.pods.iter().cloned()).collect()
    }
}

impl Registry {
    /// Takes over what a plug-in says about its devices, for as long as it says anything. Does not return: a plug-in that
    /// says nothing may have other things to do.
    pub(super) async fn listen(&self, driver: &str, id: u64, plugin: &Plugin) {
        loop {
            let ended = self.listen_once(driver, id, plugin).await;
            self.fall_silent(driver, id);
            if let Err(error) = &ended {
                tracing::debug!(driver, err = %error, "The health stream of a driver has ended");
            }
            // DIVERGES: upstream asks plug-ins again and again that do not know the question.
            if ended.is_err_and(|error| error.code == Code::Unimplemented) {
                return std::future::pending().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn listen_once(&self, driver: &str, id: u64, plugin: &Plugin) -> grpc::Result<()> {
        let mut stream = plugin.stream::<_, api::WatchResponse>(api::WATCH, api::Nothing {}).await?;
        while let Some(answer) = stream.message().await? {
            self.note_telling(driver, id, true);
            let changed = {
                let mut healths = self.claims.health.lock();
                let changed = healths.update(driver, answer.devices, Timestamp::now());
                if !changed.is_empty() {
                    healths.write();
                }
                changed
            };
            for uid in self.claims.users(driver, &changed) {
                (self.wake)(&uid);
            }
        }
        Ok(())
    }

    /// A plug-in tells nothing any more: what it said counts no longer, unless another one of the driver goes on.
    pub(super) fn fall_silent(&self, driver: &str, id: u64) {
        if self.note_telling(driver, id, false) {
            let mut healths = self.claims.health.lock();
            if healths.drivers.remove(driver).is_some() {
                healths.write();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(device: &str, health: i32, message: &str) -> api::DeviceHealth {
        api::DeviceHealth {
            device: Some(api::DeviceId { pool_name: "p".to_owned(), device_name: device.to_owned() }),
            health,
            last_updated_time: 0,
            health_check_timeout_seconds: 0,
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_word_counts_for_a_while() {
        let mut healths = Healths::default();
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let names = |changed: BTreeSet<(String, String)>| -> Vec<String> {
            changed.into_iter().map(|(_, name)| name).collect()
        };
        let device = Device { pool_name: "p".to_owned(), device_name: "a".to_owned(), ..Device::default() };
        let both = vec![told("a", api::HEALTHY, ""), told("b", api::UNHEALTHY, "hot")];
        assert_eq!(names(healths.update("d", both.clone(), at(100))), ["a", "b"]);
        assert!(healths.update("d", both, at(110)).is_empty());
        assert_eq!(healths.of("d", &device, at(140)).0, Verdict::Healthy);
        assert_eq!(healths.of("d", &device, at(141)), (Verdict::Unknown, ""));
        // Nobody speaks of the first any more.
        assert!(healths.update("d", vec![told("b", api::UNHEALTHY, "hot")], at(120)).is_empty());
        assert_eq!(
            names(healths.update("d", vec![told("b", api::UNHEALTHY, "hotter")], at(150))),
            ["a", "b"]
        );
        assert_eq!(healths.of("d", &device, at(150)).0, Verdict::Unknown);
    }

    #[test]
    fn the_file_is_as_upstream_writes_it_and_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut healths = Healths::load(dir.path());
        healths.update("d", vec![told("a", api::UNHEALTHY, "hot")], Timestamp::from_second(100).unwrap());
        healths.write();
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert_eq!(
            text,
            r#"{"d":{"Devices":{"p/a":{"PoolName":"p","DeviceName":"a","Health":"Unhealthy","LastUpdated":"1970-01-01T00:01:40Z","HealthCheckTimeout":30000000000,"Message":"hot"}}}}"#
        );
        assert_eq!(Healths::load(dir.path()).drivers["d"].devices, healths.drivers["d"].devices);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(shortened("x".repeat(1024)).len(), 1024);
        let cut = shortened("\u{e4}".repeat(600));
        assert!(cut.ends_with("\u{e4}...") && cut.len() <= 1024, "{}", cut.len());
    }
}
