//! Which credentials fit an image: those of pull secrets, of the node's own files and of credential providers, the more
//! specific registry before the less specific one.

use std::path::Path;

use api::Value;
use base64::Engine as _;
use k8s_cri::v1 as cri;
use sha2::{Digest, Sha256};

/// Docker's registry, which has a name of its own in configurations.
const HUB: &str = "index.docker.io";

/// Who a credential belongs to; pods of others may not use what was pulled with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The node: any pod may use it.
    Node,
    /// A pull secret.
    Secret(Coordinates),
    /// A service account, for whose token a provider gave the credential.
    ServiceAccount(Coordinates),
}

/// An object's names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Coordinates {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl Coordinates {
    pub(super) fn of(object: &Value) -> Self {
        Self {
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
        }
    }
}

/// A user name and password. Not to be printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credential {
    pub(super) user: String,
    pub(super) password: String,
    pub(super) email: String,
    pub(super) source: Source,
}

impl Credential {
    /// What the runtime is given.
    pub(super) fn auth(&self) -> cri::AuthConfig {
        cri::AuthConfig {
            username: self.user.clone(),
            password: self.password.clone(),
            ..cri::AuthConfig::default()
        }
    }

    /// Stands for the credential in records, as in upstream's.
    pub(super) fn hash(&self) -> String {
        let mut document = api::Map::new();
        for (name, value) in [("username", &self.user), ("password", &self.password), ("email", &self.email)]
        {
            if !value.is_empty() {
                document.insert(name, value.as_str());
            }
        }
        hex(&Sha256::digest(Value::Object(document).to_string()))
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Credentials by registry, in order of their use.
#[derive(Default)]
pub(super) struct Keyring(Vec<(String, Credential)>);

impl Keyring {
    /// Adds the credentials of a pull secret of either type.
    pub(super) fn add_secret(&mut self, secret: &Value) {
        let source = Source::Secret(Coordinates::of(secret));
        for (key, data) in crate::env::data(secret, "secret") {
            let Ok(document) = serde_json::from_slice::<Value>(&data) else { continue };
            match key.as_str() {
                ".dockerconfigjson" => self.add(document.get("auths"), &source),
                ".dockercfg" => self.add(&document, &source),
                _ => {}
            }
        }
    }

    /// Adds what the node's own files hold: the first `config.json` there is in these folders, else the first `.dockercfg`.
    pub(super) fn add_node(&mut self, folders: &[&Path]) {
        let read = |name: &str| {
            let texts = folders.iter().filter_map(|folder| std::fs::read(folder.join(name)).ok());
            texts.filter_map(|text| serde_json::from_slice::<Value>(&text).ok()).next()
        };
        if let Some(document) = read("config.json") {
            self.add(document.get("auths"), &Source::Node);
        } else if let Some(document) = read(".dockercfg") {
            self.add(&document, &Source::Node);
        }
    }

    /// Adds a map from registries to their users.
    pub(super) fn add(&mut self, auths: &Value, source: &Source) {
        for (server, entry) in auths.as_object().into_iter().flat_map(|map| map.iter()) {
            let Some((user, password)) = user_of(entry) else { continue };
            let email = entry.str_at(&["email"]).to_owned();
            self.0.push((registry(server), Credential { user, password, email, source: source.clone() }));
        }
    }

    /// The credentials that fit a repository, such as `docker.io/library/busybox`.
    pub(super) fn lookup(mut self, repository: &str) -> Vec<Credential> {
        // More specific paths sort behind their prefixes.
        self.0.sort_by(|(one, _), (other, _)| other.cmp(one));
        let fits = self.0.iter().any(|(pattern, _)| matches(pattern, repository));
        let hub = !fits && repository.starts_with("docker.io/");
        let chosen = self
            .0
            .into_iter()
            .filter(|(pattern, _)| if hub { pattern == HUB } else { matches(pattern, repository) });
        chosen.map(|(_, credential)| credential).collect()
    }
}

/// The user and password of an entry; none when its `auth` is no such pair.
fn user_of(entry: &Value) -> Option<(String, String)> {
    let encoded = entry.str_at(&["auth"]).trim();
    if encoded.is_empty() {
        return Some((entry.str_at(&["username"]).to_owned(), entry.str_at(&["password"]).to_owned()));
    }
    let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
    let decoded = engine.decode(encoded.trim_end_matches('=')).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// A registry as configurations name it, without scheme and version.
fn registry(server: &str) -> String {
    let rest = server.trim_start_matches("https://").trim_start_matches("http://");
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = path.strip_prefix("/v1/").or(path.strip_prefix("/v2/")).map_or(path, |_| &path[3..]);
    if path == "/" { host.to_owned() } else { format!("{host}{path}") }
}

/// Whether a pattern such as `*.registry.io/team` covers a repository: the host part by part, the path as a prefix.
pub(super) fn matches(pattern: &str, repository: &str) -> bool {
    let split = |text: &'_ str| {
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
        (name.to_owned(), port.to_owned(), path.to_owned())
    };
    let (pattern, pattern_port, prefix) = split(pattern);
    let (host, port, path) = split(repository);
    let (globs, parts): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), host.split('.').collect());
    pattern_port == port
        && globs.len() == parts.len()
        && path.starts_with(&prefix)
        && globs.iter().zip(&parts).all(|(glob, part)| glob_matches(glob.as_bytes(), part.as_bytes()))
}

