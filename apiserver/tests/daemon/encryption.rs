//! What is encrypted before it is stored.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// A provider with a key of 32 times `byte`.
pub(super) fn key(provider: &str, name: &str, byte: u8) -> String {
    format!("{provider}: {{keys: [{{name: {name}, secret: '{}'}}]}}", STANDARD.encode([byte; 32]))
}

/// Writes the configuration of secrets with these providers.
pub(super) fn configure(pki: &Pki, providers: &[String]) {
    let providers: String = providers.iter().map(|p| format!("  - {p}\n")).collect();
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
         resources:\n- resources: [secrets, 'crontabs.example.com']\n  providers:\n{providers}"
    );
    let path = pki.file("encryption.yaml");
    // Nobody sees half of it.
    std::fs::write(path.with_extension("new"), text).unwrap();
    std::fs::rename(path.with_extension("new"), path).unwrap();
}

pub(super) fn flags(pki: &Pki) -> Vec<String> {
    vec![
        format!("--encryption-provider-config={}", pki.file("encryption.yaml").display()),
        "--encryption-provider-config-automatic-reload=true".to_owned(),
    ]
}

/// What etcd has at a key.
pub(super) fn stored(cluster: &Cluster, key: &str) -> Vec<u8> {
    let url = cluster.arguments[0].split_once('=').unwrap().1.to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = etcd_client::Client::connect([url], None).await.unwrap();
        client.get(key, None).await.unwrap().kvs().first().map(|kv| kv.value().to_vec()).unwrap_or_default()
    })
}

pub(super) fn secret(name: &str) -> Value {
    object!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"k": "hidden"}})
}

pub(super) fn soon(cluster: &Cluster, path: &str, code: u16) -> Response {
    wait_until("the answer is another", SOON, || cluster.get(path).code == code)
        .unwrap_or_else(|e| panic!("{e}: {}", cluster.get(path).body));
    cluster.get(path)
}

#[test]
fn secrets_are_encrypted_and_keys_rotate() {
    let mut cluster = Cluster::start_with(|pki| {
        configure(pki, &[key("aescbc", "one", 1), "identity: {}".to_owned()]);
        flags(pki)
    });
    let (one, raw) = (format!("{SECRETS}/a"), "/registry/secrets/default/a");
    cluster.create(SECRETS, &secret("a"));
    cluster.create(MAPS, &map("plain", "1"));
    assert!(stored(&cluster, raw).starts_with(b"k8s:enc:aescbc:v1:one:"));
    assert!(stored(&cluster, "/registry/configmaps/default/plain").starts_with(b"k8s\0"));
    assert_eq!(read(&cluster.get(&one)).str_at(&["data", "k"]), STANDARD.encode("hidden"));
    // A new key writes, the old one still reads, also after a restart.
    cluster.kill();
    configure(&cluster.pki, &[key("secretbox", "two", 2), key("aescbc", "one", 1)]);
    cluster.run();
    let kept = cluster.get(&one);
    assert_eq!(read(&kept).str_at(&["data", "k"]), STANDARD.encode("hidden"));
    // A write that changes nothing encrypts anew.
    assert_eq!(cluster.send("PUT", &one, JSON, &kept.body).code, 200);
    assert!(stored(&cluster, raw).starts_with(b"k8s:enc:secretbox:v1:two:"));
    let before = stored(&cluster, raw);
    assert_eq!(cluster.send("PUT", &one, JSON, &cluster.get(&one).body).code, 200);
    assert_eq!(stored(&cluster, raw), before);
}

#[test]
fn what_cannot_be_decrypted_is_told_and_harms_nothing_else() {
    let mut cluster = Cluster::start_with(|pki| {
        configure(pki, &[key("aesgcm", "one", 1)]);
        flags(pki)
    });
    cluster.create(SECRETS, &secret("a"));
    cluster.create(MAPS, &map("plain", "1"));
    cluster.kill();
    configure(&cluster.pki, &[key("aesgcm", "two", 2)]);
    cluster.run();
    let one = cluster.get(&format!("{SECRETS}/a"));
    let why = "no matching key was found for the provided AES transformer";
    assert_eq!(
        (one.code, read(&one).str_at(&["message"])),
        (500, &*format!("Internal error occurred: {why}"))
    );
    let all = cluster.get(SECRETS);
    let told =
        format!("Internal error occurred: unable to transform key \"/registry/secrets/default/a\": {why}");
    assert_eq!((all.code, read(&all).str_at(&["message"])), (500, told.as_str()));
    assert_eq!(cluster.client.send("DELETE", &format!("{SECRETS}/a"), None).unwrap().code, 500);
    assert_eq!(names(&cluster.get(MAPS)), ["plain"]);
    cluster.create(SECRETS, &secret("b"));
    assert_eq!(cluster.get(&format!("{SECRETS}/b")).code, 200);
    // The old key comes back without a restart.
    configure(&cluster.pki, &[key("aesgcm", "two", 2), key("aesgcm", "one", 1)]);
    soon(&cluster, &format!("{SECRETS}/a"), 200);
    assert_eq!(names(&cluster.get(SECRETS)), ["a", "b"]);
}
