//! Custom resources: what a CustomResourceDefinition's structural schema says about their objects.
//!
//! [`CustomType`] is made once for each version of a definition. Its [`Ty`] drives pruning, patches and apply like
//! that of a built-in type; the schema itself drives defaults and validation. Rules in CEL are not looked at here.
//!
//! Mirrors apiextensions-apiserver's structural schemas and kube-openapi's validation.

use std::collections::HashMap;

use api::Value;
use api::field::FieldError;

use crate::decode::{DecodeError, Finding, Mode, normalize};
use crate::types::{Schema, Ty, TypeId};

mod build;
mod defaults;
mod formats;
mod lists;
mod validate;

/// The objects of one version of a CustomResourceDefinition.
#[derive(Debug)]
pub struct CustomType {
    types: Schema,
    root: TypeId,
    schema: Value,
    /// The schema's patterns; none for those that are no regular expressions.
    patterns: HashMap<String, Option<regex::Regex>>,
}

impl CustomType {
    /// Makes the type of an `openAPIV3Schema`, or null if there is none. `preserve` keeps unknown members everywhere:
    /// the definition's `preserveUnknownFields`.
    pub fn new(schema: &Value, preserve: bool) -> Self {
        let mut types = Schema::default();
        let root = build::root(&mut types, schema, preserve);
        let mut patterns = HashMap::new();
        validate::collect_patterns(schema, &mut patterns);
        Self { types, root, schema: schema.clone(), patterns }
    }

    /// The type of the objects.
    pub fn ty(&self) -> Ty<'_> {
        self.types.ty(self.root)
    }

    /// The `openAPIV3Schema`.
    pub fn schema(&self) -> &Value {
        &self.schema
    }

    /// Reads an object: sets defaults, drops what is unknown, checks the metadata. Findings are in the order of
    /// their paths.
    pub fn decode(&self, mut object: Value, mode: Mode) -> Result<(Value, Vec<Finding>), DecodeError> {
        self.default(&mut object);
        let (mut object, mut findings) = normalize(object, self.ty(), mode)?;
        defaults::drop_nulls(&mut object, &self.schema);
        findings.sort_by(|a, b| a.0.cmp(&b.0));
        Ok((object, findings))
    }

    /// Sets defaults, also where null stands and may not.
    pub fn default(&self, object: &mut Value) {
        defaults::set(object, &self.schema);
    }

    /// Everything about an object that is not as the schema says, in the words of upstream.
    pub fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = validate::validate(object, &self.schema, &self.patterns);
        lists::check(object, &self.schema, "", &mut errors);
        errors
    }
}

#[cfg(test)]
mod tests;
