//! The file that names issuers: `AuthenticationConfiguration` of `apiserver.config.k8s.io`; and the older flags.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use api::field::{FieldError, Path};
use cel::Type;
use cel::access::{About, Expression};
use serde::Deserialize;
use serve::outbound::{self, Route};

use super::claims::{Mapping, Part, Rule};
use super::distributed::Distributed;
use super::issuer::Issuer;
use super::keys;
use super::provider::{Provider, Terms};
use crate::egress::{self, Selection};

const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
const MAX_ISSUERS: usize = 64;

/// Who may send requests without credentials, and to which paths.
#[derive(Clone, Debug, Deserialize)]
pub struct Anonymous {
    /// Whether anybody may.
    pub enabled: bool,
    /// Only to these paths, if there are any.
    #[serde(default)]
    pub conditions: Vec<AnonymousPath>,
}

/// A path that requests without credentials may ask for.
#[derive(Clone, Debug, Deserialize)]
pub struct AnonymousPath {
    /// The path.
    pub path: String,
}

/// What flags say of an issuer.
#[derive(Clone, Debug, Default)]
pub struct Oidc {
    /// The issuer.
    pub issuer_url: String,
    /// The audience.
    pub client_id: String,
    /// File of authorities that vouch for the issuer.
    pub ca_file: String,
    /// Claim of the name.
    pub username_claim: String,
    /// What goes before it.
    pub username_prefix: String,
    /// Claim of the groups.
    pub groups_claim: String,
    /// What goes before them.
    pub groups_prefix: String,
    /// Algorithms of signatures.
    pub signing_algs: Vec<String>,
    /// Claims and the values that they must have.
    pub required_claims: Vec<(String, String)>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    jwt: Vec<JwtFile>,
    anonymous: Option<Anonymous>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JwtFile {
    issuer: IssuerFile,
    claim_validation_rules: Vec<ClaimRuleFile>,
    claim_mappings: MappingsFile,
    user_validation_rules: Vec<UserRuleFile>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct IssuerFile {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: String,
    certificate_authority: String,
    audiences: Vec<String>,
    audience_match_policy: String,
    egress_selector_type: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimRuleFile {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MappingsFile {
    username: PartFile,
    groups: PartFile,
    uid: PartFile,
    extra: Vec<ExtraFile>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PartFile {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ExtraFile {
    key: String,
    value_expression: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct UserRuleFile {
    expression: String,
    message: String,
}

type Read = (Vec<Arc<Issuer>>, Option<Anonymous>);

/// Reads a configuration; `own` are the issuers of the server's own tokens.
///
/// # Errors
/// It is no valid configuration, or asks for what is not supported.
pub(super) fn parse(text: &str, own: &[String]) -> Result<Read> {
    let file: File = crate::config_file::parse_strictly(text, &VERSIONS, "AuthenticationConfiguration")?;
    let mut errors = Vec::new();
    let root = Path::new("jwt");
    if file.jwt.len() > MAX_ISSUERS {
        bail!("{}", FieldError::too_many(&root, file.jwt.len(), MAX_ISSUERS));
    }
    let (mut urls, mut discoveries) = (HashSet::new(), HashSet::new());
    for (i, jwt) in file.jwt.iter().enumerate() {
        let path = root.index(i);
        let path = path.child("issuer");
        for (seen, field, url) in [
            (&mut urls, "url", &jwt.issuer.url),
            (&mut discoveries, "discoveryURL", &jwt.issuer.discovery_url),
        ] {
            if !url.is_empty() && !seen.insert(url.clone()) {
                errors.push(FieldError::duplicate(&path.child(field), url.as_str()));
            }
        }
    }
    if let Some(anonymous) = file.anonymous.as_ref().filter(|a| !a.enabled && !a.conditions.is_empty()) {
        let paths: Vec<&str> = anonymous.conditions.iter().map(|c| c.path.as_str()).collect();
        let why = "enabled should be set to true when conditions are defined";
        errors.push(FieldError::invalid(&Path::new("anonymous.conditions"), paths, why));
    }
    let mut list = Vec::new();
    for (i, jwt) in file.jwt.into_iter().enumerate() {
        list.extend(jwt.build(&root.index(i), own, supported(), &mut errors)?);
    }
    refuse(&errors)?;
    Ok((list, file.anonymous))
}

fn supported() -> Vec<String> {
    keys::ALGORITHMS.into_iter().map(str::to_owned).collect()
}

fn refuse(errors: &[FieldError]) -> Result<()> {
    match errors {
        [] => Ok(()),
        [one] => bail!("invalid authentication configuration: {one}"),
        many => {
            let all: Vec<String> = many.iter().map(ToString::to_string).collect();
            bail!("invalid authentication configuration: [{}]", all.join(", "))
        }
    }
}

/// The issuer that flags name, if they name one.
///
/// # Errors
/// They do not fit, or ask for what is not supported.
pub(super) fn of_flags(flags: &Oidc, own: &[String]) -> Result<Option<Arc<Issuer>>> {
    if flags.issuer_url.is_empty() != flags.client_id.is_empty() {
        bail!("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set");
    }
    if flags.issuer_url.is_empty() {
        return Ok(None);
    }
    for algorithm in &flags.signing_algs {
        if !keys::ALGORITHMS.contains(&algorithm.as_str()) {
            bail!("oidc: unsupported signing alg: {algorithm:?}");
        }
    }
    let prefix = match flags.username_prefix.as_str() {
        "" if flags.username_claim != "email" => format!("{}#", flags.issuer_url),
        "-" => String::new(),
        given => given.to_owned(),
    };
    let authorities = match flags.ca_file.as_str() {
        "" => String::new(),
        file => crate::config_file::text(std::path::Path::new(file)).context("--oidc-ca-file")?,
    };
    let part = |claim: &str, prefix: &str| PartFile {
        claim: claim.to_owned(),
        prefix: (!claim.is_empty()).then(|| prefix.to_owned()),
        ..PartFile::default()
    };
    let rule = |(claim, value): &(String, String)| ClaimRuleFile {
        claim: claim.clone(),
        required_value: value.clone(),
        ..ClaimRuleFile::default()
    };
    let file = JwtFile {
        issuer: IssuerFile {
            url: flags.issuer_url.clone(),
            audiences: vec![flags.client_id.clone()],
            certificate_authority: authorities,
            ..IssuerFile::default()
        },
        claim_mappings: MappingsFile {
            username: part(&flags.username_claim, &prefix),
            groups: part(&flags.groups_claim, &flags.groups_prefix),
            ..MappingsFile::default()
        },
        claim_validation_rules: flags.required_claims.iter().map(rule).collect(),
        ..JwtFile::default()
    };
    let mut errors = Vec::new();
    let issuer = file.build(&Path::new("jwt").index(0), own, flags.signing_algs.clone(), &mut errors)?;
    refuse(&errors)?;
    Ok(issuer)
}

impl JwtFile {
    /// The issuer; none when there are errors.
    fn build(
        self,
        path: &Path<'_>,
        own: &[String],
        algorithms: Vec<String>,
        errors: &mut Vec<FieldError>,
    ) -> Result<Option<Arc<Issuer>>> {
        let before = errors.len();
        self.issuer.check(&path.child("issuer"), own, errors);
        let mapping = self.mapping(path, errors);
        if errors.len() > before {
            return Ok(None);
        }
        let ca = match self.issuer.certificate_authority.as_str() {
            "" => outbound::system_authorities(),
            pem => Some(pem.as_bytes().to_vec()),
        };
        let route = self.issuer.route()?;
        let client = outbound::client(&outbound::Options { ca, route, ..Default::default() });
        let client = client.with_context(|| format!("the authorities of the issuer {}", self.issuer.url))?;
        let terms = Terms { audiences: self.issuer.audiences, algorithms, client };
        Ok(Some(Arc::new(Issuer {
            groups: match &mapping.groups {
                Part::Claim(claim, _) => Some(Distributed::new(claim)),
                _ => None,
            },
            provider: Provider::new(self.issuer.url, &self.issuer.discovery_url, terms),
            mapping,
        })))
    }

    fn mapping(&self, path: &Path<'_>, errors: &mut Vec<FieldError>) -> Mapping {
        let (required, claim_rules) = self.claim_rules(&path.child("claimValidationRules"), errors);
        let maps = path.child("claimMappings");
        let username = self.claim_mappings.username.part(&maps.child("username"), (true, true), errors);
        let groups = self.claim_mappings.groups.part(&maps.child("groups"), (false, true), errors);
        let uid = self.claim_mappings.uid.part(&maps.child("uid"), (false, false), errors);
        let extra = self.extra(&maps.child("extra"), errors);
        let verified = claim_rules.iter().map(|r| &r.expression).chain(extra.iter().map(|(_, e, _)| e));
        if let Part::Expression(name, text) = &username
            && name.selects("email")
            && !name.selects("email_verified")
            && !verified.into_iter().any(|e| e.selects("email_verified"))
        {
            let why = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
            errors.push(FieldError::invalid(&maps.child("username").child("expression"), text.as_str(), why));
        }
        let user_rules = self.user_rules(&path.child("userValidationRules"), errors);
        Mapping { username, groups, uid, extra, required, claim_rules, user_rules }
    }

    fn claim_rules(
        &self,
        path: &Path<'_>,
        errors: &mut Vec<FieldError>,
    ) -> (Vec<(String, String)>, Vec<Rule>) {
        let (mut required, mut rules): (Vec<(String, String)>, Vec<Rule>) = (Vec::new(), Vec::new());
        for (i, rule) in self.claim_validation_rules.iter().enumerate() {
            let path = path.index(i);
            match (rule.claim.as_str(), rule.expression.as_str()) {
                ("", "") => errors.push(FieldError::required(&path, "claim or expression is required")),
                (claim, "") => {
                    if !rule.message.is_empty() {
                        let why = "may not be specified when claim is set";
                        errors.push(FieldError::invalid(&path.child("message"), rule.message.as_str(), why));
                    }
                    if required.iter().any(|(c, _)| c == claim) {
                        errors.push(FieldError::duplicate(&path.child("claim"), claim));
                    }
                    required.push((claim.to_owned(), rule.required_value.clone()));
                }
                ("", text) => {
                    if !rule.required_value.is_empty() {
                        let why = "may not be specified when expression is set";
                        let value = rule.required_value.as_str();
                        errors.push(FieldError::invalid(&path.child("requiredValue"), value, why));
                    }
                    let path = path.child("expression");
                    if rules.iter().any(|r| r.text == text) {
                        errors.push(FieldError::duplicate(&path, text));
                        continue;
                    }
                    let message = rule.message.clone();
                    let compiled = compile(About::Claims, text, &[Type::Bool], &path, errors);
                    rules.extend(compiled.map(|expression| Rule {
                        expression,
                        text: text.to_owned(),
                        message,
                    }));
                }
                (claim, _) => {
                    errors.push(FieldError::invalid(&path, claim, "claim and expression can't both be set"));
                }
            }
        }
        (required, rules)
    }

    fn user_rules(&self, path: &Path<'_>, errors: &mut Vec<FieldError>) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        for (i, rule) in self.user_validation_rules.iter().enumerate() {
            let path = path.index(i);
            let (path, text) = (path.child("expression"), rule.expression.as_str());
            if text.is_empty() {
                errors.push(FieldError::required(&path, ""));
            } else if rules.iter().any(|r| r.text == text) {
                errors.push(FieldError::duplicate(&path, text));
            } else if let Some(expression) = compile(About::User, text, &[Type::Bool], &path, errors) {
                rules.push(Rule { expression, text: text.to_owned(), message: rule.message.clone() });
            }
        }
        rules
    }

    fn extra(&self, path: &Path<'_>, errors: &mut Vec<FieldError>) -> Vec<(String, Expression, String)> {
        let mut extra: Vec<(String, Expression, String)> = Vec::new();
        let mut seen = HashSet::new();
        for (i, mapping) in self.claim_mappings.extra.iter().enumerate() {
            let path = path.index(i);
            let (at, key) = (path.child("key"), mapping.key.as_str());
            let (domain, rest) = key.split_once('/').unwrap_or(("", ""));
            let reserved = |d: &str| domain == d || domain.ends_with(&format!(".{d}"));
            if key.is_empty() {
                errors.push(FieldError::required(&at, ""));
            } else if rest.is_empty() || !api::names::dns_subdomain(domain).is_empty() {
                let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
                errors.push(FieldError::invalid(&at, key, why));
            }
            if key.to_lowercase() != key {
                errors.push(FieldError::invalid(&at, key, "must be lowercase"));
            }
            if reserved("kubernetes.io") || reserved("k8s.io") {
                let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
                errors.push(FieldError::invalid(&at, key, why));
            }
            if !seen.insert(key) {
                errors.push(FieldError::duplicate(&at, key));
                continue;
            }
            let (at, text) = (path.child("valueExpression"), mapping.value_expression.as_str());
            if text.is_empty() {
                errors.push(FieldError::required(&at, ""));
            } else if let Some(expression) = compile(About::Claims, text, &[], &at, errors) {
                extra.push((key.to_owned(), expression, text.to_owned()));
            }
        }
        extra
    }
}

fn compile(
    about: About,
    text: &str,
    returns: &[Type],
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) -> Option<Expression> {
    match Expression::compile(about, text, returns) {
        Ok(expression) => Some(expression),
        Err(why) => {
            errors.push(FieldError::invalid(path, text, why));
            None
        }
    }
}

impl PartFile {
    /// Where a part of the user comes from; whether it must be given, and whether it has a prefix.
    fn part(&self, path: &Path<'_>, (needed, prefixed): (bool, bool), errors: &mut Vec<FieldError>) -> Part {
        match (self.claim.as_str(), self.expression.as_str()) {
            ("", "") if needed => errors.push(FieldError::required(path, "claim or expression is required")),
            ("", "") => {}
            (claim, "") => {
                if prefixed && self.prefix.is_none() {
                    let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                    errors.push(FieldError::required(&path.child("prefix"), why));
                }
                return Part::Claim(claim.to_owned(), self.prefix.clone().unwrap_or_default());
            }
            ("", text) => {
                if let Some(prefix) = &self.prefix {
                    let why = "may not be specified when expression is set";
                    errors.push(FieldError::invalid(&path.child("prefix"), prefix.as_str(), why));
                }
                let compiled = compile(About::Claims, text, &[], &path.child("expression"), errors);
                return compiled.map_or(Part::Nothing, |e| Part::Expression(e, text.to_owned()));
            }
            _ => errors.push(FieldError::invalid(path, "", "claim and expression can't both be set")),
        }
        Part::Nothing
    }
}

impl IssuerFile {
    fn check(&self, path: &Path<'_>, own: &[String], errors: &mut Vec<FieldError>) {
        let url = path.child("url");
        if self.url.is_empty() {
            errors.push(FieldError::required(&url, ""));
        } else {
            if own.contains(&self.url) {
                let why = format!("URL must not overlap with disallowed issuers: [{}]", own.join(" "));
                errors.push(FieldError::invalid(&url, self.url.as_str(), why));
            }
            check_url(&self.url, &url, errors);
        }
        if !self.discovery_url.is_empty() {
            let path = path.child("discoveryURL");
            if self.discovery_url.trim_end_matches('/') == self.url.trim_end_matches('/') {
                let why = "discoveryURL must be different from URL";
                errors.push(FieldError::invalid(&path, self.discovery_url.as_str(), why));
            }
            check_url(&self.discovery_url, &path, errors);
        }
        let audiences = path.child("audiences");
        if self.audiences.is_empty() {
            errors.push(FieldError::required(&audiences, format!("at least one {audiences} is required")));
        }
        let mut seen = HashSet::new();
        for (i, audience) in self.audiences.iter().enumerate() {
            if audience.is_empty() {
                errors.push(FieldError::required(&audiences.index(i), ""));
            }
            if !seen.insert(audience) {
                errors.push(FieldError::duplicate(&audiences.index(i), audience.as_str()));
            }
        }
        let policy = self.audience_match_policy.as_str();
        let why = match self.audiences.len() {
            2.. if policy != "MatchAny" => "audienceMatchPolicy must be MatchAny for multiple audiences",
            1 if !matches!(policy, "" | "MatchAny") => {
                "audienceMatchPolicy must be empty or MatchAny for single audience"
            }
            _ => "",
        };
        if !why.is_empty() {
            errors.push(FieldError::invalid(&path.child("audienceMatchPolicy"), policy, why));
        }
        if let Err(kind) = self.selection() {
            let why = "egress selector must be either controlplane or cluster";
            errors.push(FieldError::invalid(&path.child("egressSelectorType"), kind, why));
        }
    }
}

impl IssuerFile {
    /// The way to the issuer that is asked for; what else is asked for is an error.
    fn selection(&self) -> Result<Option<Selection>, &str> {
        match self.egress_selector_type.as_str() {
            "" => Ok(None),
            "cluster" => Ok(Some(Selection::Cluster)),
            "controlplane" => Ok(Some(Selection::ControlPlane)),
            other => Err(other),
        }
    }

    /// The way to the issuer.
    fn route(&self) -> Result<Route> {
        let Ok(Some(selection)) = self.selection() else { return Ok(None) };
        if !egress::is_configured(selection) {
            let kind = &self.egress_selector_type;
            bail!("oidc: egress lookup for {kind:?} is not configured");
        }
        Ok(egress::route(selection))
    }
}

fn check_url(url: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut wrong = |why: &str| errors.push(FieldError::invalid(path, url, why));
    let Ok(parsed) = url.parse::<http::Uri>() else { return wrong("it is no URL") };
    if parsed.scheme_str() != Some("https") {
        wrong("URL scheme must be https");
    }
    if parsed.authority().is_some_and(|a| a.as_str().contains('@')) {
        wrong("URL must not contain a username or password");
    }
    if parsed.query().is_some_and(|q| !q.is_empty()) {
        wrong("URL must not contain a query");
    }
    if url.split_once('#').is_some_and(|(_, fragment)| !fragment.is_empty()) {
        wrong("URL must not contain a fragment");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(jwt: &str, want: &str) {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- {jwt}\n"
        );
        let got =
            parse(&text, &["https://own".to_owned()]).err().map_or_else(String::new, |e| format!("{e:#}"));
        assert!(if want.is_empty() { got.is_empty() } else { got.contains(want) }, "{jwt}: {got}");
    }

    #[test]
    fn configurations_are_checked_as_upstream_checks_them() {
        let issuer = "issuer: {url: 'https://a', audiences: [x]}";
        let name = "claimMappings: {username: {claim: sub, prefix: ''}}";
        check(&format!("{{{issuer}, {name}}}"), "");
        check(
            &format!("{{{issuer}}}"),
            "jwt[0].claimMappings.username: Required value: claim or expression is required",
        );
        check(
            &format!("{{issuer: {{url: 'http://a', audiences: [x]}}, {name}}}"),
            "URL scheme must be https",
        );
        check(
            &format!("{{issuer: {{url: 'https://own', audiences: [x]}}, {name}}}"),
            "URL must not overlap with disallowed issuers: [https://own]",
        );
        check(
            &format!("{{issuer: {{url: 'https://a', audiences: [x, z]}}, {name}}}"),
            "audienceMatchPolicy must be MatchAny for multiple audiences",
        );
        check(
            &format!("{{{issuer}, claimMappings: {{username: {{claim: sub}}}}}}"),
            "prefix is required when claim is set",
        );
        check(
            &format!("{{{issuer}, claimMappings: {{username: {{expression: 'claims.'}}}}}}"),
            "compilation failed",
        );
        check(
            &format!("{{{issuer}, claimMappings: {{username: {{expression: 'claims.email'}}}}}}"),
            "claims.email_verified must be used",
        );
        check(
            &format!("{{{issuer}, {name}, userValidationRules: [{{expression: 'user.username'}}]}}"),
            "must evaluate to bool",
        );
        check(
            &format!(
                "{{{issuer}, claimMappings: {{username: {{claim: sub, prefix: ''}}, extra: [{{key: foo, valueExpression: claims.sub}}]}}}}"
            ),
            "must be a domain-prefixed path",
        );
        check(&format!("{{{issuer}, {name}, more: 1}}"), "unknown field \"jwt.0.more\"");
    }
}
