# The example application: it runs, serves, keeps its data, and loses no request when its pods are replaced. Sourced.
node=$(kubectl get node -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}')
deploy/examples/taskmaster/images.sh >/dev/null
kubectl apply -f deploy/examples/taskmaster/taskmaster.yaml >/dev/null
for workload in postgres backend frontend; do
    kubectl -n taskmaster rollout status "deployment/$workload" --timeout=180s
done
ok "the application runs"

within 30 page
ok "the page is served through the ingress"
web /api/tasks -d '{"title": "water the plants"}' >/dev/null
within 10 kept
ok "a task is kept"

kubectl -n taskmaster delete pod -l app=postgres --wait=true >/dev/null
kubectl -n taskmaster rollout status deployment/postgres --timeout=120s
within 60 kept
ok "the database comes back with its data"

# Requests go on while every pod of the backend is replaced.
load() {
    local failed=0 sent=0
    while [ ! -e "$scratch/enough" ]; do
        web /api/tasks >"$scratch/answer" 2>&1 || { failed=$((failed + 1)); cat "$scratch/answer" >>"$scratch/load.errors"; }
        sent=$((sent + 1))
    done
    echo "$failed $sent" >"$scratch/load"
}
load &
load=$!
started+=("$load")
for pod in $(kubectl -n taskmaster get pods -l app=backend -o name); do
    kubectl -n taskmaster delete "$pod" --wait=true >/dev/null
    kubectl -n taskmaster rollout status deployment/backend --timeout=120s >/dev/null
done
touch "$scratch/enough"
wait "$load"
read -r failed sent <"$scratch/load"
[ "$failed" -eq 0 ] || { echo "FAILED: $failed of $sent requests: $(tail -3 "$scratch/load.errors")" >&2; false; }
ok "no request of $sent fails while the backend's pods are replaced"
