//! The bookkeeping of both kinds of writes.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use api::Value;
use compact_str::CompactString;

use super::compare::{Comparison, compare};
use super::conflict::{Conflict, Conflicts};
use super::fields_of::fields_of;
use super::managed::{Entry, Managed, ManagerId, Operation};
use super::set::Set;
use super::tree::Shaped;
use super::{ApplyError, Request, merge, remove};

/// What no manager owns: the server sets it, or it is what makes the object itself.
static UNOWNED: LazyLock<Set> = LazyLock::new(|| {
    Set::of(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

fn id(request: &Request<'_>, operation: Operation) -> ManagerId {
    ManagerId {
        manager: if request.manager.is_empty() { "unknown".into() } else { request.manager.into() },
        operation,
        api_version: if operation == Operation::Update { request.api_version.into() } else { "".into() },
        subresource: request.subresource.into(),
    }
}

fn now(request: &Request<'_>) -> CompactString {
    api::time::format(request.now).into()
}

/// Records that the manager changed `live` into `new`.
pub(super) fn update(live: &Value, new: &Value, managed: &mut Managed, request: &Request<'_>) {
    let changes = match take_over(live, new, managed, None, request, true) {
        Ok(changes) => changes,
        Err(_) => unreachable!("a forced write has no conflicts"),
    };
    let set = request.reset.apply(changes.touched()).difference(&UNOWNED);
    if !set.is_empty() {
        let id = id(request, Operation::Update);
        let before = managed.0.remove(&id).map(|e| e.set).unwrap_or_default();
        let entry =
            Entry { set: set.union(&before), api_version: request.api_version.into(), time: now(request) };
        managed.0.insert(id, entry);
    }
    managed.cap();
}

/// Takes from all managers but `writer` what the write changed or removed. Without `force`, a change to something that
/// another one owns is a conflict. Returns what changed, in the request's version.
fn take_over(
    old: &Value,
    new: &Value,
    managed: &mut Managed,
    writer: Option<&ManagerId>,
    request: &Request<'_>,
    force: bool,
) -> Result<Comparison, Conflicts> {
    let here = compare(old, new, request.ty).filter(request.reset);
    let touched_here = LazyCell::new(|| here.clone().touched());
    let mut versions: BTreeMap<CompactString, Option<(Comparison, Set)>> = BTreeMap::new();
    let (mut conflicts, mut lost, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for (id, entry) in managed.0.iter().filter(|(id, _)| Some(*id) != writer) {
        let there = if entry.api_version == request.api_version {
            Some((&here, &*touched_here))
        } else {
            let found = versions.entry(entry.api_version.clone()).or_insert_with(|| {
                let (old, ty) = request.versions.at(old, &entry.api_version)?;
                let (new, _) = request.versions.at(new, &entry.api_version)?;
                let changes = compare(&old, &new, ty).filter(request.reset);
                let touched = changes.clone().touched();
                Some((changes, touched))
            });
            found.as_ref().map(|(changes, touched)| (changes, touched))
        };
        let Some((changes, touched)) = there else {
            gone.push(id.clone());
            continue;
        };
        if touched.is_empty() && changes.removed.is_empty() {
            continue;
        }
        let taken = entry.set.clone().intersection(touched);
        taken.each(&mut |path| conflicts.push(Conflict { manager: id.clone(), path: path.to_vec() }));
        lost.push((id.clone(), taken, changes.removed.clone()));
    }
    if !force && !conflicts.is_empty() {
        return Err(Conflicts(conflicts));
    }
    for id in gone {
        managed.0.remove(&id);
    }
    for (id, taken, removed) in lost {
        if let Some(entry) = managed.0.get_mut(&id) {
            entry.set = std::mem::take(&mut entry.set).difference(&taken).difference(&removed);
        }
    }
    managed.0.retain(|_, entry| !entry.set.is_empty());
    Ok(here)
}

/// Applies the configuration. Returns the object, and its managers.
pub(super) fn apply(
    live: &Value,
    config: &Value,
    managed: &mut Managed,
    request: &Request<'_>,
    force: bool,
) -> Result<(Value, Managed), ApplyError> {
    let mut managed = std::mem::take(managed);
    let merged = merge::merge(live, config, request.ty)
        .map_err(|e| ApplyError::Failed(format!("failed to merge config: {e}")))?;
    let id = id(request, Operation::Apply);
    let last = managed.0.remove(&id);
    let time = last.as_ref().map(|e| e.time.clone()).unwrap_or_default();
    let set = request.reset.apply(fields_of(config, request.ty));
    managed.0.insert(id.clone(), Entry { set, api_version: request.api_version.into(), time });
    let object = match last {
        Some(last) if !last.set.is_empty() => prune(merged, &managed, &last, request),
        _ => merged,
    };
    take_over(live, &object, &mut managed, Some(&id), request, force).map_err(ApplyError::Conflicts)?;
    if let Some(entry) = managed.0.get_mut(&id) {
        entry.set = std::mem::take(&mut entry.set).difference(&UNOWNED);
        if object != *live {
            entry.time = now(request);
        }
        if entry.set.is_empty() {
            managed.0.remove(&id);
        }
    }
    Ok((object, managed))
}

/// Removes what the manager applied before and neither applies now nor anyone else owns.
fn prune(merged: Value, managed: &Managed, last: &Entry, request: &Request<'_>) -> Value {
    let Some((there, ty)) = request.versions.at(&merged, &last.api_version) else { return merged };
    let named = |set: &Set, ty| set.with_named_fields(Some(Shaped::Of(ty)));
    let mut pruned = remove::remove(&there, &named(&last.set, ty), ty);

    // Back comes what others own, in whatever version they own it: in this version first.
    let mut owned: BTreeMap<&str, Set> = BTreeMap::new();
    for entry in managed.0.values() {
        let set = owned.entry(&entry.api_version).or_default();
        *set = std::mem::take(set).union(&entry.set);
    }
    let mut versions: Vec<(&str, Set)> = owned.into_iter().collect();
    versions.sort_by_key(|(version, _)| *version != last.api_version);
    for (version, owned) in versions {
        let Some((full, ty)) = request.versions.at(&merged, version) else { continue };
        let Some((rest, _)) = request.versions.at(&pruned, version) else { continue };
        let keep = named(&fields_of(&rest, ty), ty).union(&named(&owned, ty));
        let drop = named(&fields_of(&full, ty), ty).difference(&keep);
        pruned = remove::remove(&full, &drop, ty);
    }

    // And what was not this manager's to begin with.
    let Some((rest, _)) = request.versions.at(&pruned, &last.api_version) else { return merged };
    let gone = named(&fields_of(&there, ty), ty).difference(&named(&fields_of(&rest, ty), ty));
    let pruned = remove::remove(&there, &gone.intersection(&named(&last.set, ty)), ty);
    match request.versions.at(&pruned, request.api_version) {
        Some((object, _)) => object.into_owned(),
        None => merged,
    }
}
