//! Advice about files of volumes that come to lie on or in one another.

use api::field::go_quote;

use crate::kinds::check::At;

/// A path below a volume, and what puts something there.
#[derive(Clone, PartialEq)]
struct Place {
    path: String,
    source: String,
}

impl Place {
    fn new(path: &str, source: &str) -> Self {
        Self { path: path.trim_end_matches('/').to_owned(), source: source.to_owned() }
    }

    fn shown(&self) -> String {
        match self.source.is_empty() {
            true => go_quote(&self.path),
            false => format!("{} ({})", go_quote(&self.path), self.source),
        }
    }

    /// True when one is the other, or lies in it.
    fn meets(&self, other: &Self) -> bool {
        let within = |a: &str, b: &str| format!("{a}/").starts_with(&format!("{b}/"));
        !self.path.is_empty()
            && !other.path.is_empty()
            && (within(&self.path, &other.path) || within(&other.path, &self.path))
    }
}

/// Tells of each place that meets an earlier one of `all`, and adds it.
fn collect(places: Vec<Place>, all: &mut Vec<Place>, mut tell: impl FnMut(String)) {
    for place in places {
        for other in all.iter().filter(|other| other.meets(&place)) {
            tell(format!("{} with {}", place.shown(), other.shown()));
        }
        all.push(place);
    }
}

fn items(source: &At<'_>, what: &str) -> Vec<Place> {
    source.get("items").items().map(|item| Place::new(item.get("path").text(), what)).collect()
}

/// Where a source of a projected volume puts something.
fn projected(source: &At<'_>) -> Vec<Place> {
    let named = |kind: &str, name: &str| format!("{kind} {}", go_quote(name));
    let (map, secret) = (source.get("configMap"), source.get("secret"));
    if map.get("items").is_set() {
        return items(&map, &named("ConfigMap", map.get("name").text()));
    }
    if secret.get("items").is_set() {
        return items(&secret, &named("Secret", secret.get("name").text()));
    }
    if source.get("downwardAPI.items").is_set() {
        return items(&source.get("downwardAPI"), "DownwardAPI");
    }
    let token = source.get("serviceAccountToken");
    if token.is_set() {
        return vec![Place::new(token.get("path").text(), "ServiceAccountToken")];
    }
    Vec::new()
}

/// Advice about the volumes of a pod.
pub(super) fn about_paths(spec: &At<'_>, out: &mut Vec<String>) {
    for volume in spec.get("volumes").items() {
        let name = go_quote(volume.get("name").text());
        for (kind, shown, named) in [
            ("configMap", "ConfigMap", "name"),
            ("secret", "Secret", "secretName"),
            ("downwardAPI", "DownwardAPI", ""),
        ] {
            let source = volume.get(kind);
            let what = match named {
                "" => shown.to_owned(),
                field => format!("{shown} {}", go_quote(source.get(field).text())),
            };
            collect(items(&source, ""), &mut Vec::new(), |body| {
                out.push(format!("volume {name} ({what}): overlapping paths: {body}"));
            });
        }
        let mut all = Vec::new();
        for source in volume.get("projected.sources").items() {
            if source.value.as_object().is_none_or(api::Map::is_empty) {
                out.push(format!("volume {name} (Projected) has no sources provided"));
                continue;
            }
            collect(projected(&source), &mut all, |body| {
                out.push(format!("volume {name} (Projected): overlapping paths: {body}"));
            });
        }
    }
}
