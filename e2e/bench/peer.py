"""elasticsearch-py with orjson: its streaming_bulk, as its documentation has it, with chunks of --batch operations.

What is measured is the client alone: the input is in memory, and documents are text, so that they are neither read nor
written anew. One line of JSON says what came of it.
"""

import argparse
import json
import resource
import time

from elasticsearch import Elasticsearch, OrjsonSerializer
from elasticsearch.helpers import streaming_bulk
import orjson

parser = argparse.ArgumentParser()
parser.add_argument("--node", required=True)
parser.add_argument("--batch", type=int, default=2000)
parser.add_argument("input")
options = parser.parse_args()

operations = []
with open(options.input, "rb") as lines:
    for line in lines:
        # What an application has: the parts of an action, and the document.
        verb, meta = next(iter(orjson.loads(line).items()))
        operations.append((verb, meta, None if verb == "delete" else next(lines).rstrip(b"\n").decode()))


def expand(operation):
    verb, meta, document = operation
    return {verb: meta}, document


def usage():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


client = Elasticsearch(options.node, serializer=OrjsonSerializer(), request_timeout=60)
client.info()
cpu, memory = usage()
begin = time.monotonic()
settled = 0
for done, item in streaming_bulk(
    client,
    operations,
    chunk_size=options.batch,
    max_chunk_bytes=1 << 20,
    expand_action_callback=expand,
    raise_on_error=False,
    raise_on_exception=False,
    max_retries=10,
):
    status = next(iter(item.values())).get("status", 0)
    settled += done or status in (404, 409)
seconds = time.monotonic() - begin
after, peak = usage()
print(
    json.dumps(
        {
            "documents": len(operations),
            "settled": settled,
            "seconds": seconds,
            "cpu": after - cpu,
            "memory": peak - memory,
        }
    )
)
