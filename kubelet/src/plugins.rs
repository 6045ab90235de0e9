//! Plug-ins of all kinds that make themselves known by a socket in the folder `plugins_registry`.

pub(crate) mod api;
mod watch;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::grpc::Plugin;
use watch::{Sockets, Watch};

/// How long a plug-in may take to say what it is.
const INFO_LIMIT: Duration = Duration::from_secs(1);
/// How long it may take to hear what came of that.
const NOTIFY_LIMIT: Duration = Duration::from_secs(5);
/// A plug-in that could not be taken is asked again after this, and then after twice the time, and so on.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(122);

/// What takes plug-ins of one kind.
#[async_trait]
pub(crate) trait Handler: Send + Sync + 'static {
    /// Whether the plug-in can be taken; the error is a sentence.
    fn validate(&self, name: &str, endpoint: &Path, versions: &[String]) -> Result<(), String>;
    /// Takes it; the error is a sentence.
    async fn register(&self, name: &str, endpoint: &Path, versions: &[String]) -> Result<(), String>;
    /// Its socket is gone.
    async fn deregister(&self, name: &str, endpoint: &Path);
}

/// Those who take plug-ins, by kind.
pub(crate) type Handlers = HashMap<&'static str, Arc<dyn Handler>>;

/// A plug-in that has been taken.
struct Known {
    id: (u64, i64),
    handler: Arc<dyn Handler>,
    name: String,
    endpoint: PathBuf,
}

/// Follows the folder until the process ends.
pub(crate) async fn run(dir: &Path, handlers: Handlers) -> io::Result<()> {
    let watch = Watch::new(dir)?;
    let mut known = HashMap::<PathBuf, Known>::new();
    let mut pause = RETRY_FIRST;
    loop {
        let sockets = watch.sockets();
        drop_gone(&mut known, &sockets).await;
        let mut failed = false;
        for (socket, id) in sockets {
            if known.contains_key(&socket) {
                continue;
            }
            match take(&socket, id, &handlers).await {
                Ok(plugin) => drop(known.insert(socket, plugin)),
                Err(error) => {
                    tracing::error!(socket = %socket.display(), err = error, "Cannot register a plug-in");
                    failed = true;
                }
            }
        }
        if !failed {
            pause = RETRY_FIRST;
            watch.changed().await?;
            continue;
        }
        tokio::select! {
            changed = watch.changed() => changed?,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_LAST),
        }
    }
}

async fn drop_gone(known: &mut HashMap<PathBuf, Known>, sockets: &Sockets) {
    let gone = |(socket, plugin): &(&PathBuf, &Known)| sockets.get(*socket) != Some(&plugin.id);
    let gone: Vec<_> = known.iter().filter(gone).map(|(socket, _)| socket.clone()).collect();
    for socket in gone {
        if let Some(plugin) = known.remove(&socket) {
            tracing::info!(plugin = plugin.name, "The socket of a plug-in is gone");
            plugin.handler.deregister(&plugin.name, &plugin.endpoint).await;
        }
    }
}

/// Asks a plug-in what it is, hands it to whom it concerns, and tells it what came of that.
async fn take(socket: &Path, id: (u64, i64), handlers: &Handlers) -> Result<Known, String> {
    let plugin = Plugin::new(socket);
    let shown = socket.display();
    let info: api::Info = plugin.call(api::INFO, api::Nothing {}, INFO_LIMIT).await.map_err(|error| {
        format!("RegisterPlugin error -- failed to get plugin info using RPC GetInfo at socket {shown}, err: {error}")
    })?;
    let endpoint = if info.endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(&info.endpoint) };
    let taken = match handlers.get(info.kind.as_str()) {
        None => Err(format!(
            "RegisterPlugin error -- no handler registered for plugin type: {} at socket {shown}",
            info.kind
        )),
        Some(handler) => match handler.validate(&info.name, &endpoint, &info.versions) {
            Err(why) => Err(format!("RegisterPlugin error -- plugin validation failed with err: {why}")),
            Ok(()) => handler
                .register(&info.name, &endpoint, &info.versions)
                .await
                .map(|()| handler.clone())
                .map_err(|why| format!("RegisterPlugin error -- plugin registration failed with err: {why}")),
        },
    };
    let error = taken.as_ref().err().cloned().unwrap_or_default();
    let status = api::Registered { registered: error.is_empty(), error };
    let told: Result<api::Nothing, _> = plugin.call(api::NOTIFY, status, NOTIFY_LIMIT).await;
    let handler = taken?;
    if let Err(error) = told {
        handler.deregister(&info.name, &endpoint).await;
        return Err(format!(
            "RegisterPlugin error -- failed to send registration status at socket {shown}, err: {error}"
        ));
    }
    tracing::info!(plugin = info.name, kind = info.kind, "Registered a plug-in");
    Ok(Known { id, handler, name: info.name, endpoint })
}
