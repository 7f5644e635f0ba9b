#!/usr/bin/env -S python3 -B
"""Build a test image of one Elasticsearch version from published jars. Called by `build`; see NOTES.md.

    build.py --jdk DIR --busybox FILE --cache DIR [--no-archive] [--update-checksums] VERSION OUT.tar

Maven resolves the jars (deps/pom.xml) and they are compared with checksums/VERSION.sha256; launcher and
plugins are compiled; a root file system is laid out as in the official image; a class archive is dumped
in it (needs root for chroot and mounts, else it is left out); a docker-archive comes out.

Effects: DIR/jars and DIR/jre are kept for the next version; Maven's own repository grows.
"""
import argparse
import glob
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from mkimage import MTIME, Layer, write_image  # noqa: E402

HOME = "usr/share/elasticsearch"  # in the image
COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
JRE_MODULES = (
    "java.base,java.logging,java.xml,java.naming,java.management,java.sql,java.security.jgss,java.security.sasl,"
    "java.net.http,java.instrument,jdk.unsupported,jdk.management,jdk.net,jdk.zipfs,jdk.security.auth,"
    "jdk.localedata,java.desktop"  # log4j wants java.beans, which is in java.desktop
)
UNUSED_LIBRARIES = ("awt*", "font*", "free*", "mlib*", "lcms", "splash*", "javajpeg", "jsound", "jawt")
TOOLS = (
    "awk base64 basename cat chmod chown cp cut date df dirname du echo env expr false find grep gzip head hostname "
    "id kill ln ls mkdir mktemp mount mv nc nslookup printf ps readlink rm sed sha256sum sleep sort stat tail tar tee "
    "test timeout touch tr true vi wc wget which xargs"
).split()
LIBRARIES = (
    "libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libresolv.so.2 libnss_dns.so.2 libnss_files.so.2 "
    "libgcc_s.so.1 libtinfo.so.6"
).split()
DESCRIPTOR = """\
description={name}
version={version}
name={name}
java.version={java}
elasticsearch.version={version}
classname={classname}
extended.plugins={extended}
has.native.controller=false
"""


class Line:
    """What differs between lines of versions."""

    def __init__(self, version):
        self.version = version
        self.major, minor = map(int, version.split(".")[:2])
        if self.major == 7:
            self.sets, self.launcher, self.shutdown, self.release = ("server", "netty7", "reindex7"), "v7", None, 17
        else:
            self.sets, self.launcher = ("server", "netty", "xcore", "xsec"), "v8"
            self.shutdown = "v95" if (self.major, minor) >= (9, 2) else "v8"
            self.release = 17 if self.major == 8 else 21


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def install(source, dest, mode=0o644):
    os.makedirs(os.path.dirname(dest), exist_ok=True)
    shutil.copyfile(os.path.realpath(source), dest)
    os.chmod(dest, mode)


# --- jars ---------------------------------------------------------------------------------------------

def resolve(line, jars, update):
    """One folder per set, because each plugin has a class loader of its own."""
    for name in line.sets:
        folder = f"{jars}/{name}"
        if os.path.exists(folder + "/.done"):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        print(f"resolving {name} {line.version}", flush=True)
        subprocess.run(
            ["mvn", "-B", "-q", "-Dstyle.color=never", "-f", f"{HERE}/deps/pom.xml", "-P" + name, f"-Des.version={line.version}",
             COPY_DEPENDENCIES, f"-DoutputDirectory={folder}", "-DincludeScope=runtime"], check=True,
            env=os.environ | {"MAVEN_OPTS": "--sun-misc-unsafe-memory-access=allow"})  # no warnings of Java 25
        write(folder + "/.done", "")
    found = set()
    for path in glob.glob(f"{jars}/*/*.jar"):
        with open(path, "rb") as file:
            found.add((os.path.basename(path), hashlib.sha256(file.read()).hexdigest()))
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(found))
    expected = f"{HERE}/checksums/{line.version}.sha256"
    if update:
        write(expected, text)
    elif not os.path.exists(expected):
        sys.exit(f"{line.version} is not pinned: no {expected} (see --update-checksums)")
    else:
        with open(expected, encoding="utf-8") as file:
            if file.read() != text:
                sys.exit(f"the jars in {jars} differ from {expected}")


