//! Ending containers and whole pods.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::Value;
use client::DeleteOptions;
use client::events::Kind;
use client::resource::PODS;
use futures::future::join_all;
use tokio::sync::watch;

use super::actor::{Actor, Desired};
use super::observed::{Container, State};
use super::{hooks, spec, traces};
use crate::allocation::Trigger;
use crate::cri::labels;
use crate::events;
use crate::logs;

/// However short the grace period is, and whatever the hook took of it: this long a container has to end by itself.
const LEAST_GRACE: i64 = 2;

impl Actor {
    /// Stops one container: hook, signal when those that have to end before it have ended, and force when its time is over.
    /// False when the runtime could not do it.
    pub(super) async fn kill(
        &self,
        pod: &Arc<Value>,
        id: &str,
        name: &str,
        message: &str,
        after: &[watch::Receiver<bool>],
    ) -> bool {
        events::of_container(&self.kubelet.recorder, pod, name, Kind::Normal, "Killing", message);
        let container = self.observed.containers.iter().find(|container| container.id == id);
        let grace = self.grace(pod, name, container);
        let mut spent = self.before_stop(pod, name, container, grace).await;
        spent += wait_for(after, grace - spent).await;
        let left = (grace - spent).max(LEAST_GRACE);
        if let Err(error) = self.kubelet.runtime.stop_container(id, left).await {
            tracing::warn!(pod = %spec::describe(pod), container = name, err = %error, "Cannot stop the container");
            return false;
        }
        true
    }

    /// The seconds that a container has to end; one at least, so that its hook is run.
    fn grace(&self, pod: &Value, name: &str, container: Option<&Container>) -> i64 {
        self.wanted_grace(pod, name, container).max(1)
    }

    fn wanted_grace(&self, pod: &Value, name: &str, container: Option<&Container>) -> i64 {
        let deletion = pod.at(&["metadata", "deletionGracePeriodSeconds"]).as_i64();
        if let Some(eviction) = &self.evicted {
            return deletion.map_or(eviction.grace, |seconds| seconds.min(eviction.grace));
        }
        if let Some(seconds) = deletion {
            return seconds;
        }
        let failed = container.and_then(|c| self.probes.verdicts().failed.get(&c.id).copied());
        if let (Some(kind), Some(definition)) = (failed, spec::container(pod, name)) {
            let field = if kind == "startup" { "startupProbe" } else { "livenessProbe" };
            if let Some(seconds) = definition.at(&[field, "terminationGracePeriodSeconds"]).as_i64() {
                return seconds;
            }
        }
        let recorded = || container?.annotations.get(labels::GRACE_PERIOD)?.parse().ok();
        pod.at(&["spec", "terminationGracePeriodSeconds"]).as_i64().or_else(recorded).unwrap_or(30)
    }

