#!/usr/bin/env bash
# The whole cluster on this machine, as a newcomer would start it, with the example application on it.
set -euo pipefail
cd "$(dirname "$0")/.."
export FERRITE_PROFILE=ci
export KUBECONFIG=/etc/kubernetes/admin.conf
[ -e /var/lib/ferrite/cluster.json ] && { echo "a cluster is on this machine already: deploy/down.sh --purge" >&2; exit 1; }

passed=0
finish() {
    local code=$?
    if [ $code -ne 0 ]; then
        kubectl get pods -A -o wide || true
        kubectl get events -A --sort-by=.lastTimestamp 2>/dev/null | tail -20 || true
        tail -n 5 /var/log/ferrite/*.log || true
    fi
    deploy/down.sh --purge
    if [ $code -eq 0 ]; then echo "$passed passed, 0 failed"; else echo "$passed passed, 1 failed"; fi
    exit $code
}
trap finish EXIT

# Runs a command until it succeeds, for as many seconds.
within() {
    local limit=$((SECONDS + $1)) said
    shift
    until said=$("$@" 2>&1); do
        [ $SECONDS -lt $limit ] || { echo "FAILED: $* : $said" >&2; return 1; }
        sleep 0.5
    done
}
ok() {
    passed=$((passed + 1))
    echo "ok: $1 (${SECONDS}s)"
}

deploy/up.sh
ok "the cluster comes up"
deploy/up.sh >/dev/null
ok "coming up again is harmless"

node=$(kubectl get node -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}')
web() { curl -fsS --max-time 5 -H 'Host: taskmaster.local' "http://$node$1" "${@:2}"; }
deploy/examples/taskmaster/images.sh >/dev/null
kubectl apply -f deploy/examples/taskmaster/taskmaster.yaml >/dev/null
for workload in postgres backend frontend; do
    kubectl -n taskmaster rollout status "deployment/$workload" --timeout=180s
done
ok "the application runs"

page() { web / | grep -q '<h1>Taskmaster</h1>'; }
within 30 page
ok "the page is served through the ingress"
web /api/tasks -d '{"title": "water the plants"}' >/dev/null
kept() { web /api/tasks | grep -q 'water the plants'; }
within 10 kept
ok "a task is kept"

in_backend() { kubectl -n taskmaster exec deploy/backend -- "$@"; }
address=$(kubectl -n taskmaster get service backend-svc -o jsonpath='{.spec.clusterIP}')
for name in backend-svc backend-svc.taskmaster backend-svc.taskmaster.svc.cluster.local; do
    [ "$(in_backend getent ahostsv4 "$name" | awk 'NR==1 {print $1}')" = "$address" ]
done
ok "Services are found by name"

kubectl -n taskmaster delete pod -l app=postgres --wait=true >/dev/null
kubectl -n taskmaster rollout status deployment/postgres --timeout=120s
within 60 kept
ok "the database comes back with its data"

kubectl -n taskmaster scale deployment/backend --replicas=2 >/dev/null
kubectl -n taskmaster rollout status deployment/backend --timeout=60s
kubectl -n taskmaster rollout restart deployment/frontend >/dev/null
kubectl -n taskmaster rollout status deployment/frontend --timeout=120s
kubectl -n taskmaster rollout undo deployment/frontend >/dev/null
kubectl -n taskmaster rollout status deployment/frontend --timeout=120s
ok "scale, restart and undo"
kubectl -n taskmaster logs deploy/backend --tail=5 >/dev/null
kubectl -n taskmaster describe deployment backend >/dev/null
kubectl get all -A >/dev/null
kubectl auth can-i create pods >/dev/null
kubectl create token default >/dev/null
kubectl explain deployment.spec.strategy >/dev/null
ok "kubectl's everyday commands"

for daemon in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy flanneld etcd containerd; do
    pid=$(pgrep -P "$(cat /run/ferrite/supervisor.pid)" -x "${daemon:0:15}")
    kill -KILL "$pid"
    page
    again() { [ -n "$(pgrep -P "$(cat /run/ferrite/supervisor.pid)" -x "${daemon:0:15}")" ] && kubectl get --raw /readyz >/dev/null; }
    within 30 again
    ok "$daemon is killed and comes back"
done
within 30 kept
ok "nothing was lost"
