//! Custom resources: what a CustomResourceDefinition's structural schema says about their objects.
//!
//! [`CustomType`] is made once for each version of a definition. Its [`Ty`] drives pruning, patches and apply like
//! that of a built-in type; the schema itself drives defaults and validation. Rules in CEL are the business of the crate `cel`.
//!
//! Mirrors apiextensions-apiserver's structural schemas and kube-openapi's validation.

use std::collections::HashMap;

use api::field::FieldError;
use api::json::Decoded;
use api::{ApiError, Value};

use crate::decode::{self, DecodeError, Finding, Mode, normalize};
use crate::types::{Schema, Ty, TypeId};

mod build;
mod defaults;
mod embedded;
mod formats;
mod lists;
mod validate;

/// Why a pattern is no regular expression.
pub fn pattern_error(pattern: &str) -> Option<String> {
    regex::Regex::new(pattern).err().map(|e| e.to_string())
}

/// True for formats that are looked at in values of the type `kind`.
pub fn is_known_format(kind: &str, format: &str) -> bool {
    formats::is_known(kind, format)
}

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
    /// their paths, those about metadata last.
    pub fn decode(&self, mut object: Value, mode: Mode) -> Result<(Value, Vec<Finding>), DecodeError> {
        self.default(&mut object);
        let (mut object, mut findings) = normalize(object, self.ty(), mode)?;
        defaults::drop_nulls(&mut object, &self.schema);
        let embedded = self.embedded(&object);
        embedded::check_types(&embedded)?;
        // What is unknown in the metadata of objects is found when everything else has been looked at.
        let late = |f: &Finding| {
            let within = |path: &str| f.0.starts_with(&format!("unknown field \"{path}metadata."));
            within("") || embedded.iter().any(|(path, _)| within(&format!("{path}.")))
        };
        findings.sort_by_cached_key(|f| (late(f), f.0.clone()));
        Ok((object, findings))
    }

    /// Reads an object that has been decoded and changed since: as [`CustomType::decode`], but null stays where it may
    /// not stand.
    pub fn arrange(&self, mut object: Value) -> Result<Value, DecodeError> {
        self.default(&mut object);
        Ok(normalize(object, self.ty(), Mode::Ignore)?.0)
    }

    /// Reads the body of a request, which the client calls `kind` of `version`: [`CustomType::decode`] with the warnings
    /// for the client, or the error for it.
    pub fn read(
        &self,
        body: Decoded,
        (version, kind): (&str, &str),
        mode: Mode,
    ) -> Result<(Value, Vec<String>), ApiError> {
        let duplicates = body.duplicates.iter().map(|d| format!("duplicate field \"{d}\""));
        let complaints = body.complaint.into_iter().chain(duplicates);
        decode::read((version, kind), complaints, mode, self.decode(body.value, mode))
    }

    /// Reads an object that was stored, maybe under an older schema: sets defaults, drops what is unknown, and what cannot
    /// be read of its metadata.
    pub fn read_stored(&self, mut object: Value) -> Value {
        self.default(&mut object);
        let mut object = decode::normalize_stored(object, self.ty());
        defaults::drop_nulls(&mut object, &self.schema);
        object
    }

    /// Sets defaults, also where null stands and may not.
    pub fn default(&self, object: &mut Value) {
        defaults::set(object, &self.schema);
    }

    /// Everything about an object that is not as the schema says, in the words of upstream.
    pub fn validate(&self, object: &Value) -> Vec<FieldError> {
        self.validate_change(object, None, false)
    }

    /// [`CustomType::validate`] of an object that replaces `old`: what was wrong before and did not change is let pass. When
    /// the status alone is written, the schema of the rest is not looked at.
    pub fn validate_change(
        &self,
        object: &Value,
        old: Option<&Value>,
        status_alone: bool,
    ) -> Vec<FieldError> {
        let mut errors = match status_alone {
            true => self.validate_status(object, old),
            false => validate::validate(object, old, &self.schema, &self.patterns),
        };
        embedded::check(object, &self.schema, &mut errors);
        let mut before = Vec::new();
        if let Some(old) = old {
            lists::check(old, &self.schema, "", &mut before);
        }
        if before.is_empty() {
            lists::check(object, &self.schema, "", &mut errors);
        }
        errors
    }

    /// The objects within an object, with their paths.
    pub fn embedded<'o>(&self, object: &'o Value) -> Vec<(String, &'o Value)> {
        let mut found = Vec::new();
        embedded::collect(object, &self.schema, "", &mut found);
        found
    }

    /// Sentences name what is wrong by its path below the status, as if that were all.
    fn validate_status(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let Some(status) = object.as_object().and_then(|members| members.get("status")) else {
            return Vec::new();
        };
        let schema = self.schema.at(&["properties", "status"]);
        let mut errors = validate::validate(status, old.map(|o| o.get("status")), schema, &self.patterns);
        for error in &mut errors {
            error.field = match error.field.as_str() {
                "" | "<nil>" => "status".to_owned(),
                below => format!("status.{below}"),
            };
        }
        errors
    }
}

#[cfg(test)]
mod tests;
