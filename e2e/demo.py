#!/usr/bin/env python3
"""The demo's looks at Kubernetes objects and its talks with Elasticsearch.

    demo.py state|service|scheme|cell        objects (kubectl get -o json) on standard input
    demo.py shards|index|search FILE URL     FILE has the objects, URL is Elasticsearch's address; with https, ca.crt
                                             and credential (user:password) lie beside FILE

Effects: `index` writes documents into the indices of the placements.
"""
import base64
import glob
import gzip
import json
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
import zlib
from email.utils import parsedate_to_datetime

MOST_DOCUMENTS = 6000
MOST_PER_PACKAGE = 200


def kind(objects, name):
    return [item for item in objects["items"] if item["kind"] == name]


def condition(item, name):
    for found in item.get("status", {}).get("conditions", []):
        if found["type"] == name:
            return found
    return {"status": "Unknown", "reason": "", "message": ""}


def state(objects):
    """One line: what is not ready and why."""
    waiting = []
    for item in objects["items"]:
        if item["kind"] not in ("SearchCell", "IndexPlacement"):
            continue
        ready, status = condition(item, "Ready"), item.get("status", {})
        if ready["status"] == "True" and status.get("observedGeneration") == item["metadata"]["generation"]:
            continue
        stalled = condition(item, "Stalled")
        figure = status.get("nodesReady") or status.get("shards", {}).get("summary") or ""
        why = stalled if stalled["status"] == "True" else ready
        words = [item["kind"], item["metadata"]["name"] + ":", why["reason"] or "Pending", figure]
        if why is stalled:
            words.append(why["message"])
        waiting.append(" ".join(word for word in words if word))
    return "; ".join(waiting) or "all ready"


def service(objects):
    """The client Service of the cell's first cluster."""
    cell = kind(objects, "SearchCell")[0]
    return "%s-%s" % (cell["metadata"]["name"], cell["spec"]["clusters"][0]["name"])


def cell(objects):
    """The cell's name."""
    return kind(objects, "SearchCell")[0]["metadata"]["name"]


def scheme(objects):
    """http or https."""
    mode = kind(objects, "SearchCell")[0]["spec"].get("security", {}).get("mode", "Managed")
    return "https" if mode == "Managed" else "http"


# --- Elasticsearch ------------------------------------------------------------------------------------


CLIENT = {"context": None, "headers": {}}


def log_in(folder):
    """Trusts the cell's authority, names checked, and is its administrator."""
    CLIENT["context"] = ssl.create_default_context(cafile=os.path.join(folder, "ca.crt"))
    with open(os.path.join(folder, "credential"), "rb") as file:
        CLIENT["headers"] = {"Authorization": "Basic " + base64.b64encode(file.read()).decode()}


def call(url, body=None, content="application/json"):
    for attempt in range(20):
        request = urllib.request.Request(url, data=body, headers={"Content-Type": content, **CLIENT["headers"]})
        try:
            with urllib.request.urlopen(request, timeout=30, context=CLIENT["context"]) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503):
                raise SystemExit("%s: %s" % (url, error.read().decode()[:500]))
        except urllib.error.URLError as error:
            if attempt == 19:
                raise SystemExit("%s: %s" % (url, error))
        time.sleep(1)
    raise SystemExit("%s: overloaded" % url)


