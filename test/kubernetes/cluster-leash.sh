#!/bin/sh
# A Kubernetes node on a leash: it lives while our standard input stays open. Whatever becomes of the test run, kill -9
# included, the pipe closes, and the node goes with its pods, mounts, networks and files.
#
#   cluster-leash.sh DIR LINK ADDRESS PEER-ADDRESS
#
# All runs in mount, process and network namespaces of its own. One pair of virtual network cards, LINK outside, leads
# from the machine to it: the node is ADDRESS, the machine PEER-ADDRESS. Standard input takes one command a line:
#   start NAME          runs DIR/NAME.sh in the background; what it says goes to DIR/NAME.log
#   signal NAME SIGNAL  signals what was started so
set -u

if [ "$1" != inside ]; then
  dir=$1
  trap : HUP INT TERM # a Ctrl-C is for the run, which then closes the pipe; unlike '', this is not inherited
  name=${dir##*/}
  for group in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do
    [ -e "$group" ] && mkdir -p "${group%/*}/$name"
  done
  exec 9</proc/self/ns/net
  unshare --mount --pid --net --fork --kill-child --mount-proc "$0" inside "$@"
  exec 9<&-
  # A container's last process may still be ending
  for i in 1 2 3 4 5 6 7 8 9 10; do
    find /sys/fs/cgroup -depth -type d -path "*/$name*" -exec rmdir {} + 2>/dev/null
    rm -rf "$dir" 2>/dev/null
    [ -e "$dir" ] || [ -n "$(find /sys/fs/cgroup -type d -name "$name")" ] || break
    sleep 1
  done
  exit 0
fi

shift
dir=$1 link=$2 address=$3 peer=$4
fail() {
  echo "$*" >"$dir/failed"
  exit 1
}

# What the parts put at fixed places is theirs alone
for place in /run /var/log; do mount -t tmpfs -o mode=0755 tmpfs "$place" || fail "mount $place"; done
mkdir -p "$dir/etcd" && mount -t tmpfs -o mode=0700 tmpfs "$dir/etcd" || fail 'mount etcd'

# The kubelet sets these for the whole machine, unless they are as it wants them already
while read -r path value; do
  [ -e "/proc/sys/$path" ] || continue
  echo "$value" >"/run/value" && cp /run/value "/run/${path##*/}"
  mount --bind "/run/${path##*/}" "/proc/sys/$path" || fail "mount $path"
done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END

ip link set lo up &&
  ip link add eth0 type veth peer name "$link" netns /proc/self/fd/9 &&
  ip address add "$address/30" dev eth0 &&
  ip link set eth0 up &&
  nsenter --net=/proc/self/fd/9 ip address add "$peer/30" dev "$link" &&
  nsenter --net=/proc/self/fd/9 ip link set "$link" up &&
  ip route add default via "$peer" &&
  ip address add 10.96.0.1/32 dev lo || fail 'make the network' # the service `kubernetes`, with no kube-proxy
exec 9<&-
echo ok >"$dir/ready"

while read -r command name argument; do
  case $command in
    start)
      rm -f "$dir/$name.ended"
      {
        sh "$dir/$name.sh" </dev/null >>"$dir/$name.log" 2>&1 &
        echo "$!" >"$dir/$name.pid"
        wait "$!"
        echo "$?" >"$dir/$name.ended"
      } &
      ;;
    signal) kill -s "$argument" "$(cat "$dir/$name.pid")" ;;
  esac
done
