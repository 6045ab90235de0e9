//! Paths and their operations.

use api::{Map, Value, object};

use super::definitions::{Definitions, gvk};
use super::parameters;
use super::{Format, Resource};

const MEDIA: [&str; 4] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"];
/// What the objects of custom resources can be written as.
const CUSTOM_MEDIA: [&str; 2] = ["application/json", "application/yaml"];
const STREAMS: [&str; 3] = [
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
    "application/cbor-seq",
];
const PATCHES: [&str; 5] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
];
const CUSTOM_PATCHES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

/// Adds the paths of one group and version. Custom resources are described in fewer words, as everywhere: without the
/// path of discovery and the old paths for watching.
pub(super) fn add_version(
    paths: &mut Map,
    definitions: &mut Definitions<'_>,
    group: &str,
    version: &str,
    rows: &[&Resource<'_>],
) {
    let root = format!("/{}", super::v3_path(group, version));
    let name = group_name(group, version);
    if rows.iter().any(|row| !row.custom) {
        let list = definitions.named("meta/v1.APIResourceList");
        let mut operation =
            Operation::new(format!("get{name}APIResources"), "get available resources".into());
        operation.answers.push((200, "OK", list, MEDIA.to_vec()));
        let mut item = Map::new();
        item.push("get", operation.build(definitions.format, group, version, &MEDIA));
        paths.push(format!("{root}/"), item.into());
    }
    for row in rows {
        let parent = row.name.split('/').next().unwrap_or(row.name);
        let parent = rows.iter().find(|r| r.name == parent).copied();
        let maker = Maker { row, parent_kind: parent.map_or(row.kind, |p| p.kind), root: &root, name: &name };
        maker.add(paths, definitions);
    }
}

/// Group and version in operation names: `AppsV1`, `CoreV1`, `RbacAuthorizationV1`.
fn group_name(group: &str, version: &str) -> String {
    let group = if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) };
    group.split(['.', '-']).map(capital).collect::<String>() + &capital(version)
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().collect::<String>() + chars.as_str())
}

/// `a Pod`, `an Event`, `Endpoints`.
fn with_article(kind: &str) -> String {
    match kind {
        k if k.ends_with('s') && !k.ends_with("ss") => k.to_owned(),
        k if k.starts_with(['A', 'E', 'I', 'O', 'U']) => format!("an {k}"),
        k => format!("a {k}"),
    }
}

/// One operation, in the words that both formats share.
struct Operation<'a> {
    id: String,
    about: String,
    action: Option<(&'a str, Value)>,
    parameters: Vec<Value>,
    /// The body: its schema, its media types, and whether it must be there.
    body: Option<(Value, Vec<&'a str>, bool)>,
    answers: Vec<(u16, &'a str, Value, Vec<&'a str>)>,
}

impl<'a> Operation<'a> {
    fn new(id: String, about: String) -> Self {
        Self { id, about, action: None, parameters: Vec::new(), body: None, answers: Vec::new() }
    }

    fn build(self, format: Format, group: &str, version: &str, consumes: &[&str]) -> Value {
        let mut out = Map::new();
        let tag =
            format!("{}_{version}", if group.is_empty() { "core".to_owned() } else { group_tag(group) });
        if format == Format::V2 {
            let consumes = match &self.body {
                Some((_, media, _)) if media.len() > 1 => media.clone(),
                _ if consumes.is_empty() => vec!["*/*"],
                _ => consumes.to_vec(),
            };
            out.push("consumes", consumes.into());
        }
        out.push("description", self.about.into());
        out.push("operationId", self.id.into());
        let mut list = self.parameters;
        match (self.body, format) {
            (Some((schema, _, required)), Format::V2) => {
                let mut body = object!({"in": "body", "name": "body"});
                if required {
                    body.set(&["required"], true);
                }
                body.set(&["schema"], schema);
                list.insert(0, body);
            }
            (Some((schema, media, required)), Format::V3) => {
                let mut body = Map::new();
                body.push("content", content(&schema, &media));
                if required {
                    body.push("required", true.into());
                }
                out.push("requestBody", body.into());
            }
            (None, _) => {}
        }
        if !list.is_empty() {
            out.push("parameters", list.into());
        }
        let mut produces: Vec<&str> = Vec::new();
        let mut responses = Map::new();
        for (code, text, schema, media) in self.answers {
            let mut answer = object!({"description": text});
            match format {
                Format::V2 => answer.set(&["schema"], schema),
                Format::V3 => answer.set(&["content"], content(&schema, &media)),
            }
            produces = media;
            responses.push(code.to_string(), answer);
        }
        responses.push("401", object!({"description": "Unauthorized"}));
        if format == Format::V2 {
            out.push("produces", produces.into());
        }
        out.push("responses", responses.into());
        if format == Format::V2 {
            out.push("schemes", vec!["https"].into());
        }
        out.push("tags", vec![tag].into());
        if let Some((action, kind)) = self.action {
            out.push("x-kubernetes-action", action.into());
            out.push("x-kubernetes-group-version-kind", kind);
        }
        out.sort_keys();
        Value::Object(out)
    }
}

/// The group in tags: camel case without the common suffix, the first word small.
fn group_tag(group: &str) -> String {
    let group = group.strip_suffix(".k8s.io").unwrap_or(group);
    let mut words = group.split(['.', '-']);
    words.next().unwrap_or_default().to_owned() + &words.map(capital).collect::<String>()
}

fn content(schema: &Value, media: &[&str]) -> Value {
    let mut map: Map = media.iter().map(|m| (*m, object!({"schema": (schema.clone())}))).collect();
    map.sort_keys();
    map.into()
}

struct Maker<'a> {
    row: &'a Resource<'a>,
    parent_kind: &'a str,
    root: &'a str,
    /// Group and version as operations are named.
    name: &'a str,
}

