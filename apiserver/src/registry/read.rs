//! Reading: one object, or lists of them with selectors, in pages, at a revision.

use std::ops::Bound;
use std::sync::Arc;

use api::ApiError;
use api::error::Result;
use api::field::{FieldError, Path};
use api::selector::{FieldSelector, LabelSelector};
use api::{Value, object};
use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{NO_PAD, URL_SAFE_NO_PAD};

use super::Call;
use crate::request::Query;
use crate::resources::Resource;
use crate::storage::{Sieve, Snapshot, Stored};

/// What a list shows.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Labels that are selected.
    pub labels: LabelSelector,
    /// What all selected objects pass.
    pub sieve: Sieve,
    /// Fields that are selected.
    pub fields: FieldSelector,
    /// At most so many objects; zero for all.
    pub limit: usize,
    /// Where an earlier page ended.
    pub from: Option<Continue>,
    /// The revision asked for; none for the newest.
    pub revision: Option<i64>,
    /// True when exactly that revision is asked for.
    pub exact: bool,
    /// How long a watch lasts.
    pub seconds: Option<i64>,
    /// The query said how the revision is to match.
    pub matched: bool,
}

/// What a continue token says whose list goes on with whatever is there.
const ANY_REVISION: i64 = -1;

/// Like Go's decoder: what is left of the last group does not matter.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// Where a page ended: the content of a continue token.
#[derive(Clone, Debug, PartialEq)]
pub struct Continue {
    revision: i64,
    start: String,
}

impl Continue {
    fn parse(token: &str) -> Result<Self> {
        let refuse = |why: String| ApiError::bad_request(format!("invalid continue token: {why}"));
        let bytes = LENIENT.decode(token.trim_end_matches('=')).map_err(|e| {
            let at = match e {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                // A single character is none of a group, which is what does not fit.
                base64::DecodeError::InvalidLength(at) => at.saturating_sub(1),
                base64::DecodeError::InvalidPadding => token.len(),
            };
            refuse(format!("continue key is not valid: illegal base64 data at input byte {at}"))
        })?;
        let value = api::json::decode(&bytes).map_err(|e| {
            refuse(format!("continue key is not valid: {}", crate::negotiate::go_syntax_error(&bytes, &e)))
        })?;
        let value = value.value;
        let start = value.str_at(&["start"]).trim_end_matches('\0').to_owned();
        let invalid = |why: &str| Err(refuse(format!("continue key is not valid: {why}")));
        match (value.str_at(&["v"]), value.get("rv").as_i64().unwrap_or(0)) {
            ("meta.k8s.io/v1", 0) => {
                invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
            }
            ("meta.k8s.io/v1", _) if start.is_empty() => {
                invalid("encoded start key empty (version meta.k8s.io/v1)")
            }
            // A place is cleaned as a path is, and has to stay where it was.
            ("meta.k8s.io/v1", _) if start.split('/').any(|part| matches!(part, "." | "..")) => {
                invalid(&start)
            }
            ("meta.k8s.io/v1", revision) => Ok(Self { revision, start }),
            (version, _) => invalid(&format!("server does not recognize this encoded version {version}")),
        }
    }

    pub(crate) fn encode(&self) -> String {
        let token =
            object!({"v": "meta.k8s.io/v1", "rv": (self.revision), "start": (format!("{}\0", self.start))});
        URL_SAFE_NO_PAD.encode(token.to_json())
    }
}

/// A page of objects.
pub struct Page {
    /// The objects.
    pub items: Vec<Arc<Stored>>,
    /// The revision they are shown at.
    pub revision: i64,
    /// The token for the next page; empty at the end.
    pub next: String,
    /// How many objects are left after this page, where that is known.
    pub remaining: Option<usize>,
}

