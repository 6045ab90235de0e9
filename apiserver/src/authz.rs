//! Authorization: whether a user may do what a request asks for. Authorizers are asked in order; the first with an
//! opinion decides, and without any the request is refused.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/authorization/>.

mod abac;
mod config;
mod node;
mod rbac;
mod webhook;

pub use abac::Abac;
pub use rbac::{Rbac, Rule, covers};

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::selector::{FieldSelector, FieldTerm, LabelSelector, Requirement};
use arc_swap::ArcSwap;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio_util::sync::CancellationToken;

use crate::authn::UserInfo;
use crate::request::RequestInfo;
use crate::storage::Storage;

/// What is to be allowed: the attributes of a request, or of a review.
#[derive(Clone, Debug, Default)]
pub struct Attributes<'a> {
    /// Verb.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Resource; empty for other paths.
    pub resource: &'a str,
    /// Subresource.
    pub subresource: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Name of the object.
    pub name: &'a str,
    /// Path, when no resource is asked for.
    pub path: &'a str,
    /// API version.
    pub version: &'a str,
    /// Which objects of many are asked for.
    pub selectors: Cow<'a, Selectors>,
}

/// Selectors of a request for many objects, as far as they could be read: they only narrow what is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selectors {
    /// Comparisons of fields.
    pub fields: Vec<FieldTerm>,
    /// Requirements on labels.
    pub labels: Vec<Requirement>,
}

impl Selectors {
    /// Reads the two parameters of a query.
    pub fn read(fields: &str, labels: &str) -> Self {
        Self {
            fields: FieldSelector::parse(fields).map(|s| s.terms).unwrap_or_default(),
            labels: LabelSelector::parse(labels).map(|s| s.requirements().to_vec()).unwrap_or_default(),
        }
    }
}

impl<'a> Attributes<'a> {
    /// The attributes of a request.
    pub fn of(info: &'a RequestInfo) -> Self {
        Self {
            verb: info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            version: &info.version,
            selectors: Cow::Borrowed(&info.selectors),
        }
    }

    /// `pods/log`, or the resource alone.
    pub fn combined(&self) -> String {
        match self.subresource {
            "" => self.resource.to_owned(),
            sub => format!("{}/{sub}", self.resource),
        }
    }

    /// Upstream's sentence for a refusal.
    pub fn refusal(&self, user: &UserInfo) -> String {
        let who = api::field::go_quote(&user.name);
        if self.resource.is_empty() {
            return format!("User {who} cannot {} path {}", self.verb, api::field::go_quote(self.path));
        }
        let what = api::field::go_quote(&self.combined());
        let group = api::field::go_quote(self.group);
        let place = match self.namespace {
            "" => "at the cluster scope".to_owned(),
            ns => format!("in the namespace {}", api::field::go_quote(ns)),
        };
        format!("User {who} cannot {} resource {what} in API group {group} {place}", self.verb)
    }
}

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, with the reason.
    Allow(String),
    /// Refused, whatever others say, with the reason.
    Deny(String),
    /// No opinion, perhaps with a reason.
    NoOpinion(String),
    /// Nothing that could be understood.
    Failed {
        /// It counts as a refusal; otherwise others may still allow it.
        denied: bool,
        /// What went wrong.
        why: String,
    },
}

/// True for a file that is a valid configuration.
#[cfg(any(test, fuzzing))]
pub(crate) fn is_configuration(text: &str) -> bool {
    config::parse(text, None).is_ok()
}

/// One of `--authorization-mode`.
enum Method {
    /// Everything is allowed.
    AlwaysAllow,
    /// Nothing is.
    AlwaysDeny,
    /// Kubelets may do what concerns their node.
    Node,
    /// Roles and bindings.
    Rbac,
    /// Policies of a file.
    Abac(Abac),
    /// Another server.
    Webhook(Box<webhook::Webhook>),
}

/// Ways to decide, by name and in order.
type Methods = Vec<(String, Method)>;

impl Method {
    fn kind(&self) -> &'static str {
        match self {
            Method::AlwaysAllow => "AlwaysAllow",
            Method::AlwaysDeny => "AlwaysDeny",
            Method::Node => "Node",
            Method::Rbac => "RBAC",
            Method::Abac(_) => "ABAC",
            Method::Webhook(_) => "Webhook",
        }
    }
}

fn decisions() -> IntCounterVec {
    let opts = Opts::new(
        "apiserver_authorization_decisions_total",
        "[ALPHA] Total number of terminal decisions made by an authorizer split by authorizer type, name, and decision.",
    );
    IntCounterVec::new(opts, &["decision", "name", "type"]).expect("the name and the labels are valid")
}

