//! Where the decoder stands; its texts are made only when there is something to report.

use crate::types::{Field, Ty};

/// A place in a document, linked to the ones around it.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a Field, Ty<'a>),
    Index(usize),
    Key(&'a str),
}

impl<'a> At<'a> {
    pub(super) const ROOT: At<'static> = At { parent: None, step: Step::Root };

    pub(super) fn field(&'a self, field: &'a Field, of: Ty<'a>) -> At<'a> {
        At { parent: Some(self), step: Step::Field(field, of) }
    }

    pub(super) fn index(&'a self, i: usize) -> At<'a> {
        At { parent: Some(self), step: Step::Index(i) }
    }

    pub(super) fn key(&'a self, key: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Key(key) }
    }

    /// The path of the member `name` of the object here: `spec.containers[0].nope`.
    pub(super) fn field_path(&self, name: &str) -> String {
        let mut out = String::new();
        self.write_path(&mut out);
        if !out.is_empty() {
            out.push('.');
        }
        out + name
    }

    fn write_path(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.write_path(out);
        }
        let name = match self.step {
            Step::Root => return,
            Step::Index(i) => {
                out.push_str(&format!("[{i}]"));
                return;
            }
            Step::Field(f, _) => f.name.as_str(),
            Step::Key(k) => k,
        };
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(name);
    }

    /// Go's words for this place: the innermost struct, and the fields on the way without indices and keys.
    pub(super) fn go_place(&self) -> String {
        let mut names = Vec::new();
        let mut owner = None;
        let mut at = Some(self);
        while let Some(here) = at {
            if let Step::Field(f, ty) = here.step {
                owner = owner.or(Some(ty));
                names.push(format!("{}{}", f.via.as_deref().unwrap_or_default(), f.name));
            }
            at = here.parent;
        }
        names.reverse();
        match owner {
            Some(ty) => format!("struct field {}.{}", ty.short_name(), names.join(".")),
            None => "value".to_owned(),
        }
    }
}
