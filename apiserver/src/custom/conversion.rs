//! How objects of a custom resource come from one version to another.
//!
//! Source: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/>.

use std::collections::HashMap;
use std::time::Duration;

use api::error::Result;
use api::field::Path;
use api::{ApiError, Value, names, object};
use schema::decode::Mode;

use super::{CustomKind, Version};
use crate::kinds::validate_labels_and_annotations;
use crate::storage::Storage;
use crate::webhook::Webhook;

/// How long a webhook may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Answers to reviews of whole lists are large.
const ANSWER_LIMIT: usize = 256 << 20;

/// The strategy of a conversion.
pub enum Conversion {
    /// Versions differ in nothing but their names.
    None,
    /// Somebody else knows how.
    Webhook {
        /// Whom to ask.
        hook: Box<Webhook>,
        /// Version of the reviews: `v1` or `v1beta1`.
        review: &'static str,
    },
}

impl Conversion {
    /// Reads `spec.conversion` of a definition.
    pub fn new(spec: &Value) -> Self {
        if spec.str_at(&["strategy"]) != "Webhook" {
            return Self::None;
        }
        // The first version that both sides understand.
        let accepted = spec.array_at(&["webhook", "conversionReviewVersions"]);
        let review = accepted.iter().find_map(|v| match v.as_str() {
            Some("v1") => Some("v1"),
            Some("v1beta1") => Some("v1beta1"),
            _ => None,
        });
        let hook = Box::new(Webhook::new(spec.at(&["webhook", "clientConfig"]), ANSWER_LIMIT));
        Self::Webhook { hook, review: review.unwrap_or("v1") }
    }
}

impl CustomKind {
    /// Objects of this kind, of any version, in the version `to`.
    ///
    /// # Errors
    /// When a webhook does not answer, or wrongly.
    pub async fn convert(&self, storage: &Storage, objects: Vec<Value>, to: &Version) -> Result<Vec<Value>> {
        let Conversion::Webhook { hook, review } = &self.conversion else {
            return Ok(objects.into_iter().map(|o| self.rename(o, to)).collect());
        };
        let foreign: Vec<Value> =
            objects.iter().filter(|o| o.api_version() != to.api_version).cloned().collect();
        let Some(first) = foreign.first() else { return Ok(objects) };
        let version = first.api_version().rsplit('/').next().unwrap_or_default();
        let subject = format!("conversion webhook for {}/{version}, Kind={}", self.group, self.kind);
        let fail = |why: String| ApiError::internal(format!("{subject} failed: {why}"));
        let uid = names::new_uid();
        let question = object!({
            "kind": "ConversionReview", "apiVersion": (format!("apiextensions.k8s.io/{review}")),
            "request": {"uid": (uid.as_str()), "desiredAPIVersion": (to.api_version.as_str()), "objects": (foreign.clone())},
        });
        let answer = hook.call(storage, &question, TIMEOUT).await.map_err(|e| fail(e.to_string()))?;
        let converted = read_answer(&answer, &uid, review).map_err(fail)?;
        if converted.len() != foreign.len() {
            let (got, want) = (converted.len(), foreign.len());
            return Err(ApiError::internal(format!("{subject} returned {got} objects, expected {want}")));
        }
        let mut done = Vec::with_capacity(foreign.len());
        for (i, (before, after)) in foreign.iter().zip(converted).enumerate() {
            let wrong = |why: String| {
                ApiError::internal(format!("{subject} returned invalid converted object at index {i}: {why}"))
            };
            check(before, after, &to.api_version).map_err(wrong)?;
            let whole = restore_metadata(before, after).map_err(wrong)?;
            done.push(to.ty.decode(whole, Mode::Ignore).map(|(o, _)| o).map_err(|e| wrong(e.to_string()))?);
        }
        let mut done = done.into_iter();
        let swap = |o: Value| if o.api_version() == to.api_version { o } else { done.next().unwrap_or(o) };
        Ok(objects.into_iter().map(swap).collect())
    }

    /// The object in another version that differs in nothing but its name.
    pub fn rename(&self, mut object: Value, to: &Version) -> Value {
        if object.api_version() == to.api_version {
            return object;
        }
        object.set(&["apiVersion"], to.api_version.as_str());
        schema::decode::normalize(object.clone(), to.ty.ty(), Mode::Ignore).map_or(object, |(o, _)| o)
    }
}

/// The converted objects of a review, or why there are none.
fn read_answer<'v>(answer: &'v Value, uid: &str, review: &str) -> std::result::Result<&'v [Value], String> {
    let want = format!("apiextensions.k8s.io/{review}");
    let response = answer.get("response");
    if review == "v1" && (answer.api_version() != want || answer.kind() != "ConversionReview") {
        let (got, kind) = (answer.api_version(), answer.kind());
        return Err(format!(
            "expected webhook response of {want}, Kind=ConversionReview, got {got}, Kind={kind}"
        ));
    }
    if response.is_null() {
        return Err("no response provided".to_owned());
    }
    let quote = api::field::go_quote;
    if review == "v1" && response.str_at(&["uid"]) != uid {
        return Err(format!(
            "expected response.uid={}, got {}",
            quote(uid),
            quote(response.str_at(&["uid"]))
        ));
    }
    match (response.str_at(&["result", "status"]), response.str_at(&["result", "message"])) {
        ("Success", _) => Ok(response.array_at(&["convertedObjects"])),
        (status, "") => Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => Err(message.to_owned()),
    }
}

