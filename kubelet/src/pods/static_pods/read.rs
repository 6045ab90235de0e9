//! From the text of a manifest to a pod of this node.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use api::pod::references;
use api::{Value, names, object};

use super::{Source, check, identity, types};
use crate::pods::spec;

/// The longest manifest that is read, in bytes.
pub(super) const LONGEST: u64 = 10 << 20;

/// A file of a pod, or a folder of such files, and what was in them when they were last read.
pub(super) struct Manifests {
    path: PathBuf,
    node: String,
    known: HashMap<PathBuf, (Stamp, Option<Arc<Value>>)>,
}

/// What changes with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(about: &fs::Metadata) -> Self {
        let changed = (about.ctime(), about.ctime_nsec());
        Self { device: about.dev(), inode: about.ino(), size: about.len(), changed }
    }
}

impl Manifests {
    /// Nothing is read yet.
    pub(super) fn new(path: &Path, node: &str) -> Self {
        Self { path: path.to_owned(), node: node.to_owned(), known: HashMap::new() }
    }

    /// The pods, in the order of the files' names. Files that have not changed are not read again.
    pub(super) fn pods(&mut self) -> Vec<Arc<Value>> {
        let mut entries = match fs::metadata(&self.path) {
            Ok(about) if about.is_file() => vec![self.path.clone()],
            Ok(_) => fs::read_dir(&self.path).into_iter().flatten().flatten().map(|e| e.path()).collect(),
            Err(_) => Vec::new(),
        };
        entries.sort();
        let mut before = std::mem::take(&mut self.known);
        let mut found = Vec::new();
        for file in entries {
            let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            let Ok(about) = fs::metadata(&file) else { continue };
            if hidden || !about.is_file() {
                continue;
            }
            let stamp = Stamp::of(&about);
            let same = before.remove(&file).filter(|(known, _)| *known == stamp);
            let pod = same.map_or_else(|| read(&file, &self.node), |(_, pod)| pod);
            found.extend(pod.clone());
            self.known.insert(file, (stamp, pod));
        }
        found
    }
}

/// The pod of a file; of what is none, the log tells once.
fn read(file: &Path, node: &str) -> Option<Arc<Value>> {
    match of_file(file, node) {
        Ok(pod) => Some(Arc::new(pod)),
        Err(error) => {
            tracing::warn!(file = %file.display(), err = format!("{error:#}"), "Cannot read a static pod");
            None
        }
    }
}

fn of_file(file: &Path, node: &str) -> anyhow::Result<Value> {
    let mut text = String::new();
    fs::File::open(file)?.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        bail!("longer than {LONGEST} bytes");
    }
    pod(parse(&text)?, &Source::File(file.to_owned()), node)
}

fn parse(text: &str) -> anyhow::Result<Value> {
    serde_saphyr::from_str(text).context("not a YAML object")
}

/// The pods of a text that has one, or a list of them.
pub(super) fn several(text: &str, source: &Source, node: &str) -> anyhow::Result<Vec<Value>> {
    let document = parse(text)?;
    if document.kind() != "PodList" {
        return Ok(vec![pod(document, source, node)?]);
    }
    if document.api_version() != "v1" {
        bail!("not a v1 PodList");
    }
    let items = document.array_at(&["items"]).iter().cloned().map(|mut item| {
        item.set(&["apiVersion"], "v1");
        item.set(&["kind"], "Pod");
        pod(item, source, node)
    });
    items.collect()
}

/// A manifest as a pod of this node: what is known of it, with what an API server would have filled in.
fn pod(manifest: Value, source: &Source, node: &str) -> anyhow::Result<Value> {
    if manifest.kind() != "Pod" || manifest.api_version() != "v1" {
        bail!("not a v1 Pod");
    }
    let mut pod = types::decode(types::POD, &manifest, "")?;
    if pod.name().is_empty() {
        bail!("invalid pod: name is needed for the pod");
    }
    default(&mut pod);
    check_names(&pod)?;
    if let Some(what) = references::first(&pod) {
        bail!("static pods may not reference {what}");
    }
    if !spec::ephemeral_containers(&pod).is_empty() {
        bail!("invalid pod: spec.ephemeralContainers: Forbidden: cannot be set on create");
    }
    check::first(&pod).map_err(|error| anyhow::anyhow!("invalid pod: {error}"))?;
    let uid = match pod.uid() {
        "" => identity::uid(&pod, source, node),
        given => given.to_owned(),
    };
    let name = format!("{}-{node}", pod.name());
    pod.set(&["metadata", "name"], name);
    pod.set(&["metadata", "uid"], uid.as_str());
    if pod.namespace().is_empty() {
        pod.set(&["metadata", "namespace"], "default");
    }
    pod.set(&["metadata", "annotations", spec::CONFIG_HASH], uid);
    pod.set(&["metadata", "annotations", spec::SOURCE], source.name());
    let seen = api::time::format_micro(jiff::Timestamp::now());
    pod.set(&["metadata", "annotations", spec::SEEN], seen);
    pod.set(&["spec", "nodeName"], node);
    if matches!(source, Source::File(_)) {
        tolerate_everything(&mut pod);
    }
    pod.set(&["status"], object!({"phase": "Pending"}));
    Ok(pod)
}

