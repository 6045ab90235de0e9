//! What an image may be called: the grammar of references to images, and upstream's words for what is none.

use std::borrow::Cow;

/// The longest path of a repository.
const LONGEST: usize = 255;
const HUB: &str = "docker.io";

/// Refuses what is no reference to an image.
pub(super) fn check(image: &str) -> Result<(), String> {
    let invalid = || "invalid reference format".to_owned();
    if image.len() == 64 && image.chars().all(is_hex) {
        return Err(format!("invalid repository name ({image}), cannot specify 64-byte hexadecimal strings"));
    }
    let (domain, rest) = split(image);
    let remote = rest.split_once(':').map_or(&*rest, |(remote, _)| remote);
    if remote.to_lowercase() != remote {
        return Err(format!("invalid reference format: repository name ({remote}) must be lowercase"));
    }
    let (named, digest) =
        rest.split_once('@').map_or((&*rest, None), |(named, digest)| (named, Some(digest)));
    let (path, tag) = named.split_once(':').map_or((named, None), |(path, tag)| (path, Some(tag)));
    let digest = digest.map(|digest| digest.split_once(':').ok_or_else(invalid)).transpose()?;
    let fits = is_domain(domain)
        && path.split('/').all(is_component)
        && tag.is_none_or(is_tag)
        && digest
            .is_none_or(|(algorithm, sum)| is_algorithm(algorithm) && sum.len() >= 32 && is_any_hex(sum));
    if !fits {
        return Err(invalid());
    }
    if path.len() > LONGEST {
        return Err(format!("repository name must not be more than {LONGEST} characters"));
    }
    digest.map_or(Ok(()), |(algorithm, sum)| check_digest(algorithm, sum))
}

/// The registry and what is in it; names without a registry are those of Docker Hub.
fn split(image: &str) -> (&str, Cow<'_, str>) {
    let (domain, rest) = match image.split_once('/') {
        None => (HUB, image),
        Some(("index.docker.io" | HUB, rest)) => (HUB, rest),
        Some((first, rest)) if is_registry(first) => (first, rest),
        Some(_) => (HUB, image),
    };
    let official = domain == HUB && !rest.contains('/');
    (domain, if official { format!("library/{rest}").into() } else { rest.into() })
}

/// Namespaces have no capitals, so that what has some is a registry.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.to_lowercase() != first
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port))
            if !address.is_empty() && address.chars().all(|c| is_hex_digit(c) || c == ':') =>
        {
            ("", port.strip_prefix(':').or(port.is_empty().then_some("0")))
        }
        Some(_) => return false,
        None => domain.split_once(':').map_or((domain, Some("0")), |(host, port)| (host, Some(port))),
    };
    let labels = host.is_empty() || host.split('.').all(is_label);
    labels
        && !domain.is_empty()
        && port.is_some_and(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_digit()))
}

fn is_label(label: &str) -> bool {
    let dashed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    !label.is_empty() && label.chars().all(dashed) && !label.starts_with('-') && !label.ends_with('-')
}

/// Letters and digits, with a dot, one or two low lines, or dashes between them.
fn is_component(component: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let known = |between: &str| {
        matches!(between, "" | "." | "_" | "__") || between.chars().all(|separator| separator == '-')
    };
    component.starts_with(plain) && component.ends_with(plain) && component.split(plain).all(known)
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.starts_with(word) && tag.len() <= 128 && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn is_algorithm(algorithm: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.chars().all(|c| c.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(part)
}

fn is_any_hex(text: &str) -> bool {
    text.chars().all(is_hex_digit)
}

fn is_hex_digit(c: char) -> bool {
    c.is_ascii_hexdigit()
}

/// A digit as sums are written.
fn is_hex(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, 'a'..='f')
}

fn check_digest(algorithm: &str, sum: &str) -> Result<(), String> {
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err("unsupported digest algorithm".to_owned()),
    };
    if sum.len() != length {
        return Err("invalid checksum digest length".to_owned());
    }
    if sum.chars().all(is_hex) { Ok(()) } else { Err("invalid checksum digest format".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken() {
        let sum = "0123456789abcdef".repeat(4);
        for image in [
            "busybox",
            "busybox:1.36_x-y",
            "library/busybox",
            "a__b/c.d/e--f:1",
            "localhost/x",
            "localhost:5000/x:y",
            "registry.k8s.io/pause:3.10",
            "UPPER/x",
            "10.0.0.1:80/x",
            "[::1]:5000/x",
            &format!("r.io/x@sha256:{sum}"),
            &format!("r.io/x:1@sha256:{sum}"),
        ] {
            assert_eq!(check(image), Ok(()), "{image}");
        }
    }

    #[test]
    fn what_is_none_is_told_in_upstreams_words() {
        let sum = "0123456789abcdef".repeat(4);
        let invalid = "invalid reference format";
        for (image, why) in [
            ("", invalid),
            ("a b", invalid),
            ("-x", invalid),
            ("x:", invalid),
            ("x:-y", invalid),
            ("x//y", invalid),
            ("a___b", invalid),
            ("r.io:/x", invalid),
            ("-r.io/x", invalid),
            ("https://r.io/x", invalid),
            ("x@sha256:1", invalid),
            ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
            ("r.io/Foo:1", "invalid reference format: repository name (Foo) must be lowercase"),
            (&sum, &format!("invalid repository name ({sum}), cannot specify 64-byte hexadecimal strings")),
            (&format!("x@md5:{sum}"), "unsupported digest algorithm"),
            (&format!("x@sha512:{sum}"), "invalid checksum digest length"),
            (&format!("x@sha256:{}", sum.to_uppercase()), "invalid checksum digest format"),
            (&["a"; 130].join("/"), "repository name must not be more than 255 characters"),
        ] {
            assert_eq!(check(image).unwrap_err(), why, "{image}");
        }
    }
}
