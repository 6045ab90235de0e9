//! Encryption by a plug-in: version 2 of the key management service.
//!
//! The plug-in encrypts a seed, once for each of its own keys. A key for each value is derived from the seed, so that
//! the plug-in is not asked for each of them; what is stored has the encrypted seed with it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use prost::Message;
use ring::hkdf;

use super::Opened;
use super::keys::{Gcm, random};
use super::plugin::{DecryptRequest, EncryptRequest, Plugin, StatusResponse};

const SEED: usize = 32;
const INFO: usize = 32;
/// The seed is used for writes so long after the plug-in last said that its key is still the same.
const WRITE_TTL: Duration = Duration::from_secs(3 * 60);
const HEALTHY_INTERVAL: Duration = Duration::from_secs(60);
const BROKEN_INTERVAL: Duration = Duration::from_secs(10);
/// Answers to health checks are repeated for this long.
const HEALTHY_TTL: Duration = Duration::from_secs(20);
const BROKEN_TTL: Duration = Duration::from_secs(3);
/// A seed that the plug-in just refused to decrypt is not asked for again for this long.
const REFUSAL_TTL: Duration = Duration::from_secs(1);
/// So many seeds are kept.
const SEEDS: usize = 1000;
const MAX_KEY_ID: usize = 1 << 10;
const MAX_SEED: usize = 1 << 10;
const MAX_ANNOTATIONS: usize = 32 << 10;

/// What is stored.
#[derive(Clone, PartialEq, Message)]
struct EncryptedObject {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    source: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    source_type: i32,
}

/// The encrypted source is a key of AES-GCM.
const SOURCE_KEY: i32 = 0;
/// The encrypted source is a seed.
const SOURCE_SEED: i32 = 1;

impl EncryptedObject {
    fn check(&self) -> Result<(), String> {
        if !matches!(self.source_type, SOURCE_KEY | SOURCE_SEED) {
            return Err(format!("unknown encryptedDEKSourceType: {}", self.source_type));
        }
        if self.data.is_empty() {
            return Err("encrypted data is empty".to_owned());
        }
        self.check_source()
    }

    fn check_source(&self) -> Result<(), String> {
        let size = self.source.len();
        if size == 0 {
            return Err("failed to validate encrypted DEK source: encrypted DEK source is empty".to_owned());
        }
        if size > MAX_SEED {
            return Err(format!(
                "failed to validate encrypted DEK source: encrypted DEK source is {size} bytes, which exceeds the max size of {MAX_SEED}"
            ));
        }
        check_key_id(&self.key_id).map_err(|e| format!("failed to validate key id: {e}"))?;
        let size: usize = self.annotations.iter().map(|(k, v)| k.len() + v.len()).sum();
        if size > MAX_ANNOTATIONS {
            return Err(format!(
                "failed to validate annotations: total size of annotations is {size}, which exceeds the max size of {MAX_ANNOTATIONS}"
            ));
        }
        for key in self.annotations.keys() {
            let wrong = api::names::dns_subdomain(key);
            if !wrong.is_empty() || !key.contains('.') {
                let quoted = api::field::go_quote(key);
                let why = "should be a domain with at least two segments separated by dots";
                return Err(format!(
                    "failed to validate annotations: annotations: Invalid value: {quoted}: {why}"
                ));
            }
        }
        Ok(())
    }

    /// What tells one encrypted source from another.
    fn source_key(&self) -> Vec<u8> {
        Self { data: Vec::new(), ..self.clone() }.encode_to_vec()
    }
}

fn check_key_id(id: &str) -> Result<(), String> {
    match id.len() {
        0 => Err("keyID is empty".to_owned()),
        n if n > MAX_KEY_ID => Err(format!("keyID is {n} bytes, which exceeds the max size of {MAX_KEY_ID}")),
        _ => Ok(()),
    }
}

/// Keys are told of by their digest.
fn digest(id: &str) -> String {
    if id.is_empty() {
        return String::new();
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, id.as_bytes());
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// What values are encrypted with.
enum Source {
    Seed(hkdf::Prk),
    Key(Gcm),
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derived(seed: &hkdf::Prk, info: &[u8]) -> Result<Gcm, String> {
    let mut key = [0; 32];
    let info = [info];
    let expanded = seed.expand(&info, Length(key.len())).and_then(|okm| okm.fill(&mut key));
    let key = expanded.ok().and_then(|()| Gcm::new(&key));
    key.ok_or_else(|| "failed to derive key from KDF".to_owned())
}

impl Source {
    fn new(bytes: &[u8], source_type: i32) -> Result<Self, String> {
        match source_type {
            SOURCE_SEED if bytes.len() < SEED => {
                Err(format!("invalid seed length {} used for key generation", bytes.len()))
            }
            SOURCE_SEED => Ok(Source::Seed(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, bytes))),
            _ => match Gcm::new(bytes) {
                Some(key) => Ok(Source::Key(key)),
                None => Err(format!("crypto/aes: invalid key size {}", bytes.len())),
            },
        }
    }

    fn open(&self, bytes: &[u8], authenticated: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Source::Key(key) => key.open(bytes, authenticated),
            Source::Seed(seed) => {
                let Some((info, rest)) = bytes.split_at_checked(INFO) else {
                    return Err("the stored data was shorter than the required size".to_owned());
                };
                derived(seed, info)?.open(rest, authenticated)
            }
        }
    }

    fn seal(&self, value: &[u8], authenticated: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Source::Key(key) => key.seal(value, authenticated),
            Source::Seed(seed) => {
                let info = random::<INFO>()?;
                Ok([&info[..], &derived(seed, &info)?.seal(value, authenticated)?].concat())
            }
        }
    }
}

