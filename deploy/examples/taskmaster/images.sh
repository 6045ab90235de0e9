#!/usr/bin/env bash
# Makes the one image of the example from Debian packages and imports it into the cluster's containerd.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../packages.sh"
cache=${TASKMASTER_CACHE:-$HOME/.cache/ferrite/taskmaster}
socket=${CONTAINERD_ADDRESS:-/run/ferrite/containerd/containerd.sock}
install_packages debootstrap

mkdir -p "$cache"
if [ ! -f "$cache/rootfs.tar" ]; then
    echo "Making the root file system from Debian packages ..."
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    debootstrap --variant=minbase --include=postgresql,nginx-light,python3-psycopg2 bookworm "$work/rootfs" >"$cache/debootstrap.log" 2>&1 ||
        { tail -5 "$cache/debootstrap.log" >&2; exit 1; }
    rm -rf "$work"/rootfs/var/cache/apt/archives/*.deb "$work"/rootfs/var/lib/apt/lists/*
    tar -C "$work/rootfs" --sort=name -cf "$cache/rootfs.tar.part" .
    mv "$cache/rootfs.tar.part" "$cache/rootfs.tar"
fi

image=$(mktemp -d)
trap 'rm -rf "$image" "${work:-}"' EXIT
cp "$cache/rootfs.tar" "$image/layer.tar"
layer=$(sha256sum "$image/layer.tar" | cut -d' ' -f1)
arch=$(dpkg --print-architecture)
printf '{"architecture":"%s","os":"linux","config":{"Env":["PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$arch" "$layer" >"$image/config.json"
printf '[{"Config":"config.json","RepoTags":["taskmaster.local/taskmaster:1"],"Layers":["layer.tar"]}]' >"$image/manifest.json"
tar -C "$image" -cf - config.json layer.tar manifest.json | ctr --address "$socket" --namespace k8s.io images import -
