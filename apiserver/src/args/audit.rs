//! The flags of the audit log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use daemon::GoDuration;
use jiff::SignedDuration;

use crate::audit::{
    Auditor, Backend, Batching, Format, LogWriter, Mode, Output, Policy, Rotation, Sender, Truncation,
};
use crate::kubeconfig::Remote;

const MODES: [&str; 3] = ["batch", "blocking", "blocking-strict"];
const VERSION: &str = "audit.k8s.io/v1";

/// What is recorded of requests, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct AuditFlags {
    /// So many events wait to be written at most, in mode batch.
    #[arg(long, default_value_t = 10000)]
    pub audit_log_batch_buffer_size: i64,
    /// So many events are written at once at most, in mode batch.
    #[arg(long, default_value_t = 1)]
    pub audit_log_batch_max_size: i64,
    /// Fewer events are written after this time, in mode batch.
    #[arg(long, default_value = "0s")]
    pub audit_log_batch_max_wait: GoDuration,
    /// So many batches are written at once at most, in mode batch.
    #[arg(long, default_value_t = 0)]
    pub audit_log_batch_throttle_burst: i64,
    /// Limit the rate of batches, in mode batch.
    #[arg(long)]
    pub audit_log_batch_throttle_enable: bool,
    /// So many batches each second, in mode batch.
    #[arg(long, default_value_t = 0.0)]
    pub audit_log_batch_throttle_qps: f32,
    /// Compress older logs.
    #[arg(long)]
    pub audit_log_compress: bool,
    /// How events are written: json or legacy.
    #[arg(long, default_value = "json")]
    pub audit_log_format: String,
    /// Days after which older logs are removed; 0 keeps them.
    #[arg(long, default_value_t = 366)]
    pub audit_log_maxage: i64,
    /// So many older logs are kept; 0 keeps all.
    #[arg(long, default_value_t = 100)]
    pub audit_log_maxbackup: i64,
    /// Megabytes after which the log begins anew; 0 never does.
    #[arg(long, default_value_t = 100)]
    pub audit_log_maxsize: i64,
    /// Who waits for the log: batch, blocking or blocking-strict.
    #[arg(long, default_value = "blocking")]
    pub audit_log_mode: String,
    /// File of the log; - is the standard output.
    #[arg(long, default_value = "")]
    pub audit_log_path: String,
    /// Take the bodies out of large events.
    #[arg(long)]
    pub audit_log_truncate_enabled: bool,
    /// Bytes that a batch may have.
    #[arg(long, default_value_t = 10 << 20)]
    pub audit_log_truncate_max_batch_size: i64,
    /// Bytes that an event may have.
    #[arg(long, default_value_t = 100 << 10)]
    pub audit_log_truncate_max_event_size: i64,
    /// Version of events in the log.
    #[arg(long, default_value = VERSION)]
    pub audit_log_version: String,
    /// File that says what is recorded.
    #[arg(long, default_value = "")]
    pub audit_policy_file: String,
    /// So many events wait to be sent at most, in mode batch.
    #[arg(long, default_value_t = 10000)]
    pub audit_webhook_batch_buffer_size: i64,
    /// So many events are sent at once at most, in mode batch.
    #[arg(long, default_value_t = 400)]
    pub audit_webhook_batch_max_size: i64,
    /// Fewer events are sent after this time, in mode batch.
    #[arg(long, default_value = "30s")]
    pub audit_webhook_batch_max_wait: GoDuration,
    /// So many batches are sent at once at most, in mode batch.
    #[arg(long, default_value_t = 15)]
    pub audit_webhook_batch_throttle_burst: i64,
    /// Limit the rate of batches, in mode batch.
    #[arg(long, default_value_t = true)]
    pub audit_webhook_batch_throttle_enable: bool,
    /// So many batches each second, in mode batch.
    #[arg(long, default_value_t = 10.0)]
    pub audit_webhook_batch_throttle_qps: f32,
    /// Kubeconfig file of the server that events are sent to.
    #[arg(long, default_value = "")]
    pub audit_webhook_config_file: String,
    /// Time after which what failed first is sent again.
    #[arg(long, alias = "audit-webhook-batch-initial-backoff", default_value = "10s")]
    pub audit_webhook_initial_backoff: GoDuration,
    /// Who waits for the server: batch, blocking or blocking-strict.
    #[arg(long, default_value = "batch")]
    pub audit_webhook_mode: String,
    /// Take the bodies out of large events.
    #[arg(long)]
    pub audit_webhook_truncate_enabled: bool,
    /// Bytes that a batch may have.
    #[arg(long, default_value_t = 10 << 20)]
    pub audit_webhook_truncate_max_batch_size: i64,
    /// Bytes that an event may have.
    #[arg(long, default_value_t = 100 << 10)]
    pub audit_webhook_truncate_max_event_size: i64,
    /// Version of events that are sent.
    #[arg(long, default_value = VERSION)]
    pub audit_webhook_version: String,
}

