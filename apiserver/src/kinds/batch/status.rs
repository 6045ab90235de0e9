//! The status of a Job: whoever manages it, a Job that is done stays done, and counts fit.
//!
//! Most rules hold only when what they are about changes, so that a status that was wrong before can be mended.

use std::collections::HashSet;

use api::Value;
use jiff::Timestamp;

use super::policy;
use crate::kinds::Errors;
use crate::kinds::check::At;

fn has(job: &Value, condition: &str) -> bool {
    let mut conditions = job.array_at(&["status", "conditions"]).iter();
    conditions.any(|c| c.str_at(&["type"]) == condition && c.str_at(&["status"]) == "True")
}

fn is_resuming(new: &Value, old: &Value) -> bool {
    let mut conditions = new.array_at(&["status", "conditions"]).iter();
    has(old, "Suspended")
        && conditions.any(|c| c.str_at(&["type"]) == "Suspended" && c.str_at(&["status"]) == "False")
}

fn is_finished(job: &Value) -> bool {
    has(job, "Complete") || has(job, "Failed")
}

/// The new and the old status, and which of their parts differ.
struct Change<'a> {
    new: &'a Value,
    old: &'a Value,
    status: At<'a>,
}

impl<'a> Change<'a> {
    fn of(&self, field: &str) -> bool {
        let (new, old) = (self.status.value.get(field), self.old.at(&["status", field]));
        new != old && !(new.is_empty() && old.is_empty())
    }

    fn of_condition(&self, condition: &str) -> bool {
        has(self.new, condition) != has(self.old, condition)
    }

    fn of_end(&self) -> bool {
        is_finished(self.new) != is_finished(self.old)
    }

    fn refuse(&self, field: &str, why: &str, errors: &mut Errors) {
        let at = self.status.get(field);
        at.invalid_as(errors, at.int(), why);
    }

    fn refuse_conditions(&self, why: &str, errors: &mut Errors) {
        self.status.get("conditions").invalid_unshown(errors, why);
    }
}

pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    let change = Change { new, old, status: At::of(new, "status") };
    validate_counts(&change.status, errors);
    validate_end(&change, errors);
    validate_finished(&change, errors);
    validate_indexes(&change, errors);
    validate_pods(&change, errors);
    validate_success(&change, errors);
    validate_history(&change, errors);
}

fn validate_counts(status: &At<'_>, errors: &mut Errors) {
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        status.get(field).not_negative(errors);
    }
    let uncounted = status.get("uncountedTerminatedPods");
    let mut seen = HashSet::new();
    for list in ["succeeded", "failed"] {
        for uid in uncounted.get(list).items() {
            if uid.text().is_empty() {
                uid.invalid(errors, "must not be empty");
            } else if !seen.insert(uid.text().to_owned()) {
                uid.duplicate(errors);
            }
        }
    }
}

fn time(at: &At<'_>) -> Option<Timestamp> {
    at.text().parse().ok()
}

fn validate_end(change: &Change<'_>, errors: &mut Errors) {
    let (job, status) = (change.new, &change.status);
    let (complete, failed) = (change.of_condition("Complete"), change.of_condition("Failed"));
    let is_complete = has(job, "Complete");
    if (complete || failed) && is_complete && has(job, "Failed") {
        change.refuse_conditions("cannot set Complete=True and Failed=true conditions", errors);
    }
    if (complete || change.of_condition("FailureTarget")) && is_complete && has(job, "FailureTarget") {
        change.refuse_conditions("cannot set Complete=True and FailureTarget=true conditions", errors);
    }
    let end = status.get("completionTime");
    if complete || change.of("completionTime") {
        if end.is_set() && !is_complete {
            let why = "cannot set completionTime when there is no Complete=True condition";
            end.invalid(errors, why);
        }
        if !end.is_set() && is_complete {
            end.required(errors, "completionTime is required for Complete jobs");
        }
    }
    let start = status.get("startTime");
    if (change.of("startTime") || change.of("completionTime"))
        && let (Some(start), Some(ended)) = (time(&start), time(&end))
        && ended < start
    {
        end.invalid(errors, "must be equal to or after `startTime`");
    }
    if (failed || change.of("failedIndexes")) && has(job, "Failed") && !has(job, "FailureTarget") {
        let why = "cannot set Failed=True condition without the FailureTarget=true condition";
        change.refuse_conditions(why, errors);
    }
    if (complete || change.of_condition("SuccessCriteriaMet"))
        && is_complete
        && !has(job, "SuccessCriteriaMet")
    {
        let why = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        change.refuse_conditions(why, errors);
    }
}

fn validate_finished(change: &Change<'_>, errors: &mut Errors) {
    if !is_finished(change.new) {
        return;
    }
    let (status, ended) = (&change.status, change.of_end());
    if (ended || change.of("active")) && status.get("active").int() > 0 {
        change.refuse("active", "active>0 is invalid for finished job", errors);
    }
    let spec = change.new.get("spec");
    let empty = spec.get("suspend").as_bool() == Some(true) && spec.get("completions").as_i64() == Some(0);
    if (ended || change.of("startTime")) && !empty && !status.get("startTime").is_set() {
        status.get("startTime").required(errors, "startTime is required for finished job");
    }
    let uncounted = status.get("uncountedTerminatedPods");
    let some = uncounted.get("failed").len() + uncounted.get("succeeded").len() > 0;
    if (ended || change.of("uncountedTerminatedPods")) && some {
        let why = "must be empty for finished job";
        uncounted.invalid_struct(errors, "batch/v1.UncountedTerminatedPods", why);
    }
}

