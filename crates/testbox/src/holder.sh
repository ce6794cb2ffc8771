# The first process of a box: sets the namespaces up, says so, and ends with its standard input, taking everything in
# the box with it. Runs as: unshare --net --mount --cgroup --propagation private sh -ec THIS sh DIRECTORY HIERARCHY...
# where a HIERARCHY is KIND:OPTIONS:MOUNT_POINT.
directory=$1
shift

# The host's /sys shows the host's interfaces and cgroups.
umount --lazy /sys
mount -t sysfs sysfs /sys
case $# in
    1) ;;
    *) mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup ;;
esac
for hierarchy; do
    kind=${hierarchy%%:*}
    rest=${hierarchy#*:}
    options=${rest%%:*}
    point=${rest#*:}
    mkdir -p "$point"
    mount -t "$kind" ${options:+-o "$options"} "$kind" "$point"
    # The box's own root holds no process, so that controllers can be handed down from it (cgroup-v2.rst, "No Internal
    # Process Constraint").
    mkdir -p "$point/box"
    for file in cpuset.cpus cpuset.mems; do
        if [ "$kind" = cgroup ] && [ -e "$point/$file" ]; then cat "$point/$file" >"$point/box/$file"; fi
    done
    echo $$ >"$point/box/cgroup.procs"
    if [ "$kind" = cgroup2 ]; then
        for controller in $(cat "$point/cgroup.controllers"); do
            echo "+$controller" >"$point/cgroup.subtree_control" || true
        done
    fi
    one=$point
done

# The neighbour: a network namespace on the other end of the wire.
ip link set lo up
unshare --net sleep infinity </dev/null >/dev/null &
neighbour=$!
while [ "$(readlink /proc/$neighbour/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do :; done
ip link add eth0 type veth peer name eth0 netns $neighbour
ip address add 198.51.100.2/24 dev eth0
ip address add 2001:db8:b0::2/64 dev eth0 nodad
ip link set eth0 up
next_door() { nsenter --net=/proc/$neighbour/ns/net "$@"; }
next_door ip link set lo up
next_door ip address add 198.51.100.1/24 dev eth0
next_door ip address add 2001:db8:b0::1/64 dev eth0 nodad
next_door ip link set eth0 up
ip route add default via 198.51.100.1
ip -6 route add default via 2001:db8:b0::1

if [ -e /etc/resolv.conf ]; then
    echo 'nameserver 198.51.100.1' >"$directory/resolv.conf"
    mount --bind "$directory/resolv.conf" /etc/resolv.conf
fi

echo "ready $neighbour"
read -r _ || true

# Killed until none is left: one that is killed while it forks leaves a child.
trap '' TERM
while :; do
    left=
    for file in $(find "$one" -name cgroup.procs); do
        for pid in $(cat "$file" 2>/dev/null); do
            # `find` and `cat` are gone by now, as is whatever was killed the last time round.
            if [ "$pid" != $$ ] && kill -KILL "$pid" 2>/dev/null; then left=$pid; fi
        done
    done
    [ -n "$left" ] || break
done
