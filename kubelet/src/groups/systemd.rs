//! systemd, asked over D-Bus for slices.

use std::io;
use std::time::Duration;

use futures::StreamExt;
use linux::cgroup::Limits;
use serde::Serialize;
use tokio::sync::Mutex;
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::zvariant::{DynamicType, OwnedObjectPath, Value};
use zbus::{Connection, MatchRule, MessageStream};

const SERVICE: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";
/// How long systemd may take for a job.
const LIMIT: Duration = Duration::from_secs(30);
/// systemd keeps the share of the processors in whole hundredths: so many microseconds of each second.
const STEP: u64 = 10_000;
const SECOND: u64 = 1_000_000;
/// The length of a period when nothing is said.
const PERIOD: u64 = 100_000;

type Properties = Vec<(&'static str, Value<'static>)>;

/// The manager of the machine's units.
pub(super) struct Systemd {
    /// The address of the bus, unless it is the system's.
    address: Option<String>,
    bus: Mutex<Option<Connection>>,
}

fn failed(what: impl std::fmt::Display) -> impl FnOnce(zbus::Error) -> io::Error {
    move |error| io::Error::other(format!("{what}: {error}"))
}

impl Systemd {
    /// The one that is found on a bus; it is asked when it is needed first.
    pub(super) fn at(address: Option<String>) -> Self {
        Self { address, bus: Mutex::default() }
    }

    async fn bus(&self) -> zbus::Result<Connection> {
        let mut bus = self.bus.lock().await;
        if let Some(bus) = bus.as_ref() {
            return Ok(bus.clone());
        }
        let builder = match &self.address {
            Some(address) => Builder::address(address.as_str())?,
            None => Builder::system()?,
        };
        let fresh = builder.method_timeout(LIMIT).build().await?;
        // Without this it tells nobody when a job is done.
        fresh.call_method(Some(SERVICE), PATH, Some(INTERFACE), "Subscribe", &()).await?;
        *bus = Some(fresh.clone());
        Ok(fresh)
    }

    /// A call on a connection that may have to be made over.
    async fn call<B>(&self, method: &str, body: &B) -> zbus::Result<zbus::Message>
    where
        B: Serialize + DynamicType,
    {
        let answer = self.bus().await?.call_method(Some(SERVICE), PATH, Some(INTERFACE), method, body).await;
        if matches!(answer, Err(zbus::Error::InputOutput(_))) {
            *self.bus.lock().await = None;
            return self.bus().await?.call_method(Some(SERVICE), PATH, Some(INTERFACE), method, body).await;
        }
        answer
    }

    /// A call that starts a job, and what became of the job.
    async fn job<B>(&self, method: &str, body: &B) -> zbus::Result<String>
    where
        B: Serialize + DynamicType,
    {
        let rule = MatchRule::builder().msg_type(Type::Signal).sender(SERVICE)?.path(PATH)?;
        let rule = rule.interface(INTERFACE)?.member("JobRemoved")?.build();
        let mut removed = MessageStream::for_match_rule(rule, &self.bus().await?, None).await?;
        let job: OwnedObjectPath = self.call(method, body).await?.body().deserialize()?;
        let late = || zbus::Error::from(io::Error::from(io::ErrorKind::TimedOut));
        let done = async {
            while let Some(signal) = removed.next().await {
                let signal = signal?;
                let (_, of, _, result): (u32, OwnedObjectPath, String, String) =
                    signal.body().deserialize()?;
                if of == job {
                    return Ok(result);
                }
            }
            Err(zbus::Error::from(io::Error::from(io::ErrorKind::UnexpectedEof)))
        };
        tokio::time::timeout(LIMIT, done).await.map_err(|_| late())?
    }

    /// Makes a slice, or sets the limits of one that is there.
    pub(super) async fn start(&self, group: &str, v2: bool, limits: &Limits) -> io::Result<()> {
        let unit = unit(group);
        let mut properties = made(group, v2);
        properties.extend(properties_of(v2, limits));
        let aux: Vec<(&str, Properties)> = Vec::new();
        match self.job("StartTransientUnit", &(unit, "replace", properties, aux)).await {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => {
                self.reset(unit).await;
                Err(io::Error::other(format!("error creating systemd unit `{unit}`: got `{result}`")))
            }
            Err(error) if is(&error, "org.freedesktop.systemd1.UnitExists") => {
                self.set(group, v2, limits).await
            }
            Err(error) => Err(failed(format_args!("error creating systemd unit `{unit}`"))(error)),
        }
    }

    /// Sets the limits of a slice, until the machine is started again.
    pub(super) async fn set(&self, group: &str, v2: bool, limits: &Limits) -> io::Result<()> {
        let (unit, properties) = (unit(group), properties_of(v2, limits));
        if properties.is_empty() {
            return Ok(());
        }
        let set = self.call("SetUnitProperties", &(unit, true, properties)).await;
        set.map(drop).map_err(failed(format_args!("error setting properties of systemd unit `{unit}`")))
    }

