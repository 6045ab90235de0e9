//! Objects: built-in kinds, definitions and their custom resources, and what etcd holds.

use api::{Map, Value};

use super::{document, parts};
use crate::custom::CustomKind;
use crate::kinds::{validate_metadata, validate_metadata_update};
use crate::negotiate::{Form, Include};
use crate::registry::{FieldValidation, schema_of, set_type, to_storage};
use crate::resources::{Resource, Row, TABLE};
use crate::storage::form;
use crate::table;

/// The resource of a kind.
fn row_of(document: &Value) -> Option<&'static Row> {
    TABLE.rows.iter().find(|row| {
        row.is_stored() && row.kind == document.kind() && row.api_version() == document.api_version()
    })
}

/// As a write reads a body and fills it in.
fn canonical(row: &Resource, mut object: Value) -> Option<Value> {
    set_type(&mut object, row);
    let (mut object, _) = schema::decode::normalize(object, schema_of(row), FieldValidation::Ignore).ok()?;
    schema::decode::forget_empty(&mut object, schema_of(row));
    Some(object)
}

fn filled_in(row: &Resource, object: Value) -> Option<Value> {
    let mut object = canonical(row, object)?;
    (row.strategy.default)(&mut object);
    Some(object)
}

/// A new object of a built-in kind and what it becomes: checked, shown and stored without fail, and read as it was stored.
pub fn objects(data: &[u8]) {
    let Some([old, new]) = parts(data) else { return };
    let (Some(old), Some(new)) = (document(old), document(new)) else { return };
    let Some(row) = row_of(&old) else { return };
    let strategy = row.strategy;
    let (Some(mut old), Some(mut new)) = (filled_in(row, old), filled_in(row, new)) else { return };
    (strategy.prepare_create)(&mut old);
    let Some(old) = canonical(row, old) else { return };
    let mut errors = Vec::new();
    validate_metadata(row, &old, &mut errors);
    (strategy.validate)(&to_storage(row, old.clone()), &mut errors);
    let _ = (strategy.warn)(&old);
    (strategy.prepare_update)(&mut new, &old);
    let Some(new) = canonical(row, new) else { return };
    let mut status = new.clone();
    (strategy.prepare_status)(&mut status, &old);
    validate_metadata_update(row, "", &new, &old, &mut errors);
    (strategy.validate_update)(&new, &old, &mut errors);
    for part in strategy.parts {
        let mut changed = new.clone();
        (part.prepare)(&mut changed, &old);
        (part.validate)(&changed, &old, &mut errors);
    }
    for error in &errors {
        assert!(!error.to_string().is_empty());
    }
    let _ = table::of(
        row,
        &[old, status],
        &Value::Null,
        true,
        Form { include: Include::Object, ..Form::default() },
    );
    if let Some(store) = row.store {
        holds_in_etcd(TABLE.storage_row(store), to_storage(row, new));
    }
}

/// Holds that an object is read again as it was stored.
fn holds_in_etcd(row: &Resource, object: Value) {
    let written = form::write(row, &object);
    let read = form::read(row, &written).expect("what was stored is read");
    let again = form::read(row, &form::write(row, &read)).expect("what was stored is read");
    assert_eq!(again.to_string(), read.to_string());
}

/// The place of a resource and what etcd holds there.
pub fn stored(data: &[u8]) {
    let Some((place, bytes)) = data.split_first() else { return };
    let row = TABLE.storage_row(usize::from(*place) % TABLE.prefixes.len());
    let Some(object) = form::read(row, bytes) else { return };
    let _ = table::of(row, std::slice::from_ref(&object), &Value::Null, true, Form::default());
    for field in row.strategy.fields {
        let _ = field.value_of(&object);
    }
    if canonical(row, object.clone()).is_some_and(|canonical| canonical == object) {
        holds_in_etcd(row, object);
    }
}

/// A definition and an object of it: definitions that are let in make kinds that read, check and show any object.
pub fn definitions(data: &[u8]) {
    let Some([definition, object]) = parts(data) else { return };
    let (Some(definition), Some(object)) = (document(definition), document(object)) else { return };
    let row =
        TABLE.find("apiextensions.k8s.io", "v1", "customresourcedefinitions").expect("there are definitions");
    let Some(mut definition) = filled_in(row, definition) else { return };
    let mut errors = Vec::new();
    (row.strategy.validate)(&definition, &mut errors);
    let _ = (row.strategy.warn)(&definition);
    let mut later = definition.clone();
    later.set(&["metadata", "resourceVersion"], "1");
    (row.strategy.validate_update)(&later, &definition, &mut errors);
    if !errors.is_empty() {
        return;
    }
    let names = definition.at(&["spec", "names"]).clone();
    definition.set(&["status", "acceptedNames"], names);
    let kind = std::sync::Arc::new(CustomKind::new(&definition));
    let (_, rows) = kind.rows(&definition);
    for (row, version) in rows.iter().zip(&kind.versions) {
        let mut object = object.clone();
        if object.as_object().is_none() {
            object = Map::new().into();
        }
        set_type(&mut object, row);
        let Ok((read, _)) = version.ty.decode(object, FieldValidation::Ignore) else { continue };
        let mut warnings = Vec::new();
        let errors = version.validate(&read, Some(&read), false, &mut |w| warnings.push(w));
        let as_new = version.validate(&read, None, false, &mut |w| warnings.push(w));
        assert!(errors.len() <= as_new.len(), "{errors:?} {as_new:?}");
        let _ = table::of(
            row,
            std::slice::from_ref(&read),
            &Value::Null,
            true,
            Form { include: Include::Object, ..Form::default() },
        );
        if let Some(scale) = &version.scale {
            let _ = (scale.replicas(&read), scale.get(&read).is_ok());
        }
        let once = kind.read_again(read.clone());
        assert_eq!(kind.read_again(once.clone()).to_string(), once.to_string());
    }
}
