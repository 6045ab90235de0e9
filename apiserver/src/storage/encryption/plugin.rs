//! Plug-ins that keep keys: gRPC over a socket of the machine.
//!
//! Source: <https://github.com/kubernetes/kms/blob/v0.36.2/apis/v2/api.proto>.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use tower::service_fn;

/// The question how a plug-in is.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusRequest {}

/// How a plug-in is.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusResponse {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, tag = "2")]
    pub healthz: String,
    #[prost(string, tag = "3")]
    pub key_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub key_id: String,
    #[prost(map = "string, bytes", tag = "4")]
    pub annotations: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub uid: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub key_id: String,
    #[prost(map = "string, bytes", tag = "3")]
    pub annotations: HashMap<String, Vec<u8>>,
}

/// A connection to a plug-in, made when it is first used and again when it breaks.
#[derive(Clone)]
pub(super) struct Plugin {
    channel: Channel,
    timeout: Duration,
}

impl Plugin {
    /// Talks to the socket at `path`; a leading `@` stands for a name outside of the file system.
    pub(super) fn new(path: &str, timeout: Duration) -> Self {
        let path = match path.strip_prefix("/@") {
            Some(name) => PathBuf::from(format!("\0{name}")),
            None => PathBuf::from(path),
        };
        let connect = service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect);
        Self { channel, timeout }
    }

    async fn call<Q, A>(&self, method: &'static str, question: Q) -> Result<A, String>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        let answer = async {
            grpc.ready().await.map_err(|e| crate::webhook::chain(&e))?;
            let path = PathAndQuery::from_static(method);
            let answer = grpc.unary(tonic::Request::new(question), path, ProstCodec::<Q, A>::default()).await;
            answer.map(tonic::Response::into_inner).map_err(|status| {
                format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
            })
        };
        let late = "rpc error: code = DeadlineExceeded desc = context deadline exceeded";
        tokio::time::timeout(self.timeout, answer).await.unwrap_or_else(|_| Err(late.to_owned()))
    }

    pub(super) async fn status(&self) -> Result<StatusResponse, String> {
        self.call("/v2.KeyManagementService/Status", StatusRequest {}).await
    }

    pub(super) async fn decrypt(&self, question: DecryptRequest) -> Result<DecryptResponse, String> {
        self.call("/v2.KeyManagementService/Decrypt", question).await
    }

    pub(super) async fn encrypt(&self, question: EncryptRequest) -> Result<EncryptResponse, String> {
        self.call("/v2.KeyManagementService/Encrypt", question).await
    }
}
