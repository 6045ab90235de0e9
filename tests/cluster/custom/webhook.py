"""Answers reviews of conversions between the versions of Hosts: webhook.py CERTIFICATE KEY. Prints the port it takes."""
import http.server
import json
import ssl
import sys


def convert(host, version):
    spec = host.get("spec", {})
    if version.endswith("/v2") and "hostPort" in spec:
        spec["host"], _, port = spec.pop("hostPort").partition(":")
        spec["port"] = int(port)
    elif version.endswith("/v1") and "host" in spec:
        spec["hostPort"] = f"{spec.pop('host')}:{spec.pop('port')}"
    host["apiVersion"] = version
    return host


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = review.pop("request")
        converted = [convert(o, request["desiredAPIVersion"]) for o in request["objects"]]
        review["response"] = {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted}
        body = json.dumps(review).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


certificate, key = sys.argv[1:]
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