/// What is written with.
struct State {
    source: Arc<Source>,
    /// Everything but the data.
    object: EncryptedObject,
    expires: Instant,
}

/// What a plug-in made of an encrypted source.
type Decrypted = Result<Arc<Source>, (String, Instant)>;

/// A plug-in.
pub(super) struct Kms {
    name: String,
    plugin: Plugin,
    state: ArcSwapOption<State>,
    sources: Mutex<HashMap<Vec<u8>, Decrypted>>,
    probe: tokio::sync::Mutex<Probe>,
    /// When it is asked next.
    due: Mutex<Instant>,
}

/// What the last health check came to.
#[derive(Default)]
struct Probe {
    version: String,
    last: Option<(Instant, Result<(), String>)>,
}

impl Kms {
    /// Talks to `plugin`.
    pub(super) fn new(name: &str, plugin: Plugin) -> Self {
        Self {
            name: name.to_owned(),
            plugin,
            state: ArcSwapOption::empty(),
            sources: Mutex::default(),
            probe: tokio::sync::Mutex::default(),
            due: Mutex::new(Instant::now()),
        }
    }

    /// Asks how the plug-in is, if that has not been done for a while.
    pub(super) async fn probe(&self) {
        if Instant::now() < *self.due.lock() {
            return;
        }
        let pause = match self.check().await {
            Ok(()) => HEALTHY_INTERVAL,
            Err(why) => {
                tracing::warn!(name = self.name, why, "a plug-in for encryption is not well");
                BROKEN_INTERVAL
            }
        };
        *self.due.lock() = Instant::now() + pause;
    }

    /// Whether the plug-in works; and takes a new seed when it has a new key.
    pub(super) async fn check(&self) -> Result<(), String> {
        let mut probe = self.probe.lock().await;
        if let Some((at, result)) = &probe.last {
            let ttl = if result.is_ok() { HEALTHY_TTL } else { BROKEN_TTL };
            if at.elapsed() < ttl {
                return result.clone();
            }
        }
        let result = match self.plugin.status().await {
            Ok(status) => self.heed(&mut probe.version, &status).await,
            Err(e) => Err(format!(
                "failed to perform status section of the healthz check for KMS Provider {}, error: {e}",
                self.name
            )),
        };
        probe.last = Some((Instant::now(), result.clone()));
        result
    }