/// What flags say of authorization.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The modes in order.
    pub modes: Vec<String>,
    /// File of the policies of mode ABAC.
    pub policy_file: String,
    /// Kubeconfig file of the server of mode Webhook.
    pub webhook_file: String,
    /// Version of reviews.
    pub webhook_version: String,
    /// How long answers are kept that allow, and others.
    pub webhook_ttl: (Duration, Duration),
}

/// How often the file of authorizers is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The chain of authorizers.
pub struct Authorizer {
    /// The RBAC authorizer.
    pub rbac: Rbac,
    file: Option<PathBuf>,
    abac: Option<Abac>,
    chain: ArcSwap<Chain>,
    /// Counts what each of the chain allows and denies.
    decisions: IntCounterVec,
}

struct Chain {
    text: String,
    methods: Methods,
}

/// What has been said so far by those without an opinion.
#[derive(Default)]
struct Heard {
    reasons: Vec<String>,
    failures: Vec<String>,
}

impl Heard {
    /// The decision, if this settles it.
    fn take(&mut self, decision: Decision) -> Option<Decision> {
        match decision {
            Decision::NoOpinion(reason) => {
                self.reasons.extend(Some(reason).filter(|r| !r.is_empty()));
                None
            }
            Decision::Failed { denied: false, why } => {
                self.failures.push(why);
                None
            }
            settled => Some(settled),
        }
    }

    fn conclude(self) -> Decision {
        match self.failures.is_empty() {
            true => Decision::NoOpinion(self.reasons.join(", ")),
            false => Decision::Failed { denied: false, why: self.failures.join(", ") },
        }
    }
}

/// True for those of whom nobody needs to be asked.
fn is_privileged(user: &UserInfo) -> bool {
    user.is_in("system:masters")
}

impl Authorizer {
    /// Asks the authorizers that flags name.
    ///
    /// # Errors
    /// The flags do not fit, or a file that they name cannot be used.
    pub fn of_flags(settings: &Settings) -> Result<Self> {
        let has = |mode: &str| settings.modes.iter().any(|m| m == mode);
        if !settings.policy_file.is_empty() && !has("ABAC") {
            bail!("cannot specify --authorization-policy-file without mode ABAC");
        }
        if !settings.webhook_file.is_empty() && !has("Webhook") {
            bail!("cannot specify --authorization-webhook-config-file without mode Webhook");
        }
        let abac = abac(&settings.policy_file)?;
        let mut methods = Vec::new();
        for (i, mode) in settings.modes.iter().enumerate() {
            if settings.modes[..i].contains(mode) {
                bail!("authorization-mode {:?} has mode specified more than once", settings.modes);
            }
            let method = match mode.as_str() {
                "Webhook" if settings.webhook_file.is_empty() => {
                    bail!("authorization-mode Webhook's authorization config file not passed")
                }
                "Webhook" => settings.webhook().build(Vec::new())?,
                mode => config::method(mode, abac.as_ref())?,
            };
            methods.push((mode.to_lowercase(), method));
        }
        Ok(Self::new(None, String::new(), methods, abac))
    }

    /// Asks the authorizers that the file at `path` names; `policy_file` has the policies of mode ABAC.
    ///
    /// # Errors
    /// The file, or one that it names, cannot be used.
    pub fn read(path: &Path, policy_file: &str) -> Result<Self> {
        let abac = abac(policy_file)?;
        let text = crate::config_file::text(path)?;
        let methods = config::parse(&text, abac.as_ref())
            .with_context(|| format!("--authorization-config {}", path.display()))?;
        Ok(Self::new(Some(path.to_owned()), text, methods, abac))
    }

    fn new(file: Option<PathBuf>, text: String, methods: Methods, abac: Option<Abac>) -> Self {
        let chain = ArcSwap::from_pointee(Chain { text, methods });
        Self { rbac: Rbac::default(), file, abac, chain, decisions: decisions() }
    }

    /// Shows how often each of the chain has decided.
    pub fn register(&self, registry: &Registry) {
        serve::metrics::register(registry, self.decisions.clone());
    }

    fn note(&self, (name, method): &(String, Method), decision: &Decision) {
        let word = match decision {
            Decision::Allow(_) => "allowed",
            Decision::Deny(_) => "denied",
            Decision::NoOpinion(_) | Decision::Failed { .. } => return,
        };
        self.decisions.with_label_values(&[word, name, method.kind()]).inc();
    }

