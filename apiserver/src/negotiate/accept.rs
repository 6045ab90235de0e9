//! The `Accept` header as Go's servers read it: clauses by quality, each with what it asks for beyond a media type.

use super::{Encoding, Shape};

/// What may be asked for beyond a media type.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// The object itself has a protobuf form.
    pub protobuf: bool,
    /// The object can be shown as a table.
    pub tables: bool,
    /// The object can be shown in other shapes at all; answers that tell of errors cannot.
    pub shapes: bool,
}

impl Offer {
    /// All there is.
    pub const ALL: Self = Self { protobuf: true, tables: true, shapes: true };
    /// A document or an error, which has but one shape.
    pub const PLAIN: Self = Self { protobuf: true, tables: false, shapes: false };
}

/// What a header asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Encoding.
    pub encoding: Encoding,
    /// Shape.
    pub shape: Shape,
    /// The shape in the form of `meta.k8s.io/v1beta1`.
    pub beta: bool,
    /// JSON for people.
    pub pretty: bool,
}

/// One clause: `application/json;q=0.5;as=Table`.
struct Clause<'h> {
    kind: &'h str,
    sub: &'h str,
    quality: f64,
    parameters: Vec<(&'h str, &'h str)>,
}

/// The best of what is offered, if anything of it is accepted. An empty header accepts JSON.
pub(super) fn best(header: &str, offer: Offer) -> Option<Accepted> {
    if header.is_empty() {
        return Some(Accepted::default());
    }
    let encodings = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf];
    let clauses = clauses(header);
    let mut choices = clauses.iter().flat_map(|clause| encodings.map(|encoding| (clause, encoding)));
    choices.find_map(|(clause, encoding)| {
        let (kind, sub) = encoding.media_type().split_once('/')?;
        let any = clause.kind == "*" && clause.sub == "*";
        let fits = any || (clause.kind == kind && (clause.sub == sub || clause.sub == "*"));
        fits.then(|| clause.accept(encoding, offer)).flatten()
    })
}

fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header.split(',').filter_map(Clause::parse).collect();
    // The order is no strict one when qualities are equal; it is that of sorting by insertion.
    for end in 1..clauses.len() {
        let mut at = end;
        while at > 0 && clauses[at].precedes(&clauses[at - 1]) {
            clauses.swap(at, at - 1);
            at -= 1;
        }
    }
    clauses
}

impl<'h> Clause<'h> {
    fn parse(text: &'h str) -> Option<Self> {
        let spaces = |t: &'h str| t.trim_matches(' ');
        let mut parts = spaces(text).split(';');
        let media_type = parts.next().unwrap_or_default();
        let (kind, sub) = match media_type.split_once('/') {
            Some((kind, sub)) if !sub.is_empty() => (spaces(kind), sub),
            Some((kind, _)) => (spaces(kind), ""),
            None => (spaces(media_type), ""),
        };
        let sub = match sub.split_once('/') {
            Some((_, more)) if !more.is_empty() => return None,
            Some((sub, _)) => spaces(sub),
            None if sub.is_empty() && kind == "*" => "*",
            None if sub.is_empty() => return None,
            None => spaces(sub),
        };
        let mut clause = Self { kind, sub, quality: 1.0, parameters: Vec::new() };
        for (key, value) in parts.filter_map(|p| p.split_once('=')) {
            let value = match value.split_once('=') {
                Some((_, more)) if !more.is_empty() => continue,
                Some((value, _)) => value,
                None if value.is_empty() => continue,
                None => value,
            };
            match spaces(key) {
                "q" => clause.quality = value.parse().unwrap_or(0.0),
                key => clause.parameters.push((key, spaces(value))),
            }
        }
        Some(clause)
    }

    fn precedes(&self, other: &Self) -> bool {
        self.quality > other.quality
            || (self.kind != "*" && other.kind == "*")
            || (self.sub != "*" && other.sub == "*")
    }

    fn accept(&self, encoding: Encoding, offer: Offer) -> Option<Accepted> {
        let (mut kind, mut group, mut version) = (None, None, None);
        let mut pretty = false;
        for (key, value) in &self.parameters {
            match *key {
                "as" => kind = Some(*value),
                "g" => group = Some(*value),
                "v" => version = Some(*value),
                "stream" if *value != "watch" || encoding == Encoding::Yaml => return None,
                "sv" if !offer.shapes || *value != "v1" => return None,
                "pretty" => pretty = *value == "1",
                _ => {}
            }
        }
        let accepted = Accepted { encoding, pretty, ..Accepted::default() };
        if kind.or(group).or(version).is_none() {
            return (encoding != Encoding::Protobuf || offer.protobuf).then_some(accepted);
        }
        let beta = match (group, version) {
            (Some("meta.k8s.io"), Some("v1")) => false,
            (Some("meta.k8s.io"), Some("v1beta1")) => true,
            _ => return None,
        };
        let shape = match kind {
            Some("Table") if offer.tables && encoding != Encoding::Protobuf => Shape::Table,
            Some("PartialObjectMetadata") => Shape::Metadata,
            Some("PartialObjectMetadataList") => Shape::MetadataList,
            _ => return None,
        };
        offer.shapes.then_some(Accepted { shape, beta, ..accepted })
    }
}

/// True when a route that answers in these media types is chosen for the header, whose parameters do not count.
pub fn is_routed(header: &str, produced: &[&str]) -> bool {
    let mut clauses = header.split(',').map(|c| c.split(';').next().unwrap_or_default().trim_matches(' '));
    header.is_empty() || clauses.any(|c| c == "*/*" || produced.contains(&c) || produced.contains(&"*/*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, want: Option<(Encoding, Shape, bool)>) {
        let got = best(header, Offer::ALL).map(|a| (a.encoding, a.shape, a.beta));
        assert_eq!(got, want, "{header}");
    }

    #[test]
    fn headers_are_read_as_upstream_reads_them() {
        let json = Some((Encoding::Json, Shape::Object, false));
        let yaml = Some((Encoding::Yaml, Shape::Object, false));
        check("", json);
        check("*", json);
        check("*/*;q=0.1, text/html", json);
        check("application/*", json);
        check("application/json;q=0.1,application/yaml;q=0.9", yaml);
        check("application/*;q=0.2,application/yaml;q=0.1", yaml);
        check("application/json;q=x,application/yaml;q=0.1", yaml);
        check("application/json;stream=watch", json);
        check("application/yaml;stream=watch", None);
        check("application/json/x", None);
        check("APPLICATION/JSON", None);
        check("application/json;v=v1", None);
        check("application/json;as=;v=v1;g=meta.k8s.io", None);
        check(
            "application/json ;as=Table ; v=v1beta1;g=meta.k8s.io",
            Some((Encoding::Json, Shape::Table, true)),
        );
        check("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", None);
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            Some((Encoding::Protobuf, Shape::Metadata, false)),
        );
    }

    #[test]
    fn errors_have_one_shape() {
        assert!(best("application/json;as=Table;v=v1;g=meta.k8s.io", Offer::PLAIN).is_none());
        assert_eq!(best("application/yaml", Offer::PLAIN).unwrap().encoding, Encoding::Yaml);
    }

    #[test]
    fn routes_know_whole_media_types_alone() {
        let produced = ["application/json"];
        for (header, want) in [
            ("", true),
            ("*/*;q=0.1", true),
            ("text/html, application/json;as=x", true),
            ("application/*", false),
            ("application/JSON", false),
        ] {
            assert_eq!(is_routed(header, &produced), want, "{header}");
        }
    }
}
