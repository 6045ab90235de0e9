# Custom resources: what people and operators do with them. Sourced.
custom=tests/cluster/custom
cert() {
    cat <<YAML
apiVersion: cm.example.com/v1
kind: Cert
metadata: {name: $1, namespace: default, labels: {made: here}}
spec: {secretName: secret-$1, issuerRef: {name: one}, dnsNames: [a.example.com], keystores: [{name: jks}]${2:-}}
YAML
}
refused() {
    local pattern=$1
    shift
    if said=$("$@" 2>&1); then echo "FAILED: $* was not refused" >&2; return 1; fi
    grep -qE -- "$pattern" <<<"$said" || { echo "FAILED: $*: no $pattern in: $said" >&2; return 1; }
}

kubectl apply -f $custom/definition.yaml >/dev/null
kubectl wait --for=condition=Established crd/certs.cm.example.com --timeout=20s >/dev/null
shows '^certs +crt,crts +cm.example.com/v1 +true +Cert' kubectl api-resources --api-group=cm.example.com
within 10 shows 'Local +True' kubectl get apiservice v1.cm.example.com
ok "a definition is established and discovered"

kubectl get certs -A --watch-only -o name >"$scratch/seen" 2>&1 &
watcher=$!
started+=("$watcher")
sleep 1
cert a | kubectl apply -f - >/dev/null
shows '^a +secret-a ' kubectl get crt
shows 'cert.cm.example.com/a' kubectl get all
shows 'Name of the secret' kubectl explain cert.spec.secretName
shows '^1 Issuer$' kubectl get cert a -o jsonpath='{.spec.replicas} {.spec.issuerRef.kind}{"\n"}'
refused 'spec.secretName: Required value' kubectl patch cert a --type=merge -p '{"spec":{"secretName":null}}'
refused 'unknown field "spec.bogus"' kubectl create -f <(cert b ', bogus: 1')
refused 'strategic-merge-patch\+json is not supported' kubectl patch cert a -p '{"spec":{"duration":"1h"}}'
kubectl scale cert/a --replicas=3 >/dev/null
kubectl patch cert a --subresource=status --type=merge \
    -p '{"status":{"replicas":3,"conditions":[{"type":"Ready","status":"True"}]},"spec":{"replicas":9}}' >/dev/null
shows '^a +True +secret-a ' kubectl get certs
shows '^3 3 2$' kubectl get cert a -o jsonpath='{.spec.replicas} {.status.replicas} {.metadata.generation}{"\n"}'
shows 'secret-a' kubectl get certs --field-selector=spec.secretName=secret-a -o wide
shows 'No resources found' kubectl get certs --field-selector=spec.secretName=other
refused 'conflict with "kubectl-client-side-apply"' kubectl apply --server-side --field-manager=other -f <(cert a | sed s/secret-a/else/)
cert a ', duration: 1h' | kubectl apply --server-side --field-manager=other -f - >/dev/null
shows 'deprecated' kubectl get certs.v1alpha1.cm.example.com a
kubectl create quota certs --hard=count/certs.cm.example.com=1 >/dev/null
kubectl patch quota certs --subresource=status --type=merge \
    -p '{"status":{"hard":{"count/certs.cm.example.com":"1"},"used":{"count/certs.cm.example.com":"1"}}}' >/dev/null
refused 'exceeded quota: certs, requested: count/certs.cm.example.com=1' kubectl create -f <(cert b)
kubectl delete quota certs >/dev/null
kubectl delete cert a >/dev/null
within 10 grep -q 'cert.cm.example.com/a' "$scratch/seen"
ok "custom resources are created, checked, scaled, patched, applied, selected and watched"

cert b | kubectl create -f - >/dev/null
kubectl patch cert b --type=merge -p '{"metadata":{"finalizers":["example.com/wait"]}}' >/dev/null
kubectl delete crd certs.cm.example.com --wait=false >/dev/null
cert c >"$scratch/late.yaml"
within 10 refused 'create not allowed while custom resource definition is terminating' kubectl create -f "$scratch/late.yaml"
kubectl patch cert b --type=merge -p '{"metadata":{"finalizers":null}}' >/dev/null
kubectl wait --for=delete crd/certs.cm.example.com --timeout=20s >/dev/null
within 10 refused "doesn't have a resource type|could not find the requested resource" kubectl get certs
kill "$watcher" 2>/dev/null || true
ok "a definition goes after its objects"

openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=webhook -addext subjectAltName=IP:127.0.0.1 \
    -keyout "$scratch/webhook.key" -out "$scratch/webhook.crt" 2>/dev/null
python3 $custom/webhook.py "$scratch/webhook.crt" "$scratch/webhook.key" >"$scratch/webhook.port" 2>"$scratch/webhook.log" &
started+=("$!")
within 10 test -s "$scratch/webhook.port"
kubectl apply -f - >/dev/null <<YAML
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: hosts.h.example.com}
spec:
  group: h.example.com
  scope: Cluster
  names: {plural: hosts, kind: Host}
  conversion:
    strategy: Webhook
    webhook:
      conversionReviewVersions: [v1]
      clientConfig: {url: "https://127.0.0.1:$(<"$scratch/webhook.port")/", caBundle: $(base64 -w0 <"$scratch/webhook.crt")}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {hostPort: {type: string}}}}}}
  - name: v2
    served: true
    storage: false
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {host: {type: string}, port: {type: integer, maximum: 65535}}}}
YAML
kubectl wait --for=condition=Established crd/hosts.h.example.com --timeout=20s >/dev/null
echo '{"apiVersion":"h.example.com/v2","kind":"Host","metadata":{"name":"x"},"spec":{"host":"a","port":80}}' >"$scratch/host.json"
within 10 kubectl create -f "$scratch/host.json"
shows '^a:80$' kubectl get hosts.v1.h.example.com x -o jsonpath='{.spec.hostPort}{"\n"}'
kubectl patch hosts.v2.h.example.com x --type=merge -p '{"spec":{"port":81}}' >/dev/null
refused 'spec.port in body should be less than' kubectl patch hosts.v2.h.example.com x --type=merge -p '{"spec":{"port":70000}}'
shows '^a:81$' kubectl get hosts.v1.h.example.com x -o jsonpath='{.spec.hostPort}{"\n"}'
shows '^a 81$' kubectl get hosts.v2.h.example.com -o jsonpath='{.items[0].spec.host} {.items[0].spec.port}{"\n"}'
kubectl delete crd hosts.h.example.com >/dev/null
ok "versions are converted by a webhook"
