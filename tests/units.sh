#!/usr/bin/env bash
# Every daemon has a unit that systemd accepts. Without systemd's checker only the presence is checked.
set -euo pipefail
cd "$(dirname "$0")/.."
for daemon in etcd containerd kube-apiserver kube-controller-manager kube-scheduler kubelet flanneld kube-proxy; do
    unit=systemd/ferrite-$daemon.service
    [ -f "$unit" ] || { echo "$unit is missing" >&2; exit 1; }
    if command -v systemd-analyze >/dev/null; then
        # The programs need not be installed for their units to be right.
        checked=$(mktemp -d)
        sed 's#^ExecStart=[^ ]*#ExecStart=/bin/true#' "$unit" >"$checked/ferrite-$daemon.service"
        systemd-analyze verify "$checked/ferrite-$daemon.service" 2>&1 | grep -E "ferrite-$daemon.*(Unknown|Failed|not)" && exit 1
        rm -rf "$checked"
    fi
done
echo "every daemon has its unit"