    /// Runs the hook before the stop, within the grace period; returns the seconds that it took.
    async fn before_stop(
        &self,
        pod: &Arc<Value>,
        name: &str,
        container: Option<&Container>,
        grace: i64,
    ) -> i64 {
        let Some(container) = container.filter(|_| grace > 0) else { return 0 };
        let definition = spec::container(pod, name).cloned();
        let hook = match &definition {
            Some(definition) => definition.at(&["lifecycle", "preStop"]).clone(),
            // The pod object may be gone; the container remembers.
            None => container
                .annotations
                .get(labels::PRE_STOP)
                .and_then(|t| serde_json::from_str(t).ok())
                .unwrap_or_default(),
        };
        if hook.is_empty() {
            return 0;
        }
        let ips = self.ips(pod);
        let target = hooks::target(pod, &definition.unwrap_or_default(), &container.id, &ips);
        let began = tokio::time::Instant::now();
        let limit = Duration::from_secs(grace.unsigned_abs());
        match tokio::time::timeout(limit, hooks::run(&self.kubelet, &hook, &target)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(pod = %spec::describe(pod), err = error, "PreStop hook failed");
                let recorder = &self.kubelet.recorder;
                events::of_container(
                    recorder,
                    pod,
                    name,
                    Kind::Warning,
                    "FailedPreStopHook",
                    "PreStopHook failed",
                );
            }
            Err(_) => {
                tracing::warn!(pod = %spec::describe(pod), "PreStop hook did not end within the grace period")
            }
        }
        began.elapsed().as_secs() as i64
    }

    /// Stops all containers. Restartable init containers end when the main ones and those that started after them have, or
    /// when the time of all of them is over.
    async fn kill_all(&self, pod: &Arc<Value>) {
        let sidecar = |container: &Container| {
            let mut all = spec::init_containers(pod).iter();
            all.position(|init| init.str_at(&["name"]) == container.name && spec::is_sidecar(init))
        };
        let ends: Vec<_> =
            self.observed.running().map(|container| (container, watch::channel(false))).collect();
        let kills = ends.iter().map(async |(container, (ended, _))| {
            let own = sidecar(container);
            // Init containers that are not sidecars are waited for by nobody.
            let counts = |other: &Container| sidecar(other).is_some() || !spec::is_init(pod, &other.name);
            let before = ends.iter().filter(|(other, _)| {
                own.is_some_and(|own| counts(other) && sidecar(other).is_none_or(|other| other > own))
            });
            let before: Vec<_> = before.map(|(_, (_, ended))| ended.clone()).collect();
            let message = format!("Stopping container {}", container.name);
            self.kill(pod, &container.id, &container.name, &message, &before).await;
            ended.send_replace(true);
        });
        join_all(kills).await;
    }

    /// A pod that has run its course: what still runs is stopped, and the sandbox with it. Its containers stay to be looked at.
    /// False when something has to be tried again.
    pub(super) async fn finish(&mut self, pod: &Arc<Value>) -> bool {
        self.kill_all(pod).await;
        for sandbox in self.observed.sandboxes.clone().iter().filter(|sandbox| sandbox.ready) {
            if let Err(error) = self.kubelet.runtime.stop_sandbox(&sandbox.id).await {
                tracing::warn!(pod = %spec::describe(pod), err = %error, "Cannot stop the sandbox");
                return false;
            }
        }
        if let Err(error) = self.observe(pod).await {
            tracing::warn!(pod = %spec::describe(pod), err = %error, "Cannot see the pod's containers");
            return false;
        }
        self.update_probes(pod, true);
        if let Err(why) = self.kubelet.claims.unprepare(pod.uid()).await {
            tracing::warn!(pod = %spec::describe(pod), err = why, "Cannot give the pod's claims back yet");
            return false;
        }
        self.kubelet.allocations.clear_conditions(pod.uid());
        self.kubelet.devices.forget(pod.uid());
        self.kubelet.managers.forget(pod.uid());
        self.report(pod, true);
        self.kubelet.retry(Trigger::Terminated);
        let released = self.release(pod).await;
        if let Err(error) = &released {
            tracing::warn!(pod = %spec::describe(pod), err = %error, "Cannot take down the pod's volumes");
        }
        released.is_ok()
    }

    /// Ends a pod that is deleted; true when nothing of it is left.
    pub(super) async fn end(&mut self, desired: &Desired) -> bool {
        let pod = &self.kubelet.allocations.allocated(&desired.pod);
        if let Err(error) = self.observe(pod).await {
            tracing::warn!(pod = %spec::describe(pod), err = %error, "Cannot see the pod's containers");
            return false;
        }
        self.update_probes(pod, true);
        if !desired.removed {
            self.report(pod, true);
        }
        // A second deletion or the node may shorten the time: then the stopping starts over with what is left.
        let mut changes = self.desired.clone();
        changes.mark_unchanged();
        let before = pod.at(&["metadata", "deletionGracePeriodSeconds"]).as_i64();
        let shortened = |desired: &Desired| {
            desired.pod.at(&["metadata", "deletionGracePeriodSeconds"]).as_i64() < before && before.is_some()
        };
        let mut evictions = self.evictions.clone();
        let may_be_evicted = self.verdict.is_none();
        let interrupted = tokio::select! {
            () = self.kill_all(pod) => false,
            changed = changes.wait_for(shortened) => changed.is_ok(),
            Ok(_) = evictions.wait_for(Option::is_some), if may_be_evicted => true,
        };
        if interrupted {
            self.note_eviction();
            let newest = self.desired.borrow().clone();
            return Box::pin(self.end(&newest)).await;
        }
        match self.take_down(pod, desired.removed).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(pod = %spec::describe(pod), err = %error, "Cannot clean up after the pod yet");
                false
            }
        }
    }

    async fn take_down(&mut self, pod: &Arc<Value>, removed: bool) -> anyhow::Result<()> {
        let runtime = self.kubelet.runtime.clone();
        for sandbox in &self.observed.sandboxes {
            if sandbox.ready {
                runtime.stop_sandbox(&sandbox.id).await?;
            }
        }
        self.observe(pod).await?;
        self.update_probes(pod, true);
        let ended = self.observed.clone();
        // Before anybody hears that the pod has ended, who could give its devices to others.
        self.kubelet.claims.unprepare(pod.uid()).await.map_err(anyhow::Error::msg)?;
        if !removed {
            self.report(pod, true);
        }
        self.release(pod).await?;
        let kubelet = self.kubelet.clone();
        if !removed && !spec::is_static(pod) {
            // How the pod ended could not be told afterwards.
            self.reports.told().await;
            let options = DeleteOptions { grace_period: Some(0), ..DeleteOptions::uid(pod.uid()) };
            match kubelet.client.delete(&PODS, pod.namespace(), pod.name(), &options).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error.into()),
                _ => {}
            }
        }
        for container in &ended.containers {
            self.remove(pod, container).await?;
        }
        for sandbox in &ended.sandboxes {
            runtime.remove_sandbox(&sandbox.id).await?;
        }
        traces::remove(&kubelet.config.pod_dir(pod.uid()))?;
        traces::remove(&kubelet.config.pod_logs(pod.namespace(), pod.name(), pod.uid()))?;
        kubelet.images.forget(pod.uid());
        kubelet.users.forget(pod.uid());
        kubelet.allocations.forget(pod.uid());
        kubelet.devices.forget(pod.uid());
        kubelet.managers.forget(pod.uid());
        kubelet.retry(Trigger::Removed);
        Ok(())
    }

    /// Gives back what the pod holds of the node besides its containers.
    async fn release(&self, pod: &Value) -> io::Result<()> {
        let config = &self.kubelet.config;
        self.kubelet.volumes.unmount(pod.uid(), &config.pod_dir(pod.uid())).await?;
        if config.file.cgroups_per_qos {
            // Whose quality of service is not known any more: the group is where it is.
            for group in config.groups.anywhere(pod.uid()) {
                self.kubelet.cgroups.delete(&group).await?;
            }
        }
        Ok(())
    }

    /// Removes an ended container, its logs before it, so that none is left whose container nobody knows.
    async fn remove(&self, pod: &Value, container: &Container) -> anyhow::Result<()> {
        logs::remove(&names(pod, container), Path::new(&container.log))?;
        Ok(self.kubelet.runtime.remove_container(&container.id).await?)
    }

    /// Removes containers that nobody will ask about: all but the newest two of each name.
    pub(super) async fn collect_garbage(&mut self, pod: &Value) {
        for container in surplus(&self.observed.containers) {
            // What cannot be removed is tried again at the next look.
            if let Err(error) = self.remove(pod, container).await {
                tracing::warn!(pod = %spec::describe(pod), container = container.name, err = %error, "Cannot remove an old container");
            }
        }
        for id in self.observed.old_sandboxes() {
            if let Err(error) = self.kubelet.runtime.remove_sandbox(id).await {
                tracing::debug!(err = %error, "Cannot remove an old sandbox");
            }
        }
    }
}

