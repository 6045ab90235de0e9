//! What becomes of requests that fail.

use api::ApiError;
use http::StatusCode;

/// The result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server said no.
    #[error(transparent)]
    Api(ApiError),
    /// The server could not be reached, or the connection broke.
    #[error("cannot reach the API server at {server}: {cause}")]
    Transport {
        /// The server's URL.
        server: String,
        /// What went wrong at the bottom of it.
        cause: String,
    },
    /// No answer in time.
    #[error("no answer from the API server within {0} s")]
    Timeout(u64),
    /// The answer is not what the API promises.
    #[error("malformed answer of the API server")]
    Malformed(#[source] serde_json::Error),
    /// The configuration of the connection is unusable.
    #[error("unusable client configuration: {0}")]
    Config(String),
}

impl Error {
    /// A failure of the connection, told by the last of its causes.
    pub(crate) fn transport(server: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let last = std::iter::successors(Some(error), |e| e.source()).last().unwrap_or(error);
        Error::Transport { server: server.to_owned(), cause: last.to_string() }
    }

    /// The server's answer, if there was one.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Error::Api(e) => Some(e),
            _ => None,
        }
    }

    fn reason_is(&self, reason: &str) -> bool {
        self.api().is_some_and(|e| e.reason() == reason)
    }

    /// The object is not there.
    pub fn is_not_found(&self) -> bool {
        self.api().is_some_and(|e| e.code() == StatusCode::NOT_FOUND)
    }

    /// The object was changed since it was read.
    pub fn is_conflict(&self) -> bool {
        self.reason_is("Conflict")
    }

    /// An object of that name is there already.
    pub fn is_already_exists(&self) -> bool {
        self.reason_is("AlreadyExists")
    }

    /// The history the request relies on is gone: list again.
    pub fn is_expired(&self) -> bool {
        self.api().is_some_and(|e| e.code() == StatusCode::GONE)
    }

    /// The object is invalid: trying again will not help.
    pub fn is_invalid(&self) -> bool {
        self.reason_is("Invalid")
    }

    /// The caller may not do this.
    pub fn is_forbidden(&self) -> bool {
        self.api().is_some_and(|e| e.code() == StatusCode::FORBIDDEN)
    }

    /// A create was refused because the namespace is going away.
    pub fn is_namespace_terminating(&self) -> bool {
        self.is_forbidden()
            && self
                .api()
                .is_some_and(|e| e.status().details.causes.iter().any(|c| c.reason == "NamespaceTerminating"))
    }

    /// Why the server refused, in its own words, or this error's text.
    pub fn message(&self) -> String {
        self.api().map_or_else(|| self.to_string(), ToString::to_string)
    }
}

/// `Ok` for an object that is not there.
pub(crate) fn optional<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(v) => Ok(Some(v)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}
