//! How long the kubelet's certificates count, and how their renewal goes. Shown of those that the kubelet renews.

use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Histogram, IntCounter, Registry};

use super::{Maker, alpha};

/// How long certificates lived, in seconds: from a minute to four years.
const LIVES: [f64; 10] = [
    60.0,
    3_600.0,
    14_400.0,
    86_400.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
    124_416_000.0,
];

/// The renewal of one certificate.
pub(crate) struct Rotation {
    errors: IntCounter,
    lives: Option<Histogram>,
}

impl Rotation {
    /// That of the client certificate in this file.
    pub(crate) fn client(registry: &Registry, file: PathBuf) -> Self {
        let help = "Gauge of the TTL (time-to-live) of the Kubelet's client certificate. The value is in seconds until certificate expiry (negative if already expired). If client certificate is invalid or unused, the value will be +INF.";
        show(registry, "client", help, file);
        let name = "certificate_manager_client_expiration_renew_errors";
        Self { errors: errors(registry, name), lives: None }
    }

    /// That of the serving certificate in this file.
    pub(crate) fn server(registry: &Registry, file: PathBuf) -> Self {
        let help = "Gauge of the shortest TTL (time-to-live) of the Kubelet's serving certificate. The value is in seconds until certificate expiry (negative if already expired). If serving certificate is invalid or unused, the value will be +INF.";
        show(registry, "server", help, file);
        let lives = Maker(registry).histogram(
            "certificate_manager_server_rotation_seconds",
            "Histogram of the number of seconds the previous certificate lived before being rotated.",
            LIVES.to_vec(),
        );
        Self { errors: errors(registry, "server_expiration_renew_errors"), lives: Some(lives) }
    }

    /// It did not succeed.
    pub(crate) fn failed(&self) {
        self.errors.inc();
    }

    /// There is a new certificate in the place of this one.
    pub(crate) fn renewed(&self, old: &[u8]) {
        if let (Some(lives), Ok((begins, _))) = (&self.lives, serve::x509::validity(old)) {
            lives.observe((Timestamp::now().as_second() - begins) as f64);
        }
    }
}

fn errors(registry: &Registry, name: &str) -> IntCounter {
    Maker(registry).counter(name, "Counter of certificate renewal errors.")
}

fn show(registry: &Registry, whose: &str, help: &str, file: PathBuf) {
    let name = format!("kubelet_certificate_manager_{whose}_ttl_seconds");
    let gauge = Gauge::new(name, alpha(help)).expect("the names are valid");
    serve::metrics::register(registry, Left { file, gauge });
}

/// Looks how long the certificate in a file counts whenever somebody asks.
struct Left {
    file: PathBuf,
    gauge: Gauge,
}

impl Collector for Left {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let validity = serve::x509::validity(&fs::read(&self.file).unwrap_or_default());
        let left = validity.map(|(_, ends)| (ends - Timestamp::now().as_second()) as f64);
        self.gauge.set(left.unwrap_or(f64::INFINITY));
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::text;

    #[test]
    fn certificates_tell_how_long_they_count() {
        let dir = tempfile::tempdir().unwrap();
        let (file, registry) = (dir.path().join("server.pem"), Registry::new());
        let rotation = Rotation::server(&registry, file.clone());
        let left = || {
            let text = text(&registry);
            let mut lines = text.lines();
            let value =
                lines.find_map(|line| line.strip_prefix("kubelet_certificate_manager_server_ttl_seconds "));
            value.unwrap().parse::<f64>().unwrap()
        };
        assert_eq!(left(), f64::INFINITY);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2000, 1, 1), rcgen::date_time_ymd(2001, 1, 1));
        let ended = params.self_signed(&key).unwrap().pem();
        fs::write(&file, &ended).unwrap();
        assert!(left() < 0.0);
        rotation.renewed(ended.as_bytes());
        rotation.failed();
        let text = text(&registry);
        assert!(text.contains("kubelet_certificate_manager_server_rotation_seconds_count 1\n"), "{text}");
        assert!(text.contains("kubelet_server_expiration_renew_errors 1\n"), "{text}");
    }
}
