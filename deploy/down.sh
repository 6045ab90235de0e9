#!/usr/bin/env bash
# Stops the cluster and removes what it made on this machine; with --purge its data too.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/env.sh

for profile in "${FERRITE_PROFILE:-release}" release ci; do
    program="$CARGO_TARGET_DIR/$CARGO_BUILD_TARGET/$profile/ferrite"
    [ -x "$program" ] && exec "$program" down "$@"
done
echo "the program ferrite is not built; deploy/up.sh builds it" >&2
exit 1
