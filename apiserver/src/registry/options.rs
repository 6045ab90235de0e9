//! Options that come with writes, from the query and from the body of a deletion.

use api::error::Result;
use api::field::{FieldError, Path};
use api::{ApiError, Value};

use crate::request::Query;

/// What happens to unknown and duplicate fields.
pub use schema::decode::Mode as FieldValidation;

/// Options of a write.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Do everything but the write.
    pub dry_run: bool,
    /// Who is named as the manager of the fields.
    pub manager: String,
    /// True when the client named the manager itself.
    pub manager_given: bool,
    /// What happens to unknown fields.
    pub validation: FieldValidation,
    /// Take fields from other managers when applying.
    pub force: bool,
    /// True for an apply, whose managers are recorded by the apply itself.
    pub applying: bool,
}

const MANAGER_MAX: usize = 128;

impl WriteOptions {
    /// Reads the query of a write. `kind` names the options in errors: `CreateOptions` and the like.
    pub fn parse(query: &Query, user_agent: &str, kind: &str) -> Result<Self> {
        let mut errors = Vec::new();
        let given = query.get("fieldManager");
        if given.len() > MANAGER_MAX {
            errors.push(FieldError::too_long(&Path::new("fieldManager"), MANAGER_MAX));
        }
        for (at, c) in given.char_indices().filter(|(_, c)| c.is_control()) {
            let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
            errors.push(FieldError::invalid(&Path::new("fieldManager"), given, why));
        }
        let dry_run: Vec<&str> = query.all("dryRun").iter().map(String::as_str).collect();
        if dry_run.iter().any(|d| *d != "All") {
            let value = Value::from(dry_run.to_vec());
            errors.push(FieldError::not_supported(&Path::new("dryRun"), value, &["All"]));
        }
        let validation = match query.get("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported(&Path::new("fieldValidation"), other, &supported));
                FieldValidation::Warn
            }
        };
        if !errors.is_empty() {
            return Err(ApiError::invalid("meta.k8s.io", kind, "", &errors));
        }
        let manager = if given.is_empty() { manager_of(user_agent) } else { given.to_owned() };
        Ok(Self {
            dry_run: !dry_run.is_empty(),
            manager,
            manager_given: !given.is_empty(),
            validation,
            force: query.is_true("force"),
            applying: false,
        })
    }
}

/// The name a client goes by when it gives none: its user agent up to the first slash.
fn manager_of(user_agent: &str) -> String {
    let name = user_agent.split('/').next().unwrap_or_default();
    if name.is_empty() {
        return "unknown".to_owned();
    }
    name.chars().filter(|c| !c.is_control()).take(MANAGER_MAX).collect()
}

/// Options of a deletion.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds the object has to end by itself.
    pub grace: Option<i64>,
    /// UID the object must have.
    pub uid: Option<String>,
    /// Version the object must have.
    pub resource_version: Option<String>,
    /// What happens to dependents; the old boolean is told as a policy.
    pub propagation: Option<Propagation>,
    /// True when the old boolean said to delete dependents.
    pub cascades: bool,
}

/// What happens to dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They stay.
    Orphan,
    /// They go after the owner.
    Background,
    /// They go before the owner.
    Foreground,
}

impl DeleteOptions {
    /// Reads the query and the body; a body wins.
    pub fn parse(query: &Query, body: &Value) -> Result<Self> {
        let mut options = Self::default();
        if !body.is_null() {
            options.grace = body.get("gracePeriodSeconds").as_i64();
            options.uid = body.at(&["preconditions", "uid"]).as_str().map(str::to_owned);
            options.resource_version =
                body.at(&["preconditions", "resourceVersion"]).as_str().map(str::to_owned);
            options.set_propagation(
                body.get("propagationPolicy").as_str(),
                body.get("orphanDependents").as_bool(),
            )?;
        } else {
            if query.has("gracePeriodSeconds") {
                let text = query.get("gracePeriodSeconds");
                options.grace = Some(text.parse().map_err(|_| {
                    ApiError::bad_request(format!(
                        "strconv.ParseInt: parsing {}: invalid syntax",
                        api::field::go_quote(text)
                    ))
                })?);
            }
            let orphan = query.has("orphanDependents").then(|| query.is_true("orphanDependents"));
            let policy = query.has("propagationPolicy").then(|| query.get("propagationPolicy"));
            options.set_propagation(policy, orphan)?;
        }
        Ok(options)
    }

    fn set_propagation(&mut self, policy: Option<&str>, orphan: Option<bool>) -> Result<()> {
        let path = Path::new("propagationPolicy");
        let refuse = |e: FieldError| ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &[e]);
        if policy.is_some() && orphan.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            return Err(refuse(FieldError::invalid(&path, policy.unwrap_or_default(), why)));
        }
        self.propagation = match policy {
            None => orphan.map(|o| if o { Propagation::Orphan } else { Propagation::Background }),
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let mut error = FieldError::not_supported(&path, other, &[]);
                error.detail =
                    "supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"".to_owned();
                return Err(refuse(error));
            }
        };
        self.cascades = orphan == Some(false);
        Ok(())
    }
}