/// The flags that both kinds of backends have.
struct Common<'a> {
    plugin: &'a str,
    mode: &'a str,
    version: &'a str,
    buffer: i64,
    max_size: i64,
    max_wait: GoDuration,
    throttle: Option<(f32, i64)>,
    parallel: bool,
    truncates: bool,
    max_event: i64,
    max_batch: i64,
}

fn positive(number: i64) -> Option<usize> {
    usize::try_from(number).ok().filter(|n| *n > 0)
}

impl Common<'_> {
    fn mode(&self) -> Result<Mode> {
        let plugin = self.plugin;
        match self.mode {
            "blocking" => return Ok(Mode::Blocking),
            "blocking-strict" => return Ok(Mode::BlockingStrict),
            "batch" => {}
            other => {
                bail!("invalid audit {plugin} mode {other}, allowed modes are {:?}", MODES.join(","));
            }
        }
        let checked = |what: &str, number: i64| {
            positive(number).with_context(|| {
                format!("invalid audit batch {plugin} {what} {number}, must be a positive number")
            })
        };
        let throttle = match self.throttle {
            None => None,
            Some((rate, _)) if rate.is_nan() || rate <= 0.0 => {
                bail!("invalid audit batch {plugin} throttle QPS {rate}, must be a positive number")
            }
            Some((rate, burst)) => {
                let burst = checked("throttle burst", burst)?;
                Some((f64::from(rate), u32::try_from(burst).unwrap_or(u32::MAX)))
            }
        };
        Ok(Mode::Batch(Batching {
            buffer: checked("buffer size", self.buffer)?,
            max_size: checked("max batch size", self.max_size)?,
            max_wait: self.max_wait.0,
            throttle,
            parallel: self.parallel,
        }))
    }

    fn truncation(&self) -> Result<Option<Truncation>> {
        let (plugin, event, batch) = (self.plugin, self.max_event, self.max_batch);
        let Some(max_event) = positive(event) else {
            bail!("invalid audit truncate {plugin} max event size {event}, must be a positive number")
        };
        if batch < event {
            bail!(
                "invalid audit truncate {plugin} max batch size {batch}, must be greater than max event size ({event})"
            );
        }
        if self.version != VERSION {
            bail!("invalid group version, allowed versions are {VERSION:?}");
        }
        Ok(self.truncates.then_some(Truncation { max_event }))
    }
}

impl AuditFlags {
    /// Checks the flags and opens what events are written to; none when nothing is recorded.
    ///
    /// # Errors
    /// A flag or a file cannot be used.
    pub fn validate(&self) -> Result<Option<Arc<Auditor>>> {
        let policy = match self.audit_policy_file.as_str() {
            "" => None,
            file => Some(Policy::read(Path::new(file))?),
        };
        let mut backends = Vec::new();
        if !self.audit_log_path.is_empty() {
            let (mode, truncation, format) = self.log()?;
            match policy {
                None => tracing::info!(
                    "No audit policy file provided, no events will be recorded for log backend"
                ),
                Some(_) => {
                    let writer = LogWriter::open(self.rotation()?)?;
                    backends.push(Backend::new(Output::Log(writer), format, truncation, mode));
                }
            }
        }
        if !self.audit_webhook_config_file.is_empty() {
            let (mode, truncation) = self.webhook()?;
            match policy {
                None => {
                    tracing::info!(
                        "No audit policy file provided, no events will be recorded for webhook backend"
                    );
                }
                Some(_) => {
                    let remote = Remote::read(Path::new(&self.audit_webhook_config_file))
                        .context("initializing audit webhook")?;
                    let sender =
                        Output::Webhook(Box::new(Sender::new(remote, self.audit_webhook_initial_backoff.0)));
                    backends.push(Backend::new(sender, Format::Item, truncation, mode));
                }
            }
        }
        match policy {
            Some(policy) if !backends.is_empty() => Auditor::new(policy, backends).map(Some),
            _ => Ok(None),
        }
    }

