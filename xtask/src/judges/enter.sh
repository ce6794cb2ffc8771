# A cell: enter.sh ROOT SCRATCH CGROUP PROGRAM…
#
# ROOT stays as it is: what the suite writes goes to SCRATCH, where /tmp and /var/lib lie on a real disk (an overlay takes
# neither id maps nor a further overlay). The cell's cgroups are CGROUP in every hierarchy of version 1, or in version 2
# where that is the only one; the namespaces end with the programs in them.
root=$1
scratch=$2
cgroup=$3
shift 3

# The group itself holds no process, so that controllers can be handed down from it (cgroup-v2.rst, "No Internal Process
# Constraint"), and a namespace begins where its first process is.
points=$(awk '$0 ~ / - cgroup / { print $5 }' /proc/self/mountinfo)
[ -n "$points" ] || points=$(awk '$0 ~ / - cgroup2 / { print $5; exit }' /proc/self/mountinfo)
for point in $points; do
    group=$point/$cgroup
    mkdir "$group"
    for file in cpuset.cpus cpuset.mems; do
        if [ -e "$group/$file" ] && [ ! -e "$group/cgroup.controllers" ]; then cat "$point/$file" >"$group/$file"; fi
    done
    echo $$ >"$group/cgroup.procs"
done

inside='
root=$1; scratch=$2; cgroup=$3; points=$4; shift 4
for point in $points; do
    group=$point/$cgroup
    if [ -e "$group/cgroup.controllers" ]; then
        mkdir "$group/judge"
        echo $$ >"$group/judge/cgroup.procs"
        sed "s/[a-z_]*/+&/g; s/+ / /g" "$group/cgroup.controllers" >"$group/cgroup.subtree_control"
    fi
done
ip link set lo up
mkdir -p "$scratch/upper" "$scratch/work" "$scratch/root" "$scratch/tmp" "$scratch/lib"
chmod 1777 "$scratch/tmp"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
cell=$scratch/root
mount --bind "$scratch/tmp" "$cell/tmp"
mount --bind "$scratch/lib" "$cell/var/lib"
mount --bind "$scratch/cell" "$cell/cell"
mount -t proc proc "$cell/proc"
mount -t sysfs sysfs "$cell/sys"
mount -t tmpfs -o mode=755 tmpfs "$cell/run"
mount -t tmpfs -o mode=755 tmpfs "$cell/dev"
for device in null zero full random urandom tty kmsg fuse; do
    if [ -e "/dev/$device" ]; then cp -a "/dev/$device" "$cell/dev/$device"; fi
done
mkdir "$cell/dev/pts" "$cell/dev/shm" "$cell/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$cell/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$cell/dev/shm"
mount -t mqueue mqueue "$cell/dev/mqueue"
ln -s pts/ptmx "$cell/dev/ptmx"
ln -s /proc/self/fd "$cell/dev/fd"
for stream in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${stream%:*}" "$cell/dev/${stream#*:}"; done
case $points in
    /sys/fs/cgroup) mount -t cgroup2 cgroup2 "$cell/sys/fs/cgroup" ;;
    *)
        mount -t tmpfs -o mode=755 tmpfs "$cell/sys/fs/cgroup"
        for point in $points; do
            options=$(awk -v point="$point" "\$5 == point { print \$NF; exit }" /proc/self/mountinfo |
                sed "s/^rw,//; s/,clone_children//; s/,xattr//; s/,release_agent=[^,]*//")
            mkdir -p "$cell$point"
            mount -t cgroup -o "$(case $options in name=*) echo none, ;; esac)$options" cgroup "$cell$point"
        done
        ;;
esac
cd "$cell"
mkdir -p host
pivot_root . host
umount -l /host
rmdir /host
status=0
env -i HOME=/root TERM=xterm LANG=C.UTF-8 PATH=/cell:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" ||
    status=$?
# A frozen process of version 1 does not die, and its namespace not before it.
find /sys/fs/cgroup -name freezer.state | while read -r file; do echo THAWED >"$file" || true; done 2>/dev/null
exit $status
'
# Not exec: --kill-child takes everything inside along when unshare is killed.
unshare --mount --net --pid --ipc --uts --cgroup --fork --kill-child --propagation private \
    sh -eu -c "$inside" sh "$root" "$scratch" "$cgroup" "$points" "$@"
