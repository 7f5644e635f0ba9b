"""What an application does with elasticsearch-py, over a collection behind a router; see ../README.md.

journey.py URL COLLECTION N PREFIX: prints a line of JSON, and exits with 1 and a text when something is not as it
should be. Effects: writes documents whose ids begin with PREFIX.
"""

import collections
import json
import sys
import time

import elasticsearch
from elasticsearch import Elasticsearch, helpers

LARGE = "81384788765712384"  # has an index of its own
POISON, LATE, DELETED = 5, 10, 10

url, collection, count, prefix = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
errors = collections.Counter()
client = Elasticsearch(url, http_compress=True, retry_on_timeout=True, max_retries=3, request_timeout=120)


def tenant_of(n):
    return LARGE if n % 5 == 0 else str(1000 + n % 199)


def id_of(n):
    return f"{prefix}-{n}"


def document(n, edited=False):
    content = f"{prefix} number {n}, edited" if edited else f'{prefix} number {n} said "grüß dich" 🦀\nand left'
    return {"guild_id": tenant_of(n), "content": content, "sent": n}


FIRSTS = {}  # of each tenant, the number of its first document
for number in range(995):
    FIRSTS.setdefault(tenant_of(number), number)


def action(n, version, source, **more):
    """Every second one says whose it is; of the others the document does."""
    said = {"routing": tenant_of(n)} if n % 2 == 0 else {}
    return {"_index": collection, "_id": id_of(n), "version": version, "version_type": "external",
            "_source": source, **said, **more}