fn validate_indexes(change: &Change<'_>, errors: &mut Errors) {
    let (status, spec) = (&change.status, change.new.get("spec"));
    let completions = spec.get("completions").as_i64();
    let per_index = !spec.get("backoffLimitPerIndex").is_null();
    let (completed, failed) = (status.get("completedIndexes"), status.get("failedIndexes"));
    let completed_changed = change.of("completedIndexes");
    // No indexes are not the same as nothing said of them.
    let failed_changed = *failed.value != *change.old.at(&["status", "failedIndexes"]);
    let check = |at: &At<'_>, name: &str, errors: &mut Errors| {
        if let Some(Err(why)) = completions.map(|n| policy::intervals(at.text(), n)) {
            at.invalid_as(errors, at.text(), format!("error parsing {name}: {why}"));
        }
    };
    if completed_changed {
        check(&completed, "completedIndexes", errors);
    }
    if failed_changed && per_index && failed.is_set() {
        check(&failed, "failedIndexes", errors);
    }
    if completed_changed && !completed.text().is_empty() && spec.str_at(&["completionMode"]) != "Indexed" {
        completed.invalid(errors, "cannot set non-empty completedIndexes when non-indexed completion mode");
    }
    if failed_changed && !per_index && failed.is_set() {
        failed.invalid(errors, "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
    }
    if (failed_changed || completed_changed)
        && failed.is_set()
        && let Some(n) = completions
        && let Err(why) = apart(completed.text(), failed.text(), n)
    {
        failed.invalid(errors, why);
    }
}

/// No index is both completed and failed.
fn apart(completed: &str, failed: &str, completions: i64) -> Result<(), String> {
    let read = |text: &str| policy::intervals(text, completions).unwrap_or_default();
    let failed = read(failed);
    for (first, last) in read(completed) {
        if let Some((a, _)) = failed.iter().find(|(a, b)| *a <= last && first <= *b) {
            let index = first.max(*a);
            return Err(format!("failedIndexes and completedIndexes overlap at index: {index}"));
        }
    }
    Ok(())
}

fn validate_pods(change: &Change<'_>, errors: &mut Errors) {
    let status = &change.status;
    let waits = status.get("terminating").int() > 0;
    if (change.of_end() || change.of("terminating")) && waits && is_finished(change.new) {
        change.refuse("terminating", "terminating>0 is invalid for finished job", errors);
    }
    let (ready, active) = (status.get("ready"), status.get("active"));
    if (change.of("ready") || change.of("active")) && ready.is_set() && ready.int() > active.int() {
        change.refuse("ready", "cannot set more ready pods than active", errors);
    }
}

fn validate_success(change: &Change<'_>, errors: &mut Errors) {
    let job = change.new;
    let met = has(job, "SuccessCriteriaMet");
    if met && has(job, "Failed") {
        change.refuse_conditions("cannot set SuccessCriteriaMet=True and Failed=true conditions", errors);
    }
    if met && has(job, "FailureTarget") {
        let why = "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions";
        change.refuse_conditions(why, errors);
    }
    if !job.at(&["spec", "successPolicy"]).is_null() && !met && has(job, "Complete") {
        let why = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        change.refuse_conditions(why, errors);
    }
}

fn validate_history(change: &Change<'_>, errors: &mut Errors) {
    let (new, old, status) = (change.new, change.old, &change.status);
    for condition in ["Failed", "Complete", "FailureTarget"] {
        if has(old, condition) && !has(new, condition) {
            let why = format!("cannot disable the terminal {condition}=True condition");
            change.refuse_conditions(&why, errors);
        }
    }
    let before = |field: &str| old.at(&["status", field]);
    let fell = |field: &str| status.get(field).int() < before(field).as_i64().unwrap_or(0);
    if fell("failed") {
        let at = status.get("failed");
        at.invalid_as(errors, at.int(), "cannot decrease the failed counter");
    }
    let spec = new.get("spec");
    let elastic =
        spec.str_at(&["completionMode"]) == "Indexed" && spec.get("completions") == spec.get("parallelism");
    if !elastic && fell("succeeded") {
        let at = status.get("succeeded");
        at.invalid_as(errors, at.int(), "cannot decrease the succeeded counter");
    }
    let end = status.get("completionTime");
    if end.is_set() && !before("completionTime").is_null() {
        end.immutable(errors, before("completionTime"));
    }
    let start = status.get("startTime");
    let runs = spec.get("suspend").as_bool() != Some(true);
    if !is_resuming(new, old) && runs && !before("startTime").is_null() && change.of("startTime") {
        start.invalid(errors, "field is immutable for unsuspended job once set");
    }
    let (was_met, is_met) = (has(old, "SuccessCriteriaMet"), has(new, "SuccessCriteriaMet"));
    if was_met && !is_met {
        change.refuse_conditions("cannot disable the SuccessCriteriaMet=True condition", errors);
    }
    if has(old, "Complete") && !was_met && is_met {
        let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        change.refuse_conditions(why, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn a_finished_job_stays_so() {
        let done = object!({"status": {"startTime": "2024-01-01T00:00:00Z", "conditions": [{"type": "Failed", "status": "True"}, {"type": "FailureTarget", "status": "True"}]}});
        let mut errors = Vec::new();
        validate(&done, &done, &mut errors);
        assert_eq!(errors, []);
        validate(&object!({"status": {"startTime": "2024-01-01T00:00:00Z"}}), &done, &mut errors);
        assert_eq!(
            errors.iter().map(|e| e.detail.as_str()).collect::<Vec<_>>(),
            [
                "cannot disable the terminal Failed=True condition",
                "cannot disable the terminal FailureTarget=True condition",
            ]
        );
    }

    #[test]
    fn no_index_is_completed_and_failed() {
        assert_eq!(apart("0-2,5", "3,4", 10), Ok(()));
        assert!(apart("0-2,5", "2", 10).is_err());
    }
}
