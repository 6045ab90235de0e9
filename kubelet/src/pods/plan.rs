//! What to do next for a pod: a pure function of its spec, what runs, what the probes say and the clock.

use std::collections::HashMap;

use api::Value;

use super::backoff::Backoffs;
use super::observed::{Container, Observed, State};
use super::resize::Changes;
use super::spec;
use crate::allocation::Info;
use crate::cri::labels;

/// What the probes have found out, by container id.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Verdicts {
    /// Whether the startup probe has succeeded; containers without one are there from the start.
    pub started: HashMap<String, bool>,
    /// Whether the readiness probe last succeeded.
    pub ready: HashMap<String, bool>,
    /// Containers whose liveness or startup probe gave up, and which of the two.
    pub failed: HashMap<String, &'static str>,
    /// Containers whose hook after the start failed.
    pub hook_failed: HashMap<String, String>,
}

/// A container that must go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kill {
    /// The runtime's id.
    pub id: String,
    /// The container's name.
    pub name: String,
    /// For the event.
    pub message: String,
}

/// A container that is removed so that it starts as if it never had been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reset {
    /// The runtime's id.
    pub id: String,
    /// The container's name.
    pub name: String,
    /// Whether it has not ended yet.
    pub kill: bool,
}

/// A container that must wait before it is started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// The container's name.
    pub name: String,
    /// How long its pause is in all, in nanoseconds.
    pub delay: i64,
    /// When the pause is over.
    pub until: i64,
}

/// The next steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Make a sandbox with this attempt number; everything of older ones goes first.
    pub sandbox: Option<u32>,
    /// There was a sandbox, but it cannot be used any more.
    pub sandbox_changed: bool,
    /// Containers to stop.
    pub kill: Vec<Kill>,
    /// Containers to start, by name, in this order.
    pub start: Vec<String>,
    /// Containers in their pause.
    pub held: Vec<Held>,
    /// Containers to remove, in this order, because all are to be started over; nothing else is done then.
    pub reset: Vec<Reset>,
    /// Resources of running containers to change.
    pub resize: Changes,
    /// Nothing runs and nothing ever will again: the sandbox can go.
    pub done: bool,
}

/// What a plan is made from.
pub(crate) struct View<'a> {
    /// The pod, with the resources that it was given.
    pub pod: &'a Value,
    /// What the runtime has.
    pub observed: &'a Observed,
    /// What the probes say.
    pub verdicts: &'a Verdicts,
    /// Who has to wait before being started again.
    pub backoffs: &'a Backoffs,
    /// The resources that containers run with.
    pub actuated: &'a Info,
    /// Nanoseconds since the epoch.
    pub now: i64,
}

/// Makes the plan.
pub(crate) fn plan(view: View<'_>) -> Plan {
    let View { pod, observed, verdicts, backoffs, actuated, now } = view;
    let mut planner = Planner { pod, observed, verdicts, backoffs, actuated, now, plan: Plan::default() };
    match observed.sandbox(pod) {
        _ if observed.restarts_all(pod) => planner.plan.reset = reset(pod, observed),
        Some(_) => planner.in_sandbox(),
        None => planner.without_sandbox(),
    }
    planner.plan
}

/// All containers, those last whose end has all of them started over: as long as one is there it is known what goes on.
fn reset(pod: &Value, observed: &Observed) -> Vec<Reset> {
    let (mut sources, mut targets) = (Vec::new(), Vec::new());
    for container in spec::containers(pod).iter().chain(spec::init_containers(pod)) {
        let name = container.str_at(&["name"]);
        for found in observed.containers.iter().filter(|found| found.name == name) {
            let ended = found.state == State::Exited;
            let source = ended && spec::restarts_all(container, found.exit_code);
            let side = if source { &mut sources } else { &mut targets };
            side.push(Reset { id: found.id.clone(), name: name.to_owned(), kill: !ended });
        }
    }
    targets.append(&mut sources);
    targets
}

struct Planner<'a> {
    pod: &'a Value,
    observed: &'a Observed,
    verdicts: &'a Verdicts,
    backoffs: &'a Backoffs,
    actuated: &'a Info,
    now: i64,
    plan: Plan,
}