impl Source {
    fn name(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Url(_) => "http",
        }
    }
}

/// Annotations that init containers were once written in; nobody acts on them.
const OLD_INIT: [&str; 4] = [
    "pod.alpha.kubernetes.io/init-container-statuses",
    "pod.alpha.kubernetes.io/init-containers",
    "pod.beta.kubernetes.io/init-container-statuses",
    "pod.beta.kubernetes.io/init-containers",
];

/// What the API server would have filled in or taken out.
fn default(pod: &mut Value) {
    let status = pod.remove_at(&["status"]);
    api::pod::default_pod(pod);
    // Without a status there is none before the pod is known.
    pod.set(&["status"], status.unwrap_or_else(Value::object));
    for list in ["initContainers", "containers"] {
        let containers = pod.at_mut(&["spec", list]).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let limits = !container.at(&["resources", "limits"]).is_null();
            if limits && container.at(&["resources", "requests"]).is_null() {
                container.set(&["resources", "requests"], Value::object());
            }
        }
    }
    if let Some(annotations) = pod.at_mut(&["metadata", "annotations"]).and_then(Value::as_object_mut) {
        annotations.retain(|name, _| !OLD_INIT.contains(&name));
    }
    if pod.at(&["spec", "terminationGracePeriodSeconds"]).as_i64().is_some_and(|seconds| seconds < 0) {
        pod.set(&["spec", "terminationGracePeriodSeconds"], 1);
    }
}

/// Whatever taint comes, a static pod stays.
fn tolerate_everything(pod: &mut Value) {
    let everything = object!({"operator": "Exists", "effect": "NoExecute"});
    let mut tolerations = pod.array_at(&["spec", "tolerations"]).to_vec();
    if !tolerations.contains(&everything) {
        tolerations.push(everything);
    }
    pod.set(&["spec", "tolerations"], Value::Array(tolerations));
}

