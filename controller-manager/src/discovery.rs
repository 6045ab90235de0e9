//! What resources the API server serves.

use api::Value;
use client::{Client, Resource};
use http::Method;

/// A served resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) resource: Resource,
    pub(crate) verbs: Vec<String>,
}

impl Served {
    /// Whether it can be asked for all of this.
    pub(crate) fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|v| self.verbs.iter().any(|have| have == v))
    }
}

/// What is served, and which groups could not tell.
#[derive(Debug, Default)]
pub(crate) struct Discovery {
    pub(crate) served: Vec<Served>,
    pub(crate) failed: Vec<String>,
}

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// Asks for all resources, each in the version its group prefers.
pub(crate) async fn discover(client: &Client) -> client::Result<Discovery> {
    let mut found = Discovery::default();
    for root in ["/api", "/apis"] {
        let media = (AGGREGATED, "application/json");
        let bytes = client.bytes(Method::GET, root, media, Vec::new()).await?;
        let answer: Value = serde_json::from_slice(&bytes).map_err(client::Error::Malformed)?;
        if answer.kind() == "APIGroupDiscoveryList" {
            answer.array_at(&["items"]).iter().for_each(|group| take_group(&mut found, group));
        } else {
            one_by_one(client, root, &answer, &mut found).await?;
        }
    }
    Ok(found)
}

/// A group of the aggregated document.
fn take_group(found: &mut Discovery, group: &Value) {
    let name = group.name();
    for version in group.array_at(&["versions"]) {
        let version_name = version.str_at(&["version"]);
        if version.str_at(&["freshness"]) == "Stale" {
            found.failed.push(format!("{name}/{version_name}"));
        }
        for resource in version.array_at(&["resources"]) {
            let kind = resource.at(&["responseKind", "kind"]).as_str().unwrap_or_default();
            let namespaced = resource.str_at(&["scope"]) == "Namespaced";
            let known = (name, version_name, resource.str_at(&["resource"]), kind, namespaced);
            take(found, known, resource.array_at(&["verbs"]));
        }
    }
}

fn take(
    found: &mut Discovery,
    (group, version, plural, kind, namespaced): (&str, &str, &str, &str, bool),
    verbs: &[Value],
) {
    // The first version that has a resource is the preferred one.
    let known = |s: &Served| s.resource.group == group && s.resource.plural == plural;
    if plural.contains('/') || found.served.iter().any(known) {
        return;
    }
    found.served.push(Served {
        resource: Resource {
            group: group.to_owned().into(),
            version: version.to_owned().into(),
            plural: plural.to_owned().into(),
            kind: kind.to_owned().into(),
            namespaced,
        },
        verbs: verbs.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
    });
}

/// The older documents: a list of versions, then one document for each.
async fn one_by_one(
    client: &Client,
    root: &str,
    answer: &Value,
    found: &mut Discovery,
) -> client::Result<()> {
    let mut versions: Vec<(String, String)> = Vec::new();
    for version in answer.array_at(&["versions"]).iter().filter_map(Value::as_str) {
        versions.push((String::new(), version.to_owned()));
    }
    for group in answer.array_at(&["groups"]) {
        let preferred = group.str_at(&["preferredVersion", "version"]);
        let mut listed: Vec<&str> =
            group.array_at(&["versions"]).iter().map(|v| v.str_at(&["version"])).collect();
        listed.sort_by_key(|v| *v != preferred);
        versions.extend(listed.into_iter().map(|v| (group.str_at(&["name"]).to_owned(), v.to_owned())));
    }
    for (group, version) in versions {
        let slash = if group.is_empty() { "" } else { "/" };
        let path = format!("{root}{slash}{group}/{version}");
        match client.request(Method::GET, &path, None).await {
            Ok(list) => {
                for r in list.array_at(&["resources"]) {
                    let namespaced = r.get("namespaced").as_bool() == Some(true);
                    let known = (
                        group.as_str(),
                        version.as_str(),
                        r.str_at(&["name"]),
                        r.str_at(&["kind"]),
                        namespaced,
                    );
                    take(found, known, r.array_at(&["verbs"]));
                }
            }
            Err(_) => found.failed.push(format!("{group}/{version}")),
        }
    }
    Ok(())
}
