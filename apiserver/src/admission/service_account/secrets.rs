//! Accounts that may keep their pods to the secrets that they name (`kubernetes.io/enforce-mountable-secrets`).

use api::Value;

use crate::kinds::MOUNTABLE;

/// True when the account lets its pods use no secrets but its own.
pub(super) fn are_limited(account: &Value) -> bool {
    account.annotation(MOUNTABLE).and_then(daemon::flags::boolean) == Some(true)
}

fn has(list: &[Value], name: &str) -> bool {
    list.iter().any(|secret| secret.str_at(&["name"]) == name)
}

/// Holds a new pod against what its account names.
pub(super) fn check_pod(account: &Value, pod: &Value) -> Result<(), String> {
    let (own, spec) = (account.array_at(&["secrets"]), pod.get("spec"));
    for volume in spec.array_at(&["volumes"]).iter().filter(|v| !v.get("secret").is_null()) {
        let secret = volume.str_at(&["secret", "secretName"]);
        if !has(own, secret) {
            return Err(refusal(account, "volume with", secret));
        }
    }
    check_containers(account, spec.array_at(&["initContainers"]), "init container")?;
    check_containers(account, spec.array_at(&["containers"]), "container")?;
    for (i, pull) in spec.array_at(&["imagePullSecrets"]).iter().enumerate() {
        let name = pull.str_at(&["name"]);
        if !has(account.array_at(&["imagePullSecrets"]), name) {
            return Err(format!(
                "imagePullSecrets[{i}].name=\"{name}\" is not allowed because service account {} does not reference that imagePullSecret",
                account.name()
            ));
        }
    }
    Ok(())
}

/// Holds the environment of containers, which upstream calls `what`, against what an account names.
pub(super) fn check_containers(account: &Value, containers: &[Value], what: &str) -> Result<(), String> {
    let own = account.array_at(&["secrets"]);
    for container in containers {
        let name = container.str_at(&["name"]);
        for variable in container.array_at(&["env"]) {
            let secret = variable.at(&["valueFrom", "secretKeyRef"]);
            if !secret.is_null() && !has(own, secret.str_at(&["name"])) {
                let who = format!("{what} {name} with envVar {} referencing", variable.str_at(&["name"]));
                return Err(refusal(account, &who, secret.str_at(&["name"])));
            }
        }
        for source in container.array_at(&["envFrom"]) {
            let secret = source.get("secretRef");
            if !secret.is_null() && !has(own, secret.str_at(&["name"])) {
                let who = format!("{what} {name} with envFrom referencing");
                return Err(refusal(account, &who, secret.str_at(&["name"])));
            }
        }
    }
    Ok(())
}

fn refusal(account: &Value, who: &str, secret: &str) -> String {
    format!(
        "{who} secret.secretName=\"{secret}\" is not allowed because service account {} does not reference that secret",
        account.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        api::json::decode(text.as_bytes()).unwrap().value
    }

    #[test]
    fn pods_use_the_secrets_of_their_account_alone() {
        let account = value(
            r#"{"metadata":{"name":"a","annotations":{"kubernetes.io/enforce-mountable-secrets":"true"}},"secrets":[{"name":"own"}],"imagePullSecrets":[{"name":"pull"}]}"#,
        );
        assert!(are_limited(&account) && !are_limited(&value("{}")));
        for (spec, refused) in [
            (
                r#"{"volumes":[{"secret":{"secretName":"own"}},{"emptyDir":{}}],"imagePullSecrets":[{"name":"pull"}]}"#,
                None,
            ),
            (r#"{"volumes":[{"secret":{"secretName":"x"}}]}"#, Some("volume with secret.secretName=\"x\"")),
            (
                r#"{"initContainers":[{"name":"i","env":[{"name":"E","valueFrom":{"secretKeyRef":{"name":"x"}}}]}]}"#,
                Some("init container i with envVar E referencing secret.secretName=\"x\""),
            ),
            (
                r#"{"containers":[{"name":"c","envFrom":[{"secretRef":{"name":"own"}},{"secretRef":{"name":"x"}}]}]}"#,
                Some("container c with envFrom referencing secret.secretName=\"x\""),
            ),
            (r#"{"imagePullSecrets":[{"name":"own"}]}"#, Some("imagePullSecrets[0].name=\"own\"")),
        ] {
            let pod = value(&format!(r#"{{"spec":{spec}}}"#));
            let found = check_pod(&account, &pod).err();
            assert_eq!(found.is_some(), refused.is_some(), "{spec}");
            assert!(found.unwrap_or_default().starts_with(refused.unwrap_or_default()), "{spec}");
        }
    }
}
