//! Webhooks that are asked about writes: mutating ones one after another, validating ones all at once.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>.

mod hook;
mod notes;
mod review;

use std::sync::Arc;
use std::time::Instant;

use api::error::Result;
use api::{ApiError, Value};
use arc_swap::ArcSwapOption;
use schema::decode::Mode;

use super::Operation;
use super::request::Request;
use super::rounds::Rounds;
use crate::registry::Call;
use crate::resources::TABLE;
use crate::storage::{Snapshot, Storage};
use hook::{Failure, Hook};
use notes::Notes;

const GROUP: &str = "admissionregistration.k8s.io";

/// The webhooks that are configured.
#[derive(Default)]
pub struct Webhooks {
    mutating: ArcSwapOption<Configured>,
    validating: ArcSwapOption<Configured>,
}

/// The webhooks of all configurations, in order of their names, as of a snapshot.
struct Configured {
    snapshot: Arc<Snapshot>,
    hooks: Vec<Hook>,
}

fn current(known: &ArcSwapOption<Configured>, storage: &Storage, plural: &str) -> Arc<Configured> {
    let snapshot = storage.cache(TABLE.store(GROUP, plural)).snapshot();
    if let Some(known) = known.load_full().filter(|k| Arc::ptr_eq(&k.snapshot, &snapshot)) {
        return known;
    }
    let mut hooks = Vec::new();
    for stored in snapshot.objects.values() {
        let object = stored.object();
        let each = object.array_at(&["webhooks"]).iter().enumerate();
        hooks.extend(each.map(|(i, hook)| Hook::new(format!("{}/{i}", object.name()), hook)));
    }
    let configured = Arc::new(Configured { snapshot, hooks });
    known.store(Some(configured.clone()));
    configured
}

/// Whoever configures webhooks is not asked about it: it could not be mended.
fn is_exempt(call: &Call) -> bool {
    call.row.group == GROUP
}

/// Lets the webhooks change an object; true when one did.
pub(super) async fn mutate(
    call: &Call,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
    rounds: &mut Rounds,
) -> Result<bool> {
    let configured = mutating(call);
    if configured.hooks.is_empty() || is_exempt(call) {
        return Ok(false);
    }
    let mut any = false;
    for (place, hook) in configured.hooks.iter().enumerate() {
        let request = Request::new(call, operation, Some(object), old).await?;
        let Some(row) = hook.wants(&request).await? else { continue };
        if !rounds.asks(&hook.id) {
            continue;
        }
        let notes = Notes { call, hook, round: rounds.number(), place };
        let began = Instant::now();
        let answer = hook.ask(&request, &row, true).await;
        call.elsewhere.add(began.elapsed());
        let patched = match answer {
            Ok(Some(patch)) => {
                notes.patched(&patch);
                Some(patched(object, &request, &row, &patch).await?)
            }
            Ok(None) => None,
            Err(failure) => {
                notes.refused(&failure);
                hook.settle(failure)?;
                None
            }
        };
        let patched = patched.filter(|new| new != &*object);
        notes.mutated(patched.is_some());
        if let Some(new) = patched {
            *object = new;
            any = true;
            rounds.changed();
        }
        if hook.reinvokes {
            rounds.asked(hook.id.clone());
        }
    }
    rounds.end(object);
    Ok(any)
}

/// The object after a patch of what `row` shows.
async fn patched(
    whole: &Value,
    request: &Request<'_>,
    row: &crate::resources::Row,
    patch: &Value,
) -> Result<Value> {
    let (object, _) = request.seen_as(row).await?;
    let object = object.map(std::borrow::Cow::into_owned).unwrap_or_default();
    let (patched, _) = schema::patch::json(object, patch, Mode::Ignore).map_err(ApiError::internal)?;
    request.taken(whole, row, patched, Mode::Ignore).await
}

/// Asks the mutating webhooks about a deletion, in which there is nothing to change.
pub(super) async fn before_deletion(call: &Call, old: &Value) -> Result<()> {
    let configured = mutating(call);
    if configured.hooks.is_empty() || is_exempt(call) {
        return Ok(());
    }
    let request = Request::new(call, Operation::Delete, None, Some(old)).await?;
    for hook in &configured.hooks {
        let Some(row) = hook.wants(&request).await? else { continue };
        if let Err(failure) = hook.ask(&request, &row, true).await {
            hook.settle(failure)?;
        }
    }
    Ok(())
}

fn mutating(call: &Call) -> Arc<Configured> {
    current(&call.server.webhooks.mutating, &call.server.storage, "mutatingwebhookconfigurations")
}

/// Lets the webhooks refuse a write.
pub(super) async fn validate(
    call: &Call,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<()> {
    let configured =
        current(&call.server.webhooks.validating, &call.server.storage, "validatingwebhookconfigurations");
    if configured.hooks.is_empty() || is_exempt(call) {
        return Ok(());
    }
    let request = Request::new(call, operation, object, old).await?;
    let mut wanted = Vec::new();
    for hook in &configured.hooks {
        if let Some(row) = hook.wants(&request).await? {
            wanted.push((hook, row));
        }
    }
    let began = Instant::now();
    let asked = wanted.iter().map(|(hook, row)| hook.ask(&request, row, false));
    let answers: Vec<std::result::Result<Option<Value>, Failure>> = futures::future::join_all(asked).await;
    if !wanted.is_empty() {
        call.elsewhere.add(began.elapsed());
    }
    for (place, ((hook, _), answer)) in wanted.iter().zip(answers).enumerate() {
        if let Err(failure) = answer {
            if hook.ignores(&failure) {
                let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{place}");
                call.trail.annotate(key, hook.name.as_str());
            }
            hook.settle(failure)?;
        }
    }
    Ok(())
}
