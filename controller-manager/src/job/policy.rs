//! What ended pods mean for their Job: `spec.podFailurePolicy` and `spec.successPolicy`.

use std::collections::BTreeSet;

use api::Value;

use super::indexes;

/// What becomes of a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts.
    Count,
    /// It does not count.
    Ignore,
    /// The Job has failed, for this reason.
    FailJob(String),
    /// Its index has failed.
    FailIndex,
}

/// Judges a failed pod.
pub(super) fn judge(job: &Value, pod: &Value) -> Verdict {
    let rules = job.array_at(&["spec", "podFailurePolicy", "rules"]).iter().enumerate();
    for (i, rule) in rules {
        let Some(why) = by_exit_code(rule, pod).or_else(|| by_condition(rule, pod)) else { continue };
        return match rule.str_at(&["action"]) {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!(
                "{why} for pod {}/{} matching FailJob rule at index {i}",
                pod.namespace(),
                pod.name()
            )),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// The first rule of the success policy that the succeeded indexes meet.
pub(super) fn succeeds(job: &Value, succeeded: &BTreeSet<i64>) -> Option<usize> {
    if succeeded.is_empty() {
        return None;
    }
    let completions = job.at(&["spec", "completions"]).as_i64().unwrap_or(0);
    let enough = |have: usize, rule: &Value| {
        let wanted = rule.get("succeededCount").as_i64();
        wanted.is_some_and(|n| i64::try_from(have).is_ok_and(|have| have >= n))
    };
    job.array_at(&["spec", "successPolicy", "rules"]).iter().position(|rule| {
        let Some(text) = rule.get("succeededIndexes").as_str() else { return enough(succeeded.len(), rule) };
        let wanted = indexes::parse(text, completions);
        let have = wanted.intersection(succeeded).count();
        !wanted.is_empty() && (have == wanted.len() || enough(have, rule))
    })
}

fn by_exit_code(rule: &Value, pod: &Value) -> Option<String> {
    let wanted = rule.get("onExitCodes");
    if wanted.is_null() {
        return None;
    }
    let only = wanted.str_at(&["containerName"]);
    let lists = ["containerStatuses", "initContainerStatuses"];
    for status in lists.iter().flat_map(|list| pod.array_at(&["status", list])) {
        let name = status.str_at(&["name"]);
        let Some(code) = status.at(&["state", "terminated", "exitCode"]).as_i64() else { continue };
        if code == 0 || (!only.is_empty() && only != name) {
            continue;
        }
        let listed = wanted.array_at(&["values"]).iter().any(|v| v.as_i64() == Some(code));
        if listed == (wanted.str_at(&["operator"]) == "In") {
            return Some(format!("Container {name} failed with exit code {code}"));
        }
    }
    None
}

fn by_condition(rule: &Value, pod: &Value) -> Option<String> {
    for pattern in rule.array_at(&["onPodConditions"]) {
        let status = match pattern.str_at(&["status"]) {
            "" => "True",
            status => status,
        };
        let kind = pattern.str_at(&["type"]);
        if crate::objects::condition(pod, kind).str_at(&["status"]) == status {
            return Some(format!("Pod {}/{} has condition {kind}", pod.namespace(), pod.name()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn a_success_policy_asks_for_indexes_or_a_count_of_them() {
        let met = |rules: Value, succeeded: &[i64]| {
            let job = object!({"spec": {"completions": 10, "successPolicy": {"rules": rules}}});
            succeeds(&job, &succeeded.iter().copied().collect())
        };
        let rules = object!([{"succeededIndexes": "0,2-4", "succeededCount": 3}, {"succeededIndexes": "9"}]);
        assert_eq!(met(rules.clone(), &[0, 2]), None);
        assert_eq!(met(rules.clone(), &[0, 2, 3, 5]), Some(0));
        assert_eq!(met(rules, &[5, 9]), Some(1));
        assert_eq!(met(object!([{"succeededCount": 2}]), &[5, 9]), Some(0));
        assert_eq!(met(object!([{"succeededIndexes": "20"}]), &[5]), None);
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let job = object!({"spec": {"podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        ]}}});
        let pod = |code: i64, disrupted: &str| {
            object!({
                "metadata": {"namespace": "d", "name": "p"},
                "status": {
                    "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": code}}}],
                    "conditions": [{"type": "DisruptionTarget", "status": disrupted}],
                },
            })
        };
        assert_eq!(judge(&job, &pod(42, "True")), Verdict::Ignore);
        assert_eq!(judge(&job, &pod(1, "False")), Verdict::Count);
        let text = "Container c failed with exit code 42 for pod d/p matching FailJob rule at index 1";
        assert_eq!(judge(&job, &pod(42, "False")), Verdict::FailJob(text.to_owned()));
    }
}
