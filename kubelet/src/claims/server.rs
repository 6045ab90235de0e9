//! What is asked of the API server.

use async_trait::async_trait;
use client::resource::{RESOURCE_CLAIMS, RESOURCE_SLICES};
use client::{Client, DeleteOptions, ListOptions};

use ::api::Value;

/// Who knows the claims and the node's ResourceSlices.
#[async_trait]
pub(crate) trait Server: Send + Sync + 'static {
    /// A claim as it is now; an error is a sentence.
    async fn claim(&self, namespace: &str, name: &str) -> Result<Value, String>;
    /// Deletes the node's ResourceSlices, of one driver or of all; an error is a sentence.
    async fn wipe(&self, driver: Option<&str>) -> Result<(), String>;
}

/// The API server, asked by a node.
pub(crate) struct NodeServer {
    pub(crate) client: Client,
    pub(crate) node_name: String,
}

#[async_trait]
impl Server for NodeServer {
    async fn claim(&self, namespace: &str, name: &str) -> Result<Value, String> {
        self.client.get(&RESOURCE_CLAIMS, namespace, name).await.map_err(|error| error.message())
    }

    async fn wipe(&self, driver: Option<&str>) -> Result<(), String> {
        let mut fields = format!("spec.nodeName={}", self.node_name);
        if let Some(driver) = driver {
            fields.push_str(",spec.driver=");
            fields.push_str(driver);
        }
        let (list, options) = (ListOptions::fields(fields), DeleteOptions::default());
        match self.client.delete_collection(&RESOURCE_SLICES, "", &list, &options).await {
            Err(error) if !error.is_not_found() => Err(error.message()),
            _ => Ok(()),
        }
    }
}
