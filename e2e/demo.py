#!/usr/bin/env python3
"""The demo's looks at Kubernetes objects and its talks with Elasticsearch.

    demo.py state|service|scheme|cell        objects (kubectl get -o json) on standard input
    demo.py shards FILE URL                  FILE has the objects, URL is Elasticsearch's address; with https, ca.crt
    demo.py count FILE URL EXPECTED          and credential (user:password) lie beside FILE
    demo.py documents FILE FOLDER            bodies of bulks into FOLDER; prints how many documents
    demo.py accepted                         answers to bulks on standard input, a line each
    demo.py searches FILE                    tenant, its number of documents, and query, a line each
    demo.py hits FILE TENANT DOCUMENTS       the answer to a search on standard input

Effects: `documents` writes files.
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
from email.utils import parsedate_to_datetime

MOST_DOCUMENTS = 6000
MOST_PER_PACKAGE = 200
PER_BULK = 500


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
    """The collection, which field has the tenant, which tenants have an index of their own, what is mapped."""
    own, mapped, field, collection = [], {}, None, None
    for item in kind(objects, "IndexPlacement"):
        spec = item["spec"]
        collection, field = spec["collection"], spec["tenant"]["field"]
        mapped.update(spec.get("index", {}).get("mappings", {}).get("properties", {}))
        own += [tenant["id"] for tenant in spec.get("dedicated", {}).get("tenants", [])]
    return collection, field, own, mapped


def tenants(own):
    """The tenant that each package of the changelogs is; those with most entries are the large ones."""
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


def documents(objects, folder):
    """Bodies of bulks, as an application writes them that knows of one collection and of no index."""
    collection, field, own, mapped = plan(objects)
    names, found = tenants(own)
    for start in range(0, len(found), PER_BULK):
        with open(os.path.join(folder, "bulk-%04d.ndjson" % start), "w", encoding="utf-8") as file:
            for number, (package, version, when, text) in enumerate(found[start:start + PER_BULK], start):
                action = {"_index": collection, "_id": str(number), "version": 1, "version_type": "external"}
                file.write(json.dumps({"index": action}) + "\n")
                file.write(json.dumps(document(mapped, field, names[package], version, when, text)) + "\n")
    print("%d documents of %d tenants" % (len(found), len(names)), file=sys.stderr)
    print(len(found))


def accepted(answers):
    """Looks at the answers to bulks, a line each: an item that was refused is told. 409: it is there already."""
    done, again, refused = 0, 0, []
    for line in answers:
        for item in json.loads(line)["items"]:
            of = item["index"]
            done += of["status"] < 300
            again += of["status"] == 409
            if of["status"] >= 300 and of["status"] != 409:
                refused.append(of)
    print("%d documents were taken%s" % (done, ", %d were there already" % again if again else ""))
    if refused:
        raise SystemExit("%d were refused, for example: %s" % (len(refused), json.dumps(refused[0])[:500]))


def count(objects, url, expected):
    """What Elasticsearch itself counts, past the router."""
    names = plan(objects)[0] + ".*"
    call(url + "/%s/_refresh" % names, b"")
    stored = call(url + "/%s/_count" % names)["count"]
    print("Elasticsearch counts %d" % stored)
    if stored != expected:
        raise SystemExit("%d documents were sent" % expected)


def searches(objects):
    """Tenant and query, a line each: one tenant with an index of its own, and one of the pool."""
    collection, field, own, mapped = plan(objects)
    names, found = tenants(own)
    text_field = next((name for name, options in mapped.items() if options.get("type") in ("text", "match_only_text")), "text")
    sizes = {}
    for package, *_ in found:
        sizes[names[package]] = sizes.get(names[package], 0) + 1
    shared = [name for name in sizes if name not in own]
    for tenant in own[:1] + sorted(shared, key=lambda name: -sizes[name])[:1]:
        query = {"size": 3, "query": {"match": {text_field: "fix crash"}}}
        print("%s\t%d\t%s" % (tenant, sizes[tenant], json.dumps(query)))


def hits(objects, tenant, size, answer):
    """The answer to a search: every hit is the tenant's."""
    _, field, _, mapped = plan(objects)
    found = answer["hits"]
    print("%d hits in %d ms" % (found["total"]["value"], answer["took"]))
    for hit in found["hits"]:
        text = next((hit["_source"][name] for name in sorted(hit["_source"], key=lambda name: -len(str(hit["_source"][name])))), "")
        print("  %5.2f  %s" % (hit["_score"], str(text)[:110]))
        if hit["_source"][field] != tenant:
            raise SystemExit("this is a document of %s" % hit["_source"][field])
    if not found["hits"] and size > 50:
        raise SystemExit("nothing was found")


def main(verb, *arguments):
    asked = {"state": state, "service": service, "scheme": scheme, "cell": cell}
    if verb in asked:
        print(asked[verb](json.load(sys.stdin)))
        return
    if verb == "accepted":
        return accepted(sys.stdin)
    path, *rest = arguments
    with open(path, encoding="utf-8") as file:
        objects = json.load(file)
    if verb in ("shards", "count"):
        if rest[0].startswith("https:"):
            log_in(os.path.dirname(path))
        return shards(objects, rest[0]) if verb == "shards" else count(objects, rest[0], int(rest[1]))
    if verb == "hits":
        return hits(objects, rest[0], int(rest[1]), json.load(sys.stdin))
    {"documents": documents, "searches": searches}[verb](objects, *rest)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