/// Names become parts of paths on this node. Pods of the API server have been checked; nobody else has looked at a manifest.
fn check_names(pod: &Value) -> anyhow::Result<()> {
    let label = |what: &str, name: &str| match names::dns_label(name).pop() {
        Some(problem) => bail!("{what} {name:?}: {problem}"),
        None => Ok(()),
    };
    if let Some(problem) = names::dns_subdomain(pod.name()).pop() {
        bail!("metadata.name {:?}: {problem}", pod.name());
    }
    if !pod.namespace().is_empty() {
        label("metadata.namespace", pod.namespace())?;
    }
    if pod.uid().contains(['/', '\0']) || matches!(pod.uid(), "." | "..") {
        bail!("metadata.uid {:?} cannot be the name of a folder", pod.uid());
    }
    let mut known = HashSet::new();
    for container in spec::all_containers(pod).chain(spec::ephemeral_containers(pod)) {
        let name = container.str_at(&["name"]);
        label("the name of a container", name)?;
        if !known.insert(name) {
            bail!("two containers are called {name:?}");
        }
    }
    spec::volumes(pod).iter().try_for_each(|volume| label("the name of a volume", volume.str_at(&["name"])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_a_defaulted_pod_of_this_node() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("web.yaml");
        let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: c\n    image: x:1\n";
        fs::write(&file, text).unwrap();
        let pod = of_file(&file, "n1").unwrap();
        assert_eq!((pod.name(), pod.namespace()), ("web-n1", "default"));
        assert!(spec::is_static(&pod) && !spec::is_mirror(&pod));
        assert_eq!(pod.uid(), pod.annotation(spec::CONFIG_HASH).unwrap());
        assert_eq!(spec::containers(&pod)[0].str_at(&["imagePullPolicy"]), "IfNotPresent");
        assert_eq!(pod.array_at(&["spec", "tolerations"]).len(), 1);
        fs::write(dir.path().join("bad.yaml"), "kind: Service\n").unwrap();
        assert_eq!(Manifests::new(dir.path(), "n1").pods().len(), 1);
    }

    #[test]
    fn files_are_read_when_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let text = |name: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: x}}]}}\n"
            )
        };
        let write = |file: &str, text: &str| {
            // As those do who do not want half of a file to be read.
            fs::write(dir.path().join(".new"), text).unwrap();
            fs::rename(dir.path().join(".new"), dir.path().join(file)).unwrap();
        };
        write("a.yaml", &text("a"));
        write("b.yaml", "no pod");
        let mut manifests = Manifests::new(dir.path(), "n1");
        let first = manifests.pods();
        assert!(Arc::ptr_eq(&first[0], &manifests.pods()[0]));
        write("b.yaml", &text("b"));
        write("a.yaml", &text("c"));
        let names: Vec<_> = manifests.pods().iter().map(|pod| pod.name().to_owned()).collect();
        assert_eq!(names, ["c-n1", "b-n1"]);
        fs::remove_file(dir.path().join("a.yaml")).unwrap();
        assert_eq!((manifests.pods().len(), manifests.known.len()), (1, 1));
    }

    #[test]
    fn names_that_would_lead_elsewhere_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pod.yaml");
        let refused = |metadata: &str, spec: &str| {
            fs::write(&file, format!("apiVersion: v1\nkind: Pod\nmetadata: {metadata}\nspec: {spec}\n"))
                .unwrap();
            of_file(&file, "n1").is_err()
        };
        let fine = "{containers: [{name: c, image: x}]}";
        assert!(!refused("{name: p}", fine));
        for metadata in [
            "{name: ../../etc}",
            "{name: p, namespace: ../x}",
            "{name: \"a\\0b\"}",
            "{name: /p}",
            "{name: p, uid: ../x}",
            "{name: p, uid: ..}",
        ] {
            assert!(refused(metadata, fine), "{metadata}");
        }
        for spec in [
            "{containers: [{name: ../c, image: x}]}",
            "{containers: [{name: c, image: x}, {name: c, image: x}]}",
            "{containers: [{name: c, image: x}], initContainers: [{name: .., image: x}]}",
            "{containers: [{name: c, image: x}], volumes: [{name: ../../../etc, emptyDir: {}}]}",
        ] {
            assert!(refused("{name: p}", spec), "{spec}");
        }
        let long = "x".repeat(LONGEST as usize);
        assert!(refused(&format!("{{name: p, annotations: {{a: {long}}}}}"), fine));
    }

    #[test]
    fn what_a_url_has_may_be_one_pod_or_a_list() {
        let source = Source::Url("http://h/pods".to_owned());
        let item = |name: &str| {
            format!(
                r#"{{"metadata": {{"name": "{name}"}}, "spec": {{"containers": [{{"name": "c", "image": "x"}}]}}}}"#
            )
        };
        let list =
            format!(r#"{{"apiVersion": "v1", "kind": "PodList", "items": [{}, {}]}}"#, item("a"), item("b"));
        let pods = several(&list, &source, "n1").unwrap();
        let names: Vec<_> = pods.iter().map(Value::name).collect();
        assert_eq!(names, ["a-n1", "b-n1"]);
        assert!(spec::is_static(&pods[0]) && pods[0].array_at(&["spec", "tolerations"]).is_empty());
        assert!(several(r#"{"kind": "List"}"#, &source, "n1").is_err());
    }

    /// Manifests, and what upstream's kubelet on the node `node-1` makes of them when they are files of these names: the uid,
    /// or why it refuses them.
    #[test]
    fn every_pod_has_the_uid_that_upstream_gives_it() {
        for line in
            include_str!("../../../tests/data/static_pods.txt").lines().filter(|l| !l.starts_with('#'))
        {
            let [name, uid, manifest] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let source = Source::File(format!("/m/{name}").into());
            let made = parse(manifest).and_then(|manifest| pod(manifest, &source, "node-1"));
            match (uid.strip_prefix("refused"), made) {
                (None, made) => assert_eq!(made.unwrap().uid(), uid, "{name}"),
                (Some(""), made) => assert!(made.is_err(), "{name}"),
                (Some(why), made) => assert_eq!(made.unwrap_err().to_string(), why.trim_start(), "{name}"),
            }
        }
    }
}