def shards(objects, url):
    """A table of shards by zone; copies that are just being made get a minute."""
    zones = {row["node"]: row["value"] for row in call(url + "/_cat/nodeattrs?format=json&h=node,attr,value")
             if row["attr"] == "zone"}
    names = sorted(zone["name"] for zone in kind(objects, "SearchCell")[0]["spec"]["zones"])
    collections = sorted({item["spec"]["collection"] for item in kind(objects, "IndexPlacement")})
    path = "/_cat/shards/%s?format=json&h=index,shard,prirep,state,node" % ",".join(name + ".*" for name in collections)
    for _ in range(60):
        rows = call(url + path)
        if all(row["state"] == "STARTED" for row in rows):
            break
        time.sleep(1)
    table = {}
    for row in rows:
        copies = table.setdefault((row["index"], int(row["shard"])), {})
        zone = zones.get((row["node"] or "").split(" ")[0], "nowhere")
        mark = "P" if row["prirep"] == "p" else "r"
        copies.setdefault(zone, []).append(mark if row["state"] == "STARTED" else "%s(%s)" % (mark, row["state"].lower()))
    width = max(len(index) for index, _ in table)
    print("%-*s  shard  %s" % (width, "index", " ".join("%-8s" % ("zone " + name) for name in names)))
    apart = 0
    for (index, shard), copies in sorted(table.items()):
        print("%-*s  %5d  %s" % (width, index, shard, " ".join("%-8s" % " ".join(copies.get(name, ["-"])) for name in names)))
        apart += all(len(found) == 1 for found in copies.values()) and "nowhere" not in copies
    print("%d shards, %d copies; %d shards have no two copies in a zone" % (len(table), len(rows), apart))
    if apart < len(table) or any(row["state"] != "STARTED" for row in rows):
        raise SystemExit("copies are missing, or share a zone" + why_unassigned(url, rows))


def why_unassigned(url, rows):
    """What Elasticsearch says of one copy that has no node; empty when every copy has one."""
    row = next((row for row in rows if row["state"] == "UNASSIGNED"), None)
    if row is None:
        return ""
    asked = {"index": row["index"], "shard": int(row["shard"]), "primary": row["prirep"] == "p"}
    answer = call(url + "/_cluster/allocation/explain", json.dumps(asked).encode())
    said = {"%s: %s" % (decider["decider"], decider["explanation"]) for node in answer.get("node_allocation_decisions", [])
            for decider in node.get("deciders", []) if decider["decision"] == "NO"}
    return "; for example %s[%s]:\n  %s" % (row["index"], row["shard"], "\n  ".join(sorted(said)))


