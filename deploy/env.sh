# Sourced by the scripts that build: every binary is static, so that the same file runs on the host and in an image
# made FROM scratch. Build outputs are kept outside the clone, so that a fresh one starts warm.
HOST_TARGET=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_BUILD_TARGET=$HOST_TARGET
# A static binary relocates itself at its start, so that it can lie anywhere. Packed, its relocations are some kilobytes
# that it reads, not megabytes that it has in memory from then on. The C library has to know them: glibc 2.36.
export RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HOME/.cache/ferrite/target}
export CARGO_INCREMENTAL=0
