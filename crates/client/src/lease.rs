//! Leader election on a Lease, by client-go's protocol, so that our daemons and upstream's can stand by for each other.

use std::time::Duration;

use api::{Value, object, time};
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error::{Error, Result, optional};
use crate::resource::LEASES;
use crate::rest::Client;

/// Who stands for election to what.
#[derive(Clone, Debug)]
pub struct Election {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Our name, unlike any other's.
    pub identity: String,
    /// How long others wait for a leader that is silent.
    pub lease_duration: Duration,
    /// How long a leader tries to renew before it steps down.
    pub renew_deadline: Duration,
    /// Time between tries.
    pub retry_period: Duration,
}

/// The lease could not be renewed in time: somebody else may lead now.
#[derive(Debug, thiserror::Error)]
#[error("leaderelection lost: {0}")]
pub struct Lost(String);

/// What was last seen of the lease, and when.
#[derive(Default)]
struct Observed {
    lease: Value,
    at: Option<Instant>,
}

impl Election {
    /// An election in kube-system with upstream's timings (15 s, 10 s, 2 s) and a fresh identity.
    pub fn new(name: &str) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            namespace: "kube-system".to_owned(),
            name: name.to_owned(),
            identity: format!("{}_{}", host.trim(), api::names::new_uid()),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    /// Waits until we lead.
    pub async fn acquire(&self, client: &Client) {
        info!(lease = format!("{}/{}", self.namespace, self.name), "Attempting to acquire leader lease...");
        let mut observed = Observed::default();
        loop {
            match self.attempt(client, &mut observed).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(e) => warn!(err = %e, "Cannot acquire the lease yet"),
            }
            let jitter = rand::Rng::random_range(&mut rand::rng(), 1.0..2.2);
            tokio::time::sleep(self.retry_period.mul_f64(jitter)).await;
        }
        info!(lease = format!("{}/{}", self.namespace, self.name), "Successfully acquired lease");
    }

    /// Keeps leading until `stop`, then gives the lease back. Fails when the lease is lost.
    pub async fn hold(&self, client: &Client, stop: CancellationToken) -> std::result::Result<(), Lost> {
        let mut observed = Observed::default();
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.release(client).await;
                    return Ok(());
                }
                () = tokio::time::sleep(self.retry_period) => {}
            }
            let left = self.renew_deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.attempt(client, &mut observed)).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return Err(Lost("another holder took over".to_owned())),
                Ok(Err(e)) => warn!(err = %e, "Failed to renew the lease"),
                Err(_) => {}
            }
            if renewed.elapsed() >= self.renew_deadline {
                return Err(Lost("timed out renewing".to_owned()));
            }
        }
    }

    /// One try to take or renew the lease; false when somebody else holds it.
    async fn attempt(&self, client: &Client, observed: &mut Observed) -> Result<bool> {
        let found = optional(client.get(&LEASES, &self.namespace, &self.name).await)?;
        let Some(mut lease) = found else {
            let lease = object!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"namespace": (&self.namespace), "name": (&self.name)},
                "spec": (self.spec(&Value::Null)),
            });
            client.create(&LEASES, &self.namespace, &lease).await?;
            return Ok(true);
        };
        let spec = lease.get("spec");
        if observed.at.is_none() || observed.lease != *spec {
            *observed = Observed { lease: spec.clone(), at: Some(Instant::now()) };
        }
        if !self.may_take(spec, observed.at.map_or(Duration::ZERO, |at| at.elapsed())) {
            return Ok(false);
        }
        let next = self.spec(spec);
        lease.set(&["spec"], next);
        client.update(&LEASES, &lease).await.map(|_| true)
    }

    /// Ours, nobody's, or of a holder that has been silent for as long as it said it might be.
    fn may_take(&self, spec: &Value, silent: Duration) -> bool {
        let holder = spec.str_at(&["holderIdentity"]);
        let seconds = spec.get("leaseDurationSeconds").as_i64().unwrap_or(0);
        holder.is_empty()
            || holder == self.identity
            || silent >= Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// The lease as ours, from now on.
    fn spec(&self, old: &Value) -> Value {
        let now = time::format_micro(Timestamp::now());
        let ours = old.str_at(&["holderIdentity"]) == self.identity;
        let transitions = old.get("leaseTransitions").as_i64().unwrap_or(0);
        let taken = if ours { old.str_at(&["acquireTime"]).to_owned() } else { now.clone() };
        object!({
            "holderIdentity": (&self.identity),
            "leaseDurationSeconds": (i64::try_from(self.lease_duration.as_secs()).unwrap_or(15)),
            "acquireTime": taken,
            "renewTime": now,
            "leaseTransitions": (if ours || old.is_null() { transitions } else { transitions + 1 }),
        })
    }

    async fn release(&self, client: &Client) {
        let released = async {
            let mut lease = client.get(&LEASES, &self.namespace, &self.name).await?;
            if lease.str_at(&["spec", "holderIdentity"]) != self.identity {
                return Ok::<_, Error>(());
            }
            let now = time::format_micro(Timestamp::now());
            lease.set(&["spec", "holderIdentity"], "");
            lease.set(&["spec", "leaseDurationSeconds"], 1);
            lease.set(&["spec", "renewTime"], &*now);
            lease.set(&["spec", "acquireTime"], &*now);
            client.update(&LEASES, &lease).await?;
            Ok(())
        };
        match tokio::time::timeout(Duration::from_secs(5), released).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => warn!(err = %e, "Cannot release the lease"),
            Err(_) => warn!("Cannot release the lease in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_free_or_silent() {
        let mut election = Election::new("x");
        election.identity = "me".to_owned();
        let spec = |holder: &str| object!({"holderIdentity": holder, "leaseDurationSeconds": 15});
        for (holder, silent, want) in
            [("", 0, true), ("me", 0, true), ("other", 14, false), ("other", 15, true)]
        {
            assert_eq!(
                election.may_take(&spec(holder), Duration::from_secs(silent)),
                want,
                "{holder} {silent}"
            );
        }
    }

    #[test]
    fn transitions_count_changes_of_holders() {
        let mut election = Election::new("x");
        election.identity = "me".to_owned();
        let first = election.spec(&Value::Null);
        assert_eq!(first.get("leaseTransitions").as_i64(), Some(0));
        let renewed = election.spec(&first);
        assert_eq!(renewed.get("leaseTransitions").as_i64(), Some(0));
        assert_eq!(renewed.get("acquireTime"), first.get("acquireTime"));
        election.identity = "other".to_owned();
        assert_eq!(election.spec(&renewed).get("leaseTransitions").as_i64(), Some(1));
    }
}