impl ListOptions {
    /// Reads the query of a list, a watch or a deletion of many.
    pub fn parse(query: &Query, row: &Resource) -> Result<Self> {
        let seconds = query.integer("timeoutSeconds")?;
        let limit = query.integer("limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let labels = LabelSelector::parse(query.get("labelSelector")).map_err(ApiError::bad_request)?;
        let fields = FieldSelector::parse(query.get("fieldSelector")).map_err(ApiError::bad_request)?;
        let watches = query.is_true("watch");
        let wrong = if watches { wrong_watch(query) } else { wrong_list(query) };
        if !wrong.is_empty() {
            return Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &wrong));
        }
        check_fields(&fields, row)?;
        let asked = query.get("resourceVersion");
        let from = Some(query.get("continue")).filter(|c| !c.is_empty() && !watches).map(Continue::parse);
        let from = from.transpose()?;
        if from.is_some() && !matches!(asked, "" | "0") {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let revision = parse_revision(asked).map_err(|why| match watches {
            true => ApiError::plain(why),
            false => ApiError::bad_request(format!("invalid resource version: {why}")),
        })?;
        // Whoever takes whatever there is gets all of it at once. Events alone are read from etcd, page by page.
        let limit = match revision {
            Some(0) if from.is_none() && row.built_in() != "events" => 0,
            _ => limit,
        };
        let exact = match query.get("resourceVersionMatch") {
            "" => limit > 0 && revision.is_some_and(|r| r > 0),
            "Exact" => true,
            _ => false,
        };
        let matched = !query.get("resourceVersionMatch").is_empty();
        let sieve = Sieve::of(&labels);
        Ok(Self { labels, sieve, fields, limit, from, revision, exact, seconds, matched })
    }

    /// True when a revision is asked for that a list of all may be newer than.
    pub fn at_least(&self) -> bool {
        self.revision.is_some_and(|r| r > 0) && !self.matched
    }

    /// True for an object that is selected.
    pub fn selects(&self, row: &Resource, stored: &Stored) -> bool {
        self.sieve.passes(stored.labels.sieve())
            && self.labels.matches(|key| stored.label(key))
            && selects_fields(&self.fields, row, stored)
    }
}

/// Reads a resourceVersion; the empty string is none. The error is upstream's sentence.
pub fn parse_revision(text: &str) -> std::result::Result<Option<i64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let refuse = |why: &str| {
        let quoted = api::field::go_quote(text);
        let why = format!("strconv.ParseUint: parsing {quoted}: {why}");
        api::field::FieldError::invalid(&api::field::Path::new("resourceVersion"), text, why).to_string()
    };
    match text.parse::<u64>() {
        // What no etcd ever counts to is as far in the future.
        Ok(revision) if digits => Ok(Some(i64::try_from(revision).unwrap_or(i64::MAX))),
        Err(_) if digits => Err(refuse("value out of range")),
        _ => Err(refuse("invalid syntax")),
    }
}

/// What is wrong with the query of a list or of a deletion of many.
fn wrong_list(query: &Query) -> Vec<FieldError> {
    let path = Path::new("resourceVersionMatch");
    let (given, version) = (query.get("resourceVersionMatch"), query.get("resourceVersion"));
    let mut wrong = Vec::new();
    if !given.is_empty() {
        if version.is_empty() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            wrong.push(FieldError::forbidden(&path, why));
        }
        if !query.get("continue").is_empty() {
            wrong.push(FieldError::forbidden(&path, MATCH_AND_CONTINUE));
        }
        if !matches!(given, "Exact" | "NotOlderThan") {
            wrong.push(FieldError::not_supported(&path, given, &["Exact", "NotOlderThan", ""]));
        }
        if given == "Exact" && version == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            wrong.push(FieldError::forbidden(&path, why));
        }
    }
    if query.has("sendInitialEvents") {
        let why = "sendInitialEvents is forbidden for list";
        wrong.push(FieldError::forbidden(&Path::new("sendInitialEvents"), why));
    }
    wrong
}

const MATCH_AND_CONTINUE: &str = "resourceVersionMatch is forbidden when continue is provided";

