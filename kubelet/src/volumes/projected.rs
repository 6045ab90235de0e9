//! What the files of a volume show: ConfigMaps, Secrets, the pod's own fields, service account tokens.

use api::Value;

use super::atomic::{File, Files};
use super::{Context, Volumes};
use crate::{downward, env};

const DEFAULT_MODE: u32 = 0o644;

/// The files of a volume of this kind; the error is a sentence.
pub(super) async fn files(volumes: &Volumes, context: &Context<'_>, kind: &str) -> Result<Files, String> {
    let source = context.volume.get(kind);
    let mut files = Files::new();
    if kind != "projected" {
        let name = if kind == "secret" { "secretName" } else { "name" };
        let from = From { kind, source, name: source.str_at(&[name]) };
        add(volumes, context, &from, mode(source, DEFAULT_MODE), &mut files).await?;
        return Ok(files);
    }
    let default = mode(source, DEFAULT_MODE);
    let mut errors = Vec::new();
    for part in source.array_at(&["sources"]) {
        for (kind, source) in part.as_object().into_iter().flat_map(|map| map.iter()) {
            let from = From { kind, source, name: source.str_at(&["name"]) };
            if let Err(error) = add(volumes, context, &from, default, &mut files).await {
                errors.push(error);
            }
        }
    }
    match errors.len() {
        0 => Ok(files),
        1 => Err(errors.remove(0)),
        _ => Err(format!("[{}]", errors.join(", "))),
    }
}

struct From<'a> {
    kind: &'a str,
    source: &'a Value,
    name: &'a str,
}

fn mode(source: &Value, default: u32) -> u32 {
    let mode = source.get("defaultMode").as_i64().or_else(|| source.get("mode").as_i64());
    mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(default)
}

async fn add(
    volumes: &Volumes,
    context: &Context<'_>,
    from: &From<'_>,
    default: u32,
    files: &mut Files,
) -> Result<(), String> {
    match from.kind {
        "configMap" | "secret" => object(volumes, context, from, default, files).await,
        "downwardAPI" => downward_api(context, from.source, default, files),
        "serviceAccountToken" => {
            let token = volumes.tokens.token(context.pod, context.name(), from.source).await?;
            let owner = common_user(context.pod);
            let grouped = context.pod.at(&["spec", "securityContext", "fsGroup"]).as_i64().is_some();
            let mode = if owner.is_some() || grouped { 0o600 } else { default };
            let file = File { data: token.into_bytes(), mode, owner };
            files.insert(from.source.str_at(&["path"]).to_owned(), file);
            Ok(())
        }
        other => Err(format!("projected sources of type {other} are not supported")),
    }
}

/// The user that all containers run as, if there is one.
fn common_user(pod: &Value) -> Option<u32> {
    let default = pod.at(&["spec", "securityContext", "runAsUser"]).as_i64();
    let mut users = crate::pods::spec::all_containers(pod)
        .map(|container| container.at(&["securityContext", "runAsUser"]).as_i64().or(default));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}

async fn object(
    volumes: &Volumes,
    context: &Context<'_>,
    from: &From<'_>,
    default: u32,
    files: &mut Files,
) -> Result<(), String> {
    let (kind, read) = match from.kind {
        "secret" => ("secret", volumes.objects.secret(context.pod, from.name).await),
        _ => ("configmap", volumes.objects.config_map(context.pod, from.name).await),
    };
    let optional = from.source.get("optional").as_bool().unwrap_or_default();
    let Some(object) = read.map_err(|error| error.to_string())? else {
        return if optional { Ok(()) } else { Err(format!("{kind} {:?} not found", from.name)) };
    };
    let data = env::data(&object, kind);
    let items = from.source.array_at(&["items"]);
    if items.is_empty() {
        for (key, data) in data {
            files.insert(key, File { data, mode: default, owner: None });
        }
        return Ok(());
    }
    for item in items {
        let key = item.str_at(&["key"]);
        match data.iter().find(|(name, _)| name == key) {
            Some((_, data)) => {
                let file = File { data: data.clone(), mode: mode(item, default), owner: None };
                files.insert(item.str_at(&["path"]).to_owned(), file);
            }
            None if optional => {}
            None if kind == "secret" => return Err(format!("references non-existent secret key: {key}")),
            None => return Err(format!("configmap references non-existent config key: {key}")),
        }
    }
    Ok(())
}

fn downward_api(
    context: &Context<'_>,
    source: &Value,
    default: u32,
    files: &mut Files,
) -> Result<(), String> {
    for item in source.array_at(&["items"]) {
        let text = match (item.get("fieldRef"), item.get("resourceFieldRef")) {
            (Value::Null, Value::Null) => continue,
            (Value::Null, resource) => {
                downward::resource(context.pod, &Value::Null, resource, context.facts)?
            }
            (field, _) => downward::field(context.pod, field.str_at(&["fieldPath"]), context.facts)?,
        };
        let file = File { data: text.into_bytes(), mode: mode(item, default), owner: None };
        files.insert(item.str_at(&["path"]).to_owned(), file);
    }
    Ok(())
}
