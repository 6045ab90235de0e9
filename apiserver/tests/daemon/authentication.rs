//! Tokens of others, and requests without any.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use super::*;

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A key that signs tokens.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).unwrap())
    }

    fn public(&self) -> Value {
        let point = self.0.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        object!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "x": x, "y": y})
    }

    /// The public key in PEM, as RFC 5480 has it.
    fn pem(&self) -> String {
        const HEAD: [u8; 26] = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
            0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        let encoded = STANDARD.encode([&HEAD, self.0.public_key().as_ref()].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{encoded}\n-----END PUBLIC KEY-----\n")
    }

    fn sign(&self, claims: &Value) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_json()));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn review(cluster: &Cluster, token: &str) -> Value {
    let review = object!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}
    });
    cluster.create(REVIEWS, &review).get("status").clone()
}

/// The code of the answer to a request without a certificate, perhaps with a token.
fn code(cluster: &Cluster, path: &str, token: Option<&str>) -> u16 {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|b| ("authorization", b.as_str())).collect();
    answer(cluster, path, &headers).0
}

/// The code and the text of the answer to a request without a certificate.
pub(super) fn answer(cluster: &Cluster, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let answer = fetch(cluster, path, headers);
    (answer.status().as_u16(), String::from_utf8(answer.into_body().to_vec()).unwrap())
}

/// The answer to a request without a certificate.
fn fetch(cluster: &Cluster, path: &str, headers: &[(&str, &str)]) -> http::Response<bytes::Bytes> {
    let ca = std::fs::read(cluster.pki.file("ca.crt")).unwrap();
    let options = serve::outbound::Options { ca: Some(ca), ..Default::default() };
    let port = cluster.arguments[1].rsplit('=').next().unwrap();
    let mut request = http::Request::get(format!("https://127.0.0.1:{port}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(serve::empty()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let response = serve::outbound::client(&options).unwrap().request(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        http::Response::from_parts(head, body)
    })
}

