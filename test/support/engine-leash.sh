#!/bin/sh
# A Docker engine on a leash: it lives while our standard input stays open. Whatever becomes of the test run, kill -9
# included, the pipe closes, and the engine goes with its containers, mounts, networks and files.
#
#   engine-leash.sh DIR DOCKERD-ARGUMENT...
#
# The daemon runs in mount, process and network namespaces of its own, so that it shares no bridge, subnet, firewall
# chain, port or socket with the machine or with a second run. Inside, standard input takes one command a line:
#   start         starts the daemon
#   signal NAME   signals the daemon and waits for its end; containers may outlive it, as they do on a real machine
#   cut           ends everything at once, as a power failure does, and keeps DIR
set -u

if [ "$1" != inside ]; then
  dir=$1
  trap : HUP INT TERM # a Ctrl-C is for the run, which then closes the pipe; unlike '', this is not inherited
  unshare --mount --pid --net --fork --kill-child --mount-proc "$0" inside "$@"
  ended=$?
  find /sys/fs/cgroup -depth -type d -path "*/${dir##*/}*" -exec rmdir {} + 2>/dev/null
  [ "$ended" -eq 99 ] || rm -rf "$dir"
  exit 0
fi

shift
dir=$1
shift
mkdir -p /run/containerd && mount -t tmpfs -o mode=0711 tmpfs /run/containerd || exit 1 # sockets of the containers' shims
"$dir/busybox" ip link set lo up || exit 1

# What is frozen, as a paused container is, does not die (cgroup v1), and its namespace would wait for it for ever.
end_all() {
  kill -s KILL -- -1 2>/dev/null
  find /sys/fs/cgroup -path "*/${dir##*/}*" -name freezer.state 2>/dev/null | while read -r state; do
    echo THAWED >"$state"
  done
}

while read -r command argument; do
  case $command in
    start)
      rm -f "$dir/ended" "$dir/docker.pid"
      { dockerd "$@" >>"$dir/log" 2>&1; echo "$?" >"$dir/ended"; } &
      ;;
    signal)
      kill -s "$argument" "$(cat "$dir/docker.pid")"
      wait
      ;;
    cut)
      end_all
      exit 99
      ;;
  esac
done
end_all
