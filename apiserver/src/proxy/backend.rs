//! What a kubelet says of a failure, as clients are told of it.

use api::ApiError;
use api::field::go_quote;
use http::StatusCode;

/// The error for an answer of a kubelet about a subresource of a pod.
pub(super) fn refusal(code: StatusCode, body: &str, subresource: &str, pod: &str) -> ApiError {
    let resource = format!("pods/{subresource}");
    let (reason, told) = match code.as_u16() {
        400 => return ApiError::bad_request(body),
        500 => return ApiError::internal(body),
        401 => ("Unauthorized", "the server has asked for the client to provide credentials".to_owned()),
        403 => ("Forbidden", body.to_owned()),
        404 => ("NotFound", "the server could not find the requested resource".to_owned()),
        405 => {
            ("MethodNotAllowed", "the server does not allow this method on the requested resource".to_owned())
        }
        409 => ("Conflict", "the server reported a conflict".to_owned()),
        429 => (
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later".to_owned(),
        ),
        503 => (
            "ServiceUnavailable",
            "the server is currently unable to handle the request".to_owned(),
        ),
        504 => (
            "Timeout",
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .to_owned(),
        ),
        501.. => (
            "InternalError",
            format!("an error on the server ({}) has prevented the request from succeeding", go_quote(body)),
        ),
        other => (
            "",
            format!("the server responded with the status code {other} but did not return more information"),
        ),
    };
    let mut error = ApiError::new(code, reason, format!("{told} ( {resource} {pod})"));
    let details = &mut error.status_mut().details;
    (details.kind, details.name) = (resource, pod.to_owned());
    error
}

/// What the answer to an upgrade that was refused says.
pub(super) fn said(body: &[u8]) -> String {
    let status = api::json::decode(body).map(|d| d.value).unwrap_or_default();
    let told = ["message", "error"].map(|member| status.str_at(&[member]).trim().to_owned());
    let text = String::from_utf8_lossy(body).trim().to_owned();
    let mut all = told.into_iter().chain([text]).filter(|t| !t.is_empty());
    all.next().unwrap_or_else(|| "empty server response".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_upgrades_tell_what_the_answer_says() {
        assert_eq!(said(br#"{"kind":"Status","message":" no "}"#), "no");
        assert_eq!(said(b"plainly no\n"), "plainly no");
        assert_eq!(said(b""), "empty server response");
    }

    #[test]
    fn failures_of_kubelets_are_told_with_what_was_asked() {
        let check = |code: u16, reason: &str, message: &str| {
            let error = refusal(StatusCode::from_u16(code).unwrap(), "no\n", "log", "p");
            assert_eq!((error.code().as_u16(), error.reason()), (code, reason));
            assert_eq!(error.status().message, message);
        };
        check(400, "BadRequest", "no\n");
        check(404, "NotFound", "the server could not find the requested resource ( pods/log p)");
        check(500, "InternalError", "Internal error occurred: no\n");
        check(
            502,
            "InternalError",
            "an error on the server (\"no\\n\") has prevented the request from succeeding ( pods/log p)",
        );
        check(403, "Forbidden", "no\n ( pods/log p)");
    }
}
