//! Static pods from a URL.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use api::Value;
use http::Request;
use http_body_util::{BodyExt, Limited};
use serve::outbound::{self, HttpsClient, Options};

use super::Source;
use super::read::{self, LONGEST};
use crate::config::KubeletConfiguration;

/// An answer takes at most so long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A URL, and the pods that it had last.
pub(super) struct Url {
    source: Source,
    headers: Vec<(String, String)>,
    client: Option<HttpsClient>,
    node: String,
    text: String,
    pods: Vec<Arc<Value>>,
    read: bool,
    failed: bool,
}

impl Url {
    /// The URL that the configuration names, if it does.
    pub(super) fn of(file: &KubeletConfiguration, node: &str) -> Option<Self> {
        let each = |(name, values): (&String, &Vec<String>)| {
            values.iter().map(|value| (name.clone(), value.clone())).collect::<Vec<_>>()
        };
        (!file.static_pod_url.is_empty()).then(|| Self {
            source: Source::Url(file.static_pod_url.clone()),
            headers: file.static_pod_url_header.iter().flat_map(each).collect(),
            client: None,
            node: node.to_owned(),
            text: String::new(),
            pods: Vec::new(),
            read: false,
            failed: false,
        })
    }

    /// The pods that the URL had when it was last read.
    pub(super) fn pods(&self) -> Vec<Arc<Value>> {
        self.pods.clone()
    }

    /// Whether it is known what the URL has: pods, or none.
    pub(super) fn was_read(&self) -> bool {
        self.read
    }

    /// Reads the URL. What cannot be read or used leaves the pods as they are.
    pub(super) async fn fetch(&mut self) {
        let fetched = match tokio::time::timeout(TIMEOUT, self.read()).await {
            Ok(text) => text.and_then(|text| self.take(text)),
            Err(_) => Err(anyhow::anyhow!("no answer within {} seconds", TIMEOUT.as_secs())),
        };
        match &fetched {
            Ok(()) if self.failed => tracing::info!("Successfully read pods from URL"),
            Err(error) if !self.failed => {
                tracing::warn!(err = format!("{error:#}"), "Failed to read pods from URL");
            }
            _ => {}
        }
        self.failed = fetched.is_err();
    }

    async fn read(&mut self) -> anyhow::Result<String> {
        let Source::Url(url) = &self.source else { bail!("not a URL") };
        let mut request = Request::get(url).header("User-Agent", crate::user_agent());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(serve::full("")).context("invalid staticPodURL or staticPodURLHeader")?;
        let client = match &self.client {
            Some(client) => client,
            None => self.client.insert(client(url)?),
        };
        let answer = client.request(request).await.context("cannot reach the URL")?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST as usize).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("cannot read the answer: {error}"))?;
        if status != http::StatusCode::OK {
            bail!("{url}: {status}");
        }
        String::from_utf8(body.to_bytes().into()).context("the answer is not text")
    }

    fn take(&mut self, text: String) -> anyhow::Result<()> {
        if text.is_empty() {
            (self.pods, self.read) = (Vec::new(), true);
            bail!("zero-length data received");
        }
        if text == self.text {
            return Ok(());
        }
        let pods = read::several(&text, &self.source, &self.node);
        self.text = text;
        self.pods = pods?.into_iter().map(Arc::new).collect();
        self.read = true;
        Ok(())
    }
}

fn client(url: &str) -> anyhow::Result<HttpsClient> {
    let secure = url.starts_with("https:");
    let ca = if secure { outbound::system_authorities() } else { None };
    // Without TLS nobody shows a certificate.
    let options = Options { ca, insecure: !secure, ..Options::default() };
    outbound::client(&options).context("cannot trust anybody")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_leaves_the_pods_as_they_are_and_nothing_takes_them_away() {
        let file = KubeletConfiguration { static_pod_url: "http://h/pods".to_owned(), ..Default::default() };
        let mut url = Url::of(&file, "n1").unwrap();
        let pod =
            "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}";
        assert!(url.take("no pod".to_owned()).is_err() && !url.was_read());
        url.take(pod.to_owned()).unwrap();
        assert!(url.was_read());
        for (text, left) in [("no pod", 1), ("", 0)] {
            assert!(url.take(text.to_owned()).is_err());
            assert_eq!(url.pods().len(), left, "{text}");
        }
    }
}