    /// Stops a slice with all that is in it; one that is not there is no error.
    pub(super) async fn stop(&self, group: &str) -> io::Result<()> {
        let unit = unit(group);
        match self.job("StopUnit", &(unit, "replace")).await {
            Ok(result) if result != "done" => {
                tracing::warn!(unit, result, "systemd could not remove a unit as it should");
            }
            Err(error) if !is(&error, "org.freedesktop.systemd1.NoSuchUnit") => {
                return Err(failed(format_args!("error removing systemd unit `{unit}`"))(error));
            }
            _ => {}
        }
        self.reset(unit).await;
        Ok(())
    }

    /// Has a unit that failed be forgotten. Most have not, and then it is none to forget.
    async fn reset(&self, unit: &str) {
        if let Err(error) = self.call("ResetFailedUnit", &unit).await {
            tracing::debug!(unit, err = %error, "systemd has no failed unit to forget");
        }
    }
}

fn is(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(of, ..) if of.as_str() == name)
}

/// The unit that makes a group.
fn unit(group: &str) -> &str {
    group.rsplit('/').next().unwrap_or_default()
}

/// What every slice of pods is made with.
fn made(group: &str, v2: bool) -> Properties {
    let parent = group.rsplit('/').nth(1).unwrap_or("-.slice").to_owned();
    let disks = if v2 { "IOAccounting" } else { "BlockIOAccounting" };
    let mut all: Properties = vec![
        ("Description", format!("libcontainer container {}", unit(group)).into()),
        ("Wants", vec![parent].into()),
    ];
    all.extend(
        ["MemoryAccounting", "CPUAccounting", disks, "TasksAccounting"].map(|name| (name, true.into())),
    );
    all.push(("DefaultDependencies", false.into()));
    all
}

fn properties_of(v2: bool, limits: &Limits) -> Properties {
    let most = |n: i64| Value::from(u64::try_from(n).unwrap_or(u64::MAX));
    let mut all = Properties::new();
    let (memory, weight) = if v2 { ("MemoryMax", "CPUWeight") } else { ("MemoryLimit", "CPUShares") };
    all.extend(limits.memory.map(|bytes| (memory, most(bytes))));
    let shares = |shares| if v2 { linux::cgroup::weight(shares) } else { shares };
    all.extend(limits.cpu_shares.map(|n| (weight, shares(n).into())));
    all.extend(limits.cpu_period_us.map(|period| ("CPUQuotaPeriodUSec", period.into())));
    if let Some(quota) = limits.cpu_quota_us {
        let of_second = u64::try_from(quota).map_or(u64::MAX, |quota| quota * SECOND / period(limits));
        all.push(("CPUQuotaPerSecUSec", of_second.into()));
    }
    // It takes no limit of zero.
    all.extend(limits.pids.map(|n| ("TasksMax", most(if n == 0 { 1 } else { n }))));
    all
}

fn period(limits: &Limits) -> u64 {
    limits.cpu_period_us.filter(|period| *period > 0).unwrap_or(PERIOD)
}

