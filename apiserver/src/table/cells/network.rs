//! Ingresses and slices of endpoints.

use api::Value;
use jiff::Timestamp;

use super::{NONE, UNSET, age, or};

pub(super) fn ingress(o: &Value, now: Timestamp) -> Vec<Value> {
    let class = o
        .at(&["spec", "ingressClassName"])
        .as_str()
        .or(o.annotation("kubernetes.io/ingress.class"))
        .unwrap_or(NONE);
    let rules = o.array_at(&["spec", "rules"]);
    let hosts: Vec<&str> = rules.iter().map(|r| r.str_at(&["host"])).filter(|h| !h.is_empty()).collect();
    let hosts = match hosts.len() {
        0 => "*".to_owned(),
        n if n > 3 => format!("{} + {} more...", hosts[..3].join(","), n - 3),
        _ => hosts.join(","),
    };
    let addresses: Vec<&str> = o
        .array_at(&["status", "loadBalancer", "ingress"])
        .iter()
        .map(|i| or(i.str_at(&["ip"]), i.str_at(&["hostname"])))
        .collect();
    let ports = if o.array_at(&["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
    vec![
        o.name().into(),
        class.into(),
        hosts.into(),
        addresses.join(",").into(),
        ports.into(),
        age(o, now).into(),
    ]
}

pub(super) fn slice(o: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = o
        .array_at(&["ports"])
        .iter()
        .map(|p| p.get("port").as_i64().map_or("*".to_owned(), |n| n.to_string()))
        .collect();
    let addresses: Vec<&str> = o
        .array_at(&["endpoints"])
        .iter()
        .flat_map(|e| e.array_at(&["addresses"]))
        .filter_map(Value::as_str)
        .collect();
    let few = |items: Vec<&str>| match items.len() {
        0 => UNSET.to_owned(),
        n if n > 3 => format!("{} + {} more...", items[..3].join(","), n - 3),
        _ => items.join(","),
    };
    vec![
        o.name().into(),
        o.str_at(&["addressType"]).into(),
        few(ports.iter().map(String::as_str).collect()).into(),
        few(addresses).into(),
        age(o, now).into(),
    ]
}
