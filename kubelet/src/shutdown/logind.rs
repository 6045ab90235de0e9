//! logind and its manager systemd, asked over D-Bus.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::zvariant::{OwnedFd, OwnedValue};
use zbus::{Connection, MatchRule, MessageStream};

const SERVICE: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const INTERFACE: &str = "org.freedesktop.login1.Manager";
const SYSTEMD: (&str, &str, &str) =
    ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
/// The file by which the kubelet has logind wait longer.
const OVERRIDE: &str = "99-kubelet.conf";
/// How long the bus and those on it may take to answer.
const LIMIT: Duration = Duration::from_secs(25);
/// logind takes its time to read it: so often it is looked at again, each time after twice as long.
const LOOKS: u32 = 5;
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The bus or whoever was asked.
    #[error("{what}: {source}")]
    Bus {
        /// What was asked for.
        what: &'static str,
        /// The answer.
        source: zbus::Error,
    },
    /// The file could not be written.
    #[error("unable to override inhibit delay by shutdown manager: {0}")]
    Override(io::Error),
    /// logind waits no longer than before.
    #[error(
        "node shutdown manager was timed out after {LOOKS} attempts waiting for logind InhibitDelayMaxSec to update to \
         {requested:?} (ShutdownGracePeriod), current value is {current:?}"
    )]
    Short {
        /// What is needed.
        requested: Duration,
        /// What there is.
        current: Duration,
    },
}

/// What comes of asking.
pub(super) type Result<T> = std::result::Result<T, Error>;

fn failed(what: &'static str) -> impl FnOnce(zbus::Error) -> Error {
    move |source| Error::Bus { what, source }
}

/// A shutdown waits as long as this is not dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _descriptor: OwnedFd,
}

/// Where logind is.
pub(super) struct Logind {
    /// The address of the bus, unless it is the system's.
    pub(super) address: Option<String>,
    /// The folder of logind's additional configuration.
    pub(super) config_dir: PathBuf,
}

impl Logind {
    pub(super) async fn connect(&self) -> Result<Session<'_>> {
        let connect = async {
            let builder = match &self.address {
                Some(address) => Builder::address(address.as_str())?,
                None => Builder::system()?,
            };
            let late = |_| zbus::Error::from(io::Error::from(io::ErrorKind::TimedOut));
            tokio::time::timeout(LIMIT, builder.method_timeout(LIMIT).build()).await.map_err(late)?
        };
        let bus = connect.await.map_err(failed("cannot connect to the system bus"))?;
        Ok(Session { logind: self, bus })
    }
}

/// A connection to logind.
#[derive(Clone)]
pub(super) struct Session<'l> {
    logind: &'l Logind,
    bus: Connection,
}

impl Session<'_> {
    /// For how long logind lets a shutdown be held up.
    async fn delay(&self) -> Result<Duration> {
        const WHAT: &str = "failed reading InhibitDelayMaxUSec property from logind";
        let question = (INTERFACE, "InhibitDelayMaxUSec");
        let interface = Some("org.freedesktop.DBus.Properties");
        let answer = self.bus.call_method(Some(SERVICE), PATH, interface, "Get", &question).await;
        let body = answer.map_err(failed(WHAT))?;
        let value: OwnedValue = body.body().deserialize().map_err(failed(WHAT))?;
        let micros = u64::try_from(value).map_err(|error| failed(WHAT)(error.into()))?;
        Ok(Duration::from_micros(micros))
    }

    /// Has logind wait as long as is needed.
    pub(super) async fn ensure_delay(&self, requested: Duration) -> Result<()> {
        let mut current = self.delay().await?;
        if requested <= current {
            return Ok(());
        }
        self.write_override(requested).map_err(Error::Override)?;
        let (service, path, interface) = SYSTEMD;
        // SIGHUP makes it read its configuration again.
        let hang_up = ("systemd-logind.service", "all", 1_i32);
        let told = self.bus.call_method(Some(service), path, Some(interface), "KillUnit", &hang_up).await;
        told.map_err(failed("unable to reload logind conf"))?;
        let mut pause = FIRST_LOOK;
        for _ in 0..LOOKS {
            current = self.delay().await?;
            if requested <= current {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(Error::Short { requested, current })
    }

    fn write_override(&self, delay: Duration) -> io::Result<()> {
        let dir = &self.logind.config_dir;
        fs::create_dir_all(dir)?;
        let seconds = delay.as_secs();
        let text = format!("# Kubelet logind override\n[Login]\nInhibitDelayMaxSec={seconds}\n");
        fs::write(dir.join(OVERRIDE), text)
    }

    /// Takes the lock.
    pub(super) async fn inhibit(&self) -> Result<Lock> {
        const WHAT: &str = "failed creating systemd inhibitor";
        let question = ("shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay");
        let answer = self.bus.call_method(Some(SERVICE), PATH, Some(INTERFACE), "Inhibit", &question).await;
        let descriptor = answer.and_then(|answer| answer.body().deserialize()).map_err(failed(WHAT))?;
        Ok(Lock { _descriptor: descriptor })
    }
}

impl<'l> Session<'l> {
    /// Listens for shutdowns.
    pub(super) async fn shutdowns(self) -> Result<Shutdowns<'l>> {
        let rule = || -> zbus::Result<MatchRule<'static>> {
            let rule = MatchRule::builder().msg_type(Type::Signal).sender(SERVICE)?;
            Ok(rule.path(PATH)?.interface(INTERFACE)?.member("PrepareForShutdown")?.build())
        };
        let listen = async { MessageStream::for_match_rule(rule()?, &self.bus, None).await };
        let signals = listen.await.map_err(failed("failed to monitor shutdown"))?;
        Ok(Shutdowns { session: self, signals })
    }
}

/// Shutdowns as they begin and are called off.
pub(super) struct Shutdowns<'l> {
    session: Session<'l>,
    signals: MessageStream,
}

impl<'l> Shutdowns<'l> {
    /// The next one: true when it begins, false when it has been called off. None when the connection is gone.
    pub(super) async fn next(&mut self) -> Option<bool> {
        loop {
            let signal = self.signals.next().await?.ok()?;
            match signal.body().deserialize::<bool>() {
                Ok(shutting_down) => return Some(shutting_down),
                Err(error) => tracing::error!(
                    err = %error,
                    "Failed obtaining shutdown event, PrepareForShutdown event was not bool type as expected"
                ),
            }
        }
    }

    pub(super) fn session(&self) -> &Session<'l> {
        &self.session
    }
}
