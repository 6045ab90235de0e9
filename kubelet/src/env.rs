//! The environment of a container.

mod file;

use std::collections::HashMap;
use std::sync::Arc;

use api::Value;
use client::resource::SERVICES;
use client::{Client, Informer};
use tokio_util::sync::CancellationToken;

use crate::downward;
use crate::objects::Objects;
use crate::volumes::Mounted;

/// Why a container cannot have its environment; shown as `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Something that a variable needs is not there.
    #[error("{0}")]
    Missing(String),
    /// The API server did not answer.
    #[error("cannot read {0}: {1}")]
    Api(String, client::Error),
}

/// The Services of the cluster, for the variables that announce them.
#[derive(Clone)]
pub(crate) struct Services(Informer<Value>);

impl Services {
    /// Nothing is known before [`Services::run`] runs.
    pub(crate) fn new() -> Self {
        let trim = |service: &mut Value| {
            let spec = service.get("spec");
            let kept = api::object!({"clusterIP": (spec.get("clusterIP").clone()), "ports": (spec.get("ports").clone())});
            service.set(&["spec"], kept);
            service.remove_at(&["status"]);
            service.remove_at(&["metadata", "annotations"]);
        };
        Self(Informer::of_values(SERVICES, trim).build())
    }

    /// Keeps up with the API server until `stop`.
    pub(crate) async fn run(self, client: Client, stop: CancellationToken) {
        self.0.run(client, stop).await;
    }

    /// Whether all services are known.
    pub(crate) fn is_synced(&self) -> bool {
        self.0.is_synced()
    }

    /// The variables of the services that a pod of this namespace is told about.
    fn variables(&self, namespace: &str, links: bool) -> Vec<(String, String)> {
        let mut services = if links { self.0.store().in_namespace(namespace) } else { Vec::new() };
        // Everybody is told of the API server itself.
        if let Some(master) = self.0.store().find("default", "kubernetes")
            && !services.iter().any(|service| service.uid() == master.uid() && service.name() == "kubernetes")
        {
            services.push(master);
        }
        services.sort_by(|a, b| a.name().cmp(b.name()));
        services.iter().flat_map(|service| service_variables(service)).collect()
    }
}

impl Default for Services {
    fn default() -> Self {
        Self::new()
    }
}

fn service_variables(service: &Value) -> Vec<(String, String)> {
    let ip = service.str_at(&["spec", "clusterIP"]);
    let ports = service.array_at(&["spec", "ports"]);
    if matches!(ip, "" | "None") || ports.is_empty() {
        return Vec::new();
    }
    let prefix = variable_name(service.name());
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let number = |port: &Value| port.get("port").as_i64().unwrap_or_default();
    let mut out = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), number(&ports[0]).to_string()),
    ];
    for port in ports.iter().filter(|port| !port.str_at(&["name"]).is_empty()) {
        let name = variable_name(port.str_at(&["name"]));
        out.push((format!("{prefix}_SERVICE_PORT_{name}"), number(port).to_string()));
    }
    for (i, port) in ports.iter().enumerate() {
        let protocol = match port.str_at(&["protocol"]) {
            "" => "TCP",
            protocol => protocol,
        };
        let lower = protocol.to_lowercase();
        let number = number(port);
        if i == 0 {
            out.push((format!("{prefix}_PORT"), format!("{lower}://{host}:{number}")));
        }
        let own = format!("{prefix}_PORT_{number}_{protocol}");
        out.push((own.clone(), format!("{lower}://{host}:{number}")));
        out.push((format!("{own}_PROTO"), lower));
        out.push((format!("{own}_PORT"), number.to_string()));
        out.push((format!("{own}_ADDR"), ip.to_owned()));
    }
    out
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

/// Where values come from.
pub(crate) struct Sources<'a> {
    /// ConfigMaps and Secrets.
    pub objects: &'a Objects,
    /// Services.
    pub services: &'a Services,
    /// The pod's volumes.
    pub volumes: &'a Mounted,
    /// What the pod may know of itself.
    pub downward: downward::Facts<'a>,
}

