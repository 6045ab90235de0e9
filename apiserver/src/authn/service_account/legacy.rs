//! Tokens that stand in Secrets of type `kubernetes.io/service-account-token`: they have no end, and hold as long as the
//! Secret has them and the account exists.

use api::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::usage::{Examined, Holder, Use};
use super::{TokenError, find};
use crate::authn::UserInfo;
use crate::storage::Storage;

/// Who signs such tokens.
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";

fn refuse(why: impl Into<String>) -> TokenError {
    TokenError::Refused(why.into())
}

/// What a token says.
struct Claims<'c> {
    namespace: &'c str,
    secret: &'c str,
    name: &'c str,
    uid: &'c str,
}

fn read(claims: &Value) -> Result<Claims<'_>, TokenError> {
    let claim = |name: &str, told: &str| {
        let text = claims.get(&format!("kubernetes.io/serviceaccount/{name}")).as_str().unwrap_or_default();
        if text.is_empty() { Err(refuse(format!("{told} claim is missing"))) } else { Ok(text) }
    };
    let subject = claims.str_at(&["sub"]);
    if subject.is_empty() {
        return Err(refuse("sub claim is missing"));
    }
    let read = Claims {
        namespace: claim("namespace", "namespace")?,
        secret: claim("secret.name", "secretName")?,
        name: claim("service-account.name", "serviceAccountName")?,
        uid: claim("service-account.uid", "serviceAccountUID")?,
    };
    let want = format!("system:serviceaccount:{}:{}", read.namespace, read.name);
    if subject == want { Ok(read) } else { Err(refuse("sub claim is invalid")) }
}

/// The account that `token` with the verified `claims` stands for.
pub(super) async fn user(
    storage: &Storage,
    token: &str,
    claims: &Value,
) -> Examined<Result<UserInfo, TokenError>> {
    let (found, holder) = match held(storage, token, claims).await {
        Ok((user, holder, None)) => (Ok(user), Some(holder)),
        Ok((_, holder, Some(refusal))) => (Err(refuse(refusal)), Some(holder)),
        Err(e) => (Err(e), None),
    };
    let subject = claims.str_at(&["sub"]).to_owned();
    Examined { found, used: Some(Use::Legacy { subject, holder }) }
}

/// The account, the Secret that has the token, and why it is not accepted from there, if it is not.
async fn held(
    storage: &Storage,
    token: &str,
    claims: &Value,
) -> Result<(UserInfo, Holder, Option<String>), TokenError> {
    let Claims { namespace, secret, name, uid } = read(claims)?;
    let held = find(storage, "secrets", &format!("{namespace}/{secret}"), |o| !o.is_terminating()).await;
    let held = held.ok_or_else(|| refuse("Token has been invalidated"))?;
    let text = STANDARD.decode(held.str_at(&["data", "token"])).unwrap_or_default();
    if ring::digest::digest(&ring::digest::SHA256, &text).as_ref()
        != ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref()
    {
        return Err(refuse("Token does not match server's copy"));
    }
    let account = find(storage, "serviceaccounts", &format!("{namespace}/{name}"), |o| o.uid() == uid).await;
    let account = account.ok_or_else(|| refuse(format!("serviceaccounts {name:?} not found")))?;
    if account.is_terminating() {
        return Err(refuse(format!("ServiceAccount {namespace}/{name} has been deleted")));
    }
    if account.uid() != uid {
        let why = format!("ServiceAccount UID ({}) does not match claim ({uid})", account.uid());
        return Err(refuse(why));
    }
    let holder = Holder::of(&held, &account);
    let refusal = holder.refusal(name);
    Ok((super::user_of(namespace, name, uid, Vec::new()), holder, refusal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn all_claims_are_needed_and_agree() {
        let mut claims = object!({
            "iss": ISSUER,
            "sub": "system:serviceaccount:n:a",
            "kubernetes.io/serviceaccount/namespace": "n",
            "kubernetes.io/serviceaccount/secret.name": "s",
            "kubernetes.io/serviceaccount/service-account.name": "a",
            "kubernetes.io/serviceaccount/service-account.uid": "u",
        });
        assert!(read(&claims).is_ok());
        claims.set(&["sub"], "system:serviceaccount:n:b");
        assert_eq!(read(&claims).err(), Some(refuse("sub claim is invalid")));
        claims.make_object().remove("kubernetes.io/serviceaccount/secret.name");
        assert_eq!(read(&claims).err(), Some(refuse("secretName claim is missing")));
    }
}
