//! CronJobs: schedules and time zones.

use api::Value;
use api::field::Path;

use super::job;
use crate::kinds::Errors;
use crate::kinds::check::At;

const NAME_MAX: usize = 52;

pub(super) fn validate(cron_job: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::of(cron_job, "spec");
    validate_schedule(&spec, old, errors);
    spec.get("startingDeadlineSeconds").not_negative(errors);
    let zone = spec.get("timeZone");
    if old.is_none_or(|o| o.at(&["spec", "timeZone"]) != zone.value) {
        validate_zone(&zone, errors);
    }
    spec.get("concurrencyPolicy").required_one_of(errors, &["Allow", "Forbid", "Replace"]);
    let job = spec.get("jobTemplate.spec");
    job::validate_spec(&job, errors);
    let selector = job.get("selector");
    if selector.is_set() {
        selector.invalid_struct(errors, "meta/v1.LabelSelector", "`selector` will be auto-generated");
    }
    if job.get("manualSelector").is_true() {
        job.get("manualSelector").unsupported(errors, &["nil", "false"]);
    }
    spec.get("successfulJobsHistoryLimit").not_negative(errors);
    spec.get("failedJobsHistoryLimit").not_negative(errors);
    if old.is_none() && cron_job.name().len() > NAME_MAX {
        let why = format!("must be no more than {NAME_MAX} characters");
        At::of(cron_job, "metadata.name").invalid(errors, why);
    }
}

fn validate_schedule(spec: &At<'_>, old: Option<&Value>, errors: &mut Errors) {
    let schedule = spec.get("schedule");
    let text = schedule.text();
    if text.is_empty() {
        return schedule.required(errors, "");
    }
    if let Err(why) = check_schedule(text) {
        schedule.invalid(errors, why);
    }
    let had_zone = old.is_some_and(|o| o.str_at(&["spec", "schedule"]).contains("TZ"));
    match text.contains("TZ") {
        true if !had_zone => {
            let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            schedule.invalid(errors, why);
        }
        true if spec.get("timeZone").is_set() => {
            schedule.invalid(errors, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
        }
        _ => {}
    }
}

fn validate_zone(zone: &At<'_>, errors: &mut Errors) {
    if !zone.is_set() {
        return;
    }
    let text = zone.text();
    if text.is_empty() {
        return zone.invalid(errors, "timeZone must be nil or non-empty string");
    }
    let odd = |part: &str| {
        let inside = |b: u8| b.is_ascii_alphanumeric() || b".-_+".contains(&b);
        matches!(part, "." | ".." | "")
            || part.starts_with('-')
            || part.len() > 14
            || !part.bytes().all(inside)
    };
    if text.split('/').any(odd) {
        return zone.invalid(errors, format!("unknown time zone {text}"));
    }
    if text.eq_ignore_ascii_case("Local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        zone.invalid(errors, why);
    }
    if !is_zone(text) {
        zone.invalid(errors, format!("unknown time zone {text}"));
    }
}

fn is_zone(name: &str) -> bool {
    matches!(name, "UTC" | "Local") || jiff::tz::TimeZone::get(name).is_ok()
}

/// Smallest and largest number of each field, and the names of its numbers.
const FIELDS: [(i64, i64, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

const DESCRIPTORS: [&str; 7] =
    ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

fn check_schedule(schedule: &str) -> Result<(), String> {
    let mut rest = schedule;
    if let Some(zoned) = schedule.strip_prefix("TZ=").or_else(|| schedule.strip_prefix("CRON_TZ=")) {
        let (zone, after) = zoned.split_once(' ').ok_or("the schedule after the time zone is missing")?;
        if !is_zone(zone) {
            return Err(format!("provided bad location {zone}: unknown time zone {zone}"));
        }
        rest = after.trim();
    }
    if rest.starts_with('@') {
        return check_descriptor(rest);
    }
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let n = fields.len();
        return Err(format!("expected exactly 5 fields, found {n}: [{}]", fields.join(" ")));
    }
    for (field, bounds) in fields.into_iter().zip(FIELDS) {
        for range in field.split(',').filter(|r| !r.is_empty()) {
            check_range(range, bounds)?;
        }
    }
    Ok(())
}

fn check_descriptor(descriptor: &str) -> Result<(), String> {
    if DESCRIPTORS.contains(&descriptor) {
        return Ok(());
    }
    let every = descriptor.strip_prefix("@every ");
    let every = every.ok_or_else(|| format!("unrecognized descriptor: {descriptor}"))?;
    let fail = |why: String| format!("failed to parse duration {descriptor}: time: {why}");
    check_duration(every).map_err(fail)
}

/// A duration as Go writes it: `1h30m`, `-1.5s`.
fn check_duration(text: &str) -> Result<(), String> {
    let quoted = api::field::go_quote(text);
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(());
    }
    if rest.is_empty() {
        return Err(format!("invalid duration {quoted}"));
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, after) = rest.split_at(number);
        if !digits.bytes().any(|b| b.is_ascii_digit()) || digits.matches('.').count() > 1 {
            return Err(format!("invalid duration {quoted}"));
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        match unit {
            "" => return Err(format!("missing unit in duration {quoted}")),
            "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h" => {}
            _ => {
                let unit = api::field::go_quote(unit);
                return Err(format!("unknown unit {unit} in duration {quoted}"));
            }
        }
        rest = after;
    }
    Ok(())
}

fn check_range(range: &str, (min, max, names): (i64, i64, &[&str])) -> Result<(), String> {
    let parts: Vec<&str> = range.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let read = |text: &str| {
        let lower = text.to_ascii_lowercase();
        let named = names.iter().position(|n| !n.is_empty() && *n == lower);
        named.map_or_else(|| read_number(text), |n| Ok(n as i64))
    };
    let (start, mut end) = match ends.as_slice() {
        ["*" | "?", ..] => (min, max),
        [one] => read(one).map(|n| (n, n))?,
        [first, last] => (read(first)?, read(last)?),
        [first, ..] => {
            read(first)?;
            return Err(format!("too many hyphens: {range}"));
        }
        [] => return Ok(()),
    };
    let step = match parts.as_slice() {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 {
                end = max;
            }
            read_number(step)?
        }
        _ => return Err(format!("too many slashes: {range}")),
    };
    if start < min {
        return Err(format!("beginning of range ({start}) below minimum ({min}): {range}"));
    }
    if end > max {
        return Err(format!("end of range ({end}) above maximum ({max}): {range}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {range}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {range}"));
    }
    Ok(())
}

