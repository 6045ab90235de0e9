//! Where an answer sends a probe.

use http::Uri;

/// The address that a `Location` means, seen from the one that was asked.
pub(super) fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let text = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let text = text.split('#').next().unwrap_or_default();
    let uri: Uri = text.parse().ok()?;
    (matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some()).then_some(uri)
}

/// Host and port to connect to.
pub(super) fn address(uri: &Uri) -> String {
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    format!("{}:{port}", uri.host().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_seen_from_where_they_were_found() {
        let from: Uri = "http://10.0.0.1:8080/a/b?x=1".parse().unwrap();
        for (location, expected) in [
            ("http://0.0.0.0/", Some("http://0.0.0.0/")),
            ("/healthz?y=2#top", Some("http://10.0.0.1:8080/healthz?y=2")),
            ("c", Some("http://10.0.0.1:8080/a/c")),
            ("//other/x", Some("http://other/x")),
            ("ftp://other/x", None),
        ] {
            let found = resolve(&from, location).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{location}");
        }
        assert_eq!(address(&from), "10.0.0.1:8080");
        assert_eq!(address(&"https://[::1]/".parse().unwrap()), "[::1]:443");
    }
}
