"""A collector of a few lines, made of OpenTelemetry's own protocol definitions; and what has to arrive there when the
program sends its traces and metrics: otlp_check.py PROGRAM"""

import json
import os
import subprocess
import sys
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

PROGRAM = sys.argv[1]
# The attribute that says whose work a request is, where it is a side effect.
INITIATOR = "kad.initiator"
KINDS = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


class Collector:
    """What came in: spans, the latest points of each metric, and the names of the services that sent them. So many times at
    first it takes no spans."""

    def __init__(self, refusals=0):
        self.spans, self.metrics, self.services, self.requests = [], {}, set(), []
        self.refusals = refusals
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces" and collector.refusals > 0:
                    collector.refusals -= 1
                    self.send_response(503)
                else:
                    collector.take(self.path, self.headers["Content-Type"], body)
                    self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path, kind, body):
        self.requests.append((path, kind))
        said = KINDS[path]()
        said.ParseFromString(body)
        if path == "/v1/traces":
            for resource in said.resource_spans:
                self.serve(resource.resource)
                for scope in resource.scope_spans:
                    self.spans.extend(scope.spans)
            return
        for resource in said.resource_metrics:
            self.serve(resource.resource)
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    data = getattr(metric, metric.WhichOneof("data"))
                    self.metrics[metric.name] = list(data.data_points)

    def serve(self, resource):
        self.services.add(attributes(resource).get("service.name"))

    def sum(self, name):
        return sum(point.as_int for point in self.metrics.get(name, []))


def attributes(it):
    def plain(value):
        which = value.WhichOneof("value")
        if which == "array_value":
            return [plain(item) for item in value.array_value.values]
        return getattr(value, which)

    return {attribute.key: plain(attribute.value) for attribute in it.attributes}


def check(holds, what):
    print(("ok      " if holds else "FAILED  ") + what, flush=True)
    if not holds:
        sys.exit(1)


def run(*arguments, code=0, refusals=0):
    """A run, with its collector: what that took, the report, and what was printed as an error."""
    collector = Collector(refusals)
    done = subprocess.run(
        [PROGRAM, "--json", "--otlp", collector.url, *arguments], capture_output=True, text=True, timeout=120,
        # Spans are sent while the program stays.
        env={**os.environ, "OTEL_BSP_SCHEDULE_DELAY": "500"},
    )
    if done.returncode != code:
        sys.exit(f"{arguments}: exit code {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}")
    # The report is the last of what a program prints that stays.
    return collector, json.loads(done.stdout.splitlines()[-1]), done.stderr


def of(spans, name):
    return [span for span in spans if span.name == name]


# One lookup.
collector, said, _ = run("--nodes", "60", "--drop", "0.1")
(lookup,) = said["lookups"]
check({path for path, _ in collector.requests} == set(KINDS), "spans and metrics arrive")
check({kind for _, kind in collector.requests} == {"application/x-protobuf"}, "as OTLP/HTTP")
check(collector.services == {"mainline"}, f"of the service {collector.services}")
spans = collector.spans
check(len({span.trace_id for span in spans}) == 1, "one lookup is one trace")
check(spans[0].trace_id.hex() == lookup["trace_id"], f"whose id the program says: {lookup['trace_id']}")
(root,) = of(spans, "kad find")
check(root.parent_span_id == b"" and root.kind == Span.SPAN_KIND_INTERNAL, "its root is the lookup")
asked = of(spans, "FIND_NODE")
check(len(asked) == len(spans) - 1 == attributes(root)["kad.sent"], f"all else are its {len(asked)} requests")
received = {span.span_id.hex(): span.parent_span_id.hex() for span in asked}
printed = {span["span_id"]: span["parent_id"] for span in lookup["spans"]}
check(received == printed, "the tree that arrives is the tree that is printed")
ids = {span.span_id for span in spans}
check(all(span.parent_span_id in ids for span in asked), "and every request hangs under another span of it")
deep = [span for span in asked if span.parent_span_id != root.span_id]
check(deep, f"{len(deep)} of them under the answer that led to them")
check(all(span.kind == Span.SPAN_KIND_CLIENT for span in asked), "requests are client spans")
times = [(span.start_time_unix_nano, span.end_time_unix_nano) for span in spans]
check(all(start <= end for start, end in times), "no span ends before it begins")
first, last = root.start_time_unix_nano, root.end_time_unix_nano
check(all(first <= start <= last for start, _ in times), "none begins outside of the lookup")
# A node that is only silent for long is listened to beyond the end of the lookup.
within = [span for span in asked if span.end_time_unix_nano <= last]
stats = lookup["stats"]
open_at_the_end = stats["sent"] - sum(stats[end] for end in ("answered", "failed", "timed_out", "cancelled"))
check(len(asked) - len(within) == open_at_the_end, f"{open_at_the_end} are listened to beyond its end")
starts = {span.span_id: span.start_time_unix_nano for span in spans}
check(all(starts[span.parent_span_id] <= span.start_time_unix_nano for span in asked), "or before its cause")
for span in asked:
    said_of = attributes(span)
    needed = {"rpc.system.name", "rpc.method", "network.peer.address", "network.peer.port", "kad.target", "kad.hop",
              "kad.operation", "kad.end", "kad.deadline.remaining", "kad.request.size"}
    if not needed <= said_of.keys():
        check(False, f"{needed - said_of.keys()} of {said_of}")
    late = said_of["kad.end"] == "timed out"
    if (span.status.code == Status.STATUS_CODE_ERROR) != late:
        check(False, f"the status {span.status} of {said_of}")
