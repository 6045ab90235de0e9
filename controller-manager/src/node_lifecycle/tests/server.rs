//! A server that has nodes, and nothing else: lists, watches and guarded patches over plain HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{ApiError, Value, object};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The server; clones share it.
#[derive(Clone)]
pub(super) struct Server {
    state: Arc<Mutex<State>>,
    revision: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<String, Value>,
    /// Nodes as they were written, in order, each with a revision of its own from 1.
    log: Vec<Value>,
    /// Patches to come before which somebody else writes.
    raced: usize,
    conflicts: usize,
}

struct Request {
    method: String,
    path: String,
    body: Vec<u8>,
}

impl Server {
    pub(super) fn new() -> Self {
        Self { state: Arc::default(), revision: watch::Sender::new(0) }
    }

    /// Writes a node.
    pub(super) fn put(&self, node: Value) {
        self.write(&mut self.state.lock(), node);
    }

    /// Changes a node that is there.
    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock();
        let mut node = state.nodes[name].clone();
        change(&mut node);
        self.write(&mut state, node);
    }

    /// Lets somebody else write before each of the next patches.
    pub(super) fn race(&self, patches: usize) {
        self.state.lock().raced = patches;
    }

    /// Patches that came too late.
    pub(super) fn conflicts(&self) -> usize {
        self.state.lock().conflicts
    }

    /// Waits until a node is so.
    pub(super) async fn until(&self, name: &str, is_so: impl Fn(&Value) -> bool) {
        let mut changes = self.revision.subscribe();
        while !is_so(&self.state.lock().nodes[name]) {
            changes.changed().await.unwrap();
        }
    }

    fn write(&self, state: &mut State, mut node: Value) -> Value {
        let revision = state.log.len() + 1;
        node.set(&["metadata", "resourceVersion"], revision.to_string());
        state.log.push(node.clone());
        state.nodes.insert(node.name().to_owned(), node.clone());
        self.revision.send_replace(revision as u64);
        node
    }

    /// Serves for ever.
    pub(super) async fn serve(self, listener: TcpListener, tasks: daemon::Tasks) {
        while let Ok((stream, _)) = listener.accept().await {
            let this = self.clone();
            tasks.plain("connection", async move {
                // It ends when the client goes.
                let _ = this.connection(stream).await;
                Ok(())
            });
        }
    }

    async fn connection(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read(&mut stream).await? {
            if request.path.contains("watch=true") {
                return self.watch(stream, &request.path).await;
            }
            let (code, body) = self.answer(&request);
            let body = body.to_json();
            let head = format!(
                "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head.as_bytes(), &body].concat()).await?;
        }
        Ok(())
    }

    async fn watch(&self, mut stream: BufReader<TcpStream>, path: &str) -> std::io::Result<()> {
        let from = path.split("resourceVersion=").nth(1).and_then(|rest| rest.split('&').next());
        let mut sent: usize = from.and_then(|from| from.parse().ok()).unwrap_or_default();
        let mut changes = self.revision.subscribe();
        stream.write_all(b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\n\r\n").await?;
        loop {
            changes.mark_unchanged();
            let news: Vec<Value> = match path.starts_with("/api/v1/nodes") {
                true => self.state.lock().log[sent..].to_vec(),
                false => Vec::new(),
            };
            for node in news {
                let event = object!({"type": "MODIFIED", "object": node});
                stream.write_all(&[&event.to_json()[..], b"\n"].concat()).await?;
                sent += 1;
            }
            if changes.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    fn answer(&self, request: &Request) -> (u16, Value) {
        let mut state = self.state.lock();
        let path = request.path.split('?').next().unwrap_or_default();
        let name = path.strip_prefix("/api/v1/nodes/").and_then(|rest| rest.split('/').next());
        match (request.method.as_str(), name) {
            ("GET", None) => {
                let items: Vec<Value> = match path {
                    "/api/v1/nodes" => state.nodes.values().cloned().collect(),
                    _ => Vec::new(),
                };
                let revision = state.log.len().to_string();
                (200, object!({"metadata": {"resourceVersion": revision}, "items": items}))
            }
            ("GET", Some(name)) => (200, state.nodes[name].clone()),
            ("PATCH", Some(name)) => self.patch(&mut state, name, &request.body),
            _ => (201, object!({"metadata": {"name": "x"}})),
        }
    }

    fn patch(&self, state: &mut State, name: &str, body: &[u8]) -> (u16, Value) {
        let mut node = state.nodes[name].clone();
        if state.raced > 0 {
            state.raced -= 1;
            node = self.write(state, node);
        }
        let patch: Value = serde_json::from_slice(body).unwrap();
        if patch.resource_version() != node.resource_version() {
            state.conflicts += 1;
            let conflict = ApiError::stale("", "nodes", name);
            return (conflict.code().as_u16(), conflict.to_value());
        }
        for path in [["spec", "taints"], ["status", "conditions"]] {
            if !patch.at(&path).is_null() {
                node.set(&path, patch.at(&path).clone());
            }
        }
        (200, self.write(state, node))
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines[0].split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let length = lines.iter().filter_map(|line| line.split_once(": ")).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
    });
    let mut body = vec![0; length.unwrap_or_default()];
    stream.read_exact(&mut body).await?;
    Ok(Some(Request { method, path, body }))
}