fn read_number(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let what = if plain { "value out of range" } else { "invalid syntax" };
    let quoted = api::field::go_quote(text);
    let fail = || format!("failed to parse int from {text}: strconv.Atoi: parsing {quoted}: {what}");
    let number: i64 = text.parse().ok().filter(|_| plain).ok_or_else(fail)?;
    if number < 0 {
        return Err(format!("negative number ({number}) not allowed: {text}"));
    }
    Ok(number)
}

pub(super) fn warnings(cron_job: &Value) -> Vec<String> {
    let mut out: Vec<String> = crate::kinds::pod::warning_of_name_for_pods(cron_job).into_iter().collect();
    out.extend(job_warnings(cron_job));
    out
}

/// Advice about the Jobs that it makes.
pub(super) fn job_warnings(cron_job: &Value) -> Vec<String> {
    job::spec_warnings(&Path::new("spec.jobTemplate.spec"), cron_job.at(&["spec", "jobTemplate", "spec"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in ["* * * * *", "*/5 0-3 1,15 jan-MAR sun", "@daily", "@every 1h30m", "TZ=UTC 0 0 * * ?"] {
            assert_eq!(check_schedule(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("@x", "unrecognized descriptor: @x"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("@every 1x", "failed to parse duration @every 1x: time: unknown unit \"x\" in duration \"1x\""),
        ] {
            assert_eq!(check_schedule(bad), Err(why.to_owned()), "{bad}");
        }
    }

    #[test]
    fn time_zones() {
        let check = |zone: &str, want: &[&str]| {
            let object = api::object!({"z": zone});
            let mut errors = Vec::new();
            validate_zone(&At::of(&object, "z"), &mut errors);
            assert_eq!(errors.iter().map(|e| e.detail.as_str()).collect::<Vec<_>>(), want, "{zone}");
        };
        check("Europe/Berlin", &[]);
        check("UTC", &[]);
        check("", &["timeZone must be nil or non-empty string"]);
        check("../x", &["unknown time zone ../x"]);
        check("Mars/Base", &["unknown time zone Mars/Base"]);
    }
}
