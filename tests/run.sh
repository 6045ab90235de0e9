#!/usr/bin/env bash
# Installs what the tests need, then checks formatting, the crates' edges, lints and documentation, runs the tests of
# every crate, and at last those of the whole cluster. Needs root: the tests start real containers and networks.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
. deploy/env.sh

step() { printf '\n== %s (%ds)\n' "$1" "$SECONDS"; }

step "packages"
install_packages "${CLUSTER_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
step "formatting"
cargo fmt --all --check
step "edges between crates"
tests/edges.py
step "units"
tests/units.sh
step "lints"
cargo clippy --workspace --all-targets --profile ci -- -D warnings
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --profile ci --quiet
step "tests"
cargo test --workspace --profile ci
step "cluster"
tests/cluster.sh
step "done"
