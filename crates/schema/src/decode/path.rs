//! Where the decoder stands; its texts are made only when there is something to report.

use api::json::Step;

use crate::types::{Field, Ty};

/// A place in a document, linked to the ones around it.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Place<'a>,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Field(&'a Field, Ty<'a>),
    Index(usize),
    Key(&'a str),
}

impl<'a> At<'a> {
    pub(super) const ROOT: At<'static> = At { parent: None, step: Place::Root };

    pub(super) fn field(&'a self, field: &'a Field, of: Ty<'a>) -> At<'a> {
        At { parent: Some(self), step: Place::Field(field, of) }
    }

    pub(super) fn index(&'a self, i: usize) -> At<'a> {
        At { parent: Some(self), step: Place::Index(i) }
    }

    pub(super) fn key(&'a self, key: &'a str) -> At<'a> {
        At { parent: Some(self), step: Place::Key(key) }
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
            Place::Root => return,
            Place::Index(i) => {
                out.push_str(&format!("[{i}]"));
                return;
            }
            Place::Field(f, _) => f.name.as_str(),
            Place::Key(k) => k,
        };
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(name);
    }

    /// The way from the document to this place.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = self.parent.map(At::steps).unwrap_or_default();
        match self.step {
            Place::Root => {}
            Place::Field(f, _) => steps.push(Step::Key(f.name.as_str().into())),
            Place::Index(i) => steps.push(Step::Index(i)),
            Place::Key(k) => steps.push(Step::Key(k.into())),
        }
        steps
    }

    /// Go's words for this place: the innermost struct, and the fields on the way without indices and keys.
    pub(super) fn go_place(&self) -> String {
        let mut names = Vec::new();
        let mut owner = None;
        let mut at = Some(self);
        while let Some(here) = at {
            if let Place::Field(f, ty) = here.step {
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
