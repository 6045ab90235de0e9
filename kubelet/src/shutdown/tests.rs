//! Shutdowns with a bus of their own and a stand-in for logind and systemd on it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::api::{Value, object};
use async_trait::async_trait;
use parking_lot::Mutex;
use testing::{Process, wait_until};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc};
use zbus::zvariant::OwnedFd;

use super::logind::{Error, Logind};
use super::plan::Period;
use super::state::{Metrics, State};
use super::{Manager, Pods};

const LIMIT: Duration = Duration::from_secs(20);
const PATH: &str = "/org/freedesktop/login1";

/// A lock: what it was asked for, and the other end of it, which ends when it is let go.
type Lock = (String, pipe::Receiver);

struct Login {
    delay: Arc<Mutex<u64>>,
    locks: mpsc::UnboundedSender<Lock>,
}

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Login {
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::fdo::Result<OwnedFd> {
        let failed = |error: std::io::Error| zbus::fdo::Error::Failed(error.to_string());
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        let reader = pipe::Receiver::from_owned_fd(reader.into()).map_err(failed)?;
        let asked = format!("{what}/{who}/{why}/{mode}");
        self.locks.send((asked, reader)).map_err(|_| zbus::fdo::Error::Failed("nobody asks".to_owned()))?;
        Ok(std::os::fd::OwnedFd::from(writer).into())
    }

    #[zbus(property, name = "InhibitDelayMaxUSec")]
    fn inhibit_delay(&self) -> u64 {
        *self.delay.lock()
    }
}

/// Has logind read its configuration again, unless that is broken.
struct Systemd {
    delay: Arc<Mutex<u64>>,
    file: Option<PathBuf>,
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd {
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) {
        assert_eq!((name, whom, signal), ("systemd-logind.service", "all", 1));
        let text = self.file.as_ref().map(|file| std::fs::read_to_string(file).unwrap()).unwrap_or_default();
        let seconds =
            text.lines().find_map(|line| line.strip_prefix("InhibitDelayMaxSec=")?.parse::<u64>().ok());
        if let Some(seconds) = seconds {
            *self.delay.lock() = seconds * 1_000_000;
        }
    }
}

/// A machine with a bus; all of it ends with the value.
struct Machine {
    dir: tempfile::TempDir,
    address: String,
    delay: Arc<Mutex<u64>>,
    locks: mpsc::UnboundedReceiver<Lock>,
    bus: zbus::Connection,
    _daemon: Process,
}

/// A configuration of a bus that lets everybody do everything.
pub(crate) fn bus_config(socket: &Path) -> String {
    format!(
        "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
         \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\"><busconfig><listen>unix:path={}</listen>\
         <auth>EXTERNAL</auth><policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy>\
         </busconfig>",
        socket.display()
    )
}

impl Machine {
    async fn start(reads_configuration: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (socket, config) = (dir.path().join("bus"), dir.path().join("bus.conf"));
        std::fs::write(&config, bus_config(&socket)).unwrap();
        let arguments = ["--nofork".to_owned(), format!("--config-file={}", config.display())];
        let daemon = Process::start("dbus-daemon", &arguments, &dir.path().join("bus.log")).unwrap();
        wait_until("the bus is there", LIMIT, || socket.exists()).unwrap();
        let (address, delay) = (format!("unix:path={}", socket.display()), Arc::new(Mutex::new(5_000_000)));
        let (sender, locks) = mpsc::unbounded_channel();
        let file = reads_configuration.then(|| dir.path().join("logind.conf.d/99-kubelet.conf"));
        let bus = zbus::connection::Builder::address(address.as_str())
            .unwrap()
            .serve_at(PATH, Login { delay: delay.clone(), locks: sender })
            .unwrap()
            .serve_at("/org/freedesktop/systemd1", Systemd { delay: delay.clone(), file })
            .unwrap()
            .name("org.freedesktop.login1")
            .unwrap()
            .name("org.freedesktop.systemd1")
            .unwrap()
            .build()
            .await
            .unwrap();
        Self { dir, address, delay, locks, bus, _daemon: daemon }
    }

    fn logind(&self) -> Logind {
        Logind { address: Some(self.address.clone()), config_dir: self.dir.path().join("logind.conf.d") }
    }

    async fn tell(&self, shutting_down: bool) {
        let (interface, name) = ("org.freedesktop.login1.Manager", "PrepareForShutdown");
        self.bus.emit_signal(None::<&str>, PATH, interface, name, &shutting_down).await.unwrap();
    }

    async fn lock(&mut self) -> Lock {
        tokio::time::timeout(LIMIT, self.locks.recv()).await.expect("a lock is taken in time").unwrap()
    }
}