def compile_all(line, jars, jdk, out):
    def javac(dest, *roots):
        sources = sorted(file for root in roots for file in glob.glob(f"{HERE}/{root}/**/*.java", recursive=True))
        subprocess.run(
            [f"{jdk}/bin/javac", "--release", str(line.release), "-nowarn", "-proc:none", "-Xlint:-options",
             "-encoding", "UTF-8", "-cp", f"{jars}/server/*", "-d", f"{out}/{dest}", *sources], check=True)

    javac("launcher", "launcher/common", f"launcher/{line.launcher}")
    if line.shutdown:
        javac("x-pack-security", "plugins/x-pack-security")
        javac("analysis-common", "plugins/analysis-common")
        javac("x-pack-shutdown", "plugins/x-pack-shutdown/common", f"plugins/x-pack-shutdown/{line.shutdown}")


def pack(source, dest):
    with zipfile.ZipFile(dest, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder, _, files in sorted(os.walk(source)):
            for file in sorted(files):
                path = os.path.join(folder, file)
                with open(path, "rb") as data:
                    archive.writestr(zipfile.ZipInfo(os.path.relpath(path, source)), data.read())


# --- the root file system -----------------------------------------------------------------------------

def artifact(jar):
    """The jar's name without its version."""
    return re.sub(r"-\d[^/]*\.jar$", "", jar)


def lay_out(line, jars, classes, home):
    """lib/ and modules/<plugin>/ as in the distribution."""
    lib = f"{home}/lib"
    os.makedirs(lib)
    server = sorted(name for name in os.listdir(f"{jars}/server") if name.endswith(".jar"))
    for name in server:
        install(f"{jars}/server/{name}", f"{lib}/{name}")
    pack(f"{classes}/launcher", f"{lib}/elasticsearch-test-launcher.jar")
    in_server = {artifact(name) for name in server}

    def module(jar_set, name, classname="", extended="", excluded=frozenset()):
        """Returns the artifacts in it; the server's jar-hell check allows each class once."""
        folder, own, artifacts = f"{home}/modules/{name}", f"{classes}/{name}", set()
        os.makedirs(folder)
        for jar in sorted(os.listdir(f"{jars}/{jar_set}")) if jar_set else []:
            base = artifact(jar)
            if jar.endswith(".jar") and base not in in_server | excluded | artifacts:
                artifacts.add(base)
                install(f"{jars}/{jar_set}/{jar}", f"{folder}/{jar}")
        if os.path.isdir(own):
            pack(own, f"{folder}/{name}-test.jar")
        descriptor = None
        for jar in sorted(os.listdir(folder)):
            with zipfile.ZipFile(f"{folder}/{jar}") as archive:
                entry = f"META-INF/es-plugins/{name}/plugin-descriptor.properties"
                if entry in archive.namelist():
                    descriptor = archive.read(entry).decode()
        if descriptor is None:
            descriptor = DESCRIPTOR.format(
                name=name, version=line.version, java="1.8" if line.major == 7 else "17",
                classname=classname, extended=extended)
        # Less the module name: x-pack-security requires SAML modules that are in no public registry, so it
        # cannot be resolved as a Java module; as a plain class loader it lacks only the classes of a realm
        # that nobody configures.
        kept = [text for text in descriptor.splitlines() if text.strip() and not text.startswith(("#", "modulename"))]
        write(f"{folder}/plugin-descriptor.properties", "\n".join(kept) + "\n")
        return artifacts

    if line.major == 7:
        module("netty7", "transport-netty4", "org.elasticsearch.transport.Netty4Plugin")
        module("reindex7", "reindex", "org.elasticsearch.reindex.ReindexPlugin")
        return
    module("netty", "transport-netty4")
    core = module("xcore", "x-pack-core")
    module("xsec", "x-pack-security", extended="x-pack-core", excluded=core)
    module(None, "x-pack-shutdown", "test.shutdown.ShutdownPlugin")
    module(None, "analysis-common", "test.analysis.AnalysisPlugin")
    # org.elasticsearch.nativeaccess loads it at start-up; Debian's build serves
    install("/lib/x86_64-linux-gnu/libzstd.so.1", f"{lib}/platform/linux-x64/libzstd.so")


def make_jre(jdk, dest):
    if os.path.exists(f"{dest}/bin/java"):
        return
    print("linking a Java runtime", flush=True)
    part = dest + ".part"
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(os.path.dirname(dest), exist_ok=True)
    subprocess.run(
        [f"{jdk}/bin/jlink", "--add-modules", JRE_MODULES, "--strip-debug", "--no-header-files", "--no-man-pages",
         "--compress=zip-0", "--include-locales=en", "--output", part], check=True)
    for name in UNUSED_LIBRARIES:
        for file in glob.glob(f"{part}/lib/lib{name}.so"):
            os.unlink(file)
    subprocess.run([f"{part}/bin/java", "-Xshare:dump", "-XX:+UseSerialGC"], check=True, stdout=subprocess.DEVNULL)
    os.rename(part, dest)


def system_libraries(jre):
    """What the runtime wants of the system: a distribution's own Java wants more than a self-contained one."""
    wanted = set()
    for file in [f"{jre}/bin/java", *glob.glob(f"{jre}/lib/**/*.so", recursive=True)]:
        listing = subprocess.run(["ldd", file], capture_output=True, text=True, check=False).stdout
        wanted |= {path for path in re.findall(r"=> (/\S+)", listing) if not path.startswith(jre)}
    return sorted(wanted)


def make_root(line, jars, classes, jre, busybox, root):
    home = f"{root}/{HOME}"
    for folder in ("tmp", "proc", "sys", "dev", "bin", "etc", f"{HOME}/bin", f"{HOME}/config/jvm.options.d",
                   f"{HOME}/data", f"{HOME}/logs", f"{HOME}/plugins"):
        os.makedirs(f"{root}/{folder}")
    install(busybox, f"{root}/bin/busybox", 0o755)
    for tool in TOOLS:
        os.symlink("busybox", f"{root}/bin/{tool}")
    # bash, because it hands variables with dots in their names on (cluster.name=...); busybox and dash drop them
    install("/bin/bash", f"{root}/bin/bash", 0o755)
    os.symlink("bash", f"{root}/bin/sh")
    for library in LIBRARIES:
        if os.path.exists(f"/lib/x86_64-linux-gnu/{library}"):
            install(f"/lib/x86_64-linux-gnu/{library}", f"{root}/lib/x86_64-linux-gnu/{library}")
    for library in system_libraries(jre):
        install(library, f"{root}/lib/x86_64-linux-gnu/{os.path.basename(library)}")
    install("/lib64/ld-linux-x86-64.so.2", f"{root}/lib64/ld-linux-x86-64.so.2", 0o755)
    write(f"{root}/etc/passwd",
          f"root:x:0:0:root:/root:/bin/sh\nelasticsearch:x:1000:1000::/{HOME}:/bin/sh\n")
    write(f"{root}/etc/group", "root:x:0:elasticsearch\nelasticsearch:x:1000:\n")
    write(f"{root}/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    shutil.copytree(jre, f"{home}/jdk", symlinks=True)
    lay_out(line, jars, classes, home)
    for name in os.listdir(f"{HERE}/rootfs/bin"):
        if name == "elasticsearch-node" and line.major == 7:
            continue  # its class is built for 8 and later only
        install(f"{HERE}/rootfs/bin/{name}", f"{home}/bin/{name}", 0o755)
    install(f"{HERE}/rootfs/docker-entrypoint.sh", f"{root}/usr/local/bin/docker-entrypoint.sh", 0o755)
    with open(f"{HERE}/rootfs/log4j2.properties", encoding="utf-8") as file:
        log4j = file.read()
    write(f"{home}/config/log4j2.properties",
          log4j.replace("%consoleException", "") if line.major == 7 else log4j)  # 7.17 does not know that
    write(f"{home}/config/elasticsearch.yml", 'cluster.name: "docker-cluster"\nnetwork.host: 0.0.0.0\n')
    write(f"{home}/config/jvm.options",
          "# test image: see bin/elasticsearch for the defaults; put yours into jvm.options.d/*.options\n")
    for folder, folders, files in os.walk(root):  # the class archive records the jars' times
        for name in folders + files:
            os.utime(os.path.join(folder, name), (MTIME, MTIME), follow_symlinks=False)


# --- the class archive --------------------------------------------------------------------------------

def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def dump_classes(line, root, log):
    """Run the node once inside the root file system and keep the classes it loaded: halves its start."""
    print("dumping the class archive", flush=True)
    scratch, archive = f"{root}/tmp/dump", f"{root}/{HOME}/lib/es.jsa"
    shutil.copytree(f"{root}/{HOME}/config", f"{scratch}/config")
    for name in ("data", "logs"):
        os.makedirs(f"{scratch}/{name}")
    for folder, folders, files in os.walk(f"{root}/tmp"):
        for name in folders + files:
            os.chown(os.path.join(folder, name), 1000, 1000)
    os.chmod(f"{root}/tmp", 0o1777)
    http, transport = free_port(), free_port()
    # In its own mount namespace, in which the folder is a mount: the server looks up the mount of its data
    # path. One command line for all: nothing of the mounts outlives it.
    enter = ('mount --bind "$0" "$0" && mount --rbind /proc "$0/proc" && mount --bind /dev "$0/dev" && '
             'exec chroot --userspec=1000:1000 "$0" "$@"')
    security = [] if line.major == 7 else ["-Expack.security.enabled=true"]
    with open(log, "wb") as output:
        node = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", enter, root,
             "/usr/local/bin/docker-entrypoint.sh", f"-Ehttp.port={http}", f"-Etransport.port={transport}",
             "-Enetwork.host=127.0.0.1", "-Ediscovery.type=single-node", "-Epath.data=/tmp/dump/data",
             "-Epath.logs=/tmp/dump/logs", *security],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "ES_PATH_CONF": "/tmp/dump/config",
                 "ES_JAVA_OPTS": "-XX:ArchiveClassesAtExit=/tmp/dump/es.jsa -Xlog:cds=error -Xlog:cds+dynamic=off"},
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            no_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            for _ in range(240):
                time.sleep(0.5)
                if node.poll() is not None:
                    break
                try:
                    no_proxy.open(f"http://127.0.0.1:{http}/_cluster/health", timeout=2)
                    break
                except urllib.error.HTTPError:
                    break
                except OSError:
                    pass
            time.sleep(3)
            if node.poll() is None:
                node.send_signal(signal.SIGTERM)
            node.wait(120)
        finally:
            if node.poll() is None:
                node.kill()
    if not os.path.exists(f"{scratch}/es.jsa"):
        sys.exit(f"the node wrote no class archive: {log}")
    shutil.move(f"{scratch}/es.jsa", archive)
    os.utime(archive, (MTIME, MTIME))
    os.chown(archive, 0, 0)
    for name in os.listdir(f"{root}/tmp"):
        shutil.rmtree(f"{root}/tmp/{name}")


