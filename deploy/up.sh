#!/usr/bin/env bash
# Brings a single-node cluster up on this machine: installs what is missing, builds, starts. Harmless to run again.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
. deploy/env.sh

profile=${FERRITE_PROFILE:-release}
install_packages "${CLUSTER_PACKAGES[@]}"
echo "Building the $profile binaries (the first time takes a while) ..."
cargo build --workspace --profile "$profile"
exec "$CARGO_TARGET_DIR/$CARGO_BUILD_TARGET/$profile/ferrite" up "$@"
