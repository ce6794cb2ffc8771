# Makes the root at $1 the root of namespaces of its own, with the toolchain at $2 on $3, and runs there each of the
# commands that follow. $CGROUPS are the directories to make in every cgroup hierarchy.
root=$1
toolchain=$2
bin=/$3/bin
mkdir -p "$root/$3"

# The group itself holds no process, so that controllers can be handed down from it (cgroup-v2.rst, "No Internal
# Process Constraint"), and a namespace begins where its first process is.
for group in $CGROUPS; do
    mkdir "$group"
    for file in cpuset.cpus cpuset.mems; do
        if [ -e "$group/$file" ] && [ ! -e "$group/cgroup.controllers" ]; then cat "$group/../$file" >"$group/$file"; fi
    done
    # What version 2 has of controllers is handed down. It stays so: to take it back could take it from others.
    for controller in $(cat "$group/../cgroup.controllers" 2>/dev/null); do
        echo "+$controller" >"$group/../cgroup.subtree_control"
    done
    echo $$ >"$group/cgroup.procs"
done

# Before the first process, because whoever waits for that one must not stay in the group either.
below='
for group in $CGROUPS; do
    mkdir "$group/init"
    for file in cpuset.cpus cpuset.mems; do
        if [ -e "$group/$file" ] && [ ! -e "$group/cgroup.controllers" ]; then cat "$group/$file" >"$group/init/$file"; fi
    done
    echo $$ >"$group/init/cgroup.procs"
done
exec "$@"
'

inside='
root=$1; toolchain=$2; bin=$3; shift 3
# pivot_root(2) wants a mount, and so does every container that is started in there.
mount --bind "$root" "$root"
mount --bind "$toolchain" "$root${bin%/bin}"
mount -o remount,bind,ro "$root${bin%/bin}"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
case $CGROUPS in
    /sys/fs/cgroup/dozen-fresh) mount --bind "$CGROUPS" "$root/sys/fs/cgroup" ;;
    *)
        mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
        for group in $CGROUPS; do
            point=${group%/*}
            # cpu,cpuacct is one hierarchy under three names: the links are links here too.
            mkdir -p "$root$point"
            mount --bind "$group" "$root$point"
        done
        ;;
esac
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cd "$root"
mkdir -p host
pivot_root . host
umount -l /host
rmdir /host
exec env -u CGROUPS HOME=/root PATH=$bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -c "
    cd /root/dozen
    failed=
    for command; do
        echo \"==> in the fresh root: \$command\" >&2
        begun=\$(date +%s)
        if ! sh -c \"\$command\"; then failed=yes; echo \"==> failed: \$command\" >&2; fi
        echo \"==> \$((\$(date +%s) - begun)) s: \$command\" >&2
    done
    [ -z \"\$failed\" ]
" sh "$@"
'
shift 3
# --kill-child takes everything inside along when unshare is killed.
exec unshare --cgroup sh -eu -c "$below" sh \
    unshare --mount --pid --fork --kill-child --propagation private sh -eu -c "$inside" sh "$root" "$toolchain" "$bin" "$@"