# --- the image ----------------------------------------------------------------------------------------

def write_archive(line, root, reference, out):
    """Two layers: what all versions share (libraries, shell, Java), and Elasticsearch."""
    shared, own = Layer(), Layer()
    writable = re.compile(HOME + r"/(config|data|logs|plugins)(/|$)")
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            dest = os.path.relpath(path, root)
            mine = bool(writable.match(dest))  # of user 1000 and group root, as in the official image
            uid = 1000 if mine else 0
            layer = own if dest.startswith(HOME + "/") and not dest.startswith(HOME + "/jdk") else shared
            if os.path.islink(path):
                layer.entry(dest, b"2", 0o777, link=os.readlink(path), uid=uid)
            elif os.path.isdir(path):
                layer.entry(dest, b"5", 0o1777 if dest == "tmp" else 0o775 if mine else 0o755, uid=uid)
            else:
                program = os.stat(path).st_mode & 0o100
                layer.add_file(path, dest, 0o755 if program else 0o664 if mine else 0o644, uid=uid)
    write_image(out, reference, [shared, own], {
        "Env": [
            f"PATH=/{HOME}/bin:/usr/local/bin:/bin", "ELASTIC_CONTAINER=true", f"ES_HOME=/{HOME}", f"HOME=/{HOME}",
            # the limit on files of a test computer is often below what that bootstrap check asks for
            "ES_TEST_SKIP_CHECKS=FileDescriptorCheck",
        ],
        "User": "1000:0", "WorkingDir": "/" + HOME, "Entrypoint": ["/usr/local/bin/docker-entrypoint.sh"],
        "Cmd": ["eswrapper"], "ExposedPorts": {"9200/tcp": {}, "9300/tcp": {}},
        "Labels": {"org.opencontainers.image.version": line.version,
                   "org.opencontainers.image.title": "test image, not to be redistributed"},
    })


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version")
    parser.add_argument("out")
    parser.add_argument("--jdk", required=True, help="a JDK 25")
    parser.add_argument("--busybox", required=True, help="a static one")
    parser.add_argument("--cache", required=True, help="folder of the jars and the Java runtime")
    parser.add_argument("--no-archive", action="store_true", help="leave the class archive out")
    parser.add_argument("--update-checksums", action="store_true", help="pin what Maven resolves now")
    options = parser.parse_args()
    line = Line(options.version)
    os.umask(0o022)
    jars, jre = f"{options.cache}/jars/{line.version}", f"{options.cache}/jre"
    resolve(line, jars, options.update_checksums)
    make_jre(options.jdk, jre)
    with tempfile.TemporaryDirectory(dir=options.cache) as scratch:
        os.chmod(scratch, 0o755)  # the node of the class archive is another user
        root, classes = f"{scratch}/root", f"{scratch}/classes"
        print("compiling launcher and plugins", flush=True)
        compile_all(line, jars, options.jdk, classes)
        os.makedirs(root)
        make_root(line, jars, classes, jre, options.busybox, root)
        if os.geteuid() == 0 and not options.no_archive:
            dump_classes(line, root, f"{options.cache}/class-archive-{line.version}.log")
        print("writing the image", flush=True)
        write_archive(line, root, f"docker.elastic.co/elasticsearch/elasticsearch:{line.version}", options.out)


main()
