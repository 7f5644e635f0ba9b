# shellcheck shell=bash
# What the local cluster is made of: Debian packages, etcd and containerd, the Go programs of ../go, two
# small images. Effects: installs packages; fills $CACHE/{debian,init,go,images}. Nothing is started.

PACKAGES=(runc containernetworking-plugins iptables nftables conntrack iproute2 xfsprogs busybox-static procps curl
  openssl jq gcc libc6-dev python3)
MODULES=(k8s coredns metrics-server)

# Folders of what is built, by content. They are computed once per script.
debian_dir() { echo "$CACHE/debian/$(echo "$ETCD_DEB $CONTAINERD_DEB" | hash_of /dev/null)"; }
init_dir() { (cd "$CLUSTER_DIR" && echo "$CACHE/init/$(hash_of init.c </dev/null)"); }
go_dir() { # go_dir MODULE
  (cd "$CLUSTER_DIR/go/$1" && echo "$CACHE/go/$1-$(echo "$(go version) $KUBERNETES $(go_flags "$1")" | hash_of .)")
}
tools_image() {
  (cd "$CLUSTER_DIR/../images" &&
    echo "$CACHE/images/e2e-tools-$(dpkg-query -W bash busybox-static coreutils curl libc6 2>/dev/null | hash_of tools mkimage.py).tar")
}
pause_image() { echo "$CACHE/images/e2e-pause-$(init_dir | sed 's,.*/,,').tar"; }

local_build() {
  local module
  [ "$(id -u)" = 0 ] || die "the local cluster needs root (namespaces, cgroups, mounts)"
  [ "$(uname -m)" = x86_64 ] || die "the local cluster is made for x86_64 only"
  command -v go >/dev/null || die "Go is missing (1.26.4 or later; from 1.21 on it fetches a later one by itself)"
  lock build 3600
  packages "${PACKAGES[@]}"
  [ -d "$(debian_dir)" ] || step "fetching etcd and containerd" build_debian
  [ -d "$(init_dir)" ] || build_init
  for module in "${MODULES[@]}"; do
    [ -d "$(go_dir "$module")" ] || step "building $module" build_go "$module"
  done
  mkdir -p "$CACHE/images"
  [ -e "$(pause_image)" ] || "$CLUSTER_DIR/../images/mkimage.py" "$(pause_image)" searchcell.dev/e2e-pause:1 \
    --add "$(init_dir)/init=/pause" --entrypoint '["/pause"]'
  [ -e "$(tools_image)" ] || "$CLUSTER_DIR/../images/tools" "$(tools_image)"
  unlock
}

# They need no more than libc 2.34, so they run on this release; trixie's runc would need 2.38.
build_debian() {
  mkdir -p "$CACHE/debian"
  debian_unpack "$(debian_dir)" "etcd-server=$ETCD_DEB" "containerd=$CONTAINERD_DEB"
}

build_init() {
  local dir; dir=$(init_dir)
  mkdir -p "$dir.part"
  gcc -O2 -static -o "$dir.part/init" "$CLUSTER_DIR/init.c"
  mv "$dir.part" "$dir"
}

build_go() {
  local module=$1 dir package flags
  dir=$(go_dir "$module")
  case $module in
  metrics-server) package=sigs.k8s.io/metrics-server/cmd/metrics-server ;;
  *) package=. ;;
  esac
  mapfile -t flags < <(go_flags "$module")
  mkdir -p "$dir.part"
  (
    cd "$CLUSTER_DIR/go/$module"
    GOTOOLCHAIN=${GOTOOLCHAIN:-auto} CGO_ENABLED=0 GOFLAGS='-mod=readonly -trimpath -buildvcs=false' \
      go build -v -p "$(nproc)" "${flags[@]}" -o "$dir.part/$module" "$package"
  )
  mv "$dir.part" "$dir"
}

go_flags() { # go_flags MODULE: one a line
  if [ "$1" = k8s ]; then
    printf '%s\n' -tags selinux,notest,grpcnotrace -ldflags "-s -w $(kubernetes_version)"
  else
    printf '%s\n' -ldflags '-s -w'
  fi
}

# Without these the API server and the nodes report "v0.0.0-master+$Format:%H$" as their version.
kubernetes_version() {
  local package minor=${KUBERNETES#1.}
  minor=${minor%%.*}
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf -- '-X %s ' "$package.gitVersion=v$KUBERNETES" "$package.gitMajor=1" "$package.gitMinor=$minor" \
      "$package.gitTreeState=clean" "$package.gitCommit=0000000000000000000000000000000000000000" \
      "$package.buildDate=2026-01-01T00:00:00Z"
  done
}

# local_link: $BIN becomes links to what this checkout builds (only while no cluster runs)
local_link() {
  local name debian
  debian=$(debian_dir)
  rm -rf "$BIN"
  mkdir -p "$BIN/runtime"
  for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl node-storage node-policy; do
    ln -s "$(go_dir k8s)/k8s" "$BIN/$name"
  done
  ln -s "$(go_dir coredns)/coredns" "$(go_dir metrics-server)/metrics-server" "$(init_dir)/init" "$debian/usr/bin/etcd" "$BIN/"
  ln -s "$debian"/usr/bin/{containerd,containerd-shim-runc-v2,ctr} "$BIN/runtime/"
}