    fn log(&self) -> Result<(Mode, Option<Truncation>, Format)> {
        let throttle = (self.audit_log_batch_throttle_qps, self.audit_log_batch_throttle_burst);
        let common = Common {
            plugin: "log",
            mode: &self.audit_log_mode,
            version: &self.audit_log_version,
            buffer: self.audit_log_batch_buffer_size,
            max_size: self.audit_log_batch_max_size,
            max_wait: self.audit_log_batch_max_wait,
            throttle: self.audit_log_batch_throttle_enable.then_some(throttle),
            parallel: false,
            truncates: self.audit_log_truncate_enabled,
            max_event: self.audit_log_truncate_max_event_size,
            max_batch: self.audit_log_truncate_max_batch_size,
        };
        let format = match self.audit_log_format.as_str() {
            "json" => Format::Json,
            "legacy" => Format::Legacy,
            other => bail!("invalid audit log format {other}, allowed formats are \"legacy,json\""),
        };
        Ok((common.mode()?, common.truncation()?, format))
    }

    fn rotation(&self) -> Result<Option<Rotation>> {
        let checked = |flag: &str, number: i64| {
            u64::try_from(number)
                .map(|n| (n > 0).then_some(n))
                .with_context(|| format!("--{flag} {number} can't be a negative number"))
        };
        let max_size = checked("audit-log-maxsize", self.audit_log_maxsize)?;
        let max_age = checked("audit-log-maxage", self.audit_log_maxage)?;
        let max_backups = checked("audit-log-maxbackup", self.audit_log_maxbackup)?;
        if self.audit_log_path == "-" {
            return Ok(None);
        }
        Ok(Some(Rotation {
            path: PathBuf::from(&self.audit_log_path),
            max_size: max_size.map(|n| n.saturating_mul(1 << 20)),
            max_age: max_age.map(|n| {
                SignedDuration::from_hours(i64::try_from(n).map_or(i64::MAX / 4000, |n| n.min(1 << 20)) * 24)
            }),
            max_backups: max_backups.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            compress: self.audit_log_compress,
        }))
    }

    fn webhook(&self) -> Result<(Mode, Option<Truncation>)> {
        let throttle = (self.audit_webhook_batch_throttle_qps, self.audit_webhook_batch_throttle_burst);
        let common = Common {
            plugin: "webhook",
            mode: &self.audit_webhook_mode,
            version: &self.audit_webhook_version,
            buffer: self.audit_webhook_batch_buffer_size,
            max_size: self.audit_webhook_batch_max_size,
            max_wait: self.audit_webhook_batch_max_wait,
            throttle: self.audit_webhook_batch_throttle_enable.then_some(throttle),
            parallel: true,
            truncates: self.audit_webhook_truncate_enabled,
            max_event: self.audit_webhook_truncate_max_event_size,
            max_batch: self.audit_webhook_truncate_max_batch_size,
        };
        Ok((common.mode()?, common.truncation()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        audit: AuditFlags,
    }

    fn check(flags: &[&str], want: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let policy = dir.path().join("policy.yaml");
        std::fs::write(&policy, "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}")
            .unwrap();
        let policy = format!("--audit-policy-file={}", policy.display());
        let line = ["x", policy.as_str(), "--audit-log-path=-"].into_iter().chain(flags.iter().copied());
        let result = Line::try_parse_from(line).unwrap().audit.validate();
        assert_eq!(
            result.map(|a| a.is_some()).map_err(|e| e.to_string()),
            want.map_or(Ok(true), |w| Err(w.to_owned()))
        );
    }

    #[test]
    fn flags_are_checked_as_upstream_checks_them() {
        check(&[], None);
        check(&["--audit-log-mode=batch", "--audit-log-format=legacy"], None);
        check(
            &["--audit-log-mode=never"],
            Some("invalid audit log mode never, allowed modes are \"batch,blocking,blocking-strict\""),
        );
        check(&["--audit-log-maxage=-1"], Some("--audit-log-maxage -1 can't be a negative number"));
        check(
            &["--audit-log-mode=batch", "--audit-log-batch-buffer-size=0"],
            Some("invalid audit batch log buffer size 0, must be a positive number"),
        );
        check(
            &["--audit-log-mode=batch", "--audit-log-batch-throttle-enable"],
            Some("invalid audit batch log throttle QPS 0, must be a positive number"),
        );
        check(
            &["--audit-log-truncate-max-event-size=20000000"],
            Some(
                "invalid audit truncate log max batch size 10485760, must be greater than max event size (20000000)",
            ),
        );
        check(
            &["--audit-log-format=xml"],
            Some("invalid audit log format xml, allowed formats are \"legacy,json\""),
        );
    }
}