def loaded():
    for n in range(count):
        yield action(n, 2, document(n))
        if n % (count // POISON) == 0:
            k = n // (count // POISON)
            if k < POISON:
                yield action(k, 2, {**document(k), "unknown": True}, _id=f"{prefix}-unknown-{k}")


def changes():
    for n in FIRSTS.values():
        yield action(n, 3, document(n, edited=True))
    for n in range(count - LATE, count):
        yield action(n, 1, document(n, edited=True))
    for n in range(count - LATE - DELETED, count - LATE):
        yield {"_op_type": "delete", "_index": collection, "_id": id_of(n), "routing": tenant_of(n), "version": 3,
               "version_type": "external"}


def same(what, got, expected):
    if got != expected:
        sys.exit(f"elasticsearch-py: {what}: {got!r}, and not {expected!r}")


def raises(what, kind, status, error_type, call):
    try:
        call()
    except kind as error:
        same(f"{what}: status", error.status_code, status)
        if error_type:
            same(f"{what}: type", error.body["error"]["type"], error_type)
    else:
        sys.exit(f"elasticsearch-py: {what}: no {kind.__name__}")


def told(items):
    """Ids of items that were refused."""
    ids = set()
    for item in items:
        (result,) = item.values()
        errors[f"{result['status']} {result['error']['type']}"] += 1
        ids.add(result["_id"])
    return ids


def load():
    done, refused = 0, []
    for ok, item in helpers.parallel_bulk(client, loaded(), thread_count=4, chunk_size=1000, raise_on_error=False):
        done += ok
        if not ok:
            refused.append(item)
    same("documents that were loaded", done, count)
    same("documents that the mapping refuses", told(refused), {f"{prefix}-unknown-{k}" for k in range(POISON)})


def change():
    try:
        helpers.bulk(client, changes(), refresh="wait_for")
    except helpers.BulkIndexError as error:
        same("documents that come late", told(error.errors), {id_of(n) for n in range(count - LATE, count)})
    else:
        sys.exit("elasticsearch-py: documents that come late: no BulkIndexError")
    # the same again changes nothing: each of them is late now
    done, refused = 0, []
    again = ({**change, "version": 2} for change in changes() if "_op_type" in change)
    for ok, item in helpers.streaming_bulk(client, again, raise_on_error=False, max_retries=3):
        done += ok
        refused += [] if ok else [item]
    same("deletions that come late", (done, len(told(refused))), (0, DELETED))


def counts():
    expected = collections.Counter(tenant_of(n) for n in range(count - LATE - DELETED))
    expected.update(tenant_of(n) for n in range(count - LATE, count))
    own = {"match": {"content": prefix}}
    for tenant in FIRSTS:
        got = client.count(index=collection, routing=tenant, query=own)["count"]
        same(f"documents of tenant {tenant}", got, expected[tenant])


def contents():
    edited = set(FIRSTS.values())
    for n in sorted(edited | set(range(0, count - LATE - DELETED, count // 100))):
        got = client.get(index=collection, id=id_of(n), routing=tenant_of(n))
        version = 3 if n in edited else 2
        same("a document", (got["_index"], got["_id"], got["_version"]), (collection, id_of(n), version))
        same("its content", got["_source"], document(n, n in edited))
    there = {"index": collection, "id": id_of(0), "routing": LARGE}
    same("exists", bool(client.exists(**there)), True)
    deleted = {"index": collection, "id": id_of(count - LATE - 1), "routing": tenant_of(count - LATE - 1)}
    same("exists, of what was deleted", bool(client.exists(**deleted)), False)
    raises("get, of what was deleted", elasticsearch.NotFoundError, 404, None, lambda: client.get(**deleted))
    raises("get, of another's", elasticsearch.NotFoundError, 404, None,
           lambda: client.get(**{**there, "routing": tenant_of(1)}))


def searches():
    query = {"bool": {"must": [{"match": {"content": prefix}}], "filter": [{"range": {"sent": {"lt": 50}}}]}}
    found = client.search(index=collection, routing=LARGE, query=query, sort=[{"sent": "desc"}], size=100,
                          aggs={"last": {"max": {"field": "sent"}}}, track_total_hits=True, pretty=True)
    hits = found["hits"]["hits"]
    numbers = range(45, -1, -5)
    same("hits", [hit["_id"] for hit in hits], [id_of(n) for n in numbers])
    same("their content", [hit["_source"] for hit in hits], [document(n, n == 0) for n in numbers])
    same("total", found["hits"]["total"], {"value": 10, "relation": "eq"})
    same("aggregation", found["aggregations"]["last"]["value"], 45.0)
    only = client.search(index=collection, routing=LARGE, query=query, filter_path=["hits.total.value"])
    same("filter_path", only.body, {"hits": {"total": {"value": 10}}})
    several = client.msearch(searches=[
        {"index": collection, "routing": LARGE}, {"query": query, "size": 1},
        {"index": collection, "routing": tenant_of(1)}, {"query": query},
        {"index": "nothing", "routing": LARGE}, {"query": query},
    ])["responses"]
    same("msearch", [one["hits"]["total"]["value"] for one in several[:2]], [10, 1])
    same("msearch, of nothing", (several[2]["status"], several[2]["error"]["type"]), (404, "index_not_found_exception"))
    raises("search, of nothing", elasticsearch.NotFoundError, 404, "index_not_found_exception",
           lambda: client.search(index="nothing", routing=LARGE, query=query))
    raises("search, with a script", elasticsearch.BadRequestError, 400, "illegal_argument_exception",
           lambda: client.search(index=collection, routing=LARGE, query={"script": {"script": "true"}}))


def single():
    one = {"index": collection, "id": f"{prefix}-single", "routing": LARGE, "version_type": "external"}
    source = {**document(5), "sent": 2**53 + 1}
    same("index", client.index(**one, version=5, document=source, refresh="wait_for")["result"], "created")
    got = client.get(index=collection, id=one["id"], routing=LARGE, source_includes=["sent"], pretty=True)
    same("its content", got["_source"], {"sent": source["sent"]})
    raises("index, late", elasticsearch.ConflictError, 409, "version_conflict_engine_exception",
           lambda: client.index(**one, version=4, document=source))
    same("delete", client.delete(**one, version=6, refresh=True)["result"], "deleted")
    same("exists, of the deleted one", bool(client.exists(index=collection, id=one["id"], routing=LARGE)), False)


began = time.monotonic()
same("the line of the server", client.info()["version"]["number"].split(".")[0] in ("8", "9"), True)
load()
seconds = time.monotonic() - began
change()
counts()
contents()
searches()
single()
client.close()
done = count + len(FIRSTS) + DELETED + 2
superseded = errors["409 version_conflict_engine_exception"] + 1
print(json.dumps({
    "client": "elasticsearch-py", "version": elasticsearch.__versionstr__, "documents": count,
    "stored": count - DELETED, "seconds": round(seconds, 1), "errors": errors,
    "operations": {"done": done, "superseded": superseded, "refused": POISON},
}))
