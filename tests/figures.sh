#!/usr/bin/env bash
# Prints what a running cluster costs, and how quick it starts. Needs the cluster that deploy/up.sh made; with --start it
# is taken down and brought up again from nothing, which loses its data.
set -euo pipefail
cd "$(dirname "$0")/.."
export KUBECONFIG=/etc/kubernetes/admin.conf
now() { date +%s%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f s\n", (b - a) / 1e9 }'; }

supervisor=$(cat /run/ferrite/supervisor.pid)
ferrite=$(readlink "/proc/$supervisor/exe")
if [ "${1:-}" = --start ]; then
    "$ferrite" down --purge >/dev/null
    begun=$(now)
    "$ferrite" up | tee /dev/stderr | sed -n 's/^\[ *\([0-9.]*s\)\] the node is Ready/ferrite up to a Ready node: \1/p'
    echo "ferrite up to running add-ons: $(since "$begun")"
    supervisor=$(cat /run/ferrite/supervisor.pid)
fi

echo "resident memory:"
total=0
for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy; do
    pid=$(pgrep -P "$supervisor" -x "${name:0:15}")
    kb=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")
    total=$((total + kb))
    awk -v n="$name" -v kb="$kb" 'BEGIN { printf "  %-26s %6.1f MB\n", n, kb / 1024 }'
done
awk -v kb="$total" 'BEGIN { printf "  %-26s %6.1f MB\n", "together", kb / 1024 }'

pid=$(pgrep -P "$supervisor" -x kube-apiserver)
begun=$(now)
kill -KILL "$pid"
until [ "$(kubectl get --raw /readyz 2>/dev/null)" = ok ]; do :; done
echo "apiserver killed to ready again, with the supervisor's pause: $(since "$begun")"
