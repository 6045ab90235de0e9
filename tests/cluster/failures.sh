# Every daemon is killed in turn: it comes back, the application serves all the while, and nothing is lost. Sourced.
restarts() {
    kubectl -n taskmaster get pods -o jsonpath='{range .items[*]}{.metadata.name} {.status.containerStatuses[0].restartCount}{"\n"}{end}'
}
before=$(restarts)
back() { [ -n "$(daemon "$1")" ] && kubectl get --raw /readyz >/dev/null; }
for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy flanneld etcd containerd; do
    kubectl -n taskmaster create configmap "written-before-$name" >/dev/null
    kill -KILL "$(daemon "$name")"
    page
    within 30 back "$name"
    kubectl -n taskmaster get configmap "written-before-$name" >/dev/null
    ok "$name is killed and comes back"
done
page
within 30 kept
[ "$(restarts)" = "$before" ] || { echo "FAILED: containers were restarted: $before, then $(restarts)" >&2; false; }
kubectl -n taskmaster rollout restart deployment/backend >/dev/null
kubectl -n taskmaster rollout status deployment/backend --timeout=120s
ok "nothing was lost, no container was restarted, and the cluster still works"
