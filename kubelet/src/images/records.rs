//! Who may use an image that is here already: records of what was pulled, and with whose credentials, so that a pod cannot
//! have another's private image by its name (KEP-2535). Files, folders and forms are upstream's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::keyring::{Coordinates, Credential, Source, hex, without_tag};
use crate::metrics::Check;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
/// Above so many credentials of an image, those that fit are not added any more.
const MANY: usize = 100;

/// A pull that was begun: when the kubelet dies meanwhile, the image counts as pulled by it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Intent {
    kind: String,
    api_version: String,
    image: String,
}

/// An image that was pulled.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Pulled {
    kind: String,
    api_version: String,
    last_updated_time: String,
    image_ref: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    credential_mapping: BTreeMap<String, Access>,
}

/// Whose credentials an image was pulled with, under one name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Access {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubernetes_secrets: Vec<Secret>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubernetes_service_accounts: Vec<Account>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    node_pods_accessible: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Account {
    uid: String,
    namespace: String,
    name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Secret {
    #[serde(flatten)]
    of: Account,
    credential_hash: String,
}

impl From<&Coordinates> for Account {
    fn from(object: &Coordinates) -> Self {
        Self { uid: object.uid.clone(), namespace: object.namespace.clone(), name: object.name.clone() }
    }
}

impl Access {
    /// Access by one credential; none stands for a pull without any.
    fn by(credential: Option<&Credential>) -> Self {
        let mut access = Self::default();
        match credential.map(|c| (c, &c.source)) {
            None | Some((_, Source::Node)) => access.node_pods_accessible = true,
            Some((c, Source::Secret(of))) => {
                access.kubernetes_secrets.push(Secret { of: of.into(), credential_hash: c.hash() });
            }
            Some((_, Source::ServiceAccount(of))) => access.kubernetes_service_accounts.push(of.into()),
        }
        access
    }

    /// Adds another access; false when it brings nothing new.
    fn add(&mut self, more: Self) -> bool {
        let before = self.clone();
        if more.node_pods_accessible {
            *self = more;
        } else if !self.node_pods_accessible {
            for secret in more.kubernetes_secrets {
                self.kubernetes_secrets.retain(|known| known.of != secret.of);
                self.kubernetes_secrets.push(secret);
            }
            self.kubernetes_secrets.sort_by(|a, b| order(&a.of).cmp(&order(&b.of)));
            for account in more.kubernetes_service_accounts {
                self.kubernetes_service_accounts.retain(|known| *known != account);
                self.kubernetes_service_accounts.push(account);
            }
            self.kubernetes_service_accounts.sort_by(|a, b| order(a).cmp(&order(b)));
        }
        *self != before
    }
}

fn order(account: &Account) -> (&str, &str, &str) {
    (&account.namespace, &account.name, &account.uid)
}

/// Whose credentials have to be shown for images that are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verification {
    /// Nobody's.
    Never,
    /// Those of images that this kubelet pulled; others were put here for all.
    NeverPreloaded,
    /// Those of all images but these: names, or `registry/path/*`.
    NeverListed(Vec<String>),
    /// Those of all images.
    Always,
}

impl Verification {
    /// Reads the two fields of the configuration.
    ///
    /// # Errors
    /// A sentence about what is not understood.
    pub(crate) fn new(policy: &str, list: &[String]) -> Result<Self, String> {
        if policy != "NeverVerifyAllowlistedImages" && !list.is_empty() {
            return Err(format!(
                "can't set preloadedImagesVerificationAllowlist if the imagePullCredentialsVerificationPolicy is not \
                 \"NeverVerifyAllowlistedImages\": {policy:?}"
            ));
        }
        match policy {
            "NeverVerify" => Ok(Self::Never),
            "NeverVerifyPreloadedImages" => Ok(Self::NeverPreloaded),
            "NeverVerifyAllowlistedImages" => {
                list.iter().try_for_each(|pattern| check_pattern(pattern))?;
                Ok(Self::NeverListed(list.to_vec()))
            }
            "AlwaysVerify" => Ok(Self::Always),
            other => Err(format!("unknown image pull credential verification policy: {other}")),
        }
    }

    fn needed(&self, image: &str, pulled_here: bool) -> bool {
        match self {
            Self::Never => false,
            Self::NeverPreloaded => pulled_here,
            Self::NeverListed(list) => {
                let name = without_tag(image);
                !list.iter().any(|pattern| match pattern.strip_suffix('*') {
                    Some(prefix) => name.starts_with(prefix),
                    None => name == pattern,
                })
            }
            Self::Always => true,
        }
    }
}