impl Maker<'_> {
    fn subresource(&self) -> Option<&str> {
        self.row.name.split_once('/').map(|(_, sub)| sub)
    }

    fn has(&self, verb: &str) -> bool {
        self.row.verbs.contains(&verb)
    }

    fn path(&self, prefix: &str, namespaced: bool, rest: &str) -> String {
        let resource = self.row.name.split('/').next().unwrap_or(self.row.name);
        let namespace = if namespaced { "/namespaces/{namespace}" } else { "" };
        format!("{}{prefix}{namespace}/{resource}{rest}", self.root)
    }

    fn id(&self, verb: &str, suffix: &str) -> String {
        let namespaced = if self.row.namespaced { "Namespaced" } else { "" };
        let sub = self.subresource().map(capital).unwrap_or_default();
        format!("{verb}{namespaced}{}{sub}{suffix}", self.parent_kind).replacen("%", self.name, 1)
    }

    /// The media types of answers.
    fn media(&self) -> Vec<&'static str> {
        if self.row.custom { CUSTOM_MEDIA.to_vec() } else { MEDIA.to_vec() }
    }

    /// The media types of bodies.
    fn consumed(&self) -> Vec<&'static str> {
        if self.row.custom { CUSTOM_MEDIA.to_vec() } else { vec!["*/*"] }
    }

    fn operation(&self, action: &'static str, verb: &str, suffix: &str, about: String) -> Operation<'static> {
        let own = (self.row.group, self.row.version);
        let ((group, version), kind) = match self.row.custom {
            true => (own, self.parent_kind),
            false => (self.row.of.unwrap_or(own), self.row.kind),
        };
        let mut operation = Operation::new(self.id(verb, suffix), about);
        operation.action = Some((action, gvk(group, version, kind)));
        operation
    }

    fn add(&self, paths: &mut Map, definitions: &mut Definitions<'_>) {
        if let Some(connect) = self.row.connect {
            return self.connect(paths, definitions, connect);
        }
        let namespaced = self.row.namespaced;
        match self.subresource() {
            Some(sub) => {
                let path = self.path("", namespaced, &format!("/{{name}}/{sub}"));
                let operations = self.item_operations(definitions);
                self.put(paths, definitions, path, operations);
            }
            None => {
                let collection = self.collection_operations(definitions);
                self.put(paths, definitions, self.path("", namespaced, ""), collection);
                let item = self.item_operations(definitions);
                self.put(paths, definitions, self.path("", namespaced, "/{name}"), item);
                self.others(paths, definitions);
            }
        }
    }

    /// Lists of all namespaces, and the old paths for watching.
    fn others(&self, paths: &mut Map, definitions: &mut Definitions<'_>) {
        let namespaced = self.row.namespaced;
        if namespaced && self.has("list") {
            let mut list = self.list(definitions, "ForAllNamespaces");
            list.id = list.id.replacen("Namespaced", "", 1);
            self.put(paths, definitions, self.path("", false, ""), vec![("get", list)]);
        }
        if !self.has("watch") || self.row.custom {
            return;
        }
        let kind = self.row.kind;
        let event = definitions.named("meta/v1.WatchEvent");
        let answer = (200, "OK", event, [&MEDIA[..], &STREAMS[..]].concat());
        let about_list = format!(
            "watch individual changes to a list of {kind}. deprecated: use the 'watch' parameter with a list operation instead."
        );
        let about_item = format!(
            "watch changes to an object of kind {kind}. deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with the 'fieldSelector' parameter."
        );
        let mut add = |path: String, mut operation: Operation<'static>| {
            operation.answers.push(answer.clone());
            operation.parameters = parameters::query(definitions.format, &parameters::LIST);
            self.put(paths, definitions, path, vec![("get", operation)]);
        };
        let watch = |suffix: &str| self.operation("watchlist", "watch%", suffix, about_list.clone());
        add(self.path("/watch", namespaced, ""), watch("List"));
        if namespaced {
            let mut all = watch("ListForAllNamespaces");
            all.id = all.id.replacen("Namespaced", "", 1);
            add(self.path("/watch", false, ""), all);
        }
        if self.has("get") {
            let item = self.operation("watch", "watch%", "", about_item);
            add(self.path("/watch", namespaced, "/{name}"), item);
        }
    }

    /// Adds a path. Parameters that all its operations have are given once, for the path.
    fn put(
        &self,
        paths: &mut Map,
        definitions: &Definitions<'_>,
        path: String,
        mut operations: Vec<(&str, Operation<'_>)>,
    ) {
        let Some((_, first)) = operations.first() else { return };
        let format = definitions.format;
        let shared: Vec<Value> = first
            .parameters
            .iter()
            .filter(|p| operations.iter().all(|(_, o)| o.parameters.contains(p)))
            .cloned()
            .collect();
        let mut item = Map::new();
        let consumed: &[&str] = if self.row.custom { &CUSTOM_MEDIA } else { &[] };
        for (method, mut operation) in operations.drain(..) {
            operation.parameters.retain(|p| !shared.contains(p));
            item.push(method, operation.build(format, self.row.group, self.row.version, consumed));
        }
        let mut list = parameters::of_path(format, self.kind_of_path(), &path);
        if self.row.connect.is_none() {
            list.extend(parameters::query(format, &["pretty"]));
        }
        list.extend(shared);
        list.sort_by(|a, b| a.str_at(&["name"]).cmp(b.str_at(&["name"])));
        if !list.is_empty() {
            item.push("parameters", list.into());
        }
        item.sort_keys();
        paths.push(path, item.into());
    }

    /// What a path says its name is of.
    fn kind_of_path(&self) -> &str {
        match self.row.connect {
            Some(connect) => connect.options.rsplit('.').next().unwrap_or(self.row.kind),
            None => self.row.kind,
        }
    }

    fn list(&self, definitions: &mut Definitions<'_>, suffix: &str) -> Operation<'static> {
        let kind = self.row.kind;
        let watch = self.has("watch") && !self.row.custom;
        let about = format!("list {}objects of kind {kind}", if watch { "or watch " } else { "" });
        let mut operation = self.operation("list", "list%", suffix, about);
        let streams = if self.row.custom { &[][..] } else { &STREAMS };
        let media = [&self.media(), streams].concat();
        operation.answers.push((200, "OK", definitions.kind(self.row, true), media));
        operation.parameters = parameters::query(definitions.format, &parameters::LIST);
        operation
    }

    fn collection_operations(
        &self,
        definitions: &mut Definitions<'_>,
    ) -> Vec<(&'static str, Operation<'static>)> {
        let mut out = Vec::new();
        let kind = self.row.kind;
        if self.has("deletecollection") {
            let about = format!("delete collection of {kind}");
            let mut operation = self.operation("deletecollection", "delete%Collection", "", about);
            if self.row.custom {
                operation.parameters = parameters::query(definitions.format, &parameters::LIST);
            } else {
                operation.parameters = parameters::query(definitions.format, &parameters::DELETE_COLLECTION);
                operation.body = Some((definitions.named("meta/v1.DeleteOptions"), self.consumed(), false));
            }
            operation.answers.push((200, "OK", definitions.named("meta/v1.Status"), self.media()));
            out.push(("delete", operation));
        }
        if self.has("list") {
            out.push(("get", self.list(definitions, "")));
        }
        if self.has("create") {
            out.push(("post", self.create(definitions, format!("create {}", with_article(kind)))));
        }
        out
    }

    fn create(&self, definitions: &mut Definitions<'_>, about: String) -> Operation<'static> {
        let mut operation = self.operation("post", "create%", "", about);
        let schema = definitions.kind(self.row, false);
        operation.parameters = parameters::query(definitions.format, &parameters::WRITE);
        operation.body = Some((schema.clone(), self.consumed(), true));
        for (code, text) in [(200, "OK"), (201, "Created"), (202, "Accepted")] {
            operation.answers.push((code, text, schema.clone(), self.media()));
        }
        operation
    }

    fn item_operations(&self, definitions: &mut Definitions<'_>) -> Vec<(&'static str, Operation<'static>)> {
        let mut out = Vec::new();
        let format = definitions.format;
        let of = self.subresource().map(|s| format!("{s} of ")).unwrap_or_default();
        let kind = self.parent_kind;
        let schema = |definitions: &mut Definitions<'_>| definitions.kind(self.row, false);
        let answers = |schema: &Value, codes: &[(u16, &'static str)]| {
            codes.iter().map(|(c, t)| (*c, *t, schema.clone(), self.media())).collect::<Vec<_>>()
        };
        if self.has("delete") {
            let mut operation =
                self.operation("delete", "delete%", "", format!("delete {of}{}", with_article(kind)));
            operation.parameters = parameters::query(format, &parameters::DELETE);
            operation.body = Some((definitions.named("meta/v1.DeleteOptions"), self.consumed(), false));
            let answer = match self.row.answers_itself_deleted() {
                true => schema(definitions),
                false => definitions.named("meta/v1.Status"),
            };
            operation.answers = answers(&answer, &[(200, "OK"), (202, "Accepted")]);
            out.push(("delete", operation));
        }
        if self.has("get") {
            let mut operation = self.operation("get", "read%", "", format!("read {of}the specified {kind}"));
            match self.row.options {
                Some(options) => {
                    operation.parameters = parameters::of_type(definitions, options);
                    let media = [&["text/plain"][..], &MEDIA[..]].concat();
                    operation.answers.push((200, "OK", object!({"type": "string"}), media));
                }
                None => operation.answers = answers(&schema(definitions), &[(200, "OK")]),
            }
            if self.row.custom {
                operation.parameters = parameters::query(format, &["resourceVersion"]);
            }
            out.push(("get", operation));
        }
        if self.has("patch") {
            let about = format!("partially update {of}the specified {kind}");
            let mut operation = self.operation("patch", "patch%", "", about);
            operation.parameters = parameters::query(format, &parameters::PATCH);
            let (media, codes) = match self.row.custom {
                true => (CUSTOM_PATCHES.to_vec(), &[(200, "OK")][..]),
                false => (PATCHES.to_vec(), &[(200, "OK"), (201, "Created")][..]),
            };
            operation.body = Some((definitions.named("meta/v1.Patch"), media, true));
            operation.answers = answers(&schema(definitions), codes);
            out.push(("patch", operation));
        }
        if self.has("create") && self.subresource().is_some() {
            out.push(("post", self.create(definitions, format!("create {of}{}", with_article(kind)))));
        }
        if self.has("update") {
            let mut operation =
                self.operation("put", "replace%", "", format!("replace {of}the specified {kind}"));
            let schema = schema(definitions);
            operation.parameters = parameters::query(format, &parameters::WRITE);
            operation.body = Some((schema.clone(), self.consumed(), true));
            operation.answers = answers(&schema, &[(200, "OK"), (201, "Created")]);
            out.push(("put", operation));
        }
        out
    }

    fn connect(&self, paths: &mut Map, definitions: &mut Definitions<'_>, connect: super::Connect<'_>) {
        let sub = self.subresource().unwrap_or_default();
        let query = parameters::of_type(definitions, connect.options);
        for with_path in [false, true].into_iter().filter(|p| !p || connect.with_path) {
            let rest =
                if with_path { format!("/{{name}}/{sub}/{{path}}") } else { format!("/{{name}}/{sub}") };
            let suffix = if with_path { "WithPath" } else { "" };
            let operations = connect.methods.iter().map(|method| {
                let small = method.to_lowercase();
                let about = format!("connect {method} requests to {sub} of {}", self.parent_kind);
                let verb = format!("connect%{}", capital(&small));
                let mut operation = self.operation("connect", &verb, suffix, about);
                operation.parameters = query.clone();
                operation.answers.push((200, "OK", object!({"type": "string"}), vec!["*/*"]));
                (method_name(&small), operation)
            });
            let operations: Vec<_> = operations.collect();
            self.put(paths, definitions, self.path("", self.row.namespaced, &rest), operations);
        }
    }
}

fn method_name(small: &str) -> &'static str {
    const METHODS: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];
    METHODS.into_iter().find(|m| *m == small).unwrap_or("get")
}

impl Resource<'_> {
    /// These kinds are answered when deleted; all others answer with a Status.
    fn answers_itself_deleted(&self) -> bool {
        matches!(
            self.name,
            "pods"
                | "podtemplates"
                | "persistentvolumeclaims"
                | "persistentvolumes"
                | "resourcequotas"
                | "serviceaccounts"
                | "services"
                | "podsecuritypolicies"
        ) && self.group.is_empty()
            || self.group == "resource.k8s.io"
            || self.group == "storage.k8s.io"
                && matches!(
                    self.name,
                    "csidrivers"
                        | "csinodes"
                        | "storageclasses"
                        | "volumeattachments"
                        | "volumeattributesclasses"
                )
    }
}
