//! The table of resources: every served kind is a row of data, from which routing, discovery, OpenAPI and printing are
//! derived. The rows stand in `data/resources.txt`; what a kind does beyond the generic is its [`Strategy`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

use crate::custom::Custom;
use crate::kinds::{self, Strategy};

/// A row, shared by everything that is about its resource. Rows of custom resources come and go.
pub type Row = Arc<Resource>;

/// One served resource: a plural name in a version of a group.
#[derive(Clone)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version of the group.
    pub version: &'static str,
    /// Name in paths, such as `pods`.
    pub plural: &'static str,
    /// Name of one, such as `pod`.
    pub singular: String,
    /// Kind of its objects, such as `Pod`.
    pub kind: &'static str,
    /// True when objects live in namespaces.
    pub namespaced: bool,
    /// Supported verbs, in alphabetical order.
    pub verbs: Vec<&'static str>,
    /// Abbreviations that clients accept.
    pub short_names: Vec<&'static str>,
    /// Groups of resources it belongs to, such as `all`.
    pub categories: Vec<&'static str>,
    /// Subresources, in order of name.
    pub subresources: Vec<Subresource>,
    /// Where its objects are kept in etcd, below the prefix of the cluster; none for virtual resources.
    pub prefix: Option<&'static str>,
    /// Index of its cache; resources with the same prefix share one.
    pub store: Option<usize>,
    /// What the kind does beyond the generic.
    pub strategy: &'static Strategy,
    /// What the definition of a custom resource says; none for built-in resources.
    pub custom: Option<Custom>,
}

/// A path below an object, such as `status` or `log`.
#[derive(Clone)]
pub struct Subresource {
    /// Last segment of the path.
    pub name: &'static str,
    /// Group and version of the kind where they differ from the resource's, as `group/version`.
    pub group_version: Option<(&'static str, &'static str)>,
    /// Kind of the bodies.
    pub kind: &'static str,
    /// Supported verbs.
    pub verbs: Vec<&'static str>,
}

impl Resource {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The subresource named `name`.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// True when status is written by a subresource of its own.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// True when the verb is served.
    pub fn serves(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Key of an object in its cache and, below the prefix, in etcd.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
    }

    /// The list kind, such as `PodList`.
    pub fn list_kind(&self) -> String {
        self.custom.as_ref().map_or_else(|| format!("{}List", self.kind), |c| c.list_kind().to_owned())
    }

    /// The name in paths of a built-in resource; empty for custom ones, whose names may be the same.
    pub fn built_in(&self) -> &'static str {
        if self.custom.is_some() { "" } else { self.plural }
    }

    /// True when there are objects, not only answers.
    pub fn is_stored(&self) -> bool {
        self.store.is_some() || self.custom.is_some()
    }

    /// Where the selectable field `label` stands among the values that are kept of each object.
    pub fn field_index(&self, label: &str) -> Option<usize> {
        match &self.custom {
            Some(custom) => custom.field_index(label),
            None => self.strategy.field_index(label),
        }
    }

    /// True when objects can be selected by more than their names.
    pub fn has_fields(&self) -> bool {
        self.custom.as_ref().map_or(!self.strategy.fields.is_empty(), Custom::has_fields)
    }
}

/// All rows and the look-ups over them.
pub struct Table {
    /// The rows in order of discovery.
    pub rows: Vec<Row>,
    /// Distinct etcd prefixes; a row's `store` is an index into them.
    pub prefixes: Vec<&'static str>,
    by_path: HashMap<(&'static str, &'static str, &'static str), usize>,
    /// The first row of each group and plural name.
    by_name: HashMap<(&'static str, &'static str), usize>,
    /// The row whose version is stored, for each prefix.
    stored: Vec<Row>,
}

/// What ends the row of a version that is stored although it is not the first.
const STORED: &str = " stored=true";
const ALL_VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The names of custom resources, each kept once for the life of the process: rows come and go far more often than
/// names, of which there are a handful for each kind that anybody ever defines.
pub fn interned(text: &str) -> &'static str {
    static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut names = NAMES.lock();
    if let Some(known) = names.get(text) {
        return known;
    }
    let kept: &'static str = Box::leak(text.into());
    names.insert(kept);
    kept
}

/// The built-in resources.
pub static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("../data/resources.txt")));

