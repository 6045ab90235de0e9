#!/usr/bin/env bash
# The whole cluster on this machine, as a newcomer would start it, with the example application on it: each file of
# `cluster/` checks one side of it. Takes the cluster down again, whatever happened.
set -euo pipefail
cd "$(dirname "$0")/.."
export FERRITE_PROFILE=${FERRITE_PROFILE:-ci}
export KUBECONFIG=/etc/kubernetes/admin.conf
[ -e /var/lib/ferrite/cluster.json ] && { echo "a cluster is on this machine already: deploy/down.sh --purge" >&2; exit 1; }
. deploy/packages.sh
. tests/cluster/support.sh
trap finish EXIT

install_packages "${CLUSTER_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
deploy/up.sh
ok "the cluster comes up"
deploy/up.sh >/dev/null
ok "coming up again is harmless"
# kubectl remembers what a server at this address offered, and it may have been another.
export HOME=$scratch/home
for part in application names kubectl custom images pods failures; do
    . "tests/cluster/$part.sh"
done