    async fn heed(&self, version: &mut String, status: &StatusResponse) -> Result<(), String> {
        let mut errors = Vec::new();
        if status.healthz != "ok" {
            errors.push(format!("got unexpected healthz status: {}", status.healthz));
        }
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            errors.push(format!("expected KMSv2 API version v2, got {}", status.version));
        } else if version.is_empty() {
            version.clone_from(&status.version);
        } else if *version != status.version {
            errors.push(format!(
                "KMSv2 API version should not change after the initial status response version {version}, got {}",
                status.version
            ));
        }
        match check_key_id(&status.key_id) {
            Err(e) => {
                errors.push(format!("got invalid KMSv2 KeyID hash {:?}: {e}", digest(&status.key_id)));
            }
            Ok(()) => errors.extend(self.renew(&status.key_id).await.err()),
        }
        match super::reduced(errors) {
            None => Ok(()),
            Some(why) => Err(format!("kmsv2 Provider {} is not healthy, error: {why}", self.name)),
        }
    }

    /// Goes on with the seed if the plug-in's key is the same, else with a new one.
    async fn renew(&self, key_id: &str) -> Result<(), String> {
        let expires = Instant::now() + WRITE_TTL;
        if let Some(state) = self.state.load_full().filter(|s| s.object.key_id == key_id) {
            let state = State { source: state.source.clone(), object: state.object.clone(), expires };
            self.state.store(Some(Arc::new(state)));
            return Ok(());
        }
        let seed = random::<SEED>()?;
        let question = EncryptRequest { plaintext: seed.to_vec(), uid: api::names::new_uid() };
        let answer =
            self.plugin.encrypt(question).await.map_err(|e| format!("failed to encrypt DEK, error: {e}"))?;
        let object = EncryptedObject {
            data: Vec::new(),
            key_id: answer.key_id,
            source: answer.ciphertext,
            annotations: answer.annotations.into_iter().collect(),
            source_type: SOURCE_SEED,
        };
        object.check_source()?;
        if object.key_id != key_id {
            return Err(format!(
                "failed to rotate DEK, statusKeyIDHash={:?}, encryptKeyIDHash={:?}",
                digest(key_id),
                digest(&object.key_id)
            ));
        }
        let source = Arc::new(Source::new(&seed, SOURCE_SEED)?);
        self.keep(object.source_key(), Ok(source.clone()));
        self.state.store(Some(Arc::new(State { source, object, expires })));
        Ok(())
    }

    fn keep(&self, key: Vec<u8>, source: Decrypted) {
        let mut sources = self.sources.lock();
        if sources.len() >= SEEDS {
            sources.clear();
        }
        sources.insert(key, source);
    }

    /// Decrypts.
    pub(super) async fn open<'a>(&self, bytes: &[u8], authenticated: &[u8]) -> Result<Opened<'a>, String> {
        let object = EncryptedObject::decode(bytes).map_err(|e| format!("proto: cannot parse: {e}"))?;
        object.check()?;
        let source = self.source(&object).await?;
        let value = source.open(&object.data, authenticated)?;
        let state = self.state.load();
        let current = state.as_ref().map(|s| (&s.object.key_id, s.object.source_type));
        Ok((Cow::Owned(value), current != Some((&object.key_id, object.source_type))))
    }

    async fn source(&self, object: &EncryptedObject) -> Result<Arc<Source>, String> {
        let key = object.source_key();
        match self.sources.lock().get(&key) {
            Some(Ok(source)) => return Ok(source.clone()),
            Some(Err((why, at))) if at.elapsed() < REFUSAL_TTL => return Err(why.clone()),
            _ => {}
        }
        let question = DecryptRequest {
            ciphertext: object.source.clone(),
            uid: api::names::new_uid(),
            key_id: object.key_id.clone(),
            annotations: object.annotations.clone().into_iter().collect(),
        };
        let answer = self.plugin.decrypt(question).await;
        let source = answer
            .map_err(|e| format!("failed to decrypt DEK, error: {e}"))
            .and_then(|answer| Source::new(&answer.plaintext, object.source_type))
            .map(Arc::new);
        self.keep(key, source.clone().map_err(|why| (why, Instant::now())));
        source
    }

    /// Encrypts.
    pub(super) fn seal(&self, value: &[u8], authenticated: &[u8]) -> Result<Vec<u8>, String> {
        let state = self.state.load();
        let state = state.as_ref().ok_or("got unexpected nil transformer")?;
        if Instant::now() > state.expires {
            let id = digest(&state.object.key_id);
            return Err(format!("encryptedDEKSource with keyID hash {id:?} expired"));
        }
        let data = state.source.seal(value, authenticated)?;
        Ok(EncryptedObject { data, ..state.object.clone() }.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_derived_as_upstream_derives_them() {
        // HKDF-Expand of RFC 5869, test case 1: the pseudorandom key and the info of the standard.
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
        };
        let prk = hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
        let key = hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
        let seed = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &prk);
        let sealed = derived(&seed, &hex("f0f1f2f3f4f5f6f7f8f9")).unwrap().seal(b"value", b"place").unwrap();
        assert_eq!(Gcm::new(&key).unwrap().open(&sealed, b"place").unwrap(), b"value");
    }

    #[test]
    fn seeds_encrypt_each_value_with_a_key_of_its_own() {
        let source = Source::new(&[3; 32], SOURCE_SEED).unwrap();
        let sealed = source.seal(b"value", b"place").unwrap();
        assert_eq!(sealed.len(), INFO + 12 + 5 + 16);
        assert_eq!(source.open(&sealed, b"place").unwrap(), b"value");
        assert!(source.open(&sealed, b"elsewhere").is_err());
        assert!(source.open(&sealed[..20], b"place").is_err());
        assert!(Source::new(&[3; 31], SOURCE_SEED).is_err());
    }

    #[test]
    fn stored_objects_are_checked() {
        let good = EncryptedObject {
            data: vec![1],
            key_id: "1".into(),
            source: vec![2],
            annotations: BTreeMap::from([("a.example.com".to_owned(), vec![3])]),
            source_type: SOURCE_SEED,
        };
        assert_eq!(good.check(), Ok(()));
        let check = |change: fn(&mut EncryptedObject), want: &str| {
            let mut object = good.clone();
            change(&mut object);
            assert_eq!(object.check().unwrap_err(), want);
        };
        check(|o| o.source_type = 2, "unknown encryptedDEKSourceType: 2");
        check(|o| o.data.clear(), "encrypted data is empty");
        check(|o| o.key_id.clear(), "failed to validate key id: keyID is empty");
        check(
            |o| o.source = vec![0; 2000],
            "failed to validate encrypted DEK source: encrypted DEK source is 2000 bytes, which exceeds the max size of 1024",
        );
    }
}