fn check_pattern(pattern: &str) -> Result<(), String> {
    let name = pattern.strip_suffix("/*");
    if pattern.trim() != pattern {
        return Err(format!("leading/trailing spaces are not allowed: {pattern}"));
    }
    if name.unwrap_or(pattern).contains('*') {
        return Err(format!(
            "not a valid wildcard pattern, only patterns ending with '/*' are allowed: {pattern}"
        ));
    }
    match name {
        Some("") => Err("at least registry hostname is required".to_owned()),
        None if pattern.is_empty() => Err(format!("the supplied pattern is too short: {pattern}")),
        None if without_tag(pattern) != pattern => {
            Err(format!("neither tag nor digest is accepted in an image reference: {pattern}"))
        }
        _ => Ok(()),
    }
}

/// The records, in two folders.
pub(crate) struct Records {
    pulling: PathBuf,
    pulled: PathBuf,
    verification: Verification,
    /// Pulls under way, by image; records are read and written by one at a time.
    under_way: Mutex<BTreeMap<String, usize>>,
}

impl Records {
    /// Those in the kubelet's folder.
    ///
    /// # Errors
    /// The folders cannot be made.
    pub(crate) fn open(root: &Path, verification: Verification) -> io::Result<Self> {
        let dir = root.join("image_manager");
        let (pulling, pulled) = (dir.join("pulling"), dir.join("pulled"));
        for folder in [&pulling, &pulled] {
            fs::create_dir_all(folder)?;
        }
        Ok(Self { pulling, pulled, verification, under_way: Mutex::default() })
    }

    /// Notes that a pull begins.
    pub(super) fn begin(&self, image: &str) -> io::Result<()> {
        let mut under_way = self.under_way.lock();
        let intent = Intent {
            kind: "ImagePullIntent".to_owned(),
            api_version: API_VERSION.to_owned(),
            image: image.to_owned(),
        };
        write(&self.pulling, image, &intent)?;
        *under_way.entry(image.to_owned()).or_default() += 1;
        Ok(())
    }

    /// Notes that a pull ended: as `image_ref` with a credential, or without success.
    pub(super) fn end(&self, image: &str, outcome: Option<(&str, Option<&Credential>)>) {
        let mut under_way = self.under_way.lock();
        if let Some((image_ref, credential)) = outcome
            && let Err(error) = self.add(image, image_ref, Some(Access::by(credential)))
        {
            // The intent stays, so that the image still counts as pulled by this kubelet.
            tracing::error!(image, err = %error, "Cannot record a pulled image");
            return;
        }
        let left = under_way.get(image).copied().unwrap_or(1).saturating_sub(1);
        if left > 0 {
            under_way.insert(image.to_owned(), left);
            return;
        }
        under_way.remove(image);
        forget(&self.pulling, image);
    }

    /// Makes records of the pulls that an earlier process began, where the image is here now. `images` are those of the
    /// runtime: each with its reference and names.
    pub(super) fn recover(&self, images: &[(String, Vec<String>)]) {
        let under_way = self.under_way.lock();
        for intent in read_all::<Intent>(&self.pulling).filter(|i| !under_way.contains_key(&i.image)) {
            let here = images.iter().find(|(_, names)| names.contains(&intent.image));
            let Some((image_ref, _)) = here else { continue };
            match self.add(&intent.image, image_ref, None) {
                Ok(()) => forget(&self.pulling, &intent.image),
                Err(error) => {
                    tracing::error!(image = intent.image, err = %error, "Cannot record a pulled image")
                }
            }
        }
    }

    /// Forgets images that are not here any more and were not recorded since `since`.
    pub(super) fn prune(&self, image_refs: &[String], since: Timestamp) {
        let _alone = self.under_way.lock();
        for record in read_all::<Pulled>(&self.pulled) {
            let old = api::time::parse(&record.last_updated_time).is_none_or(|updated| updated < since);
            if old && !image_refs.contains(&record.image_ref) {
                forget(&self.pulled, &record.image_ref);
            }
        }
    }

    /// Whether a pod has to pull an image that is here, because it has not shown that it may use it. `credentials` are those
    /// it has, asked for only when they matter.
    pub(super) async fn check(
        &self,
        image: &str,
        image_ref: &str,
        credentials: impl Future<Output = Vec<Credential>>,
    ) -> Check {
        let access = {
            let _alone = self.under_way.lock();
            let record = match read::<Pulled>(&self.pulled, image_ref) {
                Ok(record) => record.filter(|record| record.image_ref == image_ref),
                Err(error) => {
                    // Whoever it was for, it was not for everybody.
                    tracing::error!(image, err = %error, "Cannot read the record of an image");
                    return Check::Error;
                }
            };
            let pulled_here = record.is_some() || self.pulling.join(file_name(image)).exists();
            if !self.verification.needed(image, pulled_here) {
                return Check::ByPolicy;
            }
            record.and_then(|mut record| record.credential_mapping.remove(without_tag(image)))
        };
        let Some(access) = access else { return Check::MustPull };
        if access.node_pods_accessible {
            return Check::ByCredentials;
        }
        let many = access.kubernetes_secrets.len() >= MANY;
        let fits = credentials.await.into_iter().find(|credential| fits(&access, credential, many));
        let Some(credential) = fits else { return Check::MustPull };
        if !many {
            let _alone = self.under_way.lock();
            if let Err(error) = self.add(image, image_ref, Some(Access::by(Some(&credential)))) {
                tracing::warn!(image, err = %error, "Cannot record who uses an image");
            }
        }
        Check::ByCredentials
    }