impl Table {
    /// The resource at `group/version/plural`.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Row> {
        // Keys live for ever, but one that is looked up need not.
        let by_path: &HashMap<(&str, &str, &str), usize> = &self.by_path;
        by_path.get(&(group, version, plural)).map(|i| &self.rows[*i])
    }

    /// The rows that are wanted. Their stores are those of the whole table.
    pub fn only(&self, is_wanted: impl Fn(&Row) -> bool) -> Self {
        let rows: Vec<Row> = self.rows.iter().filter(|row| is_wanted(row)).cloned().collect();
        Self::of(rows, self.prefixes.clone(), self.stored.clone())
    }

    /// The first resource of that group and plural name: its preferred version.
    pub fn find_any_version(&self, group: &str, plural: &str) -> Option<&Row> {
        let by_name: &HashMap<(&str, &str), usize> = &self.by_name;
        by_name.get(&(group, plural)).map(|i| &self.rows[*i])
    }

    /// The store of that group and plural name. Panics for a name that is not built in.
    pub fn store(&self, group: &str, plural: &str) -> usize {
        self.find_any_version(group, plural)
            .and_then(|r| r.store)
            .unwrap_or_else(|| panic!("{plural}.{group} is not a stored built-in resource"))
    }

    /// The row whose version is stored under the prefix of `store`.
    pub fn storage_row(&self, store: usize) -> &Row {
        &self.stored[store]
    }

    /// Groups in order of discovery.
    pub fn groups(&self) -> Vec<&'static str> {
        let mut groups: Vec<&'static str> = Vec::new();
        for row in &self.rows {
            if !groups.contains(&row.group) {
                groups.push(row.group);
            }
        }
        groups
    }

    /// Versions of a group, preferred first.
    pub fn versions(&self, group: &str) -> Vec<&'static str> {
        let mut versions: Vec<&'static str> = Vec::new();
        for row in self.rows.iter().filter(|r| r.group == group) {
            if !versions.contains(&row.version) {
                versions.push(row.version);
            }
        }
        versions
    }

    fn parse(text: &'static str) -> Self {
        let (mut rows, mut prefixes): (Vec<Row>, Vec<&'static str>) = Default::default();
        let mut stored: Vec<usize> = Vec::new();
        let (mut group, mut version) = ("", "");
        for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            if let Some(head) = line.strip_prefix('[') {
                let (g, v) =
                    head.trim_end_matches(']').split_once('/').expect("a heading is [group/version]");
                (group, version) = (if g == "core" { "" } else { g }, v);
            } else if let Some(sub) = line.strip_prefix("  /") {
                let row = rows.last_mut().and_then(Arc::get_mut);
                let row = row.expect("a subresource follows its resource, which nobody shares yet");
                row.subresources.push(Subresource::parse(sub));
            } else {
                let row = Resource::parse(group, version, line, &mut prefixes);
                let at = rows.len();
                match row.store {
                    Some(store) if store == stored.len() => stored.push(at),
                    Some(store) if line.ends_with(STORED) => stored[store] = at,
                    _ => {}
                }
                rows.push(Arc::new(row));
            }
        }
        let stored = stored.into_iter().map(|at| rows[at].clone()).collect();
        Self::of(rows, prefixes, stored)
    }

    fn of(rows: Vec<Row>, prefixes: Vec<&'static str>, stored: Vec<Row>) -> Self {
        let by_path = rows.iter().enumerate().map(|(i, r)| ((r.group, r.version, r.plural), i)).collect();
        let mut by_name = HashMap::new();
        for (i, row) in rows.iter().enumerate() {
            by_name.entry((row.group, row.plural)).or_insert(i);
        }
        Self { rows, prefixes, by_path, by_name, stored }
    }
}

impl Resource {
    fn parse(
        group: &'static str,
        version: &'static str,
        line: &'static str,
        prefixes: &mut Vec<&'static str>,
    ) -> Self {
        let mut words = line.split_whitespace();
        let mut word = || words.next().expect("a row has a plural, a kind and a scope");
        let (plural, kind, scope) = (word(), word(), word());
        let mut row = Resource {
            group,
            version,
            plural,
            singular: kind.to_ascii_lowercase(),
            kind,
            namespaced: scope == "namespaced",
            verbs: Vec::new(),
            short_names: Vec::new(),
            categories: Vec::new(),
            subresources: Vec::new(),
            prefix: None,
            store: None,
            strategy: kinds::strategy(group, plural),
            custom: None,
        };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            match key {
                "verbs" => row.verbs = verbs(value),
                "singular" => row.singular = value.to_owned(),
                "short" => row.short_names = value.split(',').collect(),
                "categories" => row.categories = value.split(',').collect(),
                "prefix" => row.prefix = Some(value),
                // It is the table that knows.
                "stored" => {}
                other => panic!("unknown key {other} in the table of resources"),
            }
        }
        row.store = row.prefix.map(|prefix| {
            prefixes.iter().position(|p| *p == prefix).unwrap_or_else(|| {
                prefixes.push(prefix);
                prefixes.len() - 1
            })
        });
        row
    }
}

impl Subresource {
    fn parse(line: &'static str) -> Self {
        let mut words = line.split_whitespace();
        let mut word = || words.next().expect("a subresource has a name, a kind and verbs");
        let (name, kind, served) = (word(), word(), word());
        let mut parts: Vec<&'static str> = kind.split('/').collect();
        let kind = parts.pop().expect("split gives at least one part");
        Self {
            name,
            kind,
            group_version: (parts.len() == 2).then(|| (parts[0], parts[1])),
            verbs: verbs(served.trim_start_matches("verbs=")),
        }
    }
}

fn verbs(text: &'static str) -> Vec<&'static str> {
    if text == "all" { ALL_VERBS.to_vec() } else { text.split(',').collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_schema() {
        for row in &TABLE.rows {
            assert!(
                schema::kind(row.group, row.version, row.kind).is_some(),
                "{}/{}",
                row.api_version(),
                row.kind
            );
        }
    }

    #[test]
    fn policies_that_change_objects_are_stored_in_an_older_version() {
        let row = TABLE.find("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies").unwrap();
        assert_eq!(TABLE.storage_row(row.store.unwrap()).version, "v1beta1");
        assert_eq!(TABLE.find_any_version(row.group, row.plural).unwrap().version, "v1");
    }

    #[test]
    fn rows_of_one_prefix_share_a_store() {
        let events = TABLE.find("", "v1", "events").unwrap();
        assert_eq!(events.store, TABLE.find("events.k8s.io", "v1", "events").unwrap().store);
        assert_eq!(TABLE.find("", "v1", "nodes").unwrap().prefix, Some("minions"));
    }
}
