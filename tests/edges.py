#!/usr/bin/env python3
"""Holds the dependencies between the workspace's crates against what ARCHITECTURE.md allows."""
import json
import subprocess
import sys

LEAVES = {"daemon", "serve", "streaming", "linux"}
LIBRARIES = LEAVES | {"api", "cel", "schema", "client", "placement", "quota"}
ALLOWED = {
    "api": set(),
    "cel": {"api"},
    "schema": {"api"},
    "placement": {"api"},
    "quota": {"api"},
    "client": {"api", "daemon", "serve"},
    "daemon": set(),
    "linux": set(),
    "streaming": set(),
    "testing": set(),
    "serve": {"daemon"},
    "apiserver": LIBRARIES - {"client"},
    "ferrite": LIBRARIES,
}

metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--format-version=1", "--no-deps"]))
members = {p["name"]: p for p in metadata["packages"]}
bad = []
for name, package in members.items():
    allowed = ALLOWED.get(name, LIBRARIES)
    for dependency in package["dependencies"]:
        other = dependency["name"]
        if other in members and dependency["kind"] != "dev" and other not in allowed:
            bad.append(f"{name} must not depend on {other}")
for name in ("api", "schema", "apiserver"):
    for dependency in members.get(name, {"dependencies": []})["dependencies"]:
        if dependency["name"] == "k8s-openapi" and dependency["kind"] != "dev":
            bad.append(f"{name} must not use k8s-openapi")
print("\n".join(bad) or f"{len(members)} crates keep to their edges")
sys.exit(bool(bad))