/// Limits as systemd can keep them, so that the files say the same: the share of the processors rounded up.
pub(super) fn rounded(limits: &Limits) -> Limits {
    let period = period(limits);
    let up = |quota: i64| match u64::try_from(quota) {
        Ok(quota) if quota > 0 => {
            let of_second = (quota * SECOND / period).next_multiple_of(STEP);
            i64::try_from(of_second * period / SECOND).unwrap_or(i64::MAX)
        }
        _ => quota,
    };
    Limits { cpu_quota_us: limits.cpu_quota_us.map(up), ..*limits }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use testing::{Process, wait_until};
    use zbus::object_server::SignalEmitter;
    use zbus::zvariant::{ObjectPath, OwnedValue};

    use super::*;

    type Given = Vec<(String, OwnedValue)>;

    /// A stand-in for systemd, which keeps the units that it is told of and what it was asked.
    #[derive(Clone, Default)]
    struct Manager {
        units: Arc<Mutex<BTreeMap<String, BTreeMap<String, String>>>>,
        asked: Arc<Mutex<Vec<String>>>,
    }

    fn shown(properties: Given) -> BTreeMap<String, String> {
        properties.into_iter().map(|(name, value)| (name, value.to_string())).collect()
    }

    const JOB: &str = "/org/freedesktop/systemd1/job/7";

    #[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
    impl Manager {
        fn subscribe(&self) {
            self.asked.lock().push("Subscribe".to_owned());
        }

        async fn start_transient_unit(
            &self,
            #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
            name: String,
            mode: String,
            properties: Given,
            _aux: Vec<(String, Given)>,
        ) -> zbus::fdo::Result<OwnedObjectPath> {
            self.asked.lock().push(format!("Start {name} {mode}"));
            let result = if name.starts_with("broken") { "failed" } else { "done" };
            self.units.lock().insert(name.clone(), shown(properties));
            let job = ObjectPath::from_static_str_unchecked(JOB);
            Self::job_removed(&emitter, 7, job.clone(), &name, result)
                .await
                .map_err(zbus::fdo::Error::ZBus)?;
            Ok(job.into())
        }

        fn set_unit_properties(&self, name: String, runtime: bool, properties: Given) {
            self.asked.lock().push(format!("Set {name} {runtime}"));
            self.units.lock().entry(name).or_default().extend(shown(properties));
        }

        async fn stop_unit(
            &self,
            #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
            name: String,
            mode: String,
        ) -> zbus::fdo::Result<OwnedObjectPath> {
            self.asked.lock().push(format!("Stop {name} {mode}"));
            self.units.lock().remove(&name);
            let job = ObjectPath::from_static_str_unchecked(JOB);
            Self::job_removed(&emitter, 7, job.clone(), &name, "done")
                .await
                .map_err(zbus::fdo::Error::ZBus)?;
            Ok(job.into())
        }

        fn reset_failed_unit(&self, name: String) {
            self.asked.lock().push(format!("Reset {name}"));
        }

        #[zbus(signal)]
        async fn job_removed(
            emitter: &SignalEmitter<'_>,
            id: u32,
            job: ObjectPath<'_>,
            unit: &str,
            result: &str,
        ) -> zbus::Result<()>;
    }

    struct Machine {
        manager: Manager,
        systemd: Systemd,
        _bus: Connection,
        _daemon: Process,
        _dir: tempfile::TempDir,
    }

    async fn machine() -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let (socket, config) = (dir.path().join("bus"), dir.path().join("bus.conf"));
        std::fs::write(&config, crate::shutdown::bus_config(&socket)).unwrap();
        let arguments = ["--nofork".to_owned(), format!("--config-file={}", config.display())];
        let daemon = Process::start("dbus-daemon", &arguments, &dir.path().join("bus.log")).unwrap();
        wait_until("the bus is there", Duration::from_secs(20), || socket.exists()).unwrap();
        let address = format!("unix:path={}", socket.display());
        let manager = Manager::default();
        let bus = Builder::address(address.as_str()).unwrap().serve_at(PATH, manager.clone()).unwrap();
        let bus = bus.name(SERVICE).unwrap().build().await.unwrap();
        Machine { manager, systemd: Systemd::at(Some(address)), _bus: bus, _daemon: daemon, _dir: dir }
    }

    #[tokio::test]
    async fn slices_are_made_changed_and_removed_by_systemd() {
        let machine = machine().await;
        let (systemd, group) = (&machine.systemd, "kubepods.slice/kubepods-podu.slice");
        let limits = Limits {
            cpu_shares: Some(1024),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            memory: Some(1 << 20),
            pids: Some(0),
        };
        systemd.start(group, true, &limits).await.unwrap();
        let made = machine.manager.units.lock()["kubepods-podu.slice"].clone();
        for (name, want) in [
            ("Wants", "[\"kubepods.slice\"]"),
            ("MemoryMax", "uint64 1048576"),
            ("CPUWeight", "uint64 39"),
            ("CPUQuotaPerSecUSec", "uint64 500000"),
            ("CPUQuotaPeriodUSec", "uint64 100000"),
            ("TasksMax", "uint64 1"),
            ("IOAccounting", "true"),
            ("DefaultDependencies", "false"),
        ] {
            assert_eq!(made.get(name).map(String::as_str), Some(want), "{name}");
        }
        systemd.set(group, false, &Limits { memory: Some(-1), ..Limits::default() }).await.unwrap();
        let lifted = machine.manager.units.lock()["kubepods-podu.slice"]["MemoryLimit"].clone();
        assert_eq!(lifted, format!("uint64 {}", u64::MAX));
        systemd.stop(group).await.unwrap();
        assert!(machine.manager.units.lock().is_empty());
        let asked = machine.manager.asked.lock().clone();
        let unit = "kubepods-podu.slice";
        let want = ["Subscribe".to_owned(), format!("Start {unit} replace"), format!("Set {unit} true")];
        assert_eq!(asked[..3], want);
        assert_eq!(asked[3..], [format!("Stop {unit} replace"), format!("Reset {unit}")]);
    }

    #[tokio::test]
    async fn a_slice_that_systemd_cannot_make_is_an_error_and_forgotten() {
        let machine = machine().await;
        let error = machine.systemd.start("broken.slice", true, &Limits::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "error creating systemd unit `broken.slice`: got `failed`");
        assert_eq!(machine.manager.asked.lock().last().unwrap(), "Reset broken.slice");
    }

    #[test]
    fn shares_of_processors_are_whole_hundredths() {
        for (quota, period, want) in [(50_000, 100_000, 50_000), (12_345, 100_000, 13_000), (-1, 100_000, -1)]
        {
            let limits =
                Limits { cpu_quota_us: Some(quota), cpu_period_us: Some(period), ..Limits::default() };
            assert_eq!(rounded(&limits).cpu_quota_us, Some(want), "{quota}");
        }
    }
}
