# What people do with kubectl all day, with the machine's own and with Debian's old one. Sourced.
old=$scratch/old
mkdir -p "$old"
(cd "$old" && apt-get download -qq kubernetes-client >/dev/null && dpkg -x kubernetes-client_*.deb .)

# With a terminal, as a person has one.
terminal() { script -qec "$*" /dev/null; }

everyday() {
    local k=$1 pod
    shows 'Ready' "$k" get nodes
    shows 'backend-svc' "$k" get all -A
    shows 'Rolling ?Update' "$k" -n taskmaster describe deployment backend
    shows 'Successfully assigned' "$k" -n taskmaster describe pod -l app=postgres
    shows 'Started' "$k" -n taskmaster get events
    shows 'deployments +deploy +apps/v1' "$k" api-resources
    shows '^networking.k8s.io/v1$' "$k" api-versions
    shows 'is running at' "$k" cluster-info
    shows 'RollingUpdate' "$k" explain deployment.spec.strategy.type
    shows '^yes' "$k" auth can-i create pods

    "$k" -n taskmaster scale deployment/backend --replicas=2 >/dev/null
    "$k" -n taskmaster rollout status deployment/backend --timeout=60s >/dev/null
    "$k" -n taskmaster rollout restart deployment/frontend >/dev/null
    "$k" -n taskmaster rollout status deployment/frontend --timeout=120s >/dev/null
    "$k" -n taskmaster rollout undo deployment/frontend >/dev/null
    "$k" -n taskmaster rollout status deployment/frontend --timeout=120s >/dev/null
    "$k" -n taskmaster wait --for=condition=Available deployment/backend --timeout=60s >/dev/null
    KUBE_EDITOR="sed -i 's/replicas: 2/replicas: 3/'" "$k" -n taskmaster edit deployment/backend >/dev/null
    shows '^3$' "$k" -n taskmaster get deployment backend -o jsonpath='{.spec.replicas}{"\n"}'
    "$k" -n taskmaster rollout status deployment/backend --timeout=60s >/dev/null

    pod=$("$k" -n taskmaster get pods -l app=frontend -o jsonpath='{.items[0].metadata.name}')
    shows 'Linux' "$k" -n taskmaster exec "$pod" -- uname
    shows 'pts' terminal "$k" -n taskmaster exec -it "$pod" -- tty
    echo "carried over" >"$scratch/there"
    "$k" -n taskmaster cp "$scratch/there" "$pod:/tmp/there" >/dev/null
    "$k" -n taskmaster cp "$pod:/tmp/there" "$scratch/back" >/dev/null
    cmp "$scratch/there" "$scratch/back"

    "$k" -n taskmaster logs -f "$pod" >"$scratch/followed" 2>&1 &
    local follower=$!
    started+=("$follower")
    "$k" -n taskmaster port-forward "$pod" 18080:80 >"$scratch/forward.log" 2>&1 &
    local forwarder=$!
    started+=("$forwarder")
    within 10 shows 'Taskmaster' curl -fsS --max-time 5 "http://127.0.0.1:18080/?followed"
    within 10 grep -q 'followed' "$scratch/followed"
    kill "$follower" "$forwarder"

    "$k" -n taskmaster run echo --image=taskmaster.local/taskmaster:1 --image-pull-policy=IfNotPresent --restart=Never -i --quiet \
        --command -- sed -u 's/^/said: /' <<<'hello' >"$scratch/attached" 2>&1
    shows '^said: hello' cat "$scratch/attached"
    "$k" -n taskmaster delete pod echo --wait=true >/dev/null
    "$k" -n taskmaster create configmap passing --from-literal=a=b >/dev/null
    "$k" -n taskmaster patch configmap passing -p '{"data":{"c":"d"}}' >/dev/null
    "$k" -n taskmaster label configmap passing made=here >/dev/null
    shows '"a":"b","c":"d"' "$k" -n taskmaster get configmap -l made=here -o jsonpath='{.items[0].data}'
    "$k" -n taskmaster delete configmap passing >/dev/null
}
everyday kubectl
shows '^ey' kubectl create token default
shows 'Started' kubectl events -n taskmaster
ok "the everyday commands of kubectl $(kubectl version --client 2>/dev/null | sed -n 's/^Client Version: //p')"
everyday "$old/usr/bin/kubectl"
ok "the everyday commands of kubectl $("$old/usr/bin/kubectl" version --client --short | sed 's/.*: //')"