/// The variables of a container, in an order in which later ones win.
pub(crate) async fn variables(
    pod: &Value,
    container: &Value,
    sources: &Sources<'_>,
) -> Result<Vec<(String, String)>, Error> {
    let links = pod.at(&["spec", "enableServiceLinks"]).as_bool().unwrap_or(true);
    let services = sources.services.variables(pod.namespace(), links);
    let mut out = Variables::default();
    for from in container.array_at(&["envFrom"]) {
        env_from(pod, from, sources.objects, &mut out).await?;
    }
    let known: HashMap<String, String> = services.iter().cloned().collect();
    for env in container.array_at(&["env"]) {
        let name = env.str_at(&["name"]);
        let value = match env.get("valueFrom") {
            Value::Null => {
                let text = env.str_at(&["value"]);
                Some(expand(text, |name| out.get(name).or_else(|| known.get(name)).cloned()))
            }
            from => value_from(pod, container, from, sources).await?,
        };
        if let Some(value) = value {
            out.set(name, value);
        }
    }
    // The pod's own variables win over those of the services.
    for (name, value) in services {
        if out.get(&name).is_none() {
            out.set(&name, value);
        }
    }
    Ok(out.0)
}

#[derive(Default)]
struct Variables(Vec<(String, String)>);

impl Variables {
    fn get(&self, name: &str) -> Option<&String> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

async fn env_from(pod: &Value, from: &Value, objects: &Objects, out: &mut Variables) -> Result<(), Error> {
    let prefix = from.str_at(&["prefix"]);
    for (kind, field) in [("configmap", "configMapRef"), ("secret", "secretRef")] {
        let reference = from.get(field);
        if reference.is_null() {
            continue;
        }
        let Some(object) = referenced(pod, kind, reference, objects).await? else { continue };
        for (key, value) in data(&object, kind) {
            let name = format!("{prefix}{key}");
            // Keys that are no names of variables are left out.
            if !name.is_empty() && !name.contains('=') && name.chars().all(|c| c.is_ascii_graphic()) {
                out.set(&name, String::from_utf8_lossy(&value).into_owned());
            }
        }
    }
    Ok(())
}

async fn referenced(
    pod: &Value,
    kind: &str,
    reference: &Value,
    objects: &Objects,
) -> Result<Option<Arc<Value>>, Error> {
    let name = reference.str_at(&["name"]);
    let read = match kind {
        "secret" => objects.secret(pod, name).await,
        _ => objects.config_map(pod, name).await,
    };
    match read.map_err(|error| Error::Api(format!("{kind} {name:?}"), error))? {
        Some(object) => Ok(Some(object)),
        None if reference.get("optional").as_bool().unwrap_or_default() => Ok(None),
        None => Err(Error::Missing(format!("{kind} \"{name}\" not found"))),
    }
}

/// The entries of a ConfigMap or Secret, decoded.
pub(crate) fn data(object: &Value, kind: &str) -> Vec<(String, Vec<u8>)> {
    use base64::Engine as _;
    let decode = |value: &Value| {
        base64::engine::general_purpose::STANDARD
            .decode(value.as_str().unwrap_or_default())
            .unwrap_or_default()
    };
    let plain = |value: &Value| value.as_str().unwrap_or_default().as_bytes().to_vec();
    let entries = |field: &str, read: &dyn Fn(&Value) -> Vec<u8>| -> Vec<_> {
        let map = object.get(field).as_object();
        map.into_iter().flat_map(|map| map.iter()).map(|(key, value)| (key.to_owned(), read(value))).collect()
    };
    if kind == "secret" {
        return entries("data", &decode);
    }
    let mut out = entries("data", &plain);
    out.extend(entries("binaryData", &decode));
    out
}

async fn value_from(
    pod: &Value,
    container: &Value,
    from: &Value,
    sources: &Sources<'_>,
) -> Result<Option<String>, Error> {
    let field = from.get("fieldRef");
    if !field.is_null() {
        return downward::field(pod, field.str_at(&["fieldPath"]), &sources.downward)
            .map(Some)
            .map_err(Error::Missing);
    }
    let resource = from.get("resourceFieldRef");
    if !resource.is_null() {
        return downward::resource(pod, container, resource, &sources.downward)
            .map(Some)
            .map_err(Error::Missing);
    }
    let file = from.get("fileKeyRef");
    if !file.is_null() {
        return from_file(file, sources.volumes);
    }
    for (kind, field) in [("configmap", "configMapKeyRef"), ("secret", "secretKeyRef")] {
        let reference = from.get(field);
        if reference.is_null() {
            continue;
        }
        let Some(object) = referenced(pod, kind, reference, sources.objects).await? else { return Ok(None) };
        let key = reference.str_at(&["key"]);
        let found = data(&object, kind).into_iter().find(|(name, _)| name == key);
        return match found {
            Some((_, value)) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            None if reference.get("optional").as_bool().unwrap_or_default() => Ok(None),
            None => {
                let kind = if kind == "secret" { "Secret" } else { "ConfigMap" };
                let whole = format!("{}/{}", pod.namespace(), reference.str_at(&["name"]));
                Err(Error::Missing(format!("couldn't find key {key} in {kind} {whole}")))
            }
        };
    }
    Err(Error::Missing(format!(
        "unsupported valueFrom of variable in container {:?}",
        container.str_at(&["name"])
    )))
}

/// A value from a file in a volume. That there is none is an error only when there has to be one.
fn from_file(reference: &Value, volumes: &Mounted) -> Result<Option<String>, Error> {
    let [volume, path, key] = ["volumeName", "path", "key"].map(|field| reference.str_at(&[field]));
    let missing = || Error::Missing(format!("cannot find the volume {volume:?} referenced by FileKeyRef"));
    let folder = volumes.get(volume).ok_or_else(missing)?;
    let unreadable = |why: String| {
        tracing::error!(volume, path, err = why, "Cannot read a file of variables");
        Error::Missing("couldn't parse env file".to_owned())
    };
    let text = file::read(folder, path).map_err(|error| unreadable(error.to_string()))?;
    match file::find(&text, key).map_err(unreadable)? {
        "" if reference.get("optional").as_bool().unwrap_or_default() => Ok(None),
        "" => {
            let file = folder.join(path);
            Err(Error::Missing(format!("environment variable key {key:?} not found in file {file:?}")))
        }
        value => Ok(Some(value.to_owned())),
    }
}

/// Expands `$(NAME)`; `$$` stands for `$`, and what is not known stays as it is.
pub(crate) fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn references_are_expanded_once() {
        let value = |name: &str| match name {
            "A" => Some("$(B)".to_owned()),
            "B" => Some("b".to_owned()),
            _ => None,
        };
        for (text, expected) in [
            ("$(A)-$(B)", "$(B)-b"),
            ("$$(A) $(C) $", "$(A) $(C) $"),
            ("$(A", "$(A"),
            ("no", "no"),
            ("$x$$", "$x$"),
        ] {
            assert_eq!(expand(text, value), expected, "{text}");
        }
    }

    #[test]
    fn a_service_is_announced_in_both_styles() {
        let service = object!({"metadata": {"name": "my-db"}, "spec": {
            "clusterIP": "10.43.0.5",
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
        }});
        let variables: HashMap<_, _> = service_variables(&service).into_iter().collect();
        for (name, value) in [
            ("MY_DB_SERVICE_HOST", "10.43.0.5"),
            ("MY_DB_SERVICE_PORT", "5432"),
            ("MY_DB_SERVICE_PORT_SQL", "5432"),
            ("MY_DB_PORT", "tcp://10.43.0.5:5432"),
            ("MY_DB_PORT_5432_TCP_ADDR", "10.43.0.5"),
        ] {
            assert_eq!(variables[name], value);
        }
        let headless =
            object!({"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}});
        assert!(service_variables(&headless).is_empty());
    }
}
