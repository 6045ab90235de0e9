//! Acting as a service account by tokens requested for it (`--use-service-account-credentials`).

use std::time::Duration;

use api::object;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::resource::SERVICE_ACCOUNTS;
use crate::rest::Client;

/// Lifetime asked for.
const LIFETIME: u32 = 3600;
/// A token is replaced when this much of its life is over.
const REPLACE_AFTER: Duration = Duration::from_secs(2880);

/// A service account somebody may request tokens for.
pub struct ServiceAccount {
    requester: Client,
    namespace: String,
    name: String,
    token: Mutex<Option<(String, Instant)>>,
}

impl ServiceAccount {
    /// The account of this name; `requester` may create it and its tokens.
    pub fn new(requester: Client, namespace: &str, name: &str) -> Self {
        Self { requester, namespace: namespace.to_owned(), name: name.to_owned(), token: Mutex::default() }
    }

    /// A token that is good for a while.
    pub(crate) async fn token(&self) -> Result<String> {
        let mut token = self.token.lock().await;
        if let Some((token, at)) = token.as_ref()
            && at.elapsed() < REPLACE_AFTER
        {
            return Ok(token.clone());
        }
        let fresh = match self.request().await {
            Err(e) if e.is_not_found() => {
                self.create().await?;
                self.request().await?
            }
            other => other?,
        };
        *token = Some((fresh.clone(), Instant::now()));
        Ok(fresh)
    }

    async fn create(&self) -> Result<()> {
        let account = object!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"namespace": (&self.namespace), "name": (&self.name)},
        });
        match self.requester.create(&SERVICE_ACCOUNTS, &self.namespace, &account).await {
            Err(e) if !e.is_already_exists() => Err(e),
            _ => Ok(()),
        }
    }

    async fn request(&self) -> Result<String> {
        let request = object!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": LIFETIME},
        });
        let target = (self.namespace.as_str(), self.name.as_str(), "token");
        let answer = self.requester.create_part(&SERVICE_ACCOUNTS, target, &request).await?;
        match answer.str_at(&["status", "token"]) {
            "" => Err(Error::Config(format!("no token for service account {}", self.name))),
            token => Ok(token.to_owned()),
        }
    }
}