check(True, "requests have their attributes, and time-outs are errors")
ends = defaultdict(int)
for span in asked:
    ends[attributes(span)["kad.end"]] += 1
of_lookup = [attributes(span)["kad.end"] for span in within]
check(of_lookup.count("answered") == stats["answered"], f"ends: {dict(ends)}")
check(of_lookup.count("timed out") == stats["timed_out"], "as the program counts them")
closest = attributes(root)["kad.closest"]
check(len(closest) == len(lookup["closest"]), f"the lookup's span names the {len(closest)} closest nodes")
check(collector.sum("kad.requests.sent") == said["requests"]["sent"], f"metrics: {said['requests']['sent']} requests sent")
check(collector.sum("kad.requests.ended") == said["requests"]["sent"], "and as many ended")
(duration,) = collector.metrics["kad.operation.duration"]
check(duration.count == 1 and abs(duration.sum - (last - first) / 1e9) < 1e-6, f"one lookup, of {duration.sum:.3f} s")
calls = sum(point.count for point in collector.metrics["rpc.client.call.duration"])
check(calls == ends["answered"] + ends["timed out"], f"and {calls} calls")

# Ten at once.
collector, said, _ = run("--queries", "10")
traces = defaultdict(set)
for span in collector.spans:
    traces[span.trace_id].add(attributes(span)["kad.operation"])
check(len(traces) == 10 and all(len(tags) == 1 for tags in traces.values()), "ten lookups are ten traces")

# Out of time.
collector, said, _ = run("--deadline", "1ms", "--nodes", "60", "--drop", "0.5", code=2)
(root,) = of(collector.spans, "kad find")
check(root.status.code == Status.STATUS_CODE_ERROR, f"a lookup that runs out of time is an error: {root.status.message}")
check(attributes(root)["error.type"] == attributes(root)["kad.outcome"] == "deadline exceeded", "of that type")
check(len(attributes(root)["kad.closest"]) == len(said["lookups"][0]["closest"]), "with its partial result")

# A store.
collector, said, _ = run("--put", "hello")
(root,) = of(collector.spans, "kad broadcast")
stores = of(collector.spans, "STORE")
check(len(stores) == attributes(root)["kad.stored"] == said["actions"][0]["stored"], f"a put is a trace with {len(stores)} stores")
check({span.trace_id for span in collector.spans} == {root.trace_id}, "and no other")
succeeded = [attributes(point) for point in collector.metrics["kad.broadcasts"]]
check(succeeded == [{"kad.outcome": "complete", "kad.succeeded": True}], "which the metrics count")

# A node that stays.
collector, said, _ = run("--stay", "3s", "--queries", "1")
aside = [span for span in collector.spans if INITIATOR in attributes(span)]
initiators = sorted({attributes(span)[INITIATOR] for span in aside})
check(aside and all(span.parent_span_id == b"" for span in aside), f"the {len(aside)} requests of {initiators} hang under nothing")
ids = {span.span_id for span in collector.spans}
links = [link for span in aside for link in span.links]
check(links and all(link.span_id in ids for link in links), f"{len(links)} of them link to what led to them, which arrived")
check(collector.sum("kad.table.nodes") > 0, f"the gauges: {collector.sum('kad.table.nodes')} nodes in the table")
check("kad.requests.in_flight" in collector.metrics, f"and {collector.sum('kad.requests.in_flight')} requests in flight")

# A collector that is out of order for a while: as long as the exporter tries once more, and no longer.
collector, said, _ = run("--stay", "5s", refusals=1)
check(of(collector.spans, "kad find"), "spans that are not taken at first are sent once more")
collector, said, errors = run("--stay", "8s", refusals=4, code=1)
check(said["event"] == "report" and said["exit"] == 0, "the report is that of what was done")
check(not of(collector.spans, "kad find") and collector.metrics, "in the end all else arrives")
(error,) = [line for line in errors.splitlines() if line.startswith("error: ")]
check("spans were not taken by the collector, the first because: its answer is 503" in error, error)
done = subprocess.run([PROGRAM, "--otlp", "https://127.0.0.1:1"], capture_output=True, text=True, timeout=120)
check(done.returncode == 1 and not done.stdout and "there is no TLS in this build" in done.stderr, done.stderr.splitlines()[0])

# Nobody there.
done = subprocess.run([PROGRAM, "--otlp", "http://127.0.0.1:1"], capture_output=True, text=True, timeout=120)
check(done.returncode == 1 and "--otlp http://127.0.0.1:1: " in done.stderr, done.stderr.strip())
check("metrics: " in done.stderr, "which does not keep the metrics from being sent")
check("kad find: converged" in done.stdout, "the lookup has come to its end all the same")
