//! Running a provider: a request on its standard input, an answer on its standard output.

use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use api::{Map, Value, object};
use daemon::GoDuration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::Metrics;
use super::config::Provider;

/// A provider has so long to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// No answer is longer, nor what a provider complains.
const MOST: u64 = 10 << 20;

/// A provider's program.
pub(super) struct Program {
    name: String,
    path: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    api_version: String,
}

/// What a provider answered.
pub(super) struct Response {
    pub(super) cache_key_type: String,
    /// None: as the configuration says.
    pub(super) cache_duration: Option<Duration>,
    /// Users and passwords by registry.
    pub(super) auths: Map,
}

/// Whether a file can be run.
pub(super) fn is_executable(file: &Metadata) -> bool {
    file.is_file() && file.permissions().mode() & 0o111 != 0
}

impl Program {
    pub(super) fn new(path: PathBuf, settings: &Provider) -> Self {
        Self {
            name: settings.name.clone(),
            path,
            args: settings.args.clone(),
            env: settings.env.iter().map(|v| (v.name.clone(), v.value.clone())).collect(),
            api_version: settings.api_version.clone(),
        }
    }

    /// Asks for the credentials of an image. Errors are sentences without secrets.
    pub(super) async fn run(
        &self,
        image: &str,
        token: &str,
        annotations: Map,
        metrics: &Metrics,
    ) -> Result<Response, String> {
        let mut request = object!({
            "kind": "CredentialProviderRequest", "apiVersion": (self.api_version.as_str()), "image": image,
        });
        if !token.is_empty() {
            request.set(&["serviceAccountToken"], token);
        }
        if !annotations.is_empty() {
            request.set(&["serviceAccountAnnotations"], Value::Object(annotations));
        }
        let since = Instant::now();
        let ran = tokio::time::timeout(PATIENCE, self.talk(request.to_string())).await;
        metrics.durations.with_label_values(&[&self.name]).observe(since.elapsed().as_secs_f64());
        let ran = ran.unwrap_or_else(|_| Err("context deadline exceeded: ".to_owned()));
        let output = ran.map_err(|why| {
            metrics.errors.with_label_values(&[&self.name]).inc();
            format!("error execing credential provider plugin {} for image {image}: {why}", self.name)
        })?;
        self.decode(&output)
    }

    async fn talk(&self, request: String) -> Result<Vec<u8>, String> {
        let said = |error: std::io::Error| error.to_string();
        let mut child = Command::new(&self.path)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(said)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut input), Some(output), Some(complaints)) = pipes else {
            return Err("there is no pipe to the program".to_owned());
        };
        let (mut answer, mut complaint) = (Vec::new(), Vec::new());
        let (mut output, mut complaints) = (output.take(MOST), complaints.take(MOST));
        let write = async {
            // A program need not read what it does not want to know.
            let _ = input.write_all(request.as_bytes()).await;
            drop(input);
        };
        let (_, read, complained) =
            tokio::join!(write, output.read_to_end(&mut answer), complaints.read_to_end(&mut complaint));
        read.and(complained).map_err(said)?;
        // What is longer was cut, and the program may still be writing.
        drop((output, complaints));
        let status = child.wait().await.map_err(said)?;
        match status.code() {
            Some(0) => Ok(answer),
            Some(code) => Err(format!("exit status {code}: {}", String::from_utf8_lossy(&complaint))),
            None => Err(format!("{status}: {}", String::from_utf8_lossy(&complaint))),
        }
    }

    fn decode(&self, output: &[u8]) -> Result<Response, String> {
        let undecodable = || "error decoding credential provider plugin response from stdout".to_owned();
        let response: Value = serde_json::from_slice(output).map_err(|_| undecodable())?;
        let version = response.str_at(&["apiVersion"]);
        if version != self.api_version {
            return Err(format!(
                "apiVersion from credential plugin response did not match expected apiVersion:{}, actual apiVersion:{version}",
                self.api_version
            ));
        }
        if response.str_at(&["kind"]) != "CredentialProviderResponse" {
            return Err(undecodable());
        }
        let cache_duration = match response.get("cacheDuration") {
            Value::Null => None,
            text => {
                let duration = text.as_str().and_then(|text| text.parse::<GoDuration>().ok());
                Some(duration.ok_or_else(undecodable)?.0)
            }
        };
        Ok(Response {
            cache_key_type: response.str_at(&["cacheKeyType"]).to_owned(),
            cache_duration,
            auths: response.get("auth").as_object().cloned().unwrap_or_default(),
        })
    }
}
