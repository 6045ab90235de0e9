//! Conflicts: fields of others that an apply would change.

use std::fmt;

use api::ApiError;
use api::error::Cause;
use http::StatusCode;

use super::element::Element;
use super::managed::{ManagerId, Operation};

/// One field that another manager owns with another value.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// The owner.
    pub manager: ManagerId,
    /// The field.
    pub path: Vec<Element>,
}

/// All conflicts of an apply, by manager.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conflicts(pub Vec<Conflict>);

impl Conflict {
    /// The path as text: `.spec.containers[name="c"].image`.
    pub fn field(&self) -> String {
        self.path.iter().map(ToString::to_string).collect()
    }
}

/// The manager as messages name it.
fn name(id: &ManagerId) -> String {
    let mut text = api::field::go_quote(&id.manager);
    if !id.subresource.is_empty() {
        text = format!("{text} with subresource {}", api::field::go_quote(&id.subresource));
    }
    if id.operation == Operation::Update {
        text = format!("{text} using {}", id.api_version);
    }
    text
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [one] = self.0.as_slice() {
            let (manager, path) = (name(&one.manager), one.field());
            return write!(f, "Apply failed with 1 conflict: conflict with {manager}: {path}");
        }
        let mut lines = Vec::new();
        let mut last = None;
        for c in &self.0 {
            if last != Some(&c.manager) {
                lines.push(format!("conflicts with {}:", name(&c.manager)));
                last = Some(&c.manager);
            }
            lines.push(format!("- {}", c.field()));
        }
        write!(f, "Apply failed with {} conflicts: {}", self.0.len(), lines.join("\n"))
    }
}

impl From<Conflicts> for ApiError {
    fn from(conflicts: Conflicts) -> Self {
        let mut error = ApiError::new(StatusCode::CONFLICT, "Conflict", conflicts.to_string());
        error.status_mut().details.causes = conflicts
            .0
            .iter()
            .map(|c| Cause {
                reason: "FieldManagerConflict".into(),
                message: format!("conflict with {}", name(&c.manager)),
                field: c.field(),
            })
            .collect();
        error
    }
}