#[test]
fn tokens_of_other_issuers_stand_for_users() {
    let signer = Arc::new(Mutex::new(Signer::new()));
    let (served, mut issuer) = (signer.clone(), String::new());
    let claims_elsewhere = Arc::new(Mutex::new(object!({"aud": "cluster", "roles": ["ops"]})));
    let elsewhere = claims_elsewhere.clone();
    let cluster = Cluster::start_with(|pki| {
        let url = Arc::new(Mutex::new(String::new()));
        let known = url.clone();
        let port = documents::serve(pki, move |path, _| match path {
            "/.well-known/openid-configuration" => {
                let url = known.lock().clone();
                object!({"issuer": (url.as_str()), "jwks_uri": (format!("{url}/keys"))})
            }
            "/roles" => {
                let mut claims = elsewhere.lock().clone();
                claims.set(&["iss"], known.lock().as_str());
                served.lock().sign(&claims).into()
            }
            _ => object!({"keys": [(served.lock().public())]}),
        });
        issuer = format!("https://127.0.0.1:{port}");
        url.lock().clone_from(&issuer);
        let ca = std::fs::read_to_string(pki.file("ca.crt")).unwrap().replace('\n', "\n        ");
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: {issuer}\n\
             \x20   audiences: [cluster]\n    certificateAuthority: |\n        {ca}\n\
             \x20 claimMappings:\n    username: {{expression: '\"corp:\" + claims.sub'}}\n\
             \x20   groups: {{claim: roles, prefix: 'corp:'}}\n\
             \x20   extra: [{{key: example.com/team, valueExpression: claims.?team.orValue(\"\")}}]\n\
             \x20 claimValidationRules: [{{expression: claims.exp - claims.iat <= 3600, message: lives too long}}]\n\
             \x20 userValidationRules: [{{expression: \"!user.username.endsWith(':root')\", message: root may not}}]\n\
             anonymous: {{enabled: true, conditions: [{{path: /livez}}, {{path: /version}}]}}\n"
        );
        std::fs::write(pki.file("authentication.yaml"), text).unwrap();
        vec![format!("--authentication-config={}", pki.file("authentication.yaml").display())]
    });
    let now = jiff::Timestamp::now().as_second();
    let claims = |sub: &str, life: i64| {
        object!({
            "iss": (issuer.as_str()), "aud": "cluster", "sub": sub, "roles": ["dev"], "team": "a", "jti": "1",
            "iat": now, "exp": (now + life),
        })
    };
    let sign = |claims: &Value| signer.lock().sign(claims);
    let good = sign(&claims("ann", 600));
    wait_until("the issuer is known", SOON, || {
        review(&cluster, &good).get("authenticated").as_bool() == Some(true)
    })
    .unwrap();
    let user = review(&cluster, &good).get("user").clone();
    assert_eq!(user.str_at(&["username"]), "corp:ann");
    assert_eq!(user.get("groups"), &Value::from(vec!["corp:dev", "system:authenticated"]));
    assert_eq!(user.at(&["extra", "example.com/team"]), &Value::from(vec!["a"]));
    let refused = |claims: &Value, why: &str| {
        let status = review(&cluster, &sign(claims));
        assert!(status.str_at(&["error"]).contains(why), "{why}: {status}");
    };
    refused(&claims("ann", 7200), "failed: lives too long");
    refused(&claims("root", 600), "failed: root may not");
    refused(&claims("ann", -10), "token is expired");
    let mut other = claims("ann", 600);
    other.set(&["aud"], "another");
    refused(&other, "expected audience");
    // The roles are elsewhere.
    let mut distributed = claims("ann", 600);
    distributed.remove_at(&["roles"]);
    distributed.set(&["_claim_names"], object!({"roles": "s"}));
    distributed.set(&["_claim_sources"], object!({"s": {"endpoint": (format!("{issuer}/roles"))}}));
    refused(
        &distributed,
        "could not expand distributed claims: verify distributed claim token: oidc: token is expired",
    );
    claims_elsewhere.lock().set(&["exp"], now + 600);
    let user = review(&cluster, &sign(&distributed)).get("user").clone();
    assert_eq!(user.get("groups"), &Value::from(vec!["corp:ops", "system:authenticated"]));
    // The user is authenticated, and may do nothing yet.
    assert_eq!(code(&cluster, MAPS, Some(&good)), 403);
    assert_eq!(code(&cluster, MAPS, Some(&Signer::new().sign(&claims("ann", 600)))), 401);
    // The issuer takes a new key.
    *signer.lock() = Signer::new();
    let renewed = sign(&claims("bob", 600));
    let known = || review(&cluster, &renewed).str_at(&["user", "username"]) == "corp:bob";
    wait_until("the new key is known", SOON, known).unwrap();
    // Without a token only some paths may be asked for.
    assert_eq!((code(&cluster, "/livez", None), code(&cluster, "/version", None)), (200, 200));
    assert_eq!((code(&cluster, "/readyz", None), code(&cluster, MAPS, None)), (401, 401));
}

#[test]
fn large_answers_are_compressed_for_those_who_accept_it() {
    let cluster = Cluster::start_with(|pki| {
        let tokens = pki.file("tokens.csv");
        std::fs::write(&tokens, "static,ann,7,\"system:masters\"\n").unwrap();
        vec![format!("--token-auth-file={}", tokens.display())]
    });
    let get = |path: &str, accepted: &[(&str, &str)]| {
        fetch(&cluster, path, &[accepted, &[("authorization", "Bearer static")]].concat())
    };
    let packed = |path: &str| {
        let answer = get(path, &[("accept-encoding", "gzip")]);
        let is_packed = answer.headers().get("content-encoding").is_some_and(|coding| coding == "gzip");
        is_packed.then(|| {
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&answer.body()[..]).read_to_end(&mut text).unwrap();
            assert!(answer.body().len() * 2 < text.len());
            text
        })
    };
    cluster.create(MAPS, &map("a", &"x".repeat(100 << 10)));
    assert_eq!(packed(MAPS), None, "it is not large");
    cluster.create(MAPS, &map("b", &"y".repeat(100 << 10)));
    for path in [MAPS, "/openapi/v2"] {
        let plain = get(path, &[]);
        assert_eq!(plain.headers().get("content-encoding"), None);
        assert_eq!(packed(path).as_deref(), Some(&plain.body()[..]), "{path}");
    }
}

#[test]
fn other_servers_are_asked_about_tokens() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let cluster = Cluster::start_with(|pki| {
        let port = documents::serve(pki, move |_, review| {
            count.fetch_add(1, Ordering::Relaxed);
            let mut answer = review.clone();
            let status = match review.str_at(&["spec", "token"]) {
                "known" => object!({"authenticated": true, "user": {"username": "ann", "groups": ["g"]}}),
                _ => object!({"authenticated": false, "error": "no such token"}),
            };
            answer.set(&["status"], status);
            answer
        });
        let config = pki.file("webhook.yaml");
        let text = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: k}}}}]\n\
             clusters: [{{name: k, cluster: {{server: 'https://127.0.0.1:{port}/', certificate-authority: ca.crt}}}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let tokens = pki.file("tokens.csv");
        std::fs::write(&tokens, "static,bob,7,\"dev\"\n").unwrap();
        vec![
            format!("--authentication-token-webhook-config-file={}", config.display()),
            "--authentication-token-webhook-version=v1".to_owned(),
            format!("--token-auth-file={}", tokens.display()),
        ]
    });
    assert_eq!(code(&cluster, MAPS, Some("known")), 403);
    assert_eq!(code(&cluster, MAPS, Some("known")), 403);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(code(&cluster, MAPS, Some("unknown")), 401);
    assert_eq!(review(&cluster, "static").str_at(&["user", "username"]), "bob");
    assert_eq!(code(&cluster, MAPS, Some("static")), 403);
}