impl Planner<'_> {
    fn without_sandbox(&mut self) {
        let attempt = self.observed.sandboxes.first().map_or(0, |sandbox| sandbox.attempt + 1);
        let mains = spec::containers(self.pod);
        let mut policies = mains.iter().map(|container| spec::policy(self.pod, container));
        let ruled = mains.iter().any(|container| !container.array_at(&["restartPolicyRules"]).is_empty());
        let never = !ruled && policies.all(|policy| policy == "Never");
        let ran = !self.observed.containers.is_empty();
        // A pod that never restarts does not get a second sandbox once it ran in the first.
        let over = never && attempt > 0 && ran;
        let again = |container: &&Value| match self.observed.newest(container.str_at(&["name"])) {
            Some(last) if last.state == State::Exited => {
                spec::should_restart(self.pod, container, last.exit_code)
            }
            _ => true,
        };
        if over || !mains.iter().any(|container| again(&container)) {
            self.plan.done = true;
            return;
        }
        self.plan.sandbox = Some(attempt);
        self.plan.sandbox_changed = !self.observed.sandboxes.is_empty();
        match spec::init_containers(self.pod).first() {
            Some(first) => self.plan.start.push(first.str_at(&["name"]).to_owned()),
            None => {
                let wanted = mains.iter().filter(again).map(|c| c.str_at(&["name"]).to_owned());
                self.plan.start.extend(wanted);
            }
        }
    }

    fn in_sandbox(&mut self) {
        let any_main =
            spec::containers(self.pod).iter().any(|c| self.observed.newest(c.str_at(&["name"])).is_some());
        let pod = self.pod;
        if any_main {
            for sidecar in spec::init_containers(pod).iter().filter(|container| spec::is_sidecar(container)) {
                self.keep(sidecar);
            }
        } else if !self.init() {
            self.plan.resize.consider_pod(pod, self.actuated);
            return;
        }
        let mut alive = false;
        for container in spec::containers(pod) {
            alive |= self.keep(container);
        }
        if !alive && self.plan.start.iter().all(|name| spec::is_init(pod, name)) {
            self.plan = Plan { done: true, ..Plan::default() };
            for sidecar in self.observed.running() {
                let message = format!("Stopping container {}", sidecar.name);
                self.plan.kill.push(Kill { id: sidecar.id.clone(), name: sidecar.name.clone(), message });
            }
            return;
        }
        let fresh = spec::ephemeral_containers(pod).iter().map(|container| container.str_at(&["name"]));
        let fresh = fresh.filter(|name| self.observed.newest(name).is_none()).map(str::to_owned);
        self.plan.start.extend(fresh.collect::<Vec<_>>());
        self.plan.resize.consider_pod(pod, self.actuated);
    }

    /// Goes through the init containers in order; true when all of them have done their part.
    fn init(&mut self) -> bool {
        let pod = self.pod;
        for container in spec::init_containers(pod) {
            let newest = self.observed.newest(container.str_at(&["name"]));
            if spec::is_sidecar(container) {
                self.keep(container);
                let started = newest.is_some_and(|c| {
                    c.state == State::Running && self.verdicts.started.get(&c.id).copied().unwrap_or_default()
                });
                if !started {
                    return false;
                }
                continue;
            }
            match newest {
                Some(last) if last.state == State::Running => {
                    self.keep(container);
                    return false;
                }
                Some(last) if last.state == State::Exited && last.exit_code == 0 => {}
                Some(last)
                    if last.state == State::Exited
                        && !spec::should_restart(pod, container, last.exit_code) =>
                {
                    self.plan = Plan { done: true, ..Plan::default() };
                    return false;
                }
                _ => {
                    self.start(container, newest);
                    return false;
                }
            }
        }
        true
    }

    /// Sees to one container; true when it runs or will run again.
    fn keep(&mut self, container: &Value) -> bool {
        let name = container.str_at(&["name"]);
        let newest = self.observed.newest(name);
        match newest {
            Some(last) if last.state == State::Running => match self.reason_to_kill(container, last) {
                Some((message, at_once)) => {
                    self.plan.kill.push(Kill { id: last.id.clone(), name: name.to_owned(), message });
                    if at_once {
                        let ended = |c: &&Container| c.name == name && c.state == State::Exited;
                        self.start(container, self.observed.containers.iter().find(ended));
                    }
                    true
                }
                None => true,
            },
            Some(last) if last.state == State::Exited => {
                let again = spec::should_restart(self.pod, container, last.exit_code);
                if again {
                    self.start(container, newest);
                }
                again
            }
            _ => {
                self.start(container, newest);
                true
            }
        }
    }

    /// Why a running container has to go, and whether it is started again at once, whatever its exit code and policy.
    fn reason_to_kill(&mut self, container: &Value, running: &Container) -> Option<(String, bool)> {
        let name = container.str_at(&["name"]);
        let restarts = spec::policy(self.pod, container) != "Never";
        if !running.hash.is_empty() && running.hash != labels::hash(container) {
            return Some((format!("Container {name} definition changed, will be restarted"), true));
        }
        if let Some(probe) = self.verdicts.failed.get(&running.id) {
            let then = if restarts { ", will be restarted" } else { "" };
            return Some((format!("Container {name} failed {probe} probe{then}"), restarts));
        }
        if self.verdicts.hook_failed.contains_key(&running.id) {
            // This ends the container as if it had ended by itself.
            return Some(("FailedPostStartHook".to_owned(), false));
        }
        let keep = self.plan.resize.consider(self.pod, container, running, self.actuated);
        (!keep).then(|| (format!("Container {name} resize requires restart"), true))
    }

    fn start(&mut self, container: &Value, last: Option<&Container>) {
        let name = container.str_at(&["name"]);
        let ended = last.filter(|last| last.state == State::Exited).map(|last| last.finished);
        match ended.and_then(|ended| self.backoffs.pause(name, ended)) {
            Some((delay, until)) if until > self.now => {
                self.plan.held.push(Held { name: name.to_owned(), delay, until });
            }
            _ => self.plan.start.push(name.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::super::observed::Sandbox;
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn pod(policy: &str) -> Value {
        object!({"spec": {
            "restartPolicy": policy,
            "initContainers": [{"name": "i", "image": "x"}],
            "containers": [{"name": "m", "image": "x"}],
        }})
    }

    fn container(name: &str, state: State, exit_code: i32) -> Container {
        let hash = labels::hash(&object!({"name": name, "image": "x"}));
        Container { state, finished: 100 * SECOND, exit_code, hash, ..Container::named(name) }
    }

    fn observed(ready: bool, containers: Vec<Container>) -> Observed {
        let ips = vec!["10.42.0.2".to_owned()];
        let sandbox = Sandbox { id: "s".to_owned(), ready, attempt: 0, created: 1, ips, host_network: false };
        Observed { sandboxes: vec![sandbox], containers }
    }

    fn check(pod: &Value, observed: &Observed, expected: Plan) {
        let plan = made(pod, observed, &Verdicts::default(), &Backoffs::default(), 100 * SECOND);
        assert_eq!(plan, expected);
    }

    fn made(pod: &Value, observed: &Observed, verdicts: &Verdicts, backoffs: &Backoffs, now: i64) -> Plan {
        plan(View { pod, observed, verdicts, backoffs, actuated: &Info::default(), now })
    }

    fn start(names: &[&str]) -> Plan {
        Plan { start: names.iter().map(|name| (*name).to_owned()).collect(), ..Plan::default() }
    }

    #[test]
    fn a_new_pod_gets_a_sandbox_and_its_first_init_container() {
        check(&pod("Always"), &Observed::default(), Plan { sandbox: Some(0), ..start(&["i"]) });
    }

    #[test]
    fn main_containers_wait_for_the_init_containers() {
        let running = observed(true, vec![container("i", State::Running, 0)]);
        check(&pod("Always"), &running, Plan::default());
        let done = observed(true, vec![container("i", State::Exited, 0)]);
        check(&pod("Always"), &done, start(&["m"]));
        let failed = observed(true, vec![container("i", State::Exited, 1)]);
        check(&pod("Always"), &failed, start(&["i"]));
        check(&pod("Never"), &failed, Plan { done: true, ..Plan::default() });
    }

    #[test]
    fn an_ended_container_is_started_again_by_the_restart_policy() {
        let ended = |code| {
            observed(true, vec![container("m", State::Exited, code), container("i", State::Exited, 0)])
        };
        let done = Plan { done: true, ..Plan::default() };
        for (policy, code, expected) in [
            ("Always", 0, start(&["m"])),
            ("OnFailure", 0, done.clone()),
            ("OnFailure", 1, start(&["m"])),
            ("Never", 1, done),
        ] {
            check(&pod(policy), &ended(code), expected);
        }
    }

    #[test]
    fn a_dead_sandbox_is_replaced_unless_the_pod_has_run_its_course() {
        let dead = observed(false, vec![container("m", State::Exited, 137)]);
        let again = Plan { sandbox: Some(1), sandbox_changed: true, ..start(&["i"]) };
        check(&pod("Always"), &dead, again);
        check(&pod("Never"), &dead, Plan { done: true, ..Plan::default() });
    }

    #[test]
    fn a_container_that_crashed_twice_is_held_back() {
        let mut backoffs = Backoffs::default();
        backoffs.crashed("m", 90 * SECOND);
        let crashed =
            observed(true, vec![container("m", State::Exited, 1), container("i", State::Exited, 0)]);
        let held = made(&pod("Always"), &crashed, &Verdicts::default(), &backoffs, 105 * SECOND);
        assert!(held.start.is_empty() && !held.done);
        assert_eq!(held.held, [Held { name: "m".to_owned(), delay: 10 * SECOND, until: 110 * SECOND }]);
        let later = made(&pod("Always"), &crashed, &Verdicts::default(), &backoffs, 111 * SECOND);
        assert_eq!(later, start(&["m"]));
    }

    #[test]
    fn a_failed_liveness_probe_restarts_the_container() {
        let running =
            observed(true, vec![container("m", State::Running, 0), container("i", State::Exited, 0)]);
        let mut verdicts = Verdicts::default();
        verdicts.failed.insert("id-m".to_owned(), "liveness");
        let plan = made(&pod("OnFailure"), &running, &verdicts, &Backoffs::default(), 0);
        assert_eq!(plan.start, ["m"]);
        assert_eq!(plan.kill[0].message, "Container m failed liveness probe, will be restarted");
        let plan = made(&pod("Never"), &running, &verdicts, &Backoffs::default(), 0);
        assert!(plan.start.is_empty() && !plan.done);
        assert_eq!(plan.kill[0].message, "Container m failed liveness probe");
    }

    #[test]
    fn other_resources_change_a_container_or_start_it_over() {
        let mut pod = pod("OnFailure");
        let resources = object!({"requests": {"cpu": "1"}});
        let main = object!({"name": "m", "image": "x", "resources": (resources)});
        pod.set(&["spec", "containers"], Value::Array(vec![main.clone()]));
        let running =
            observed(true, vec![container("m", State::Running, 0), container("i", State::Exited, 0)]);
        let changed = made(&pod, &running, &Verdicts::default(), &Backoffs::default(), 0);
        assert_eq!((changed.resize.cpu.len(), changed.kill.len()), (1, 0));
        let policy = object!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
        let mut main = main;
        main.set(&["resizePolicy"], policy);
        pod.set(&["spec", "containers"], Value::Array(vec![main]));
        let over = made(&pod, &running, &Verdicts::default(), &Backoffs::default(), 0);
        assert_eq!(over.start, ["m"]);
        assert_eq!(over.kill[0].message, "Container m resize requires restart");
        assert!(over.resize.restarts && over.resize.cpu.is_empty());
    }

    #[test]
    fn an_ephemeral_container_is_started_once() {
        let mut pod = pod("Always");
        pod.set(&["spec", "ephemeralContainers"], object!([{"name": "e", "image": "x"}]));
        let main = [container("m", State::Running, 0), container("i", State::Exited, 0)];
        check(&pod, &observed(true, main.to_vec()), start(&["e"]));
        let ended = [&main[..], &[container("e", State::Exited, 1)]].concat();
        check(&pod, &observed(true, ended), Plan::default());
    }

    #[test]
    fn a_rule_has_all_containers_removed_and_started_over() {
        let rule =
            object!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}});
        let source =
            object!({"name": "w", "image": "x", "restartPolicy": "Never", "restartPolicyRules": [(rule)]});
        let mut pod = pod("Never");
        pod.set(&["spec", "containers"], object!([{"name": "m", "image": "x"}, (source)]));
        let all = |code: i32| {
            let own = [container("w", State::Exited, code), container("m", State::Running, 0)];
            observed(true, [&own[..], &[container("i", State::Exited, 0)]].concat())
        };
        let reset = |name: &str, kill: bool| Reset { id: format!("id-{name}"), name: name.to_owned(), kill };
        let expected = vec![reset("m", true), reset("i", false), reset("w", false)];
        check(&pod, &all(88), Plan { reset: expected, ..Plan::default() });
        check(&pod, &all(1), Plan::default());
        check(&pod, &observed(true, Vec::new()), start(&["i"]));
    }

    #[test]
    fn sidecars_stop_when_the_main_containers_are_done() {
        let pod = object!({"spec": {
            "restartPolicy": "Never",
            "initContainers": [{"name": "s", "image": "x", "restartPolicy": "Always"}],
            "containers": [{"name": "m", "image": "x"}],
        }});
        let done = observed(true, vec![container("m", State::Exited, 0), container("s", State::Running, 0)]);
        let plan = made(&pod, &done, &Verdicts::default(), &Backoffs::default(), 0);
        assert!(plan.done);
        assert_eq!(plan.kill[0].name, "s");
    }

    #[test]
    fn a_pod_of_a_thousand_containers_is_planned_like_any_other() {
        let names: Vec<String> = (0..1000).map(|i| format!("c{i}")).collect();
        let spec = |name: &String| object!({"name": (name.as_str()), "image": "x"});
        let pod = object!({"spec": {"restartPolicy": "Always", "containers": (Value::Array(names.iter().map(spec).collect()))}});
        check(&pod, &Observed::default(), Plan { sandbox: Some(0), start: names.clone(), ..Plan::default() });
        let half = names.iter().step_by(2).map(|name| container(name, State::Running, 0)).collect();
        let rest = names.iter().skip(1).step_by(2).cloned().collect();
        check(&pod, &observed(true, half), Plan { start: rest, ..Plan::default() });
    }
}
