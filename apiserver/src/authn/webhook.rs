//! Tokens that another server knows: webhook token authentication.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication>.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use api::{Value, object};
use bytes::Bytes;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};

use super::UserInfo;
use crate::kubeconfig::{Remote, RemoteError};

const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a review is asked for, and the pause after the first failure.
const ATTEMPTS: u32 = 5;
const BACKOFF: Duration = Duration::from_millis(500);
/// So many answers are kept.
const ANSWERS: usize = 4096;

/// Who a token stands for, and for which audiences.
#[derive(Clone, Debug)]
pub struct Reviewed {
    /// The user.
    pub user: UserInfo,
    /// Those of the audiences asked for that the token is good for.
    pub audiences: Vec<String>,
}

type Answer = Result<Option<Reviewed>, String>;

/// Asks another server about tokens.
pub struct Reviewer {
    remote: Remote,
    version: &'static str,
    ttl: Duration,
    answers: Mutex<HashMap<Vec<u8>, (Answer, Instant)>>,
}

impl Reviewer {
    /// Asks `remote` by reviews of `version`, `v1` or `v1beta1`, and keeps answers for `ttl`.
    pub fn new(remote: Remote, version: &'static str, ttl: Duration) -> Self {
        Self { remote, version, ttl, answers: Mutex::default() }
    }

    /// Who a token stands for; none when the server knows it not.
    ///
    /// # Errors
    /// The server cannot be asked, or says that the token is wrong.
    pub async fn authenticate(&self, token: &str, audiences: &[String]) -> Answer {
        let key = digest(&SHA256, format!("{token}\0{}", audiences.join("\0")).as_bytes()).as_ref().to_vec();
        if let Some((answer, at)) = self.answers.lock().get(&key)
            && at.elapsed() < self.ttl
        {
            return answer.clone();
        }
        let mut review = object!({
            "kind": "TokenReview",
            "apiVersion": (format!("authentication.k8s.io/{}", self.version)),
            "metadata": {},
            "spec": {"token": token},
            "status": {"user": {}},
        });
        if !audiences.is_empty() {
            review.set(&["spec", "audiences"], audiences.to_vec());
        }
        let status = self.ask(&Bytes::from(review.to_json())).await?;
        let answer = read(&status, audiences);
        if !self.ttl.is_zero() {
            self.keep(key, answer.clone());
        }
        answer
    }

    fn keep(&self, key: Vec<u8>, answer: Answer) {
        let mut answers = self.answers.lock();
        if answers.len() >= ANSWERS {
            answers.retain(|_, (_, at)| at.elapsed() < self.ttl);
        }
        if answers.len() < ANSWERS {
            answers.insert(key, (answer, Instant::now()));
        }
    }

    async fn ask(&self, review: &Bytes) -> Result<Value, String> {
        let mut pause = BACKOFF;
        for attempt in 1.. {
            match self.remote.post(review.clone(), TIMEOUT).await {
                Ok(answer) => {
                    let answer =
                        api::json::decode(&answer).map_err(|e| format!("the answer is no JSON: {e}"))?.value;
                    return Ok(answer.get("status").clone());
                }
                Err(e) if attempt >= ATTEMPTS || !passes(&e) => return Err(e.to_string()),
                Err(e) => tracing::warn!(error = %e, attempt, "a token could not be reviewed, trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(1.5);
        }
        unreachable!("the loop ends by returning")
    }
}

/// True for failures that may pass by themselves.
fn passes(error: &RemoteError) -> bool {
    match error {
        RemoteError::Connection { .. } | RemoteError::Timeout(_) => true,
        RemoteError::Status(status) => status.is_server_error() || status.as_u16() == 429,
    }
}

fn read(status: &Value, asked: &[String]) -> Answer {
    let list = |v: &Value| -> Vec<String> {
        v.as_array().into_iter().flatten().filter_map(|i| i.as_str().map(str::to_owned)).collect()
    };
    if status.get("authenticated").as_bool() != Some(true) {
        return match status.str_at(&["error"]) {
            "" => Ok(None),
            why => Err(why.to_owned()),
        };
    }
    // A server that says nothing of audiences does not know them.
    let said = list(status.get("audiences"));
    let audiences: Vec<String> = match (asked.is_empty(), said.is_empty()) {
        (false, false) => said.into_iter().filter(|a| asked.contains(a)).collect(),
        _ => asked.to_vec(),
    };
    if !asked.is_empty() && audiences.is_empty() {
        return Ok(None);
    }
    let user = status.get("user");
    let extra = user.get("extra").as_object().into_iter().flat_map(api::Map::iter);
    let user = UserInfo {
        name: user.str_at(&["username"]).to_owned(),
        uid: user.str_at(&["uid"]).to_owned(),
        groups: list(user.get("groups")),
        extra: extra.map(|(k, v)| (k.to_owned(), list(v))).collect(),
    };
    Ok(Some(Reviewed { user, audiences }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_upstream_reads_them() {
        let check = |status: Value, asked: &[&str], want: &str| {
            let asked: Vec<String> = asked.iter().map(|a| (*a).to_owned()).collect();
            let got = match read(&status, &asked) {
                Ok(None) => "unknown".to_owned(),
                Ok(Some(r)) => format!("{} {}", r.user.name, r.audiences.join(",")),
                Err(why) => why,
            };
            assert_eq!(got, want, "{status}");
        };
        let ann = || object!({"authenticated": true, "user": {"username": "ann"}});
        check(ann(), &[], "ann ");
        check(ann(), &["a"], "ann a");
        let mut for_b = ann();
        for_b.set(&["audiences"], vec!["b"]);
        check(for_b.clone(), &["a", "b"], "ann b");
        check(for_b, &["a"], "unknown");
        check(object!({"authenticated": false}), &[], "unknown");
        check(object!({"error": "no"}), &[], "no");
    }
}