    /// What an authorizer says that asks nobody else.
    fn here(&self, method: &Method, storage: &Storage, user: &UserInfo, what: &Attributes<'_>) -> Decision {
        match method {
            Method::AlwaysAllow => Decision::Allow(String::new()),
            Method::AlwaysDeny => Decision::NoOpinion("Everything is forbidden.".to_owned()),
            Method::Node => node::authorize(storage, user, what),
            Method::Rbac => self.rbac.authorize(storage, user, what),
            Method::Abac(abac) => abac.authorize(user, what),
            Method::Webhook(_) => Decision::NoOpinion(String::new()),
        }
    }

    /// Whether `user` may do it.
    pub async fn authorize(&self, storage: &Storage, user: &UserInfo, what: &Attributes<'_>) -> Decision {
        if is_privileged(user) {
            return Decision::Allow(String::new());
        }
        let chain = self.chain.load_full();
        let mut heard = Heard::default();
        for method in &chain.methods {
            let decision = match &method.1 {
                Method::Webhook(webhook) => webhook.authorize(user, what).await,
                method => self.here(method, storage, user, what),
            };
            self.note(method, &decision);
            if let Some(settled) = heard.take(decision) {
                return settled;
            }
        }
        heard.conclude()
    }

    /// [`Authorizer::authorize`] for those who cannot wait, such as expressions. Only when another server is to be asked
    /// does this hold up its thread.
    pub fn authorize_now(&self, storage: &Storage, user: &UserInfo, what: &Attributes<'_>) -> Decision {
        let asks_others = self.chain.load().methods.iter().any(|(_, m)| matches!(m, Method::Webhook(_)));
        if asks_others && !is_privileged(user) {
            let runtime = tokio::runtime::Handle::current();
            return tokio::task::block_in_place(|| runtime.block_on(self.authorize(storage, user, what)));
        }
        if is_privileged(user) {
            return Decision::Allow(String::new());
        }
        let mut heard = Heard::default();
        for method in &self.chain.load().methods {
            let decision = self.here(&method.1, storage, user, what);
            self.note(method, &decision);
            if let Some(settled) = heard.take(decision) {
                return settled;
            }
        }
        heard.conclude()
    }

    /// Why the rules of a user cannot be told, if they cannot.
    pub fn untold(&self) -> Option<&'static str> {
        let chain = self.chain.load();
        let asks_others = chain.methods.iter().any(|(_, m)| matches!(m, Method::Webhook(_)));
        asks_others.then_some("webhook authorizer does not support user rule resolution")
    }

    /// True when everybody may do everything.
    pub fn allows_all(&self) -> bool {
        self.chain.load().methods.iter().any(|(_, m)| matches!(m, Method::AlwaysAllow))
    }

    /// Reads the file again when it changes, until `stop`. What cannot be used is told of, once, and the last good one stays.
    pub async fn watch(&self, stop: CancellationToken) {
        let Some(path) = &self.file else { return stop.cancelled().await };
        let mut refused = String::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let text = match crate::config_file::text(path) {
                Ok(text) => text,
                Err(e) => {
                    tracing::error!(
                        error = format!("{e:#}"),
                        "the authorization configuration cannot be read again"
                    );
                    continue;
                }
            };
            if refused == text || self.chain.load().text == text {
                continue;
            }
            match config::parse(&text, self.abac.as_ref()) {
                Ok(methods) => {
                    self.chain.store(Arc::new(Chain { text, methods }));
                    tracing::info!(path = %path.display(), "Loaded a changed authorization configuration");
                }
                Err(e) => {
                    tracing::error!(
                        error = format!("{e:#}"),
                        "a changed authorization configuration is not used"
                    );
                    refused = text;
                }
            }
        }
    }
}

fn abac(file: &str) -> Result<Option<Abac>> {
    match file {
        "" => Ok(None),
        file => Abac::read(Path::new(file)).map(Some),
    }
}

impl Settings {
    fn webhook(&self) -> config::WebhookFile {
        let (authorized, unauthorized) = self.webhook_ttl;
        config::WebhookFile {
            authorized_ttl: Some(daemon::GoDuration(authorized)),
            cache_authorized_requests: Some(!authorized.is_zero()),
            unauthorized_ttl: Some(daemon::GoDuration(unauthorized)),
            cache_unauthorized_requests: Some(!unauthorized.is_zero()),
            subject_access_review_version: self.webhook_version.clone(),
            failure_policy: "NoOpinion".to_owned(),
            connection_info: config::ConnectionFile {
                kube_config_file: Some(self.webhook_file.clone()),
                ..config::ConnectionFile::default()
            },
            ..config::WebhookFile::default()
        }
    }
}
