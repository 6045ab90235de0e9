//! What is declared of a request and of a namespace.

use crate::decl::Decl;

fn object(name: &str, fields: Vec<(&str, Decl)>) -> Decl {
    Decl::object(name, fields.into_iter().map(|(name, decl)| (name.to_owned(), decl)))
}

fn strings() -> Decl {
    Decl::list(Decl::string(), None)
}

fn string_map() -> Decl {
    Decl::map(Decl::string(), None)
}

/// An `AdmissionRequest`.
pub(super) fn request() -> Decl {
    let text = Decl::string;
    let kind = || {
        object("kubernetes.GroupVersionKind", vec![("group", text()), ("version", text()), ("kind", text())])
    };
    let resource = || {
        let fields = vec![("group", text()), ("version", text()), ("resource", text())];
        object("kubernetes.GroupVersionResource", fields)
    };
    let user = object(
        "kubernetes.UserInfo",
        vec![
            ("username", text()),
            ("uid", text()),
            ("groups", strings()),
            ("extra", Decl::map(strings(), None)),
        ],
    );
    object(
        "kubernetes.AdmissionRequest",
        vec![
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", text()),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", Decl::bool()),
            ("options", Decl::DYN),
        ],
    )
}

/// A `Namespace`.
pub(super) fn namespace() -> Decl {
    let text = Decl::string;
    let condition = object(
        "kubernetes.NamespaceCondition",
        vec![
            ("status", text()),
            ("type", text()),
            ("lastTransitionTime", Decl::timestamp()),
            ("message", text()),
            ("reason", text()),
        ],
    );
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        vec![
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", string_map()),
            ("annotations", string_map()),
            ("UID", text()),
            ("creationTimestamp", Decl::timestamp()),
            ("deletionGracePeriodSeconds", Decl::int()),
            ("deletionTimestamp", Decl::timestamp()),
            ("generation", Decl::int()),
            ("resourceVersion", text()),
            ("finalizers", strings()),
        ],
    );
    let status = vec![("conditions", Decl::list(condition, None)), ("phase", text())];
    object(
        "kubernetes.Namespace",
        vec![
            ("metadata", metadata),
            ("spec", object("kubernetes.NamespaceSpec", vec![("finalizers", strings())])),
            ("status", object("kubernetes.NamespaceStatus", status)),
        ],
    )
}