    /// How many pulls were begun and not ended, and how many images were pulled.
    pub(super) fn count(&self) -> (i64, i64) {
        let _alone = self.under_way.lock();
        let files = |dir: &Path| fs::read_dir(dir).map_or(0, |entries| entries.count() as i64);
        (files(&self.pulling), files(&self.pulled))
    }

    fn add(&self, image: &str, image_ref: &str, more: Option<Access>) -> io::Result<()> {
        // A record that cannot be read is begun anew.
        let known = read::<Pulled>(&self.pulled, image_ref).ok().flatten();
        let new = known.is_none();
        let mut record = known.unwrap_or_default();
        let changed = more.is_some_and(|more| {
            record.credential_mapping.entry(without_tag(image).to_owned()).or_default().add(more)
        });
        if !new && !changed {
            return Ok(());
        }
        record.kind = "ImagePulledRecord".to_owned();
        record.api_version = API_VERSION.to_owned();
        record.image_ref = image_ref.to_owned();
        record.last_updated_time = api::time::format(Timestamp::now());
        write(&self.pulled, image_ref, &record)
    }
}

/// Whether a credential is one of those an image was pulled with: the same content, or the same object, as long as it can be
/// noted that its content changed.
fn fits(access: &Access, credential: &Credential, many: bool) -> bool {
    match &credential.source {
        Source::Node => false,
        Source::Secret(of) => {
            let (of, hash) = (Account::from(of), credential.hash());
            let mut known = access.kubernetes_secrets.iter();
            known.any(|known| known.credential_hash == hash || known.of == of && !many)
        }
        Source::ServiceAccount(of) => access.kubernetes_service_accounts.contains(&of.into()),
    }
}

fn file_name(name: &str) -> String {
    format!("sha256-{}", hex(&Sha256::digest(name)))
}

/// Writes a file as a whole or not at all.
fn write(dir: &Path, name: &str, content: &impl Serialize) -> io::Result<()> {
    let path = dir.join(file_name(name));
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, serde_json::to_vec(content)?)?;
    fs::rename(&temporary, &path)
}

fn read<T: for<'de> Deserialize<'de>>(dir: &Path, name: &str) -> io::Result<Option<T>> {
    match fs::read(dir.join(file_name(name))) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_all<T: for<'de> Deserialize<'de>>(dir: &Path) -> impl Iterator<Item = T> {
    let paths = fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let whole = paths.filter(|path| path.extension().is_none());
    whole.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok())
}

