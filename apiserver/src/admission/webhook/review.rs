//! Answers to reviews of requests.

use api::field::go_quote;
use api::{ApiError, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;

/// What a webhook answers.
pub(super) struct Answer {
    pub allowed: bool,
    /// Why not: a `Status`.
    pub result: Value,
    pub patch: Vec<u8>,
    pub patch_type: String,
    pub warnings: Vec<String>,
    /// For the audit log.
    pub annotations: Vec<(String, String)>,
}

/// Reads the answer to the review `uid` of a version.
///
/// # Errors
/// What is wrong with it, in the words of upstream.
pub(super) fn read(answer: &Value, uid: &str, version: &str, mutates: bool) -> Result<Answer, String> {
    let response = answer.get("response");
    if response.is_null() {
        return Err("webhook response was absent".to_owned());
    }
    let patch = response.str_at(&["patch"]);
    let patch = STANDARD.decode(patch).map_err(|e| format!("response.patch is no base64: {e}"))?;
    let mut patch_type = response.get("patchType").as_str();
    if version == "v1" {
        let got = response.str_at(&["uid"]);
        if got != uid {
            return Err(format!("expected response.uid={}, got {}", go_quote(uid), go_quote(got)));
        }
        let (api_version, kind) = (answer.api_version(), answer.kind());
        if (api_version, kind) != ("admission.k8s.io/v1", "AdmissionReview") {
            return Err(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {api_version}, Kind={kind}"
            ));
        }
        match (mutates, patch.is_empty(), patch_type) {
            (false, false, _) => return Err("validating webhook may not return response.patch".to_owned()),
            (false, _, Some(_)) => {
                return Err("validating webhook may not return response.patchType".to_owned());
            }
            (true, false, None) => {
                return Err("webhook returned response.patch but not response.patchType".to_owned());
            }
            (true, true, Some(_)) => {
                return Err("webhook returned response.patchType but not response.patch".to_owned());
            }
            (true, _, Some("")) => {
                return Err("webhook returned invalid response.patchType of \"\"".to_owned());
            }
            _ => {}
        }
    } else if !patch.is_empty() {
        patch_type = Some("JSONPatch");
    }
    let warnings = response.array_at(&["warnings"]).iter();
    let annotations = response.get("auditAnnotations").as_object().into_iter().flat_map(api::Map::iter);
    Ok(Answer {
        allowed: response.get("allowed").as_bool() == Some(true),
        result: response.get("status").clone(),
        patch: if mutates { patch } else { Vec::new() },
        patch_type: patch_type.unwrap_or_default().to_owned(),
        annotations: annotations
            .map(|(k, v)| (k.to_owned(), v.as_str().unwrap_or_default().to_owned()))
            .collect(),
        warnings: warnings.filter_map(|w| w.as_str().map(str::to_owned)).collect(),
    })
}

/// The operations of a JSON patch.
///
/// # Errors
/// Why it is none.
pub(super) fn operations(patch: &[u8]) -> Result<Value, String> {
    let of = |v: &Value, what: &str| {
        format!("json: cannot unmarshal {} into Go value of type jsonpatch.{what}", v.kind_name())
    };
    match api::json::decode(patch).map_err(|e| e.to_string())?.value {
        Value::Null => Ok(Value::Array(Vec::new())),
        Value::Array(list) => match list.iter().find(|op| !matches!(op, Value::Object(_) | Value::Null)) {
            Some(other) => Err(of(other, "Operation")),
            None => Ok(Value::Array(list)),
        },
        other => Err(of(&other, "Patch")),
    }
}

/// The refusal of a webhook, in its own words as far as it has any.
pub(super) fn refusal(name: &str, result: &Value) -> ApiError {
    let code = result.get("code").as_i64().and_then(|c| u16::try_from(c).ok());
    let code = code.and_then(|c| StatusCode::from_u16(c).ok()).filter(|c| c.as_u16() >= 400);
    let mut error = ApiError::from_value(code.unwrap_or(StatusCode::BAD_REQUEST), result);
    let said = [result.str_at(&["message"]), result.str_at(&["reason"])].into_iter().find(|t| !t.is_empty());
    let denied = format!("admission webhook {} denied the request", go_quote(name));
    error.status_mut().message = match said {
        Some(said) => format!("{denied}: {said}"),
        None => format!("{denied} without explanation"),
    };
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn answers_are_for_the_question_and_complete() {
        let check = |response: Value, mutates: bool, want: &str| {
            let answer = object!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
            let got = read(&answer, "u", "v1", mutates).map(|a| a.allowed.to_string());
            assert_eq!(got.unwrap_or_else(|e| e), want);
        };
        check(object!({"uid": "u", "allowed": true}), false, "true");
        check(object!({"uid": "u"}), true, "false");
        check(object!({"uid": "x"}), true, "expected response.uid=\"u\", got \"x\"");
        check(
            object!({"uid": "u", "patch": "W10="}),
            false,
            "validating webhook may not return response.patch",
        );
        let half = "webhook returned response.patch but not response.patchType";
        check(object!({"uid": "u", "patch": "W10="}), true, half);
        assert_eq!(read(&Value::Null, "u", "v1", true).err().as_deref(), Some("webhook response was absent"));
    }

    #[test]
    fn refusals_are_told_as_they_are() {
        let check = |result: Value, want: (u16, &str)| {
            let error = refusal("w.x.y", &result);
            assert_eq!((error.status().code, error.status().message.as_str()), want);
        };
        check(Value::Null, (400, "admission webhook \"w.x.y\" denied the request without explanation"));
        let why = object!({"code": 403, "message": "no"});
        check(why, (403, "admission webhook \"w.x.y\" denied the request: no"));
        check(
            object!({"code": 200, "reason": "R"}),
            (400, "admission webhook \"w.x.y\" denied the request: R"),
        );
    }
}
