# What pods ask of their node: sidecars, static pods, limits of volumes, paths that would lead out, and many at once. Sourced.
image=taskmaster.local/taskmaster:1
name=$(kubectl get node -o jsonpath='{.items[0].metadata.name}')
kubectl create namespace node-tests >/dev/null
in_tests() { kubectl -n node-tests "$@"; }
# The pod of a manifest's `spec`, as an object.
pod() { printf '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%s","namespace":"node-tests"},"spec":%s}' "$1" "$2"; }
field() { in_tests get pod "$1" -o jsonpath="{$2}"; }

pod sidecar '{"restartPolicy": "Never",
  "initContainers": [{"name": "beside", "image": "'$image'", "restartPolicy": "Always",
    "command": ["sh", "-c", "trap \"exit 0\" TERM; touch /shared/up; while :; do sleep 0.1; done"],
    "startupProbe": {"exec": {"command": ["test", "-e", "/shared/up"]}, "periodSeconds": 1},
    "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}],
  "containers": [{"name": "main", "image": "'$image'", "command": ["sh", "-c", "test -e /shared/up && echo found && sleep 1"],
    "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}],
  "volumes": [{"name": "shared", "emptyDir": {}}]}' | kubectl create -f - >/dev/null
in_tests wait --for=jsonpath='{.status.phase}'=Succeeded pod/sidecar --timeout=60s >/dev/null
shows '^found' in_tests logs sidecar -c main
main=$(field sidecar .status.containerStatuses[0].state.terminated.finishedAt)
beside=$(field sidecar .status.initContainerStatuses[0].state.terminated.finishedAt)
[[ -n $main && ! $beside < $main ]] || { echo "FAILED: the sidecar ended at $beside, the container at $main" >&2; false; }
ok "a sidecar starts before the containers and ends after them"

manifest=/etc/kubernetes/manifests/node-tests.json
pod static '{"containers": [{"name": "main", "image": "'$image'", "command": ["sleep", "infinity"]}], "terminationGracePeriodSeconds": 0}' >"$scratch/static.json"
cp "$scratch/static.json" "$manifest"
within 60 shows '^Running' field "static-$name" .status.phase
container=$(field "static-$name" .status.containerStatuses[0].containerID)
in_tests delete pod "static-$name" >/dev/null
within 30 shows "^$container\$" field "static-$name" .status.containerStatuses[0].containerID
rm "$manifest"
gone() { ! in_tests get pod "$1" 2>/dev/null; }
within 60 gone "static-$name"
ok "a static pod runs, keeps running when its mirror is deleted, and goes with its file"

pod greedy '{"restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
  "containers": [{"name": "main", "image": "'$image'", "command": ["sh", "-c", "head -c 8M /dev/zero >/scratch/file; sleep infinity"],
    "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}],
  "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}]}' | kubectl create -f - >/dev/null
within 90 shows '^Evicted Usage of EmptyDir volume "scratch" exceeds the limit "1Mi"' field greedy '.status.reason} {.status.message'
ok "a pod that fills its volume is evicted"

# Both together ask for more than the node has. Neither goes by the scheduler, which would make room itself.
cores=$(kubectl get node "$name" -o jsonpath='{.status.allocatable.cpu}')
requests='{"requests": {"cpu": "'$((cores * 600))'m"}}'
pod displaced '{"nodeName": "'$name'", "terminationGracePeriodSeconds": 20, "containers": [{"name": "main", "image": "'$image'",
  "resources": '"$requests"', "command": ["sh", "-c", "trap \"sleep 3; exit 0\" TERM; while :; do sleep 0.1; done"]}]}' | kubectl create -f - >/dev/null
in_tests wait --for=condition=Ready pod/displaced --timeout=60s >/dev/null
pod needed '{"nodeName": "'$name'", "terminationGracePeriodSeconds": 0, "priorityClassName": "system-node-critical",
  "containers": [{"name": "main", "image": "'$image'", "resources": '"$requests"', "command": ["sleep", "infinity"]}]}' | kubectl create -f - >/dev/null
in_tests wait --for=condition=Ready pod/needed --timeout=60s >/dev/null
within 30 shows '^Failed Preempting' field displaced '.status.phase} {.status.reason'
ended=$(field displaced .status.containerStatuses[0].state.terminated.finishedAt)
began=$(field needed .status.containerStatuses[0].state.running.startedAt)
[[ -n $ended && ! $began < $ended ]] || { echo "FAILED: the pod in the way ended at $ended, the other began at $began" >&2; false; }
ok "a pod that the node cannot do without starts when those in its way are gone"

# The link is made by one container, and followed by the kubelet for the other.
pod link '{"restartPolicy": "Never",
  "initContainers": [{"name": "lay", "image": "'$image'", "command": ["ln", "-s", "/etc", "/data/link"], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
  "containers": [{"name": "main", "image": "'$image'", "command": ["ls", "/data"], "volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "link"}]}],
  "volumes": [{"name": "data", "emptyDir": {}}]}' | kubectl create -f - >/dev/null
pod up '{"restartPolicy": "Never",
  "containers": [{"name": "main", "image": "'$image'", "command": ["ls", "/data"], "env": [{"name": "WHERE", "value": ".."}],
    "volumeMounts": [{"name": "data", "mountPath": "/data", "subPathExpr": "$(WHERE)/$(WHERE)"}]}],
  "volumes": [{"name": "data", "emptyDir": {}}]}' | kubectl create -f - >/dev/null
for hostile in link up; do
    within 60 shows '^CreateContainerConfigError' field "$hostile" .status.containerStatuses[0].state.waiting.reason
done
ok "paths that lead out of a volume are refused"
in_tests delete pods --all --wait=true --grace-period=0 --force >/dev/null 2>&1

# What pods leave on a machine: mounts, control groups, network namespaces, addresses, folders, tasks.
traces() {
    printf 'mounts %s\n' "$(grep -c . /proc/self/mountinfo)"
    printf 'groups %s\n' "$(find /sys/fs/cgroup/ -path '*kubepods*' -type d 2>/dev/null | grep -c .)"
    printf 'namespaces %s\n' "$(ip netns list | grep -c .)"
    printf 'addresses %s\n' "$(find /var/lib/cni/networks/ -name '10.*' | grep -c .)"
    printf 'folders %s\n' "$(ls /var/lib/kubelet/pods | grep -c .)"
    printf 'tasks %s\n' "$(ctr --address /run/ferrite/containerd/containerd.sock -n k8s.io tasks list -q | grep -c .)"
}
same_traces() { [ "$(traces)" = "$before_pods" ] || { echo "before: $before_pods, now: $(traces)"; return 1; }; }
empty() { [ -z "$(in_tests get pods -o name)" ]; }
within 60 empty
settled() { local first; first=$(traces); sleep 2; [ "$first" = "$(traces)" ]; }
within 60 settled
before_pods=$(traces)
many=${MANY_PODS:-80}
kubectl create -f - >/dev/null <<MANY
{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many", "namespace": "node-tests"}, "spec": {
  "replicas": $many, "selector": {"matchLabels": {"app": "many"}},
  "template": {"metadata": {"labels": {"app": "many"}}, "spec": {"terminationGracePeriodSeconds": 0,
    "containers": [{"name": "main", "image": "$image", "command": ["sleep", "infinity"]}]}}}}
MANY
in_tests rollout status deployment/many --timeout=300s >/dev/null
kubectl delete namespace node-tests --wait=true --timeout=120s >/dev/null
within 60 same_traces
ok "$many pods start and stop and leave nothing behind"
