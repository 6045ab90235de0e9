//! The flags of an OpenID Connect issuer.

use daemon::KeyValues;

use crate::authn::Oidc;

/// An issuer of tokens, and what its claims stand for.
#[derive(Clone, Debug, clap::Args)]
pub struct OidcFlags {
    /// Bundle of authorities that vouch for the issuer; those of the machine when none is given.
    #[arg(long, default_value = "")]
    pub oidc_ca_file: String,
    /// The audience that tokens must have.
    #[arg(long, default_value = "")]
    pub oidc_client_id: String,
    /// Claim with the groups.
    #[arg(long, default_value = "")]
    pub oidc_groups_claim: String,
    /// What goes before each group.
    #[arg(long, default_value = "")]
    pub oidc_groups_prefix: String,
    /// URL of the issuer.
    #[arg(long, default_value = "")]
    pub oidc_issuer_url: String,
    /// Claims and the values that they must have.
    #[arg(long)]
    pub oidc_required_claim: Vec<KeyValues>,
    /// Algorithms of signatures that are accepted.
    #[arg(long, value_delimiter = ',', default_value = "RS256")]
    pub oidc_signing_algs: Vec<String>,
    /// Claim with the name.
    #[arg(long, default_value = "sub")]
    pub oidc_username_claim: String,
    /// What goes before the name; - is nothing, and nothing is the URL of the issuer, unless the name is an email address.
    #[arg(long, default_value = "")]
    pub oidc_username_prefix: String,
}

impl OidcFlags {
    /// What the flags say.
    pub fn settings(&self) -> Oidc {
        let list = |items: &[String]| -> Vec<String> {
            items.iter().map(|i| i.trim_matches(['[', ']']).to_owned()).filter(|i| !i.is_empty()).collect()
        };
        Oidc {
            issuer_url: self.oidc_issuer_url.clone(),
            client_id: self.oidc_client_id.clone(),
            ca_file: self.oidc_ca_file.clone(),
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            signing_algs: list(&self.oidc_signing_algs),
            required_claims: self.oidc_required_claim.iter().flat_map(|kv| kv.0.clone()).collect(),
        }
    }

    /// True when one of them has another value than by default.
    pub fn is_given(&self) -> bool {
        let texts = [
            &self.oidc_ca_file,
            &self.oidc_client_id,
            &self.oidc_groups_claim,
            &self.oidc_groups_prefix,
            &self.oidc_issuer_url,
            &self.oidc_username_prefix,
        ];
        texts.iter().any(|t| !t.is_empty())
            || self.oidc_username_claim != "sub"
            || self.oidc_required_claim.iter().any(|kv| !kv.0.is_empty())
            || !matches!(self.oidc_signing_algs.as_slice(), [one] if one.trim_matches(['[', ']']) == "RS256")
    }
}
