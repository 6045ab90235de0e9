# The daemons as container images: each is imported and says its version in a pod. Sourced.
images=$scratch/images
"$(readlink "/proc/$(cat /run/ferrite/supervisor.pid)/exe")" images "$images" >/dev/null
for daemon in kube-apiserver kube-controller-manager kube-scheduler; do
    ctr --address /run/ferrite/containerd/containerd.sock -n k8s.io images import "$images/$daemon.tar" >/dev/null
    kubectl run "$daemon" --image="ferrite.local/$daemon:latest" --image-pull-policy=Never --restart=Never -- --version >/dev/null
    kubectl wait --for=jsonpath='{.status.phase}'=Succeeded "pod/$daemon" --timeout=60s >/dev/null
    shows '^Kubernetes v1\.36\.' kubectl logs "$daemon"
    kubectl delete pod "$daemon" --wait=false >/dev/null
done
ok "the control plane's images run"
