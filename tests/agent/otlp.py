"""A receiver of OTLP made of OpenTelemetry's own Python messages and services, which prints what it is sent as JSON lines.

    otlp.py grpc|http [CERTIFICATE KEY]

The first line is its port. A line of JSON on standard input says how it answers from then on: {"answer": "ok"},
{"answer": "partial", "rejected": 1}, {"answer": "status", "code": 503, "after": 1}, {"answer": "nonsense"}.
"""

import http.server
import json
import ssl
import sys
import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

LOCK = threading.Lock()
HOW = {"answer": "ok"}
# A server that nobody refers to ends.
SERVERS = []


def value(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(one) for one in any_value.array_value.values]
    return getattr(any_value, kind)


def attributes(pairs):
    flat = {pair.key: value(pair.value) for pair in pairs}
    assert len(flat) == len(pairs), f"a key twice: {pairs}"
    return flat


def log(record):
    return {
        "time": record.time_unix_nano,
        "observed": record.observed_time_unix_nano,
        "severity": record.severity_number,
        "severity_text": record.severity_text,
        "body": value(record.body),
        "event_name": record.event_name,
        "attributes": attributes(record.attributes),
        "trace": record.trace_id.hex(),
        "span": record.span_id.hex(),
    }


def span(one):
    return {
        "trace": one.trace_id.hex(),
        "span": one.span_id.hex(),
        "parent": one.parent_span_id.hex(),
        "name": one.name,
        "begin": one.start_time_unix_nano,
        "end": one.end_time_unix_nano,
        "status": one.status.code,
        "message": one.status.message,
        "attributes": attributes(one.attributes),
        "events": [
            {"name": event.name, "time": event.time_unix_nano, "attributes": attributes(event.attributes)}
            for event in one.events
        ],
        "links": [{"trace": link.trace_id.hex(), "span": link.span_id.hex()} for link in one.links],
    }


def metric(one):
    kind = one.WhichOneof("data")
    data = getattr(one, kind)
    points = []
    for point in data.data_points:
        told = {
            "attributes": attributes(point.attributes),
            "start": point.start_time_unix_nano,
            "time": point.time_unix_nano,
        }
        if kind == "histogram":
            told |= {
                "count": point.count,
                "sum": point.sum,
                "bounds": list(point.explicit_bounds),
                "counts": list(point.bucket_counts),
            }
        else:
            told["value"] = getattr(point, point.WhichOneof("value"))
        points.append(told)
    return {
        "name": one.name,
        "unit": one.unit,
        "help": one.description,
        "kind": kind,
        "cumulative": kind != "gauge" and data.aggregation_temporality == 2,
        "monotonic": kind == "sum" and data.is_monotonic,
        "points": points,
    }


# Of each signal: its messages, where its items are, and what an answer calls those that were refused.
SIGNALS = {
    "logs": (logs_service_pb2, "Logs", "resource_logs", "scope_logs", "log_records", log, "rejected_log_records"),
    "traces": (trace_service_pb2, "Trace", "resource_spans", "scope_spans", "spans", span, "rejected_spans"),
    "metrics": (
        metrics_service_pb2,
        "Metrics",
        "resource_metrics",
        "scope_metrics",
        "metrics",
        metric,
        "rejected_data_points",
    ),
}


def say(told):
    with LOCK:
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


def take(signal, request, headers):
    """Tells what was sent, and how it is answered."""
    _, _, resources, scopes, items, flat, _ = SIGNALS[signal]
    how = dict(HOW)
    for resource in getattr(request, resources):
        for scope in getattr(resource, scopes):
            say(
                {
                    "signal": signal,
                    "how": how["answer"],
                    "rejected": how.get("rejected", 0),
                    "headers": headers,
                    "resource": attributes(resource.resource.attributes),
                    "schema": [resource.schema_url, scope.schema_url],
                    "scope": [scope.scope.name, scope.scope.version],
                    "items": [flat(one) for one in getattr(scope, items)],
                }
            )
    return how


def answer(signal, how):
    module, name, *_, rejected = SIGNALS[signal]
    message = getattr(module, f"Export{name}ServiceResponse")()
    if how["answer"] == "partial":
        setattr(message.partial_success, rejected, how["rejected"])
        message.partial_success.error_message = "not to my taste"
    return message


def field(number, content):
    """A field of bytes in protobuf, shorter than 128."""
    return bytes([number << 3 | 2, len(content)]) + content


def serve_grpc(certificate):
    def export(signal, request, context):
        how = take(signal, request, dict(context.invocation_metadata()))
        if how["answer"] == "status":
            if "after" in how:
                delay = field(1, bytes([1 << 3, how["after"]]))
                details = field(1, b"type.googleapis.com/google.rpc.RetryInfo") + field(2, delay)
                status = bytes([1 << 3, how["code"]]) + field(3, details)
                context.set_trailing_metadata((("grpc-status-details-bin", status),))
            code = next(code for code in grpc.StatusCode if code.value[0] == how["code"])
            context.abort(code, "as told")
        return answer(signal, how)

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    for base, add, signal in [
        (logs_service_pb2_grpc.LogsServiceServicer, logs_service_pb2_grpc.add_LogsServiceServicer_to_server, "logs"),
        (
            trace_service_pb2_grpc.TraceServiceServicer,
            trace_service_pb2_grpc.add_TraceServiceServicer_to_server,
            "traces",
        ),
        (
            metrics_service_pb2_grpc.MetricsServiceServicer,
            metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
            "metrics",
        ),
    ]:
        one = type(signal, (base,), {"Export": lambda self, request, context, of=signal: export(of, request, context)})
        add(one(), server)
    if certificate:
        chain, key = (open(path, "rb").read() for path in certificate)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    SERVERS.append(server)
    return port


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        signal = self.path.removeprefix("/v1/")
        assert self.headers["content-type"] == "application/x-protobuf", self.headers
        module, name, *_ = SIGNALS[signal]
        request = getattr(module, f"Export{name}ServiceRequest").FromString(body)
        how = take(signal, request, {key.lower(): value for key, value in self.headers.items()})
        status, content = 200, answer(signal, how).SerializeToString()
        if how["answer"] == "status":
            status, content = how["code"], b""
        if how["answer"] == "nonsense":
            content = b"<html>it works</html>"
        self.send_response(status)
        if "after" in how:
            self.send_header("retry-after", str(how["after"]))
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def serve_http(certificate):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


serve = {"grpc": serve_grpc, "http": serve_http}[sys.argv[1]]
say({"port": serve(sys.argv[2:])})
for line in sys.stdin:
    HOW = json.loads(line)
