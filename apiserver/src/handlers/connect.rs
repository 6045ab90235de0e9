//! CONNECT: streams to pods and what is proxied, which admission is asked about with the options of the request.

use api::error::Result;
use api::{ApiError, Value};
use schema::Ty;
use schema::decode::Mode;

use super::options;
use crate::admission::{self, Operation};
use crate::http::Exchange;
use crate::proxy;
use crate::resources::{Row, Subresource};

/// Lets admission refuse a connection, or change its options.
pub(super) async fn admit(exchange: &mut Exchange, row: &Row, sub: &Subresource) -> Result<()> {
    if exchange.query.has("dryRun") {
        return Err(ApiError::bad_request("dryRun is not supported"));
    }
    let ty = schema::kind(row.group, row.version, sub.kind).expect("options of connections have a schema");
    let call = exchange.call(row);
    let mut given = options::read(&exchange.query, ty)?;
    given.set(&["kind"], sub.kind);
    given.set(&["apiVersion"], row.api_version());
    let proxied = (sub.name == "proxy").then(|| proxy::at_proxy(&exchange.info.path, row.namespaced));
    let prefix = proxied.map(|(prefix, path)| {
        given.set(&["path"], path);
        prefix.len()
    });
    let (given, _) = schema::decode::normalize(given, ty, Mode::Ignore).map_err(ApiError::internal)?;
    let mut admitted = given.clone();
    admission::mutate(&call, Operation::Connect, &mut admitted, None).await?;
    admission::validate(&call, Operation::Connect, Some(&admitted), None).await?;
    if admitted != given {
        take(exchange, &admitted, ty, prefix);
    }
    Ok(())
}

/// Makes the request one with these options; `prefix` is where the path begins that is proxied.
fn take(exchange: &mut Exchange, options: &Value, ty: Ty<'_>, prefix: Option<usize>) {
    if let Some(at) = prefix {
        exchange.info.path.truncate(at);
        let path = options.str_at(&["path"]);
        let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
        exchange.info.path.push_str(slash);
        exchange.info.path.push_str(path);
        return;
    }
    let fields = ty.as_struct().map_or(&[][..], |s| s.fields.as_slice());
    for field in fields.iter().filter(|f| !matches!(&*f.name, "kind" | "apiVersion")) {
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let values = match options.get(&field.name) {
            Value::Null => Vec::new(),
            Value::Array(items) => items.iter().map(text).collect(),
            one => vec![text(one)],
        };
        exchange.query.set_all(&field.name, values);
    }
}
