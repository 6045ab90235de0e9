//! Having claims prepared and unprepared.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use ::api::Value;
use prost::Message;

use super::state::{Device, Driver, Info, Key};
use super::{Claims, api, names};

/// How long a driver may take.
const LIMIT: Duration = Duration::from_secs(45);

/// The claims that each driver is asked for.
type Batches = BTreeMap<String, Vec<api::Claim>>;

impl Claims {
    /// Has all claims of a pod prepared. An error is a sentence.
    pub(crate) async fn prepare(&self, pod: &Value) -> Result<(), String> {
        if !names::any(pod) {
            return Ok(());
        }
        let began = Instant::now();
        let prepared = self.prepare_all(pod).await;
        self.metrics.operation("PrepareResources", prepared.is_err(), began.elapsed());
        prepared.map_err(|why| format!("prepare dynamic resources: {why}"))
    }

    async fn prepare_all(&self, pod: &Value) -> Result<(), String> {
        // Everything is checked before anything is noted, so that a pod which cannot be helped can be deleted although a
        // driver is not there.
        let wanted = self.check(pod).await?;
        let keys: Vec<Key> = wanted.iter().map(Info::key).collect();
        let _turns = self.turns(keys.clone()).await;
        for (driver, claims) in self.enter(pod.uid(), &wanted)? {
            self.prepare_by(&driver, &claims).await?;
        }
        let mut known = self.known.lock();
        for key in keys {
            if let Some(info) = known.get_mut(&key) {
                info.prepared = true;
            }
        }
        self.write(&known).map_err(|error| format!("checkpoint ResourceClaim state: {error}"))
    }

    /// Looks whether the pod may have its claims, and whether their drivers are there.
    async fn check(&self, pod: &Value) -> Result<Vec<Info>, String> {
        let mut wanted = Vec::new();
        for reference in names::of_pod(pod)? {
            let name = &reference.name;
            let claim = self.server.claim(pod.namespace(), name).await;
            let claim = claim.map_err(|why| format!("fetch ResourceClaim {name}: {why}"))?;
            if reference.owned {
                names::check_owner(pod, &claim)?;
            }
            names::check_reserved(pod, &claim)?;
            let info = Info::of(&claim).map_err(|why| format!("ResourceClaim {name}: {why}"))?;
            for driver in info.drivers.keys() {
                self.driver(driver)?;
            }
            wanted.push(info);
        }
        Ok(wanted)
    }

    /// Notes that the pod uses the claims; returns what is to be asked of drivers.
    fn enter(&self, uid: &str, wanted: &[Info]) -> Result<Batches, String> {
        let mut known = self.known.lock();
        for fresh in wanted {
            if let Some(old) = known.get(&fresh.key()).filter(|old| old.uid != fresh.uid) {
                return Err(format!(
                    "old ResourceClaim with same name {} and different UID {} still exists (previous pod force-deleted?!)",
                    old.name, old.uid
                ));
            }
        }
        let mut batches = Batches::new();
        for fresh in wanted {
            let info = known.entry(fresh.key()).or_insert_with(|| fresh.clone());
            info.pods.insert(uid.to_owned());
            if info.prepared {
                continue;
            }
            for driver in fresh.drivers.keys() {
                info.drivers.entry(driver.clone()).or_default();
                batches.entry(driver.clone()).or_default().push(fresh.as_message());
            }
        }
        self.write(&known).map_err(|error| format!("checkpoint ResourceClaim cache: {error}"))?;
        Ok(batches)
    }

    async fn prepare_by(&self, driver: &str, claims: &[api::Claim]) -> Result<(), String> {
        const METHOD: &str = "NodePrepareResources";
        let instance = self.driver(driver)?;
        let answer: api::PrepareResponse =
            self.ask(driver, &instance.plugin, instance.version.prepare, METHOD, claims).await?;
        check_answer(METHOD, claims, &answer.claims, |claim| &claim.error)?;
        let mut known = self.known.lock();
        for claim in claims {
            let devices = answer.claims.get(&claim.uid).map(|prepared| prepared.devices.clone());
            let info = known.get_mut(&(claim.namespace.clone(), claim.name.clone()));
            if let (Some(info), Some(devices)) = (info, devices) {
                // A driver that is asked again says everything again.
                let devices = devices.into_iter().map(Device::from).collect();
                info.drivers.insert(driver.to_owned(), Driver { devices });
            }
        }
        Ok(())
    }