fn forget(dir: &Path, name: &str) {
    match fs::remove_file(dir.join(file_name(name))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(image = name, err = %error, "Cannot remove the record of an image");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    const IMAGE: &str = "r.io/private:1";

    fn secret(name: &str, password: &str) -> Credential {
        let of = Coordinates { namespace: "ns".into(), name: name.into(), uid: format!("{name}-uid") };
        let (user, email) = ("u".to_owned(), String::new());
        Credential { user, password: password.into(), email, source: Source::Secret(of) }
    }

    fn records(dir: &Path) -> Records {
        Records::open(dir, Verification::NeverPreloaded).unwrap()
    }

    async fn must_pull(
        records: &Records,
        image: &str,
        image_ref: &str,
        credentials: Vec<Credential>,
    ) -> bool {
        records.check(image, image_ref, ready(credentials)).await.must_pull()
    }

    #[tokio::test]
    async fn a_private_image_is_for_those_who_show_its_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let records = records(dir.path());
        assert!(!must_pull(&records, "preloaded", "sha256:0", vec![]).await);
        records.begin(IMAGE).unwrap();
        assert!(must_pull(&records, IMAGE, "sha256:1", vec![]).await, "it is not known yet with whose");
        records.end(IMAGE, Some(("sha256:1", Some(&secret("mine", "p")))));
        for (who, credentials, pulls) in [
            ("without credentials", vec![], true),
            ("with others", vec![secret("other", "q")], true),
            ("with the same secret", vec![secret("mine", "p")], false),
            ("with the same content", vec![secret("copy", "p")], false),
            ("with a secret that changed since", vec![secret("mine", "new")], false),
            ("with a copy of the changed one", vec![secret("another", "new")], false),
        ] {
            assert_eq!(must_pull(&records, IMAGE, "sha256:1", credentials).await, pulls, "{who}");
        }
        assert!(must_pull(&records, "r.io/other:1", "sha256:1", vec![secret("mine", "p")]).await);
        records.begin(IMAGE).unwrap();
        records.end(IMAGE, Some(("sha256:1", None)));
        assert!(!must_pull(&records, IMAGE, "sha256:1", vec![]).await, "it can be pulled by anybody");
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let records = records(dir.path());
        fs::write(records.pulled.join(file_name("sha256:1")), "{").unwrap();
        assert!(must_pull(&records, IMAGE, "sha256:1", vec![secret("mine", "p")]).await);
        records.begin(IMAGE).unwrap();
        records.end(IMAGE, Some(("sha256:1", Some(&secret("mine", "p")))));
        assert!(!must_pull(&records, IMAGE, "sha256:1", vec![secret("mine", "p")]).await);
    }

    #[tokio::test]
    async fn a_secret_that_changed_does_not_count_where_there_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let records = records(dir.path());
        for n in 0..MANY {
            records.begin(IMAGE).unwrap();
            let own = secret(&format!("s{n}"), &format!("p{n}"));
            records.end(IMAGE, Some(("sha256:1", Some(&own))));
        }
        assert!(!must_pull(&records, IMAGE, "sha256:1", vec![secret("copy", "p0")]).await);
        assert!(must_pull(&records, IMAGE, "sha256:1", vec![secret("s0", "new")]).await);
    }

    #[tokio::test]
    async fn a_pull_that_was_cut_short_counts_as_one_of_this_node() {
        let dir = tempfile::tempdir().unwrap();
        records(dir.path()).begin(IMAGE).unwrap();
        let records = records(dir.path());
        assert!(must_pull(&records, IMAGE, "sha256:1", vec![]).await);
        records.recover(&[("sha256:1".to_owned(), vec![IMAGE.to_owned()])]);
        assert_eq!(fs::read_dir(&records.pulling).unwrap().count(), 0);
        assert!(must_pull(&records, IMAGE, "sha256:1", vec![secret("mine", "p")]).await);
    }

    #[tokio::test]
    async fn records_of_images_that_are_gone_are_pruned() {
        let dir = tempfile::tempdir().unwrap();
        let records = records(dir.path());
        for (image, image_ref) in [("a:1", "sha256:a"), ("b:1", "sha256:b")] {
            records.begin(image).unwrap();
            records.end(image, Some((image_ref, None)));
        }
        records.prune(&[], Timestamp::UNIX_EPOCH);
        assert_eq!(read_all::<Pulled>(&records.pulled).count(), 2);
        let later = Timestamp::now().checked_add(jiff::SignedDuration::from_secs(9)).unwrap();
        records.prune(&["sha256:b".to_owned()], later);
        let left: Vec<_> = read_all::<Pulled>(&records.pulled).map(|record| record.image_ref).collect();
        assert_eq!(left, ["sha256:b"]);
    }

    #[test]
    fn a_file_of_upstream_is_read_and_written_alike() {
        let text = r#"{"kind":"ImagePulledRecord","apiVersion":"kubelet.config.k8s.io/v1beta1","lastUpdatedTime":"2024-10-21T12:26:40Z","imageRef":"r","credentialMapping":{"docker.io/a/b":{"kubernetesSecrets":[{"uid":"u","namespace":"default","name":"pull","credentialHash":"h"}]}}}"#;
        let record: Pulled = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
    }

    #[test]
    fn policies_say_which_images_are_verified() {
        let listed = |patterns: &[&str]| {
            let list: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            Verification::new("NeverVerifyAllowlistedImages", &list)
        };
        for (policy, image, pulled_here, needed) in [
            (Verification::Never, "a", true, false),
            (Verification::NeverPreloaded, "a", false, false),
            (Verification::NeverPreloaded, "a", true, true),
            (Verification::Always, "a", false, true),
            (listed(&["r.io/a", "r.io/team/*"]).unwrap(), "r.io/a:1", true, false),
            (listed(&["r.io/a", "r.io/team/*"]).unwrap(), "r.io/team/b", true, false),
            (listed(&["r.io/a", "r.io/team/*"]).unwrap(), "r.io/b", false, true),
        ] {
            assert_eq!(policy.needed(image, pulled_here), needed, "{policy:?} {image}");
        }
        for bad in ["/*", "a/*/b", " a", "a:1", ""] {
            assert!(listed(&[bad]).is_err(), "{bad:?}");
        }
        assert!(Verification::new("Sometimes", &[]).is_err());
        assert!(Verification::new("AlwaysVerify", &["a".to_owned()]).is_err());
    }
}
