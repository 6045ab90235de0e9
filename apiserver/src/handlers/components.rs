//! The health of the scheduler, the controller manager and etcd, in its oldest form: they are asked when a client asks.

use std::time::Duration;

use api::error::Result;
use api::{ApiError, Value, object};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serve::Body;

use crate::http::Exchange;
use crate::proxy::unreached;
use crate::registry::ListOptions;
use crate::render;
use crate::resources::Row;
use crate::webhook::chain;

/// How long one of them may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The daemons beside this one, and the ports that they serve on unless told otherwise.
const DAEMONS: [(&str, u16); 2] = [("controller-manager", 10_257), ("scheduler", 10_259)];

/// What one of them says.
struct Health {
    status: &'static str,
    message: String,
    error: String,
}

impl Health {
    fn new(status: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), error: String::new() }
    }

    fn of(self, name: &str) -> Value {
        let mut condition = object!({"type": "Healthy", "status": (self.status)});
        for (field, text) in [("message", self.message), ("error", self.error)] {
            if !text.is_empty() {
                condition.set(&[field], text);
            }
        }
        object!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition]})
    }
}

/// A name, and how to ask who has it.
type Component<'a> = (String, BoxFuture<'a, Health>);

fn components(exchange: &Exchange) -> Vec<Component<'_>> {
    let daemons = DAEMONS.iter().map(|(name, port)| ((*name).to_owned(), ask(*port).boxed()));
    let members = exchange.server.storage.etcd().members().iter().enumerate();
    let members =
        members.map(|(index, member)| (format!("etcd-{index}"), ask_etcd(exchange, member).boxed()));
    let mut all: Vec<Component<'_>> = daemons.chain(members).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

pub(super) async fn handle(exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let form = exchange.form()?;
    let all = components(&exchange);
    if exchange.info.verb == "get" {
        exchange.revision(row)?;
        let asked = &exchange.info.name;
        let (name, question) = all
            .into_iter()
            .find(|(name, _)| name == asked)
            .ok_or_else(|| ApiError::not_found("", "componentstatus", asked))?;
        let status = question.await.of(&name);
        return render::one(&exchange.call(row), StatusCode::OK, &status, form);
    }
    let options = ListOptions::parse(&exchange.query, row)?;
    let selects = |name: &str| {
        options.labels.matches(|_| None)
            && options.fields.matches(|field| if field == "metadata.name" { name } else { "" })
    };
    let asked = all.into_iter().map(async |(name, question)| {
        let status = question.await.of(&name);
        selects(&name).then_some(status)
    });
    let items = join_all(asked).await.into_iter().flatten().collect();
    let list = render::shaped_list(row, items, Value::object(), form)?;
    Ok(render::value(StatusCode::OK, &list, form))
}

async fn ask_etcd(exchange: &Exchange, member: &str) -> Health {
    let ping = exchange.server.storage.etcd().ping_member(member);
    let error = match tokio::time::timeout(PATIENCE, ping).await {
        Ok(Ok(())) => return Health::new("True", "ok"),
        Ok(Err(e)) => format!("{e:#}"),
        Err(_) => "context deadline exceeded".to_owned(),
    };
    Health { error, ..Health::new("False", "") }
}

/// Asks a daemon on this machine, whoever vouches for it.
async fn ask(port: u16) -> Health {
    let url = format!("https://127.0.0.1:{port}/healthz");
    let answer = tokio::time::timeout(PATIENCE, fetch(&url));
    let answer = answer.await.unwrap_or_else(|_| {
        Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned())
    });
    match answer {
        Ok((200..=299, body)) => Health::new("True", body),
        Ok((300..=399, body)) => {
            Health::new("Unknown", format!("Probe terminated redirects, Response body: {body}"))
        }
        Ok((code, _)) => Health::new("False", format!("HTTP probe failed with statuscode: {code}")),
        Err(why) => Health::new("False", format!("Get \"{url}\": {why}")),
    }
}

async fn fetch(url: &str) -> std::result::Result<(u16, String), String> {
    const MOST: usize = 10 << 10;
    let options = serve::outbound::Options { insecure: true, ..Default::default() };
    let client = serve::outbound::client(&options).map_err(|e| chain(&e))?;
    let authority = url.trim_start_matches("https://").split('/').next().unwrap_or_default().to_owned();
    let version = daemon::KUBERNETES_VERSION.trim_start_matches('v').rsplit_once('.').map_or("", |(v, _)| v);
    let agent = format!("kube-probe/{version}");
    let request = Request::get(url).header("user-agent", agent).header("accept", "*/*").body(serve::empty());
    let answer =
        client.request(request.map_err(|e| e.to_string())?).await.map_err(|e| unreached(&e, &authority))?;
    let code = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), MOST).collect().await;
    let body = body.map(|b| b.to_bytes()).map_err(|e| e.to_string())?;
    Ok((code, String::from_utf8_lossy(&body).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_not_there_is_told() {
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port()
        };
        let condition = ask(port).await.of("scheduler");
        let message = format!(
            "Get \"https://127.0.0.1:{port}/healthz\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        );
        let want = object!({"type": "Healthy", "status": "False", "message": message});
        assert_eq!(condition.array_at(&["conditions"]), [want]);
    }
}
