//! Logs on standard error, in upstream's text (klog) or JSON form.

use std::fmt::{self, Write as _};

use clap::Args;
use jiff::{Timestamp, tz::TimeZone};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::GoDuration;

/// Flags of `k8s.io/component-base/logs`.
#[derive(Args, Clone, Debug)]
pub struct LoggingFlags {
    /// Number for the log level verbosity.
    #[arg(short = 'v', long = "v", value_name = "Level", default_value_t = 0)]
    pub v: u8,
    /// Comma-separated list of module=N settings for filtered logging.
    #[arg(long, value_name = "pattern=N,...", default_value = "")]
    pub vmodule: String,
    /// Sets the log format. Permitted formats: "json", "text".
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    pub logging_format: String,
    /// Maximum time between log flushes; every line is written at once here.
    #[arg(long, default_value = "5s")]
    pub log_flush_frequency: GoDuration,
}

impl Default for LoggingFlags {
    fn default() -> Self {
        Self {
            v: 0,
            vmodule: String::new(),
            logging_format: "text".to_owned(),
            log_flush_frequency: GoDuration::from_secs(5),
        }
    }
}

fn level(v: u8) -> &'static str {
    match v {
        0..4 => "info",
        4..6 => "debug",
        _ => "trace",
    }
}

impl LoggingFlags {
    /// Makes these settings the process's; fails when a setting makes no sense.
    pub fn init(&self) -> Result<(), String> {
        let mut directives = level(self.v).to_owned();
        if self.v < 6 {
            // It logs every question.
            directives += ",hickory_server=warn";
        }
        if self.v < 8 {
            directives += ",hyper=info,hyper_util=info,h2=info,rustls=info,tower=info,kube_client=info";
        }
        for pair in self.vmodule.split(',').filter(|p| !p.is_empty()) {
            let (module, n) = pair.split_once('=').ok_or("--vmodule: expected pattern=N")?;
            let n: u8 = n.parse().map_err(|_| format!("--vmodule: {n:?} is not a number"))?;
            let _ = write!(directives, ",{}={}", module.trim_end_matches('*'), level(n));
        }
        let filter = EnvFilter::try_new(&directives).map_err(|e| format!("--vmodule: {e}"))?;
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let done = if self.logging_format == "json" {
            builder.event_format(Json).try_init()
        } else {
            builder.event_format(Text).try_init()
        };
        done.map_err(|e| e.to_string())
    }
}

/// The parts of an event: its message and the text of its other fields.
#[derive(Default)]
struct Parts {
    message: String,
    fields: Vec<(&'static str, serde_json::Value)>,
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

impl Parts {
    fn of(event: &Event<'_>) -> Self {
        let mut parts = Self::default();
        event.record(&mut parts);
        parts
    }

    fn put(&mut self, field: &Field, value: serde_json::Value) {
        match (field.name(), value) {
            ("message", serde_json::Value::String(text)) => self.message = text,
            // Events of the `log` crate carry their origin as fields.
            (name, _) if name.starts_with("log.") => {}
            (name, value) => self.fields.push((name, value)),
        }
    }
}

fn caller(event: &Event<'_>) -> String {
    let meta = event.metadata();
    let file = meta.file().unwrap_or(meta.target());
    let file = file.rsplit('/').next().unwrap_or(file);
    format!("{file}:{}", meta.line().unwrap_or(0))
}

/// `I1122 19:29:01.123456   12345 file.rs:12] "Message" key="value"`.
struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut w: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let letter = match *event.metadata().level() {
            Level::ERROR => 'E',
            Level::WARN => 'W',
            _ => 'I',
        };
        let now = Timestamp::now().to_zoned(TimeZone::UTC).strftime("%m%d %H:%M:%S.%6f").to_string();
        let parts = Parts::of(event);
        write!(w, "{letter}{now} {:>7} {}] {:?}", std::process::id(), caller(event), parts.message)?;
        for (key, value) in parts.fields {
            write!(w, " {key}={value}")?;
        }
        writeln!(w)
    }
}

/// `{"ts":1580306777.04728,"caller":"file.rs:12","msg":"Message","v":0,"key":"value"}`.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut w: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let parts = Parts::of(event);
        let millis = Timestamp::now().as_microsecond() as f64 / 1000.0;
        let mut line = serde_json::Map::new();
        line.insert("ts".to_owned(), millis.into());
        line.insert("caller".to_owned(), caller(event).into());
        line.insert("msg".to_owned(), parts.message.into());
        if *event.metadata().level() != Level::ERROR {
            let v = match *event.metadata().level() {
                Level::DEBUG => 4,
                Level::TRACE => 6,
                _ => 0,
            };
            line.insert("v".to_owned(), v.into());
        }
        line.extend(parts.fields.into_iter().map(|(k, v)| (k.to_owned(), v)));
        writeln!(w, "{}", serde_json::Value::Object(line))
    }
}
