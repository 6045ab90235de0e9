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
    /// Reads the query of a write. `kind` names the options in errors: `CreateOptions` and the like; those of an apply,
    /// which alone may force, are `PatchOptions` there.
    pub fn parse(query: &Query, user_agent: &str, kind: &str) -> Result<Self> {
        let applies = kind == "ApplyOptions";
        let kind = if applies { "PatchOptions" } else { kind };
        let mut errors = Vec::new();
        if kind == "PatchOptions" && !applies && query.has("force") {
            let why = "may not be specified for non-apply patch";
            errors.push(FieldError::forbidden(&Path::new("force"), why));
        }
        let given = query.get("fieldManager");
        if applies && given.is_empty() {
            errors.push(FieldError::required(&Path::new("fieldManager"), "is required for apply patch"));
        }
        if given.len() > MANAGER_MAX {
            errors.push(FieldError::too_long(&Path::new("fieldManager"), MANAGER_MAX));
        }
        for (at, c) in given.char_indices().filter(|(_, c)| c.is_control()) {
            let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
            errors.push(FieldError::invalid(&Path::new("fieldManager"), given, why));
        }
        let dry_run: Vec<&str> = query.all("dryRun").iter().map(String::as_str).collect();
        errors.extend(wrong_dry_run(&dry_run));
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
    /// Do everything but the deletion.
    pub dry_run: bool,
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
    /// Reads the query of a deletion without a body.
    pub fn from_query(query: &Query) -> Result<Self> {
        let text = |key: &str| Some(query.get(key)).filter(|v| !v.is_empty()).map(str::to_owned);
        let given = Given {
            policy: query.has("propagationPolicy").then(|| query.get("propagationPolicy")),
            orphan: query.truth("orphanDependents"),
            dry_run: query.all("dryRun").iter().map(String::as_str).collect(),
        };
        let grace = query.integer("gracePeriodSeconds")?;
        let options =
            Self { grace, uid: text("uid"), resource_version: text("resourceVersion"), ..given.read()? };
        Ok(options)
    }

    /// Reads the body of a deletion, whose fields have their types.
    pub fn from_body(body: &Value) -> Result<Self> {
        let given = Given {
            policy: body.get("propagationPolicy").as_str(),
            orphan: body.get("orphanDependents").as_bool(),
            dry_run: body.array_at(&["dryRun"]).iter().filter_map(Value::as_str).collect(),
        };
        let text = |field| body.at(&["preconditions", field]).as_str().map(str::to_owned);
        Ok(Self {
            grace: body.get("gracePeriodSeconds").as_i64(),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..given.read()?
        })
    }
}

/// What a deletion says that can be wrong.
struct Given<'o> {
    policy: Option<&'o str>,
    orphan: Option<bool>,
    dry_run: Vec<&'o str>,
}

impl Given<'_> {
    fn read(&self) -> Result<DeleteOptions> {
        let errors = self.errors();
        if !errors.is_empty() {
            return Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &errors));
        }
        let by_orphan = self.orphan.map(|o| if o { Propagation::Orphan } else { Propagation::Background });
        Ok(DeleteOptions {
            propagation: self.policy.and_then(Propagation::parse).or(by_orphan),
            cascades: self.orphan == Some(false),
            dry_run: !self.dry_run.is_empty(),
            ..DeleteOptions::default()
        })
    }

    fn errors(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::new("propagationPolicy");
        if let Some(policy) = self.policy {
            if self.orphan.is_some() {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(FieldError::invalid(&path, policy, why));
            }
            if Propagation::parse(policy).is_none() {
                let known = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported(&path, policy, &known));
            }
        }
        errors.extend(wrong_dry_run(&self.dry_run));
        errors
    }
}

/// A dry run is of everything or is none.
fn wrong_dry_run(given: &[&str]) -> Option<FieldError> {
    let wrong = given.iter().any(|d| *d != "All");
    wrong.then(|| FieldError::not_supported(&Path::new("dryRun"), Value::from(given.to_vec()), &["All"]))
}

impl Propagation {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "Orphan" => Some(Propagation::Orphan),
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            _ => None,
        }
    }
}
