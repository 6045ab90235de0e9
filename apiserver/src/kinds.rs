//! What kinds do beyond the generic: defaults, preparation before a write, validation, selectable fields.
//!
//! A [`Strategy`] is a row of functions with neutral defaults; a kind names only what it changes.

mod admissionregistration;
mod aggregation;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
pub(crate) mod check;
mod claim;
mod coordination;
mod core;
mod data;
pub mod definition;
mod disabled;
mod discovery;
mod endpoints;
mod event;
mod flowcontrol;
mod key_pair;
mod limits;
mod metadata;
mod networking;
pub mod pod;
mod policy;
mod rbac;
mod resource;
mod resource_names;
mod scheduling;
pub mod service;
mod storage;
mod storage_migration;
mod volume;
mod volume_sources;

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use api::Value;
use api::defaults::{default_if_empty, default_to};
use api::field::FieldError;
use compact_str::CompactString;

use crate::authn::UserInfo;

pub(crate) use self::core::MOUNTABLE;
pub use autoscaling::default_metrics;
pub(crate) use certificates::requested_name;
pub use disabled::drop_disabled;
pub use metadata::{
    validate_embedded_metadata, validate_labels_and_annotations, validate_metadata, validate_metadata_update,
};
pub(crate) use pod::qos_class;
pub(crate) use resource_names::is_extended as is_extended_resource;
pub(crate) use scheduling::is_system_class;

/// Findings of a validation.
pub type Errors = Vec<FieldError>;

/// A field that can be selected by.
pub struct Field {
    /// The name clients use.
    pub label: &'static str,
    /// Where the value is.
    pub path: &'static [&'static str],
    /// Where it is when it is not there; empty for nowhere else.
    pub or: &'static [&'static str],
    /// The value when there is none.
    pub absent: &'static str,
}

