//! Names of domains and what is named below them.

use api::names;

use super::At;
use crate::kinds::Errors;

impl At<'_> {
    /// It must be a path below a domain, like `example.com/path`.
    pub(crate) fn domain_path(&self, errors: &mut Errors) {
        const FORM: &str = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";
        let text = self.text();
        if text.is_empty() {
            return self.required(errors, "");
        }
        let parts = text.split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty());
        let Some((host, path)) = parts else {
            return self.invalid(errors, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        };
        for why in names::dns_subdomain(host) {
            self.invalid_as(errors, host, why);
        }
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
        if !path.bytes().all(fits) {
            self.invalid_as(errors, path, format!("Invalid path (regex used for validation is '{FORM}')"));
        }
    }

    /// It must be a name in a domain: three parts or more.
    pub(crate) fn full_name(&self, errors: &mut Errors) {
        let text = self.text();
        if text.is_empty() {
            return self.required(errors, "");
        }
        let bad = names::dns_subdomain(text);
        if !bad.is_empty() {
            self.invalid(errors, bad.join(","));
        } else if text.split('.').count() < 3 {
            let why = "should be a domain with at least three segments separated by dots";
            self.invalid(errors, why);
        }
    }

    /// It must be the name of a domain: two parts or more, and perhaps a dot behind them.
    pub(crate) fn full_domain(&self, errors: &mut Errors) {
        if self.text().is_empty() {
            return self.required(errors, "");
        }
        let text = self.text().strip_suffix('.').unwrap_or(self.text());
        let bad = names::dns_subdomain(text);
        if !bad.is_empty() {
            return self.invalid_as(errors, text, bad.join(","));
        }
        if text.split('.').count() < 2 {
            let why = "should be a domain with at least two segments separated by dots";
            return self.invalid_as(errors, text, why);
        }
        let bad =
            text.split('.').map(|label| (label, names::dns_label(label))).find(|(_, bad)| !bad.is_empty());
        if let Some((label, bad)) = bad {
            self.invalid_as(errors, label, bad.join(","));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn count(text: &str, rule: fn(&At<'_>, &mut Errors)) -> usize {
        let object = object!({"f": text});
        let mut errors = Vec::new();
        rule(&At::of(&object, "f"), &mut errors);
        errors.len()
    }

    #[test]
    fn paths_below_domains() {
        for (text, want) in [("a.b/c/d", 0), ("a.b", 1), ("a_b/c", 1), ("a.b/c d", 1), ("", 1)] {
            assert_eq!(count(text, |at, errors| at.domain_path(errors)), want, "{text}");
        }
    }

    #[test]
    fn full_names() {
        for (text, want) in [("a.b.c", 0), ("a.b", 1), ("A.b.c", 1), ("", 1)] {
            assert_eq!(count(text, |at, errors| at.full_name(errors)), want, "{text}");
        }
        for (text, want) in [("a.b", 0), ("a.b.", 0), ("a", 1), ("", 1)] {
            assert_eq!(count(text, |at, errors| at.full_domain(errors)), want, "{text}");
        }
    }
}