def entries():
    """(package, version, time, text) of changelog entries; made up where a computer has none."""
    head = re.compile(r"^(\S+) \(([^)]+)\) ")
    sizes, seen, count = {}, set(), 0
    for path in sorted(glob.glob("/usr/share/doc/*/changelog.Debian.gz")):
        package, text, version = None, [], ""
        try:
            with gzip.open(path, "rt", encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    found = head.match(line)
                    if found:
                        package, version, text = found.group(1).lower(), found.group(2), []
                    elif not line.startswith(" -- "):
                        text += [line.strip()] if line.strip() else []
                    # several packages have the changelog of the source that they come from
                    elif package and text and (package, version) not in seen and sizes.get(package, 0) < MOST_PER_PACKAGE:
                        try:
                            when = parsedate_to_datetime(line.split(">  ")[-1].strip()).isoformat()
                        except (ValueError, TypeError, IndexError):
                            when = "2000-01-01T00:00:00+00:00"
                        yield package, version, when, " ".join(text)[:4000]
                        seen.add((package, version))
                        sizes[package] = sizes.get(package, 0) + 1
                        count += 1
                        if count == MOST_DOCUMENTS:
                            return
        except (OSError, EOFError):
            continue
    if count == 0:
        words = "fix build test crash update rename remove search shard zone index memory".split()
        for number in range(MOST_DOCUMENTS):
            text = " ".join(words[(number * step + number // 7) % len(words)] for step in (1, 3, 5, 7, 11))
            yield "package%02d" % (number % 40), "1.%d" % number, "2026-01-01T00:00:00+00:00", text


def plan(objects):
    """Which field has the tenant, which indices the pool has, which tenants have their own, what is mapped."""
    pool, own, mapped, field = [], {}, {}, None
    for item in kind(objects, "IndexPlacement"):
        spec = item["spec"]
        field = spec["tenant"]["field"]
        mapped.update(spec.get("index", {}).get("mappings", {}).get("properties", {}))
        if "pool" in spec:
            pool = ["%s.p%03d.g1" % (spec["collection"], number) for number in range(spec["pool"]["indices"])]
        for tenant in spec.get("dedicated", {}).get("tenants", []):
            own[tenant["id"]] = "%s.t.%s.g1" % (spec["collection"], tenant["id"])
    return field, pool, own, mapped


def tenants(own):
    """The tenant that each package of the changelogs is; those with most entries take the dedicated indices."""
    sizes, found = {}, list(entries())
    for package, *_ in found:
        sizes[package] = sizes.get(package, 0) + 1
    biggest = iter(sorted(sizes, key=lambda name: (-sizes[name], name)))
    names = {name: name for name in sizes}
    for tenant in own:
        if tenant not in sizes:
            names[next(biggest)] = tenant
    return names, found


def document(mapped, field, tenant, version, when, text):
    """What the mapping has a place for."""
    values = {"text": text, "match_only_text": text, "date": when}
    made = {name: values[options["type"]] for name, options in mapped.items() if options.get("type") in values}
    if "channel_id" in mapped:
        made["channel_id"] = version
    made[field] = tenant
    return made


def index(objects, url):
    field, pool, own, mapped = plan(objects)
    names, found = tenants(own)
    began, lines, sent, failed = time.time(), [], 0, []

    def flush():
        if lines:
            answer = call(url + "/_bulk", ("\n".join(lines) + "\n").encode(), "application/x-ndjson")
            failed.extend(item["index"] for item in answer["items"] if item["index"]["status"] >= 300)
            lines.clear()

    for number, (package, version, when, text) in enumerate(found):
        tenant = names[package]
        if tenant in own:  # an index of its own: spread over its shards by id
            action = {"_index": own[tenant]}
        elif pool:  # a tenant's documents stay together
            action = {"_index": pool[zlib.crc32(tenant.encode()) % len(pool)], "routing": tenant}
        else:
            continue
        action["_id"] = "%s~%d" % (tenant, number)
        lines += [json.dumps({"index": action}), json.dumps(document(mapped, field, tenant, version, when, text))]
        sent += 1
        if sent % 500 == 0:
            flush()
        if sent % 2000 == 0:
            print("%d documents" % sent, flush=True)
    flush()
    if failed:
        raise SystemExit("%d documents were refused, for example: %s" % (len(failed), json.dumps(failed[0])[:500]))
    names_used = sorted(set(own.values()) | set(pool))
    call(url + "/%s/_refresh" % ",".join(names_used), b"")
    stored = call(url + "/%s/_count" % ",".join(names_used))["count"]
    print("%d documents of %d tenants in %.1f s; Elasticsearch counts %d" % (sent, len(names), time.time() - began, stored))
    if stored < sent:
        raise SystemExit("documents are missing")


def search(objects, url):
    field, pool, own, mapped = plan(objects)
    names, found = tenants(own)
    text_field = next((name for name, options in mapped.items() if options.get("type") in ("text", "match_only_text")), "text")
    sizes = {}
    for package, *_ in found:
        sizes[names[package]] = sizes.get(names[package], 0) + 1
    shared = [name for name in sizes if name not in own]
    for tenant in list(own)[:1] + sorted(shared, key=lambda name: -sizes[name])[:1]:
        target = own.get(tenant) or pool[zlib.crc32(tenant.encode()) % len(pool)]
        routing = "" if tenant in own else "?routing=" + tenant
        query = {"size": 3, "query": {"bool": {"filter": [{"term": {field: tenant}}],
                                               "must": [{"match": {text_field: "fix crash"}}]}}}
        print("GET /%s/_search%s  {match: {%s: fix crash}}" % (target, routing, text_field))
        answer = call(url + "/%s/_search%s" % (target, routing), json.dumps(query).encode())
        hits = answer["hits"]
        print("%d hits in %d ms" % (hits["total"]["value"], answer["took"]))
        for hit in hits["hits"]:
            print("  %5.2f  %s" % (hit["_score"], str(hit["_source"].get(text_field))[:110]))
        if not hits["hits"] and sizes[tenant] > 50:
            raise SystemExit("nothing was found")


def main(verb, *arguments):
    asked = {"state": state, "service": service, "scheme": scheme, "cell": cell}
    if verb in asked:
        print(asked[verb](json.load(sys.stdin)))
        return
    path, url = arguments
    if url.startswith("https:"):
        log_in(os.path.dirname(path))
    with open(path, encoding="utf-8") as file:
        objects = json.load(file)
    {"shards": shards, "index": index, "search": search}[verb](objects, url)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