impl Field {
    const fn text(label: &'static str, path: &'static [&'static str]) -> Self {
        Self { label, path, or: &[], absent: "" }
    }

    const fn flag(label: &'static str, path: &'static [&'static str]) -> Self {
        Self { label, path, or: &[], absent: "false" }
    }

    const fn number(label: &'static str, path: &'static [&'static str]) -> Self {
        Self { label, path, or: &[], absent: "0" }
    }

    /// The field's value as text.
    pub fn value_of(&self, object: &Value) -> CompactString {
        match object.at(self.path) {
            value if value.is_empty() && !self.or.is_empty() => object.str_at(self.or).into(),
            Value::Null => self.absent.into(),
            Value::String(s) => s.clone(),
            other => other.to_string().into(),
        }
    }
}

/// A subresource of the object's own type, beyond the generic.
pub struct Part {
    /// Name of the subresource.
    pub name: &'static str,
    /// Fields of which its managers never are those of a write.
    pub fixed: &'static [&'static [&'static str]],
    /// Restores of the old object what a write of it cannot change.
    pub prepare: fn(&mut Value, &Value),
    /// Checks the change.
    pub validate: fn(&Value, &Value, &mut Errors),
}

/// What a write of the status changes of the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusMetadata {
    /// Whatever may be changed.
    All,
    /// All but this field.
    AllBut(&'static str),
    /// Who manages fields, and nothing else.
    Managers,
}

/// What a kind does beyond the generic.
pub struct Strategy {
    /// Selectable fields besides name and namespace.
    pub fields: &'static [Field],
    /// The rule for names.
    pub name: fn(&str) -> Vec<String>,
    /// The rule for what generated names begin with, where it is another.
    pub prefix: Option<fn(&str) -> Vec<String>>,
    /// Fills in absent fields.
    pub default: fn(&mut Value),
    /// Writes who asks into an object before it is created.
    pub requested_by: fn(&mut Value, &UserInfo),
    /// Changes an object before it is created.
    pub prepare_create: fn(&mut Value),
    /// Changes an object before it replaces the old one.
    pub prepare_update: fn(&mut Value, &Value),
    /// Changes an object whose status is to replace the old one's.
    pub prepare_status: fn(&mut Value, &Value),
    /// What a write of the status changes of the metadata.
    pub status_metadata: StatusMetadata,
    /// Subresources of the object's own type that are not generic.
    pub parts: &'static [Part],
    /// Fields that a write of the object itself cannot change, where it is not the status alone.
    pub reset: &'static [&'static [&'static str]],
    /// Checks an object; called for creations and updates.
    pub validate: fn(&Value, &mut Errors),
    /// Checks a change.
    pub validate_update: fn(&Value, &Value, &mut Errors),
    /// True when a change is checked as a new object is, too.
    pub revalidates: bool,
    /// True when what a change may not be is told before what is wrong with the object itself.
    pub changes_first: bool,
    /// True when the version that is stored is checked, instead of the one that the client speaks.
    pub checks_stored: bool,
    /// Sentences of advice about an object.
    pub warn: fn(&Value) -> Vec<String>,
    /// Advice about a changed object, with what it was before; the same as about a new one when there is none.
    pub warn_change: Option<fn(&Value, &Value) -> Vec<String>>,
    /// True when `metadata.generation` counts changes of the desired state.
    pub generation: bool,
    /// Fields of the metadata that are part of the desired state.
    pub desired_metadata: &'static [&'static str],
    /// True when PUT creates what is not there.
    pub create_on_update: bool,
    /// True when an update may leave out the resourceVersion.
    pub unconditional_update: bool,
    /// True when creation keeps the status that the client sent.
    pub keeps_status: bool,
    /// How long objects live.
    pub ttl: Option<Duration>,
    /// What happens to dependents when a deletion does not say.
    pub orphans_by_default: bool,
}

fn nothing(_: &mut Value) {}
fn nobody(_: &mut Value, _: &UserInfo) {}
fn nothing_new(_: &mut Value, _: &Value) {}
fn no_error(_: &Value, _: &mut Errors) {}
fn no_change_error(_: &Value, _: &Value, _: &mut Errors) {}
fn no_warning(_: &Value) -> Vec<String> {
    Vec::new()
}

impl Strategy {
    /// The neutral strategy.
    pub const NEUTRAL: Self = Self {
        fields: &[],
        name: api::names::dns_subdomain,
        prefix: None,
        default: nothing,
        requested_by: nobody,
        prepare_create: nothing,
        prepare_update: nothing_new,
        prepare_status: nothing_new,
        status_metadata: StatusMetadata::All,
        parts: &[],
        reset: &[],
        validate: no_error,
        validate_update: no_change_error,
        revalidates: true,
        changes_first: false,
        checks_stored: false,
        warn: no_warning,
        warn_change: None,
        generation: false,
        desired_metadata: &[],
        create_on_update: false,
        unconditional_update: true,
        keeps_status: false,
        ttl: None,
        orphans_by_default: false,
    };

    /// What is special about a subresource.
    pub fn part(&self, name: &str) -> Option<&'static Part> {
        self.parts.iter().find(|p| p.name == name)
    }

    /// Where the selectable field `label` stands among the fields.
    pub fn field_index(&self, label: &str) -> Option<usize> {
        self.fields.iter().position(|f| f.label == label)
    }
}

static NEUTRAL: Strategy = Strategy::NEUTRAL;

/// True when the desired state of an object is another than it was.
fn is_desired_anew(new: &Value, old: &Value) -> bool {
    const GENERATION: [&str; 2] = ["metadata", "generation"];
    new.at(&GENERATION) != old.at(&GENERATION)
}

type Entry = (&'static str, &'static str, &'static Strategy);

static STRATEGIES: LazyLock<HashMap<(&'static str, &'static str), &'static Strategy>> = LazyLock::new(|| {
    let tables = [
        admissionregistration::STRATEGIES,
        aggregation::STRATEGIES,
        apps::STRATEGIES,
        autoscaling::STRATEGIES,
        batch::STRATEGIES,
        certificates::STRATEGIES,
        claim::STRATEGIES,
        coordination::STRATEGIES,
        core::STRATEGIES,
        data::STRATEGIES,
        discovery::STRATEGIES,
        endpoints::STRATEGIES,
        event::STRATEGIES,
        flowcontrol::STRATEGIES,
        limits::STRATEGIES,
        definition::STRATEGIES,
        networking::STRATEGIES,
        pod::STRATEGIES,
        policy::STRATEGIES,
        rbac::STRATEGIES,
        resource::STRATEGIES,
        scheduling::STRATEGIES,
        service::STRATEGIES,
        storage::STRATEGIES,
        storage_migration::STRATEGIES,
        volume::STRATEGIES,
    ];
    tables.into_iter().flatten().map(|(group, plural, s)| ((*group, *plural), *s)).collect()
});

/// The strategy of a resource.
pub fn strategy(group: &str, plural: &str) -> &'static Strategy {
    STRATEGIES.iter().find_map(|((g, p), s)| (*g == group && *p == plural).then_some(*s)).unwrap_or(&NEUTRAL)
}

/// Reports every sentence of a rule as an invalid value.
fn check_name(path: &api::field::Path<'_>, value: &str, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    errors.extend(rule(value).into_iter().map(|e| FieldError::invalid(path, value, e)));
}