    async fn ask<A: Message + Default + 'static>(
        &self,
        driver: &str,
        plugin: &crate::grpc::Plugin,
        method: &'static str,
        name: &str,
        claims: &[api::Claim],
    ) -> Result<A, String> {
        let began = Instant::now();
        let answer = plugin.call(method, api::Claims { claims: claims.to_vec() }, LIMIT).await;
        let failure = answer.as_ref().err().map(|error: &crate::grpc::Error| error.code);
        self.metrics.call(driver, method, failure, began.elapsed());
        answer.map_err(|error| format!("{name}: {error}"))
    }

    /// Gives back what a pod that has ended had claimed: claims that no other pod of the node uses are unprepared. An error
    /// is a sentence.
    pub(crate) async fn unprepare(&self, uid: &str) -> Result<(), String> {
        let keys: Vec<Key> = {
            let known = self.known.lock();
            known.iter().filter(|(_, info)| info.pods.contains(uid)).map(|(key, _)| key.clone()).collect()
        };
        if keys.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let unprepared = self.unprepare_all(uid, keys).await;
        self.metrics.operation("UnprepareResources", unprepared.is_err(), began.elapsed());
        unprepared.map_err(|why| format!("unprepare dynamic resources: {why}"))
    }

    async fn unprepare_all(&self, uid: &str, keys: Vec<Key>) -> Result<(), String> {
        let _turns = self.turns(keys.clone()).await;
        let (batches, last) = self.leave(uid, keys);
        for (driver, claims) in batches {
            self.unprepare_by(&driver, &claims).await?;
        }
        let mut known = self.known.lock();
        for key in last {
            known.remove(&key);
        }
        self.write(&known).map_err(|error| format!("checkpoint ResourceClaim state: {error}"))
    }

    /// Takes the pod off the claims that others use too. Returns what is to be asked of drivers about the rest, and those.
    fn leave(&self, uid: &str, keys: Vec<Key>) -> (Batches, Vec<Key>) {
        let (mut batches, mut last) = (Batches::new(), Vec::new());
        let mut known = self.known.lock();
        for key in keys {
            let Some(info) = known.get_mut(&key).filter(|info| info.pods.contains(uid)) else { continue };
            if info.pods.len() > 1 {
                info.pods.remove(uid);
                continue;
            }
            // Until it is done, it has to be done all over before another pod can use it.
            info.prepared = false;
            for driver in info.drivers.keys() {
                batches.entry(driver.clone()).or_default().push(info.as_message());
            }
            last.push(key);
        }
        (batches, last)
    }

    async fn unprepare_by(&self, driver: &str, claims: &[api::Claim]) -> Result<(), String> {
        const METHOD: &str = "NodeUnprepareResources";
        let instance = self.driver(driver)?;
        let answer: api::UnprepareResponse =
            self.ask(driver, &instance.plugin, instance.version.unprepare, METHOD, claims).await?;
        check_answer(METHOD, claims, &answer.claims, |claim| &claim.error)
    }

    /// Unprepares the claims of pods that ended while no kubelet ran, again and again until it is done. `is_here` knows the
    /// pods of the node by their uids: those look after themselves.
    pub(crate) async fn clean_up(&self, is_here: impl Fn(&str) -> bool) {
        loop {
            let arrived = self.arrived.notified();
            let gone: Vec<String> = {
                let known = self.known.lock();
                let uids = known.values().flat_map(|info| &info.pods);
                let uids: std::collections::BTreeSet<_> = uids.filter(|uid| !is_here(uid)).collect();
                uids.into_iter().cloned().collect()
            };
            let mut failed = false;
            for uid in gone {
                if let Err(why) = self.unprepare(&uid).await {
                    tracing::info!(
                        uid,
                        err = why,
                        "Unpreparing pod resources in reconcile loop failed, will retry"
                    );
                    failed = true;
                }
            }
            if !failed {
                return;
            }
            tokio::select! {
                () = arrived => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }
}

/// When to try again although no driver came.
const PERIOD: Duration = Duration::from_secs(60);

/// Whether a driver did all that it was asked for, and nothing else; an error is a sentence.
fn check_answer<T>(
    method: &str,
    claims: &[api::Claim],
    answers: &HashMap<String, T>,
    error: impl Fn(&T) -> &String,
) -> Result<(), String> {
    if let Some(unknown) = answers.keys().find(|uid| claims.iter().all(|claim| claim.uid != **uid)) {
        return Err(format!("{method} returned result for unknown claim UID {unknown}"));
    }
    for claim in claims {
        match answers.get(&claim.uid).map(&error) {
            Some(why) if !why.is_empty() => {
                return Err(format!("{method} failed for ResourceClaim {}: {why}", claim.name));
            }
            _ => {}
        }
    }
    match claims.iter().filter(|claim| !answers.contains_key(&claim.uid)).count() {
        0 => Ok(()),
        skipped => Err(format!("{method} skipped {skipped} ResourceClaims")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_leave_something_out_or_add_something_are_errors() {
        let claim =
            |uid: &str| api::Claim { uid: uid.to_owned(), name: format!("c{uid}"), namespace: String::new() };
        let claims = [claim("1"), claim("2")];
        let check = |answers: &[(&str, &str)]| {
            let answers =
                answers.iter().map(|(uid, error)| ((*uid).to_owned(), (*error).to_owned())).collect();
            check_answer("Do", &claims, &answers, |error| error)
        };
        assert_eq!(check(&[("1", ""), ("2", "")]), Ok(()));
        assert_eq!(check(&[("1", "")]).unwrap_err(), "Do skipped 1 ResourceClaims");
        assert_eq!(check(&[("1", ""), ("2", "no")]).unwrap_err(), "Do failed for ResourceClaim c2: no");
        assert_eq!(check(&[("3", "")]).unwrap_err(), "Do returned result for unknown claim UID 3");
    }
}
