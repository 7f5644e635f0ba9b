# shellcheck shell=bash
# Settings and helpers of every script of e2e/cluster and e2e/images; sourced, never run.
# Effects: creates the cache folder. Everything downloaded or built lies there, in folders named by a
# hash of what they are made of, so that only the first time is slow.

set -euo pipefail
shopt -s inherit_errexit

CLUSTER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions.env
. "$CLUSTER_DIR/versions.env"

CACHE=${SEARCHCELL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/searchcell}
case $CACHE/ in
/var/* | /run/*)
  echo "the cache $CACHE must not lie under /var or /run, of which every machine of the local cluster has its own:" \
    "set SEARCHCELL_CACHE" >&2
  exit 2
  ;;
esac
mkdir -p "$CACHE"
CACHE=$(cd "$CACHE" && pwd -P)

say() { printf '%(%T)T %s\n' -1 "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}
# impossible WHAT: for what a kind of cluster cannot do; tests skip on exit code 3
impossible() {
  say "$1: not possible on this cluster (SEARCHCELL_CLUSTER=$SEARCHCELL_CLUSTER)"
  exit 3
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds
wait_for() {
  local limit=$1 what=$2 end=$((SECONDS + $1))
  shift 2
  until ("$@") >/dev/null 2>&1; do # in a subshell: a trap here must not lose its messages
    [ $SECONDS -lt $end ] || die "$what: not within $limit s"
    sleep 0.1
  done
}

# lock NAME SECONDS: one script at a time (descriptor 9); says so when it has to wait
lock() {
  exec 9>"$CACHE/$1.lock"
  flock -n 9 && return
  say "waiting for another run ($1)"
  flock -w "$2" 9 || die "another run still holds $CACHE/$1.lock after $2 s"
}
unlock() { exec 9>&-; }

# step WHAT COMMAND...: run it with a line at the start, a sign of life every 15 s and the time at the
# end; its output goes to a log, of which a failure shows the end. An interrupt ends the whole group.
STEP_PID=
step() {
  local what=$1 log status=0 began=$SECONDS next=15
  shift
  mkdir -p "$CACHE/log"
  log=$CACHE/log/$(tr -cs 'A-Za-z0-9.\n' - <<<"$what" | cut -c1-60).log
  say "$what ..."
  set -m # a process group of its own
  "$@" </dev/null >"$log" 2>&1 &
  STEP_PID=$!
  set +m
  while kill -0 "$STEP_PID" 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - began)) -ge $next ]; then
      say "$what: $((SECONDS - began)) s, $(tail -n 1 "$log" | cut -c1-90)"
      next=$((next + 15))
    fi
  done
  wait "$STEP_PID" || status=$?
  STEP_PID=
  if [ "$status" != 0 ]; then
    tail -n 25 "$log" >&2
    die "$what failed after $((SECONDS - began)) s (exit code $status); all of its output: $log"
  fi
  say "$what: done in $((SECONDS - began)) s"
}
step_end() {
  [ -z "$STEP_PID" ] || kill -TERM -- "-$STEP_PID" 2>/dev/null || true
}
trap step_end EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# hash_of FILE-OR-FOLDER...: of names (relative to $PWD) and contents; more to mix in comes on stdin
hash_of() {
  { cat; find "$@" -type f -print0 | sort -z | xargs -0 sha256sum; } | sha256sum | cut -c1-16
}

# put FILE: what stdin says, and nothing is written when the file says so already
put() {
  cat >"$1.new"
  if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

# --- Debian packages --------------------------------------------------------------------------------

# packages NAME...: install those which are missing
packages() {
  local missing
  missing=$({ dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null || true; } | awk '/^ii/{print $2}' |
    sort | comm -13 - <(printf '%s\n' "$@" | sort) | tr '\n' ' ')
  [ -n "$missing" ] || return 0
  command -v apt-get >/dev/null || die "missing, and this is no Debian to install it on: $missing"
  [ "$(id -u)" = 0 ] || die "missing Debian packages (install them, or run as root): $missing"
  step "installing Debian packages $missing" packages_install "$missing"
}
packages_install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # shellcheck disable=SC2086
  apt-get install -y -qq --no-install-recommends $1
}

# queue_server: nats-server, for tests and measurements that start one of their own: so the service that the package
# brings is stopped and stays off. Where it cannot be had, nothing happens.
queue_server() {
  if command -v nats-server >/dev/null || [ -x /usr/sbin/nats-server ]; then return; fi
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || return 0
  packages nats-server
  systemctl disable --now nats-server >/dev/null 2>&1 || true
}

# debian_unpack FOLDER NAME=VERSION...: unpack packages of trixie into FOLDER without installing them.
# The mirror is the one this system already uses; its package sources stay as they are. A version which
# the mirror has dropped (after a security update) is replaced by the one it has.
debian_unpack() {
  local folder=$1 apt=$1.apt mirror package options
  shift
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    awk '/^(URIs:|deb )/ {for (i = 2; i <= NF; i++) if ($i ~ /:\/\/.*\/debian\/?$/) {print $i; exit}}') || true
  [ -n "$mirror" ] || die "no Debian mirror found in /etc/apt"
  rm -rf "$apt" "$folder" "$folder.part"
  mkdir -p "$apt"/{lists/partial,cache/archives/partial} "$folder.part"
  touch "$apt/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$apt/sources.list"
  options=(-o "Dir::State::Lists=$apt/lists" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
    -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update -qq
  for package; do
    (cd "$apt" && { apt-get "${options[@]}" download -qq "$package" ||
      { echo "$package is gone from the mirror: taking its successor" && apt-get "${options[@]}" download -qq "${package%%=*}"; }; })
  done
  for package in "$apt"/*.deb; do dpkg -x "$package" "$folder.part"; done
  rm -rf "$apt"
  mv "$folder.part" "$folder"
}
