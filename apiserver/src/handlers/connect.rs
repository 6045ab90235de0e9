//! CONNECT: streams to pods and what is proxied, which admission is asked about with the options of the request.

use api::error::Result;
use api::field::go_quote;
use api::{ApiError, Value};
use schema::Ty;
use schema::decode::Mode;
use schema::types::Shape;

use crate::admission::{self, Operation};
use crate::http::Exchange;
use crate::proxy;
use crate::request::Query;
use crate::resources::{Row, Subresource};

/// Lets admission refuse a connection, or change its options.
pub(super) async fn admit(exchange: &mut Exchange, row: &Row, sub: &Subresource) -> Result<()> {
    if exchange.query.has("dryRun") && !exchange.query.get("dryRun").is_empty() {
        return Err(ApiError::bad_request("dryRun is not supported"));
    }
    let ty = schema::kind(row.group, row.version, sub.kind).expect("options of connections have a schema");
    let call = exchange.call(row);
    let mut given = options(&exchange.query, ty)?;
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

/// The options that a query has, by the fields of their type.
fn options(query: &Query, ty: Ty<'_>) -> Result<Value> {
    let mut options = Value::object();
    let fields = ty.as_struct().map_or(&[][..], |s| s.fields.as_slice());
    let own = |name: &str| !matches!(name, "kind" | "apiVersion") && query.has(name);
    for field in fields.iter().filter(|f| own(&f.name)) {
        let name = &*field.name;
        match ty.at(field.ty).shape() {
            Shape::Bool => options.set(&[name], query.is_true(name)),
            Shape::String => options.set(&[name], query.get(name)),
            Shape::List(list) if matches!(ty.at(list.item).shape(), Shape::Int32) => {
                let all = query.all(name).iter().flat_map(|text| text.split(','));
                let numbers = all.map(|text| {
                    let why = || format!("strconv.ParseInt: parsing {}: invalid syntax", go_quote(text));
                    text.parse::<i32>()
                        .map(|n| Value::from(i64::from(n)))
                        .map_err(|_| ApiError::bad_request(why()))
                });
                options.set(&[name], numbers.collect::<Result<Vec<Value>>>()?);
            }
            Shape::List(_) => options.set(&[name], query.all(name).to_vec()),
            _ => {}
        }
    }
    Ok(options)
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

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn queries_are_read_as_options() {
        let check = |kind: &str, query: &str, want: std::result::Result<Value, &str>| {
            let ty = schema::kind("", "v1", kind).unwrap();
            let got = options(&Query::parse(Some(query)), ty).map_err(|e| e.status().message.clone());
            assert_eq!(got, want.map_err(str::to_owned), "{query}");
        };
        let exec = object!({"stdin": true, "tty": false, "container": "c", "command": ["a", "b"]});
        check(
            "PodExecOptions",
            "command=a&command=b&stdin=1&tty=false&container=c&apiVersion=x&other=y",
            Ok(exec),
        );
        check("PodPortForwardOptions", "ports=80&ports=81,82", Ok(object!({"ports": [80, 81, 82]})));
        let bad = "strconv.ParseInt: parsing \"x\": invalid syntax";
        check("PodPortForwardOptions", "ports=x", Err(bad));
    }
}