/// The ended containers that are neither of the newest two of their name.
fn surplus(containers: &[Container]) -> impl Iterator<Item = &Container> {
    let mut seen = HashMap::<&str, u32>::new();
    containers.iter().filter(move |container| {
        let count = seen.entry(&container.name).or_default();
        *count += 1;
        *count > 2 && container.state == State::Exited
    })
}

fn names<'a>(pod: &'a Value, container: &'a Container) -> logs::Names<'a> {
    logs::Names { pod: pod.name(), namespace: pod.namespace(), container: &container.name, id: &container.id }
}

/// Waits until all have ended, but not longer than so many seconds; returns the whole seconds that it took.
async fn wait_for(ends: &[watch::Receiver<bool>], limit: i64) -> i64 {
    if ends.is_empty() || limit <= 0 {
        return 0;
    }
    let began = tokio::time::Instant::now();
    let all = join_all(ends.iter().map(async |end| {
        // Whoever cannot tell any more has ended.
        let _ = end.clone().wait_for(|ended| *ended).await;
    }));
    let _ = tokio::time::timeout(Duration::from_secs(limit.unsigned_abs()), all).await;
    began.elapsed().as_secs() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_two_of_each_name_stay_and_so_does_what_runs() {
        let container = |id: &str, name: &str, state| {
            let id = id.to_owned();
            Container { id, state, ..Container::named(name) }
        };
        let all = [
            container("3", "a", State::Running),
            container("2", "a", State::Exited),
            container("9", "b", State::Exited),
            container("1", "a", State::Exited),
            container("0", "a", State::Unknown),
        ];
        assert_eq!(surplus(&all).map(|container| container.id.as_str()).collect::<Vec<_>>(), ["1"]);
    }
}