#[test]
fn tokens_in_secrets_are_counted_labelled_and_refused_once_they_are_marked() {
    const SECRET: &str = "/api/v1/namespaces/default/secrets/held";
    const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
    const MERGE: &str = "application/merge-patch+json";
    let signer = Signer::new();
    let cluster = Cluster::start_with(|pki| {
        let key = pki.file("legacy.pub");
        std::fs::write(&key, signer.pem()).unwrap();
        vec![format!("--service-account-key-file={}", key.display())]
    });
    let account = object!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let account = cluster.create(ACCOUNTS, &account);
    let token = signer.sign(&object!({
        "iss": "kubernetes/serviceaccount",
        "sub": "system:serviceaccount:default:robot",
        "kubernetes.io/serviceaccount/namespace": "default",
        "kubernetes.io/serviceaccount/secret.name": "held",
        "kubernetes.io/serviceaccount/service-account.name": "robot",
        "kubernetes.io/serviceaccount/service-account.uid": (account.uid()),
    }));
    assert_eq!(
        review(&cluster, &token).str_at(&["error"]),
        "[invalid bearer token, Token has been invalidated]"
    );
    let secret = object!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "held", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "data": {"token": (STANDARD.encode(&token))},
    });
    cluster.create("/api/v1/namespaces/default/secrets", &secret);
    assert_eq!(code(&cluster, MAPS, Some(&token)), 403);
    let used = read(&cluster.get(SECRET));
    let day = used.str_at(&["metadata", "labels", "kubernetes.io/legacy-token-last-used"]);
    assert!(day.len() == 10 && day.starts_with("20"), "{used}");
    // A token is held against what the caches have; a read that follows a write waits until they have that.
    let patch = |path: &str, patch: &str| {
        assert_eq!(cluster.send("PATCH", path, MERGE, patch).code, 200);
        assert_eq!(cluster.get(path).code, 200);
    };
    let listed = r#"{"secrets":[{"name":"held"}]}"#;
    patch(&format!("{ACCOUNTS}/robot"), listed);
    assert_eq!(code(&cluster, MAPS, Some(&token)), 403);
    let marked = r#"{"metadata":{"labels":{"kubernetes.io/legacy-token-invalid-since":"2026-01-01"}}}"#;
    patch(SECRET, marked);
    assert_eq!(code(&cluster, MAPS, Some(&token)), 401);
    let refused = review(&cluster, &token);
    let why = "the token in secret default/held for service account default/robot has been marked invalid.";
    assert!(refused.str_at(&["error"]).contains(why), "{refused}");
    let metrics = cluster.get("/metrics").body;
    for (name, count) in [
        ("legacy_tokens", 5),
        ("legacy_manual_token_uses", 1),
        ("legacy_auto_token_uses", 1),
        ("invalid_legacy_auto_token_uses", 2),
    ] {
        let line = format!("\nserviceaccount_{name}_total {count}\n");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
}

#[test]
fn authorities_change_without_a_restart() {
    let cluster = Cluster::start_with(|pki| {
        // The bundle is a file of its own, so that the certificate of the server stays trusted.
        std::fs::copy(pki.file("ca.crt"), pki.file("clients.crt")).unwrap();
        vec![format!("--client-ca-file={}", pki.file("clients.crt").display())]
    });
    let other = tempfile::tempdir().unwrap();
    let others = Pki::make(other.path()).unwrap();
    let more = std::fs::read_to_string(others.file("ca.crt")).unwrap();
    std::fs::copy(cluster.pki.file("ca.crt"), others.file("ca.crt")).unwrap();
    let port: u16 = cluster.arguments[1].rsplit('=').next().unwrap().parse().unwrap();
    let stranger = Client::new(&others, port).unwrap();
    assert_eq!(stranger.send("GET", MAPS, None).unwrap().code, 401);
    let both = format!("{}{more}", std::fs::read_to_string(cluster.pki.file("ca.crt")).unwrap());
    std::fs::write(cluster.pki.file("clients.new"), &both).unwrap();
    std::fs::rename(cluster.pki.file("clients.new"), cluster.pki.file("clients.crt")).unwrap();
    let known = || stranger.send("GET", MAPS, None).unwrap().code == 200;
    wait_until("the other authority is known", SOON, known).unwrap();
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let told = || read(&cluster.get(path)).str_at(&["data", "client-ca-file"]) == both;
    wait_until("other servers are told", SOON, told).unwrap();
}
