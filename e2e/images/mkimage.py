#!/usr/bin/env -S python3 -B
"""Write a container image (docker-archive tar) from local files: no daemon, no registry, reproducible.

    mkimage.py OUT.tar REFERENCE [step...]

Steps, in order:
    --add SRC=DEST     a file, or a folder with all that is in it
    --binary PATH      a dynamically linked program under its own path, with its libraries
    --link DEST=TARGET a symbolic link
    --dir DEST[:MODE]  an empty folder
    --text DEST=TEXT   a small file (with \\n)
    --layer            begin a new layer (a layer that did not change is not imported again)
    --env K=V, --user U, --workdir D, --entrypoint JSON, --cmd JSON   of the image
"""
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile

# loaded at run time, so `ldd` does not name them: without these no name resolves
NSS = ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2")

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


MTIME = 1  # of every file; some programs take 0 for "none"


class Layer:
    def __init__(self):
        self.file = tempfile.TemporaryFile()
        self.tar = tarfile.open(fileobj=self.file, mode="w", format=tarfile.PAX_FORMAT)
        self.seen = set()

    def entry(self, dest, kind, mode, data=None, size=0, link="", uid=0):
        dest = dest.lstrip("/")
        if not dest or dest in self.seen:
            return
        parent = os.path.dirname(dest)
        if parent:
            self.entry(parent, tarfile.DIRTYPE, 0o755)
        self.seen.add(dest)
        info = tarfile.TarInfo(dest)
        info.type, info.mode, info.size, info.linkname, info.mtime, info.uid = kind, mode, size, link, MTIME, uid
        self.tar.addfile(info, data)

    def add(self, src, dest):
        """A file, or a folder with all that is in it; all belongs to root, all may read it."""
        if os.path.islink(src):
            self.entry(dest, tarfile.SYMTYPE, 0o777, link=os.readlink(src))
        elif os.path.isdir(src):
            self.entry(dest, tarfile.DIRTYPE, 0o755)
            for name in sorted(os.listdir(src)):
                self.add(os.path.join(src, name), os.path.join(dest, name))
        else:
            self.add_file(src, dest, 0o755 if os.stat(src).st_mode & 0o100 else 0o644)

    def add_file(self, src, dest, mode, uid=0):
        with open(src, "rb") as data:
            self.entry(dest, tarfile.REGTYPE, mode, data, os.path.getsize(src), uid=uid)

    def binary(self, path):
        listing = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
        libraries = re.findall(r"(/\S+) \(", listing)
        beside = {os.path.dirname(lib) for lib in libraries if os.path.basename(lib) == "libc.so.6"}
        libraries += [p for d in sorted(beside) for p in (os.path.join(d, n) for n in NSS) if os.path.exists(p)]
        for file in [path, *libraries]:
            self.add(os.path.realpath(file), file)

    def close(self):
        """The layer's digest; its file is rewound."""
        self.tar.close()
        self.file.seek(0)
        digest = hashlib.sha256()
        while block := self.file.read(1 << 20):
            digest.update(block)
        self.size = self.file.tell()
        self.file.seek(0)
        return digest.hexdigest()


def write_image(out, reference, layers, config):
    """config: the image's `config` (Env, User, Entrypoint, ...); out appears only when it is whole."""
    digests = [layer.close() for layer in layers]
    image = json.dumps({
        "architecture": ARCHITECTURE, "os": "linux", "created": "1970-01-01T00:00:00Z", "config": config,
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + d for d in digests]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "mkimage"}] * len(layers),
    }, sort_keys=True).encode()
    image_name = hashlib.sha256(image).hexdigest() + ".json"
    manifest = json.dumps([{"Config": image_name, "RepoTags": [reference],
                            "Layers": [d + "/layer.tar" for d in digests]}]).encode()
    # PAX: a layer may be larger than 8 GiB; the manifest first, so that it is found without reading on
    with tarfile.open(out + ".part", "w", format=tarfile.PAX_FORMAT) as archive:
        def put(name, data, size):
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, data)
        put("manifest.json", io.BytesIO(manifest), len(manifest))
        put(image_name, io.BytesIO(image), len(image))
        for digest, layer in zip(digests, layers):
            put(digest + "/layer.tar", layer.file, layer.size)
    os.replace(out + ".part", out)


def main(out, reference, *steps):
    layers, config = [Layer()], {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"]}
    steps = list(steps)
    while steps:
        step = steps.pop(0)
        if step == "--layer":
            layers.append(Layer())
            continue
        value = steps.pop(0)
        if step == "--add":
            layers[-1].add(*value.split("=", 1))
        elif step == "--binary":
            layers[-1].binary(value)
        elif step == "--link":
            dest, target = value.split("=", 1)
            layers[-1].entry(dest, tarfile.SYMTYPE, 0o777, link=target)
        elif step == "--dir":
            dest, _, mode = value.partition(":")
            layers[-1].entry(dest, tarfile.DIRTYPE, int(mode or "755", 8))
        elif step == "--text":
            dest, text = value.split("=", 1)
            text = text.encode().decode("unicode_escape").encode()
            layers[-1].entry(dest, tarfile.REGTYPE, 0o644, io.BytesIO(text), len(text))
        elif step == "--env":
            config["Env"].append(value)
        elif step in ("--user", "--workdir"):
            config[{"--user": "User", "--workdir": "WorkingDir"}[step]] = value
        elif step in ("--entrypoint", "--cmd"):
            config[step[2:].capitalize()] = json.loads(value)
        else:
            sys.exit(f"unknown step {step}")
    write_image(out, reference, layers, config)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