/// `*` stands for any text, `?` for one letter.
fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    match (glob, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            glob_matches(rest, text) || text.split_first().is_some_and(|(_, tail)| glob_matches(glob, tail))
        }
        ([b'?', rest @ ..], [_, tail @ ..]) => glob_matches(rest, tail),
        ([one, rest @ ..], [other, tail @ ..]) => one == other && glob_matches(rest, tail),
        _ => false,
    }
}

/// An image without its tag and digest.
pub(super) fn without_tag(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

/// The repository of an image in full: `busybox:1` is in `docker.io/library/busybox`.
pub(super) fn repository(image: &str) -> String {
    let name = without_tag(image);
    match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some(("index.docker.io" | "docker.io", rest)) if rest.contains('/') => format!("docker.io/{rest}"),
        Some(("index.docker.io" | "docker.io", rest)) => format!("docker.io/library/{rest}"),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    fn users(auths: &Value, image: &str) -> Vec<String> {
        let mut keyring = Keyring::default();
        keyring.add(auths, &Source::Node);
        keyring.lookup(&repository(image)).into_iter().map(|credential| credential.user).collect()
    }

    #[test]
    fn credentials_are_found_by_registry_and_path() {
        let auths = object!({
            "registry.example.org": {"auth": "dTpw"},
            "https://registry.example.org/team/": {"username": "team"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "x"},
            "*.wild.example.org": {"username": "wild"},
            "local:5000": {"username": "port"},
            "broken.example.org": {"auth": "bm90aGluZw=="},
        });
        for (image, expected) in [
            ("registry.example.org/a/b:1", vec!["u"]),
            ("registry.example.org/team/b@sha256:1", vec!["team", "u"]),
            ("busybox", vec!["hub"]),
            ("library/busybox:1", vec!["hub"]),
            ("docker.io/library/busybox", vec!["hub"]),
            ("other.example.org/a", vec![]),
            ("a.wild.example.org/b", vec!["wild"]),
            ("a.b.wild.example.org/b", vec![]),
            ("local:5000/a:1", vec!["port"]),
            ("local:5001/a:1", vec![]),
            ("broken.example.org/a", vec![]),
        ] {
            assert_eq!(users(&auths, image), expected, "{image}");
        }
    }

    #[test]
    fn images_are_named_in_full() {
        for (image, name, full) in [
            ("busybox", "busybox", "docker.io/library/busybox"),
            ("a/b:1", "a/b", "docker.io/a/b"),
            ("docker.io/b:1", "docker.io/b", "docker.io/library/b"),
            ("localhost/b@sha256:12", "localhost/b", "localhost/b"),
            ("h:5000/b:1@sha256:12", "h:5000/b", "h:5000/b"),
            ("h:5000/b", "h:5000/b", "h:5000/b"),
        ] {
            assert_eq!((without_tag(image), repository(image).as_str()), (name, full), "{image}");
        }
    }

    #[test]
    fn the_nodes_files_are_read_in_order() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |dir: &tempfile::TempDir, name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap()
        };
        let found = || {
            let mut keyring = Keyring::default();
            keyring.add_node(&[one.path(), other.path()]);
            keyring.lookup("r.io/a").into_iter().map(|c| c.user).collect::<Vec<_>>()
        };
        assert!(found().is_empty());
        write(&one, ".dockercfg", r#"{"r.io": {"username": "old"}}"#);
        assert_eq!(found(), ["old"]);
        write(&other, "config.json", r#"{"auths": {"r.io": {"username": "new"}}}"#);
        assert_eq!(found(), ["new"]);
    }

    #[test]
    fn a_hash_is_that_of_upstreams_form() {
        let credential =
            Credential { user: "u".into(), password: "p".into(), email: String::new(), source: Source::Node };
        let expected = hex(&Sha256::digest(r#"{"username":"u","password":"p"}"#));
        assert_eq!(credential.hash(), expected);
    }
}
