#!/usr/bin/env python3
"""Writes crates/schema/data/descriptions.txt.gz, what the OpenAPI documents say about types and fields.

    descriptions.py K8S_OPENAPI_SOURCE

K8S_OPENAPI_SOURCE is the unpacked source of the k8s-openapi crate (Apache-2.0), whose JSON schemas have the
descriptions. One line for each type (NAME<tab>TEXT) followed by one for each field (<tab>FIELD<tab>TEXT), with
backslash escapes for line ends, tabs and backslashes.
"""
import gzip, json, pathlib, re, sys

STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


def text(literal):
    literal = re.sub(r"\\u\{([0-9a-fA-F]+)\}", lambda m: "\\u" + m[1].zfill(4), literal).replace("\\'", "'")
    return json.loads(f'"{literal}"').replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def types(source):
    for path in sorted(source.rglob("*.rs")):
        name, field, in_fields = None, None, False
        for line in path.read_text().splitlines():
            indent = len(line) - len(line.lstrip())
            stripped = line.strip()
            if m := re.match(r'"(io\.k8s\.[\w.-]+)"\.into\(\)$', stripped):
                parts = m[1].split(".")
                name, field, in_fields = f"{parts[-3]}/{parts[-2]}.{parts[-1]}", None, False
                yield name, None, ""
            elif name and indent == 12 and stripped.startswith('"description"'):
                yield name, None, text(STRING.findall(stripped)[1])
            elif name and indent == 12 and stripped.startswith('"properties"'):
                in_fields = True
            elif name and indent <= 12 and in_fields and stripped.startswith("}"):
                in_fields = False
            elif in_fields and indent == 16 and (m := STRING.match(stripped)):
                field = m[1]
            elif in_fields and field and '"description"' in stripped:
                yield name, field, text(STRING.findall(stripped)[1])
                field = None


def main():
    table = {}
    for name, field, what in types(pathlib.Path(sys.argv[1]) / "src" / "v1_36"):
        known = table.setdefault(name, {})
        known[field] = what or known.get(field, "")
    lines = []
    for name in sorted(table):
        lines.append(f"{name}\t{table[name].get(None, '')}")
        lines += [f"\t{f}\t{t}" for f, t in table[name].items() if f]
    out = pathlib.Path(__file__).parents[2] / "crates/schema/data/descriptions.txt.gz"
    with open(out, "wb") as f, gzip.GzipFile(fileobj=f, mode="wb", filename="", mtime=0) as z:
        z.write("\n".join(lines).encode() + b"\n")


main()