/// Pods that end when the test says so.
struct FakePods {
    orders: mpsc::UnboundedSender<String>,
    ended: Mutex<HashSet<String>>,
    changed: Notify,
}

impl FakePods {
    fn finish(&self, uid: &str) {
        self.ended.lock().insert(uid.to_owned());
        self.changed.notify_waiters();
    }
}

#[async_trait]
impl Pods for Arc<FakePods> {
    fn active(&self) -> Vec<Arc<Value>> {
        let pod = |uid: &str, priority: i64| {
            let spec = object!({"priority": priority, "terminationGracePeriodSeconds": 30});
            Arc::new(object!({"metadata": {"uid": uid}, "spec": (spec)}))
        };
        vec![pod("critical", 2_000_000_000), pod("low", 0), pod("stuck", -5)]
    }

    fn end(&self, uid: &str, grace: i64) {
        self.orders.send(format!("{uid} {grace}")).unwrap();
    }

    async fn gone(&self, uids: &[String]) {
        loop {
            let changed = self.changed.notified();
            if uids.iter().all(|uid| self.ended.lock().contains(uid)) {
                return;
            }
            changed.await;
        }
    }

    fn note(&self, shutting_down: bool) {
        self.orders.send(format!("shutting down: {shutting_down}")).unwrap();
    }
}

#[tokio::test]
async fn a_shutdown_waits_for_the_pods_in_their_order() {
    let mut machine = Machine::start(true).await;
    let (orders, mut heard) = mpsc::unbounded_channel();
    let pods = Arc::new(FakePods { orders, ended: Mutex::default(), changed: Notify::new() });
    let period = |priority, shutdown_grace_period_seconds| Period { priority, shutdown_grace_period_seconds };
    // Nobody waits for those of the lowest priority.
    let periods = vec![period(-5, 0), period(0, 20), period(2_000_000_000, 10)];
    let metrics = Metrics::new();
    let state = State::load(machine.dir.path(), metrics.clone());
    let manager = Manager { pods: pods.clone(), periods, logind: machine.logind(), state };
    let tasks = daemon::Tasks::new();
    let stop = tasks.token();
    tasks.plain("shutdown", async move {
        tokio::select! {
            () = manager.run() => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    });
    let (asked, mut lock) = machine.lock().await;
    assert_eq!(asked, "shutdown/kubelet/Kubelet needs time to handle node shutdown/delay");
    assert_eq!(*machine.delay.lock(), 30_000_000);
    machine.tell(true).await;
    let mut next =
        async || tokio::time::timeout(LIMIT, heard.recv()).await.expect("an order in time").unwrap();
    for order in ["shutting down: true", "stuck 0", "low 20"] {
        assert_eq!(next().await, order);
    }
    assert_eq!(metrics.values().1, 0);
    pods.finish("low");
    assert_eq!(next().await, "critical 10");
    // The lock is still held.
    let unread = lock.try_read(&mut [0]).unwrap_err();
    assert_eq!(unread.kind(), std::io::ErrorKind::WouldBlock);
    pods.finish("critical");
    let released =
        tokio::time::timeout(LIMIT, lock.read(&mut [0])).await.expect("the lock is let go in time");
    assert_eq!(released.unwrap(), 0);
    let (start, end) = metrics.values();
    assert!(0 < start && start <= end, "{start} {end}");
    // It is called off after all.
    machine.tell(false).await;
    assert_eq!(next().await, "shutting down: false");
    let (_, mut lock) = machine.lock().await;
    tasks.cancel();
    tasks.ended().await;
    assert_eq!(tokio::time::timeout(LIMIT, lock.read(&mut [0])).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn logind_that_cannot_be_made_to_wait_is_an_error() {
    let machine = Machine::start(false).await;
    let logind = machine.logind();
    let session = logind.connect().await.unwrap();
    // What there is already is enough.
    session.ensure_delay(Duration::from_secs(5)).await.unwrap();
    assert!(!machine.dir.path().join("logind.conf.d").exists());
    let failed = session.ensure_delay(Duration::from_secs(9)).await.unwrap_err();
    assert!(matches!(failed, Error::Short { .. }), "{failed}");
    assert_eq!(
        std::fs::read_to_string(machine.dir.path().join("logind.conf.d/99-kubelet.conf")).unwrap(),
        "# Kubelet logind override\n[Login]\nInhibitDelayMaxSec=9\n"
    );
    let nowhere =
        Logind { address: Some("unix:path=/nonexistent/bus".to_owned()), config_dir: PathBuf::new() };
    let Err(failed) = nowhere.connect().await else { panic!("there is no bus") };
    assert!(failed.to_string().starts_with("cannot connect to the system bus: "), "{failed}");
}
