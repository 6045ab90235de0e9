#!/usr/bin/env bash
# Builds fuzz targets with coverage on the stable toolchain, and runs each for a while: fuzz/run.sh [-t SECONDS] [TARGET...]
# What is found new goes to found/TARGET, what does not hold to artifacts/TARGET; corpus/TARGET is only read.
set -euo pipefail
cd "$(dirname "$0")"

seconds=600
if [ "${1:-}" = -t ]; then
    seconds=$2
    shift 2
fi
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.toml | tail -n +2)

# What cargo-fuzz passes for --sanitizer none, but for the tables of comparisons that only a sanitizer reads.
passes="-Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    passes+=" -Cllvm-args=-sanitizer-coverage-$option"
done
export RUSTFLAGS="--cfg fuzzing $passes -Cllvm-args=-simplifycfg-branch-fold-threshold=0"
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$PWD/target}
host=$(rustc -vV | sed -n 's/^host: //p')
# The versions that the workspace uses.
[ -e Cargo.lock ] || cp ../Cargo.lock .
nice -n 10 cargo build --release --target "$host" "${targets[@]/#/--bin=}"

# As much stack as a thread of a daemon has.
ulimit -s 2048
failed=()
for target in "${targets[@]}"; do
    mkdir -p "found/$target" "artifacts/$target" "corpus/$target"
    options=()
    [ ! -e "dictionaries/$target" ] || options+=("-dict=dictionaries/$target")
    printf '\n== %s\n' "$target"
    nice -n 10 "$CARGO_TARGET_DIR/$host/release/$target" "found/$target" "corpus/$target" \
        -artifact_prefix="artifacts/$target/" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -malloc_limit_mb=256 -max_len=16384 -print_final_stats=1 "${options[@]}" || failed+=("$target")
done
[ ${#failed[@]} -eq 0 ] || { echo "does not hold: ${failed[*]}"; exit 1; }
