//! Which policies are asked about a request, by which bindings and with which parameters.

use std::collections::HashMap;
use std::sync::Arc;

use api::Value;
use arc_swap::ArcSwapOption;

use super::compiled::{Policy, Rules};
use super::{GROUP, params, said};
use crate::admission::request::{Criteria, Request};
use crate::resources::{Row, TABLE};
use crate::storage::{Snapshot, Storage, Stored};

// DIVERGES: upstream looks for changes once a second, and takes policies in no order; here they are in order of name.
/// The policies of one sort that are in force.
pub(super) struct Kept<R>(ArcSwapOption<Hooks<R>>);

impl<R> Default for Kept<R> {
    fn default() -> Self {
        Self(ArcSwapOption::empty())
    }
}

/// Policies with their bindings, as of two snapshots.
pub(super) struct Hooks<R> {
    policies: Arc<Snapshot>,
    bindings: Arc<Snapshot>,
    hooks: Vec<Hook<R>>,
}

struct Hook<R> {
    policy: Arc<Policy<R>>,
    bindings: Vec<Binding>,
}

/// What binds a policy to requests.
pub(super) struct Binding {
    pub name: String,
    /// What becomes of denials: `Deny`, `Warn`, `Audit`.
    pub actions: Vec<String>,
    /// Absent when it narrows nothing.
    criteria: Option<Result<Criteria, String>>,
    reference: Value,
}

/// One policy that is asked about a request.
pub(super) struct Invocation<'h, R> {
    pub policy: &'h Policy<R>,
    pub binding: &'h Binding,
    /// The resource as which the policy sees the request.
    pub row: Row,
    pub params: Option<Value>,
}

/// A policy that should be asked but cannot.
pub(super) struct Misconfigured<'h, R> {
    pub policy: &'h Policy<R>,
    /// Absent when the policy itself is wrong.
    pub binding: Option<&'h Binding>,
    pub why: String,
}

impl<R: Rules> Kept<R> {
    /// The policies that are in force now.
    pub(super) fn current(&self, storage: &Storage) -> Arc<Hooks<R>> {
        let snapshot = |plural| storage.cache(TABLE.store(GROUP, plural)).snapshot();
        let (policies, bindings) = (snapshot(R::POLICIES), snapshot(R::BINDINGS));
        let known = self.0.load_full();
        if let Some(known) = &known
            && Arc::ptr_eq(&known.policies, &policies)
            && Arc::ptr_eq(&known.bindings, &bindings)
        {
            return known.clone();
        }
        let hooks = Arc::new(Hooks::new(policies, bindings, known.as_deref()));
        self.0.store(Some(hooks.clone()));
        hooks
    }
}

impl<R: Rules> Hooks<R> {
    fn new(policies: Arc<Snapshot>, bindings: Arc<Snapshot>, known: Option<&Self>) -> Self {
        let mut bound: HashMap<String, Vec<Binding>> = HashMap::new();
        for stored in bindings.objects.values() {
            let object = stored.object();
            bound
                .entry(object.str_at(&["spec", "policyName"]).to_owned())
                .or_default()
                .push(Binding::new(&object));
        }
        let same = |stored: &Arc<Stored>| {
            let hooks = known.map_or(&[][..], |k| k.hooks.as_slice());
            hooks.iter().find(|h| Arc::ptr_eq(&h.policy.stored, stored)).map(|h| h.policy.clone())
        };
        let hooks = policies.objects.iter().filter_map(|(name, stored)| {
            let bindings = bound.remove(&**name)?;
            let policy = same(stored).unwrap_or_else(|| Arc::new(Policy::new(Arc::clone(stored))));
            Some(Hook { policy, bindings })
        });
        Self { hooks: hooks.collect(), policies: policies.clone(), bindings }
    }

    /// True when nobody is asked about anything.
    pub(super) fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    /// Who is asked about a request, in order.
    pub(super) async fn select(
        &self,
        request: &Request<'_>,
    ) -> Vec<Result<Invocation<'_, R>, Misconfigured<'_, R>>> {
        let mut selected = Vec::new();
        for hook in &self.hooks {
            hook.select(request, &mut selected).await;
        }
        selected
    }
}

impl<R> Hook<R> {
    async fn select<'h>(
        &'h self,
        request: &Request<'_>,
        selected: &mut Vec<Result<Invocation<'h, R>, Misconfigured<'h, R>>>,
    ) {
        let policy = self.policy.as_ref();
        let wrong = |binding: Option<&'h Binding>, why: String| {
            let what = if binding.is_some() { "binding" } else { "policy" };
            Err(Misconfigured { policy, binding, why: format!("failed to configure {what}: {why}") })
        };
        let matched = match &policy.criteria {
            Ok(criteria) => criteria.matches(request).map_err(said),
            Err(why) => Err(why.clone()),
        };
        let row = match matched {
            Ok(Some(row)) => row,
            Ok(None) => return,
            Err(why) => return selected.push(wrong(None, why)),
        };
        let storage = &request.call.server.storage;
        let param_row = match policy.param_kind.as_ref().map(|kind| kind.resource(storage)).transpose() {
            Ok(row) => row,
            Err(why) => return selected.push(wrong(None, why)),
        };
        for binding in &self.bindings {
            match binding.params(request, param_row.as_ref()).await {
                Ok(params) => selected.extend(
                    params
                        .into_iter()
                        .map(|params| Ok(Invocation { policy, binding, row: row.clone(), params })),
                ),
                Err(why) => selected.push(wrong(Some(binding), why)),
            }
        }
    }
}

impl Binding {
    fn new(object: &Value) -> Self {
        let spec = object.get("spec");
        let resources = spec.get("matchResources");
        let actions = spec.array_at(&["validationActions"]).iter();
        Self {
            name: object.name().to_owned(),
            criteria: (!resources.is_null()).then(|| Criteria::new(resources)),
            reference: spec.get("paramRef").clone(),
            actions: actions.filter_map(|a| a.as_str().map(str::to_owned)).collect(),
        }
    }

    /// The parameters with which it asks; nothing where it does not.
    ///
    /// # Errors
    /// What is wrong with it.
    async fn params(
        &self,
        request: &Request<'_>,
        param_row: Option<&Row>,
    ) -> Result<Vec<Option<Value>>, String> {
        let meant = match &self.criteria {
            None => true,
            Some(Err(why)) => return Err(why.clone()),
            Some(Ok(criteria)) => criteria.matches(request).map_err(said)?.is_some(),
        };
        match param_row {
            _ if !meant => Ok(Vec::new()),
            Some(row) if !self.reference.is_null() => {
                let storage = &request.call.server.storage;
                let found = params::collect(storage, row, &self.reference, request.namespace()).await?;
                Ok(found.into_iter().map(Some).collect())
            }
            _ => Ok(vec![None]),
        }
    }
}
