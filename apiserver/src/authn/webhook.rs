//! Tokens that another server knows: webhook token authentication.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication>.

use std::time::Duration;

use api::{Value, object};
use ring::digest::{SHA256, digest};

use super::UserInfo;
use crate::kubeconfig::{Answers, Remote};

const TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after the first failure.
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
    answers: Answers<Answer>,
}

impl Reviewer {
    /// Asks `remote` by reviews of `version`, `v1` or `v1beta1`, and keeps answers for `ttl`.
    pub fn new(remote: Remote, version: &'static str, ttl: Duration) -> Self {
        Self { remote, version, ttl, answers: Answers::new(ANSWERS) }
    }

    /// Who a token stands for; none when the server knows it not.
    ///
    /// # Errors
    /// The server cannot be asked, or says that the token is wrong.
    pub async fn authenticate(&self, token: &str, audiences: &[String]) -> Answer {
        let key = digest(&SHA256, format!("{token}\0{}", audiences.join("\0")).as_bytes()).as_ref().to_vec();
        if let Some(answer) = self.answers.get(&key) {
            return answer;
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
        let status = self.remote.review(&review, TIMEOUT, BACKOFF).await?;
        let answer = read(&status, audiences);
        self.answers.keep(key, answer.clone(), self.ttl);
        answer
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