/// What is wrong with the query of a watch.
fn wrong_watch(query: &Query) -> Vec<FieldError> {
    const ONLY: &str = "NotOlderThan";
    let path = Path::new("resourceVersionMatch");
    let (given, initial) = (query.get("resourceVersionMatch"), query.has("sendInitialEvents"));
    let mut wrong = Vec::new();
    if initial && given != ONLY {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        wrong.push(FieldError::forbidden(&path, why));
    }
    if !given.is_empty() && !initial {
        let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        wrong.push(FieldError::forbidden(&path, why));
    }
    if !matches!(given, "" | ONLY) {
        wrong.push(FieldError::not_supported(&path, given, &[ONLY]));
    }
    // Without a revision the match is the one that goes with initial events.
    let matches = !given.is_empty() || (!initial && matches!(query.get("resourceVersion"), "" | "0"));
    if matches && !query.get("continue").is_empty() {
        wrong.push(FieldError::forbidden(&path, MATCH_AND_CONTINUE));
    }
    wrong
}

/// Fields by which the objects of a resource can be selected, the common ones first.
pub(crate) fn check_fields(fields: &FieldSelector, row: &Resource) -> Result<()> {
    for term in &fields.terms {
        // Kinds without fields of their own take the namespace even where objects have none.
        let plain = !row.has_fields() && row.custom.is_none();
        let common = term.field == "metadata.name"
            || (term.field == "metadata.namespace" && (row.namespaced || plain));
        if common || row.field_index(&term.field).is_some() {
            continue;
        }
        let quoted = api::field::go_quote(&term.field);
        let why = if plain {
            format!("{quoted} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        } else {
            match row.plural {
                "jobs" if row.custom.is_none() => format!("field label {quoted} not supported for Job"),
                "resourceslices" if row.custom.is_none() => {
                    let kind = format!("{}, Kind={}", row.api_version(), row.kind);
                    format!("field label not supported for {kind}: {}", term.field)
                }
                _ => format!("field label not supported: {}", term.field),
            }
        };
        return Err(ApiError::bad_request(why));
    }
    Ok(())
}

fn selects_fields(fields: &FieldSelector, row: &Resource, stored: &Stored) -> bool {
    if fields.is_everything() {
        return true;
    }
    let (namespace, name) = match stored.key.split_once('/') {
        Some((namespace, name)) if row.namespaced => (namespace, name),
        _ => ("", &*stored.key),
    };
    fields.matches(|field| match field {
        "metadata.name" => name,
        "metadata.namespace" => namespace,
        other => row.field_index(other).and_then(|i| stored.fields.get(i)).map_or("", |v| v.as_str()),
    })
}

impl Call {
    /// One object, not older than `revision` (none for the newest).
    pub async fn get(&self, revision: Option<i64>) -> Result<Arc<Stored>> {
        match revision {
            None => {
                self.server.storage.catch_up().await?;
            }
            Some(0) => {}
            Some(r) => self.server.storage.reach(r).await?,
        }
        let (cache, key) = (self.cache_now()?, self.key());
        let missing = || cache.unreadable(&key).map_or_else(|| self.not_found(), ApiError::internal);
        let stored = cache.get(&key).ok_or_else(missing)?;
        Ok(self.views(vec![stored.clone()]).await?.pop().unwrap_or(stored))
    }

    /// A page of objects.
    pub async fn list(&self, options: &ListOptions) -> Result<Page> {
        let mut page = self.page(options).await?;
        page.items = self.views(page.items).await?;
        Ok(page)
    }

    /// [`Call::list`] in the versions that are stored.
    pub(super) async fn page(&self, options: &ListOptions) -> Result<Page> {
        let (mut snapshot, revision) = self.snapshot(options).await?;
        let prefix = if self.row.namespaced && !self.namespace.is_empty() {
            format!("{}/", self.namespace)
        } else {
            String::new()
        };
        if let Some((key, why)) = self.cache_now()?.first_unreadable(&prefix) {
            let full = self.server.storage.etcd().full_key(&self.cache_now()?.prefix, &key);
            return Err(ApiError::internal(format!("unable to transform key {full:?}: {why}")));
        }
        let start = match &options.from {
            Some(from) => Bound::Excluded(Arc::from(format!("{prefix}{}", from.start))),
            None => Bound::Included(Arc::from(prefix.as_str())),
        };
        // The first key that no object of the namespace has: the slash is followed by the zero.
        let end = match prefix.strip_suffix('/') {
            Some(namespace) => Bound::Excluded(Arc::from(format!("{namespace}0"))),
            None => Bound::Unbounded,
        };
        if self.selects_views(options) {
            snapshot = Arc::new(self.snapshot_views(&snapshot, &prefix).await?);
        }
        let mut items = Vec::new();
        let mut rest = snapshot.objects.range::<_, Arc<str>>((start, end));
        if let (Some(name), None) = (options.fields.exact("metadata.name"), &options.from)
            && !(self.row.namespaced && prefix.is_empty())
        {
            let only = snapshot.objects.get(format!("{prefix}{name}").as_str());
            items.extend(only.filter(|s| options.selects(&self.row, s)).map(|held| Arc::clone(held)));
            self.cache_now()?.counts.list(usize::from(only.is_some()), items.len());
            return Ok(Page { items, revision, next: String::new(), remaining: None });
        }
        let mut looked_at = 0;
        while options.limit == 0 || items.len() < options.limit {
            let Some((_, held)) = rest.next() else {
                self.cache_now()?.counts.list(looked_at, items.len());
                return Ok(Page { items, revision, next: String::new(), remaining: None });
            };
            looked_at += 1;
            if options.sieve.passes(held.sieve) && options.selects(&self.row, held) {
                items.push(Arc::clone(held));
            }
        }
        self.cache_now()?.counts.list(looked_at, items.len());
        let selective = !options.labels.is_everything() || !options.fields.is_everything();
        let left = match selective {
            true => rest.any(|(_, s)| options.sieve.passes(s.sieve) && options.selects(&self.row, s)).into(),
            false => rest.count(),
        };
        let next = match items.last() {
            Some(last) if left > 0 => {
                let start = last.key[prefix.len()..].to_owned();
                Continue { revision, start }.encode()
            }
            _ => String::new(),
        };
        Ok(Page { items, revision, next, remaining: (left > 0 && !selective).then_some(left) })
    }

    /// The objects at the revision that was asked for, and the revision to tell.
    async fn snapshot(&self, options: &ListOptions) -> Result<(Arc<Snapshot>, i64)> {
        let storage = &self.server.storage;
        let exact = match &options.from {
            Some(from) => Some(from.revision).filter(|r| *r > 0),
            None => options.revision.filter(|_| options.exact),
        };
        if let Some(revision) = exact {
            storage.reach(revision).await.map_err(|mut error| {
                // Nobody is told to come back for exactly this revision, as upstream asks etcd for it.
                error.status_mut().details.retry_after_seconds = 0;
                error
            })?;
            let cache = self.cache_now()?;
            let there = (revision >= storage.compacted()).then(|| cache.at(revision)).flatten();
            let snapshot = there.ok_or_else(|| too_old(options.from.as_ref()))?;
            return Ok((Arc::new(snapshot), revision));
        }
        let reached = match options.revision {
            None => storage.catch_up().await?,
            Some(0) => storage.revision(),
            Some(revision) => {
                storage.reach(revision).await?;
                storage.revision()
            }
        };
        // Everything up to `reached` is in the cache; what came since is a state of its own revision.
        let snapshot = self.cache_now()?.snapshot();
        let revision = reached.max(snapshot.revision);
        Ok((snapshot, revision))
    }
}

/// A revision that is no longer known; whoever was in the middle of a list may go on with what is there now.
fn too_old(from: Option<&Continue>) -> ApiError {
    let Some(from) = from else {
        return ApiError::expired("The resourceVersion for the provided list is too old.");
    };
    let mut error = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    error.status_mut().continue_token =
        Continue { revision: ANY_REVISION, start: from.start.clone() }.encode();
    error
}

impl Page {
    /// The `metadata` of the list.
    pub fn metadata(&self) -> Value {
        let mut metadata = object!({"resourceVersion": (self.revision.to_string())});
        if !self.next.is_empty() {
            metadata.set(&["continue"], self.next.as_str());
        }
        if let Some(remaining) = self.remaining {
            metadata.set(&["remainingItemCount"], remaining);
        }
        metadata
    }
}
