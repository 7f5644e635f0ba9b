# shellcheck shell=bash
# One worker node: containerd, kubelet, kube-proxy and the two agents (node-storage, node-policy) in
# machine nN.

node_up() {
  local n=$1 dir=$LOCAL/n$1
  mkdir -p "$dir/cni" "$dir/loaded"
  echo "nameserver $NET.1" >"$dir/resolv.conf"
  node_config "$n" "$dir"
  machine_on "n$n"
  net_node "$n"
  image_store_clone "$n"
  local process
  node_start "$n" containerd
  images_catch_up "$n"
  for process in kubelet kube-proxy node-storage node-policy; do node_start "$n" $process; done
}

# node_start N PROCESS: also to bring a killed one back
node_start() {
  local n=$1 dir=$LOCAL/n$1
  case $2 in
  containerd)
    machine_spawn "n$n" containerd containerd -c "$dir/containerd.toml"
    wait_for 60 "containerd of n$n" machine_exec "n$n" ctr version
    ;;
  kubelet)
    machine_spawn "n$n" kubelet kubelet --config="$dir/kubelet.yaml" --kubeconfig="$PKI/n$n.kubeconfig" \
      --hostname-override="n$n" --node-ip="$NET.1$n" \
      --node-labels="topology.kubernetes.io/zone=$(zone "$n"),topology.kubernetes.io/region=local"
    ;;
  kube-proxy) start_proxy "n$n" "$NET.1$n" ;;
  node-storage)
    machine_spawn "n$n" node-storage node-storage --kubeconfig="$PKI/storage.kubeconfig" --node="n$n" \
      --root=/var/lib/node-storage
    ;;
  node-policy)
    machine_spawn "n$n" node-policy node-policy --kubeconfig="$PKI/policy.kubeconfig" --node="n$n"
    ;;
  *) die "unknown process $2 of n$n" ;;
  esac
}

# Every node believes it owns the host's whole memory. Reserve all but its share, so that the
# scheduler's sums are honest: 4 GiB for the host, the rest divided by the nodes.
node_reserved_mib() {
  local total; total=$(awk '/^MemTotal/{print int($2/1024)}' /proc/meminfo)
  echo $((total - (total - 4096) / NODES))
}

node_config() {
  local n=$1 dir=$2
  cat >"$dir/containerd.toml" <<TOML
version = 2
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "searchcell.dev/e2e-pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true  # CAP_SYS_RESOURCE is missing: a negative oom_score_adj cannot be set
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$dir/cni"
TOML
  cat >"$dir/cni/10-bridge.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "searchcell-e2e", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": false,
   "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": [[{"subnet": "$POD_NET.$n.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  cat >"$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /$PREFIX-n$n
enforceNodeAllocatable: [pods]
oomScoreAdj: 0
failSwapOn: false
address: $NET.1$n
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/n$n-server.crt
tlsPrivateKeyFile: $PKI/n$n-server.key
clusterDNS: [$DNS_IP]
clusterDomain: cluster.local
resolvConf: $dir/resolv.conf
volumePluginDir: /var/lib/kubelet/volume-plugins
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
nodeStatusUpdateFrequency: 4s
nodeLeaseDurationSeconds: 16
systemReserved: {memory: $(node_reserved_mib)Mi}
maxPods: 110
YAML
}
