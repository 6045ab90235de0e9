//! One issuer: from a token of its own to a user.

use super::claims::Mapping;
use super::distributed::Distributed;
use super::provider::Provider;
use crate::authn::UserInfo;

/// An issuer and what its tokens stand for.
pub(super) struct Issuer {
    pub provider: Provider,
    pub mapping: Mapping,
    /// Where the claim of the groups comes from when a token only says who has it; none when groups come of no claim.
    pub groups: Option<Distributed>,
}

impl Issuer {
    /// True when it is the one that a token names.
    pub(super) fn is(&self, named: &str) -> bool {
        self.provider.url == named
    }

    /// The user of a token that names this issuer.
    pub(super) async fn authenticate(&self, token: &str) -> Result<UserInfo, String> {
        if !self.provider.is_known() {
            return Err("oidc: authenticator not initialized".to_owned());
        }
        let verified = self.provider.verify(token).await;
        let mut claims = verified.map_err(|e| format!("oidc: verify token: {e}"))?;
        if let Some(groups) = &self.groups {
            let expanded = groups.expand(&mut claims, &self.provider.terms).await;
            expanded.map_err(|e| format!("oidc: could not expand distributed claims: {e}"))?;
        }
        self.mapping.user(&claims)
    }
}
