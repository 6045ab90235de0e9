# Names in pods: Services by their short and long names, others by the resolver of the node. Sourced.
address=$(kubectl -n taskmaster get service backend-svc -o jsonpath='{.spec.clusterIP}')
for name in backend-svc backend-svc.taskmaster backend-svc.taskmaster.svc backend-svc.taskmaster.svc.cluster.local; do
    shows "^${address//./\\.} " in_backend getent ahostsv4 "$name"
done
shows '^10\.43\.0\.1 ' in_backend getent ahostsv4 kubernetes.default
ok "Services are found by name"

# A resolver of our own stands for the outside: it answers one name.
dnsmasq --no-daemon --no-resolv --no-hosts --port=5354 --listen-address="$node" --bind-interfaces \
    --address=/outside.example/198.51.100.7 >"$scratch/dnsmasq.log" 2>&1 &
started+=("$!")
kubectl -n kube-system get configmap coredns -o yaml | sed "s|forward \. .*|forward . $node:5354|" | kubectl apply -f - >/dev/null 2>&1
kubectl -n kube-system rollout restart deployment/coredns >/dev/null
kubectl -n kube-system rollout status deployment/coredns --timeout=60s
within 20 shows '^198\.51\.100\.7 ' in_backend getent ahostsv4 outside.example
ok "outside names are forwarded"
