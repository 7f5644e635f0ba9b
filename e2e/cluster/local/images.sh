# shellcheck shell=bash
# How images reach the nodes without a registry.
#
# Every loaded archive lies in $IMAGES, named by its reference, and is imported once into a template of
# a containerd root ($STORE). A node starts with a clone of it: blobs and snapshots are hard links
# (nobody writes to either), the databases are copies. So N nodes cost one import and one copy on disk.
# A folder `loaded` beside each containerd root tells which image (its config's digest) it has by now.

STORE=$LOCAL/store

image_reference() { tar -xOf "$1" manifest.json | jq -re '.[0].RepoTags[0]'; }
image_id() { cat "$1.id"; } # of a kept archive

# image_keep ARCHIVE: into $IMAGES, which all later `up`s load; prints its name there
image_keep() {
  local archive=$1 reference target
  reference=$(image_reference "$archive") || die "$archive: no image archive (docker-archive with a tag)"
  target=$IMAGES/$(tr -c 'A-Za-z0-9.\n' _ <<<"$reference").tar
  mkdir -p "$IMAGES"
  if ! [ "$archive" -ef "$target" ]; then
    # archives of the cache are never written to again, so a hard link serves
    case $(readlink -f "$archive") in
    "$CACHE"/images/*) ln -f "$archive" "$target.part" ;;
    *) cp "$archive" "$target.part" ;;
    esac
    mv "$target.part" "$target"
    rm -f "$target.part" # of two links to one file, mv renames none
    tar -xOf "$target" manifest.json | jq -re '.[0].Config' >"$target.id"
  fi
  echo "$target"
}

# image_import MACHINE LOADED ARCHIVE: unless it has that very image already
image_import() {
  local machine=$1 marker archive=$3 id
  marker=$2/$(basename "$archive")
  id=$(image_id "$archive")
  [ "$(cat "$marker" 2>/dev/null)" != "$id" ] || return 0
  machine_exec "$machine" ctr -n k8s.io images import "$archive" >/dev/null
  echo "$id" >"$marker"
}

# store_build: the template gets what it has not; containerd runs in a machine of its own for that
store_build() {
  local archive fresh=()
  image_keep "$(pause_image)" >/dev/null
  image_keep "$(tools_image)" >/dev/null
  mkdir -p "$STORE/loaded"
  for archive in "$IMAGES"/*.tar; do
    [ "$(cat "$STORE/loaded/$(basename "$archive")" 2>/dev/null)" = "$(image_id "$archive")" ] || fresh+=("$archive")
  done
  [ ${#fresh[@]} -gt 0 ] || return 0
  say "importing ${#fresh[@]} images into the template"
  mkdir -p "$LOCAL/import"
  printf 'version = 2\nroot = "%s"\noom_score = 0\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' "$STORE/root" \
    >"$LOCAL/import/containerd.toml"
  machine_on import
  machine_spawn import containerd containerd -c "$LOCAL/import/containerd.toml"
  wait_for 60 "containerd of the template" machine_exec import ctr version
  for archive in "${fresh[@]}"; do image_import import "$STORE/loaded" "$archive"; done
  machine_signal import containerd TERM
  wait_for 30 "end of the template's containerd" eval '! machine_runs import containerd'
  machine_off import
  rm -rf "$LOCAL/import"
}

# image_store_clone N: once per node and run of the cluster
image_store_clone() {
  local dir=$LOCAL/n$1 root=$LOCAL/n$1/var/lib/containerd file
  [ ! -e "$root" ] || return 0
  rm -rf "$root.part"
  cp -al "$STORE/root" "$root.part"
  while read -r file; do
    cp "$file" "$file.copy" && mv "$file.copy" "$file"
  done < <(find "$root.part" -name '*.db' -not -path '*/snapshots/*')
  cp "$STORE/loaded/"* "$dir/loaded/"
  mv "$root.part" "$root"
}

# images_catch_up N: what was loaded while the node was off
images_catch_up() {
  local archive
  for archive in "$IMAGES"/*.tar; do image_import "n$1" "$LOCAL/n$1/loaded" "$archive"; done
}

# local_load ARCHIVE...: running nodes get it now, others when they start
local_load() {
  local archive kept n pid imports=()
  mkdir -p "$LOCAL"
  lock load 600
  for archive; do
    [ -e "$archive" ] || die "$archive does not exist"
    kept=$(image_keep "$archive")
    for n in $(nodes); do
      machine_pid "n$n" >/dev/null || continue
      image_import "n$n" "$LOCAL/n$n/loaded" "$kept" &
      imports+=($!)
    done
    for pid in "${imports[@]}"; do wait "$pid" || die "import of $archive failed"; done
    imports=()
  done
  unlock
}