/// A conversion changes neither what an object is nor which one.
fn check(before: &Value, after: &Value, api_version: &str) -> std::result::Result<(), String> {
    if after.api_version() != api_version {
        return Err(format!(
            "invalid groupVersion (expected {api_version}, received {})",
            after.api_version()
        ));
    }
    if after.kind() != before.kind() {
        return Err(format!("invalid kind (expected {}, received {})", before.kind(), after.kind()));
    }
    for (what, before, after) in [
        ("name", before.name(), after.name()),
        ("namespace", before.namespace(), after.namespace()),
        ("UID", before.uid(), after.uid()),
    ] {
        if before != after {
            return Err(format!("must have the same {what}: {before} != {after}"));
        }
    }
    Ok(())
}

/// The converted object with the metadata of the original, but for labels and annotations.
fn restore_metadata(before: &Value, after: &Value) -> std::result::Result<Value, String> {
    let (mut whole, given) = (after.clone(), after.get("metadata"));
    let mut metadata = before.get("metadata").clone();
    let members: HashMap<&str, &Value> =
        ["labels", "annotations"].into_iter().map(|field| (field, given.get(field))).collect();
    for (field, value) in &members {
        match value {
            Value::Null => {
                metadata.remove_at(&[field]);
            }
            Value::Object(map) => {
                if let Some((key, _)) = map.iter().find(|(_, v)| v.as_str().is_none()) {
                    return Err(format!("metadata.{field}[{key}] must be a string"));
                }
                metadata.set(&[field], *value);
            }
            other => return Err(format!("invalid metadata.{field} of type {}", other.kind_name())),
        }
    }
    let mut errors = Vec::new();
    validate_labels_and_annotations(&Path::new("metadata"), &metadata, &mut errors);
    if let Some(error) = errors.first() {
        return Err(error.to_string());
    }
    whole.set(&["metadata"], metadata);
    Ok(whole)
}

/// True for PEM of at least one certificate, as `caBundle` has it: in base64.
pub(super) fn is_bundle(bundle: &Value) -> bool {
    use base64::Engine;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    let text = bundle.as_str().unwrap_or_default();
    let Ok(pem) = base64::engine::general_purpose::STANDARD.decode(text) else { return false };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect();
    !certificates.is_empty()
        && certificates
            .iter()
            .all(|c| c.as_ref().is_ok_and(|c| x509_parser::parse_x509_certificate(c.as_ref()).is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Value {
        api::json::decode(json.as_bytes()).unwrap().value
    }

    #[test]
    fn answers_are_for_the_question_that_was_asked() {
        let answer = |uid: &str, result: &str| {
            value(&format!(
                r#"{{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","response":{{"uid":"{uid}","result":{result},"convertedObjects":[{{}}]}}}}"#
            ))
        };
        let good = r#"{"status":"Success"}"#;
        assert_eq!(read_answer(&answer("u", good), "u", "v1").unwrap().len(), 1);
        assert_eq!(
            read_answer(&answer("x", good), "u", "v1").unwrap_err(),
            r#"expected response.uid="u", got "x""#
        );
        let bad = r#"{"status":"Failed","message":"no way"}"#;
        assert_eq!(read_answer(&answer("u", bad), "u", "v1").unwrap_err(), "no way");
        assert_eq!(read_answer(&value("{}"), "u", "v1beta1").unwrap_err(), "no response provided");
    }

    #[test]
    fn a_conversion_changes_labels_and_annotations_of_the_metadata_alone() {
        let before = value(
            r#"{"apiVersion":"g/v1","kind":"K","metadata":{"name":"a","uid":"u","generation":2,"labels":{"a":"b"}}}"#,
        );
        let after = value(
            r#"{"apiVersion":"g/v2","kind":"K","metadata":{"name":"a","uid":"u","generation":9,"annotations":{"c":"d"}},"spec":1}"#,
        );
        check(&before, &after, "g/v2").unwrap();
        let whole = restore_metadata(&before, &after).unwrap();
        let want = r#"{"name":"a","uid":"u","generation":2,"annotations":{"c":"d"}}"#;
        assert_eq!(whole.get("metadata"), &value(want));
        assert_eq!(
            check(&before, &before, "g/v2").unwrap_err(),
            "invalid groupVersion (expected g/v2, received g/v1)"
        );
        let other = value(r#"{"apiVersion":"g/v2","kind":"K","metadata":{"name":"b","uid":"u"}}"#);
        assert_eq!(check(&before, &other, "g/v2").unwrap_err(), "must have the same name: a != b");
        let wrong = value(r#"{"apiVersion":"g/v2","kind":"K","metadata":{"name":"a","labels":{"a":1}}}"#);
        assert_eq!(restore_metadata(&before, &wrong).unwrap_err(), "metadata.labels[a] must be a string");
    }
}
