//! Questions to the authorizer, which whoever evaluates expressions brings along.

use std::fmt;
use std::sync::Arc;

use super::call::{Builtin, Call, fail, no_overload, text};
use crate::types::Type;
use crate::value::{Outcome, Val};

/// What is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The service account that is asked for, as namespace and name; else the user of the request.
    pub service_account: Option<(Arc<str>, Arc<str>)>,
    /// The verb.
    pub verb: String,
    /// The path, when no resource is asked about.
    pub path: Option<Arc<str>>,
    /// The group of the resource.
    pub group: Arc<str>,
    /// The resource.
    pub resource: Arc<str>,
    /// The subresource.
    pub subresource: Arc<str>,
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name of the object.
    pub name: Arc<str>,
    /// A field selector, not yet parsed.
    pub field_selector: Arc<str>,
    /// A label selector, not yet parsed.
    pub label_selector: Arc<str>,
}

/// What the authorizer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong.
    pub error: Option<String>,
}

/// Decides for `authorizer` and `authorizer.requestResource` in expressions.
pub trait Authorizer: Send + Sync {
    /// Decides about `attributes`.
    fn authorize(&self, attributes: &Attributes) -> Decision;
}

/// A value of the authorizer library.
#[derive(Clone)]
pub struct Authz<'a>(Step<'a>);

#[derive(Clone)]
enum Step<'a> {
    /// An authorizer, of which a path, a group or a resource has been named, or nothing yet.
    Question(Kind, &'a dyn Authorizer, Arc<Attributes>),
    Decision(Arc<Decision>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Authorizer,
    Path,
    Group,
    Resource,
}

impl<'a> Authz<'a> {
    /// The variable `authorizer`.
    pub fn new(authorizer: &'a dyn Authorizer) -> Self {
        Self(Step::Question(Kind::Authorizer, authorizer, Arc::default()))
    }

    /// The variable `authorizer.requestResource`: the resource of the request.
    pub fn request_resource(authorizer: &'a dyn Authorizer, attributes: Attributes) -> Self {
        Self(Step::Question(Kind::Resource, authorizer, Arc::new(attributes)))
    }

    /// The type of the variable `authorizer`.
    pub fn authorizer_type() -> Type {
        Type::object("kubernetes.authorization.Authorizer")
    }

    /// The type of the variable `authorizer.requestResource`.
    pub fn request_resource_type() -> Type {
        Type::object("kubernetes.authorization.ResourceCheck")
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match &self.0 {
            Step::Question(Kind::Authorizer, ..) => "kubernetes.authorization.Authorizer",
            Step::Question(Kind::Path, ..) => "kubernetes.authorization.PathCheck",
            Step::Question(Kind::Group, ..) => "kubernetes.authorization.GroupCheck",
            Step::Question(Kind::Resource, ..) => "kubernetes.authorization.ResourceCheck",
            Step::Decision(_) => "kubernetes.authorization.Decision",
        }
    }
}

impl fmt::Debug for Authz<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_name())
    }
}

impl PartialEq for Authz<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Step::Question(a, _, x), Step::Question(b, _, y)) => a == b && x == y,
            (Step::Decision(a), Step::Decision(b)) => a == b,
            _ => false,
        }
    }
}

pub(crate) fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "path" => |_, args| {
            step(args, Kind::Authorizer, Kind::Path, "path must not be empty", |a, path| a.path = Some(path))
        },
        "group" => |_, args| step(args, Kind::Authorizer, Kind::Group, "", |a, group| a.group = group),
        "resource" => |_, args| {
            step(args, Kind::Group, Kind::Resource, "resource must not be empty", |a, resource| {
                a.resource = resource
            })
        },
        "subresource" => |_, args| step(args, Kind::Resource, Kind::Resource, "", |a, s| a.subresource = s),
        "namespace" => |_, args| step(args, Kind::Resource, Kind::Resource, "", |a, s| a.namespace = s),
        "name" => |_, args| step(args, Kind::Resource, Kind::Resource, "", |a, s| a.name = s),
        "fieldSelector" => {
            |_, args| step(args, Kind::Resource, Kind::Resource, "", |a, s| a.field_selector = s)
        }
        "labelSelector" => {
            |_, args| step(args, Kind::Resource, Kind::Resource, "", |a, s| a.label_selector = s)
        }
        "serviceAccount" => service_account,
        "check" => check,
        "errored" => |_, args| decision(args, |d| Ok(Val::Bool(d.error.is_some()))),
        "error" => |_, args| decision(args, |d| text(d.error.as_deref().unwrap_or_default())),
        "allowed" => |_, args| decision(args, |d| Ok(Val::Bool(d.allowed))),
        "reason" => |_, args| decision(args, |d| text(d.reason.as_str())),
        _ => return None,
    })
}

/// Adds one text to a question. With a message, the text must not be blank.
fn step<'a>(
    args: &[Val<'a>],
    from: Kind,
    to: Kind,
    blank: &'static str,
    set: fn(&mut Attributes, Arc<str>),
) -> Outcome<'a> {
    let [Val::Authz(Authz(Step::Question(kind, authorizer, attributes))), Val::String(s)] = args else {
        return no_overload();
    };
    if *kind != from {
        return no_overload();
    }
    if !blank.is_empty() && s.trim().is_empty() {
        return fail(blank);
    }
    let mut attributes = attributes.as_ref().clone();
    set(&mut attributes, (&**s).into());
    Ok(Val::Authz(Authz(Step::Question(to, *authorizer, Arc::new(attributes)))))
}

fn service_account<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [
        Val::Authz(Authz(Step::Question(Kind::Authorizer, authorizer, attributes))),
        Val::String(namespace),
        Val::String(name),
    ] = args
    else {
        return no_overload();
    };
    if !api::names::dns_subdomain(name).is_empty() {
        return fail("Invalid service account name");
    }
    if !api::names::dns_label(namespace).is_empty() {
        return fail("Invalid service account namespace");
    }
    let mut attributes = attributes.as_ref().clone();
    attributes.service_account = Some(((&**namespace).into(), (&**name).into()));
    Ok(Val::Authz(Authz(Step::Question(Kind::Authorizer, *authorizer, Arc::new(attributes)))))
}

fn check<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [
        Val::Authz(Authz(Step::Question(Kind::Path | Kind::Resource, authorizer, attributes))),
        Val::String(verb),
    ] = args
    else {
        return no_overload();
    };
    let attributes = Attributes { verb: verb.to_string(), ..attributes.as_ref().clone() };
    Ok(Val::Authz(Authz(Step::Decision(Arc::new(authorizer.authorize(&attributes))))))
}

fn decision<'a>(args: &[Val<'a>], show: fn(&Decision) -> Outcome<'a>) -> Outcome<'a> {
    match args {
        [Val::Authz(Authz(Step::Decision(d)))] => show(d),
        _ => no_overload(),
    }
}
