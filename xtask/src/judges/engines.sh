# Engines that run their containers by a runtime: engines.sh RUNTIME [FILTER]. A line of TAP for each use.
runtime=$1
filter=${2:-}
image=localhost/busybox:judge

# check NAME EXPECTED COMMAND…: what it prints, both streams, and its code if that is not 0.
check() {
    name=$1
    expected=$2
    shift 2
    case "$name" in *"$filter"*) ;; *) return ;; esac
    said=$(timeout 60 "$@" 2>&1 </dev/null) || said="$said [$?]"
    if [ "$said" = "$expected" ]; then echo "ok - $name"; else
        echo "not ok - $name"
        printf '%s\n' "$said" | head -n 8 | sed 's/^/# /'
    fi
}

# uses ENGINE COMMAND…: what each of them is used for, in the same words.
uses() {
    engine=$1
    shift
    check "$engine: run" 'hello' "$@" run --rm $image echo hello
    check "$engine: exit code" ' [3]' "$@" run --rm $image sh -c 'exit 3'
    check "$engine: no such program" yes sh -c '"$@" 2>&1 | grep -q "not found" && echo yes' sh "$@" run --rm $image nosuch
    check "$engine: user, directory, environment" '1000 /tmp 7' \
        "$@" run --rm --user 1000 --workdir /tmp --env A=7 $image sh -c 'echo $(id -u) $PWD $A'
    check "$engine: terminal" '/dev/pts/0' sh -c '"$@" | tr -d "\r"' sh "$@" run --rm --tty $image tty
    check "$engine: bind mount, read-only root" 'r ro' "$@" run --rm --read-only --volume /src/images:/images:ro $image \
        sh -c 'test -e /images/busybox.tar && echo r $(awk "\$2 == \"/\" { print \$4 }" /proc/mounts | cut -d , -f 1)'
    check "$engine: tmpfs, shm size" '1048576 2097152' "$@" run --rm --tmpfs /scratch:size=1m --shm-size 2m $image \
        sh -c 'echo $(stat -f -c "%b %S" /scratch | awk "{ print \$1 * \$2 }") $(stat -f -c "%b %S" /dev/shm | awk "{ print \$1 * \$2 }")'
    check "$engine: limits" '33554432 7' "$@" run --rm --memory 32m --pids-limit 7 $image sh -c \
        'for f in memory/memory.limit_in_bytes memory.max pids/pids.max pids.max; do cat /sys/fs/cgroup/$f 2>/dev/null; done | xargs'
    check "$engine: capabilities" '0000000000000020' "$@" run --rm --cap-drop ALL --cap-add KILL $image \
        sh -c 'grep CapEff /proc/self/status | cut -f 2'
    check "$engine: privileged" 'yes' "$@" run --rm --privileged $image sh -c 'mount -t tmpfs none /tmp && echo yes'
    check "$engine: own init" 'yes' "$@" run --rm --init $image sh -c '[ $$ != 1 ] && echo yes'
    check "$engine: run beside" 'yes' sh -c '"$@" >/dev/null && echo yes' sh \
        "$@" run --detach --name judged $image sh -c 'trap "exit 5" TERM; echo ready; while :; do sleep 0.1; done'
    check "$engine: state" 'running' "$@" inspect --format '{{.State.Status}}' judged
    check "$engine: exec" 'inside' "$@" exec judged echo inside
    check "$engine: exec, exit code" ' [4]' "$@" exec judged sh -c 'exit 4'
    check "$engine: exec, user and environment" '33 8' "$@" exec --user 33 --env B=8 judged sh -c 'echo $(id -u) $B'
    check "$engine: exec, terminal" '/dev/pts/0' sh -c '"$@" | tr -d "\r"' sh "$@" exec --tty judged tty
    check "$engine: exec, no such program" yes sh -c '"$@" 2>&1 | grep -q "not found" && echo yes' sh "$@" exec judged nosuch
    check "$engine: top" 'yes' sh -c '"$@" | grep -q sleep && echo yes' sh "$@" top judged
    check "$engine: pause" 'judged' "$@" pause judged
    check "$engine: paused" 'paused' "$@" inspect --format '{{.State.Status}}' judged
    check "$engine: unpause" 'judged' "$@" unpause judged
    check "$engine: update" 'judged' sh -c '"$@" >/dev/null && echo judged' sh "$@" update --memory 64m --memory-swap 64m judged
    check "$engine: updated" '67108864' "$@" exec judged sh -c \
        'cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true'
    check "$engine: stop" 'judged' "$@" stop --time 10 judged
    check "$engine: code of the stopped" '5' "$@" inspect --format '{{.State.ExitCode}}' judged
    check "$engine: start again" 'judged' "$@" start judged
    check "$engine: kill" 'judged' "$@" kill judged
    check "$engine: wait" '137' "$@" wait judged
    check "$engine: remove" 'judged' "$@" rm judged
    check "$engine: remove by force" 'yes' sh -c '"$@" run --detach --name forced $0 sleep 1000 >/dev/null &&
        "$@" rm --force --time 0 forced >/dev/null 2>&1 || "$@" rm --force forced >/dev/null; "$@" ps --all --quiet --filter name=forced | grep -q . || echo yes' \
        $image "$@"
}

# An image is known by the digest of its configuration, everywhere: ours is theirs after a load, and ours again from what
# they save. Nobody may change a byte.
ours=localhost/ours:judge
export DOZEN_DATA_ROOT=/var/lib/dozen DOZEN_RUN_ROOT=/run/dozen DOZEN_AUTOSTART=0
make_ours() {
    /cell/dozen daemon >/tmp/dozen.log 2>&1 &
    dozen=$!
    waited=0
    until /cell/dozen version >/dev/null 2>&1 || [ $waited = 300 ]; do waited=$((waited + 1)); sleep 0.1; done
    /cell/dozen import /src/images/busybox.tar $ours &&
        /cell/dozen run --name maker --network none $ours sh -c 'echo made >/made; ln /made /again; rm /bin/cat' &&
        /cell/dozen commit maker $ours && /cell/dozen rm maker && /cell/dozen save --output /tmp/ours.tar $ours
}
id_of_ours() { /cell/dozen inspect --type image --format '{{.Id}}' $ours | sed 's/sha256://'; }
images() {
    engine=$1
    shift
    rm -f /tmp/theirs.tar
    check "$engine: image of ours" "$id" sh -c '"$@" load --quiet --input /tmp/ours.tar >/dev/null &&
        "$@" inspect --type image --format "{{.Id}}" $0 | sed s/sha256://' $ours "$@"
    check "$engine: image of ours, its changes" 'made 2' "$@" run --rm $ours sh -c \
        '[ ! -e /bin/cat ] && read -r word </again && echo "$word" $(stat -c %h /made)'
    check "$engine: image of theirs" "$id" sh -c '"$@" save --output /tmp/theirs.tar $0 >/dev/null 2>&1 &&
        { /cell/dozen rmi --force $0 && /cell/dozen load --quiet --input /tmp/theirs.tar; } >/dev/null &&
        /cell/dozen inspect --type image --format "{{.Id}}" $0 | sed s/sha256://' \
        $ours "$@"
}

mkdir -p /etc/containers
echo '{ "default": [{ "type": "insecureAcceptAnything" }] }' >/etc/containers/policy.json
podman="podman --runtime $runtime --cgroup-manager cgroupfs --events-backend file --log-level error"
$podman import --quiet /src/images/busybox.tar $image >/dev/null 2>/tmp/podman.log || sed 's/^/# /' /tmp/podman.log
uses podman $podman
make_ours >/tmp/ours.log 2>&1 || sed 's/^/# /' /tmp/ours.log /tmp/dozen.log
id=$(id_of_ours)
images podman $podman
check 'podman: pod' 'together' sh -c '"$@" pod create --name pod >/dev/null && "$@" run --rm --pod pod $0 echo together; "$@" pod rm --force pod >/dev/null' \
    $image $podman
check 'podman: nothing left' '' $podman ps --all --quiet

dockerd --add-runtime "judged=$runtime" --default-runtime judged --data-root /var/lib/docker >/tmp/dockerd.log 2>&1 &
dockerd=$!
waited=0
until docker version >/dev/null 2>&1 || [ $waited = 300 ]; do waited=$((waited + 1)); sleep 0.1; done
docker import /src/images/busybox.tar $image >/dev/null 2>&1 || tail -n 20 /tmp/dockerd.log | sed 's/^/# /'
check 'docker: the runtime is known' 'judged' docker info --format '{{.DefaultRuntime}}'
uses docker docker
images docker docker
check 'docker: nothing left' '' docker ps --all --quiet

docker save $image -o /tmp/image.tar
ctr="ctr --address /run/docker/containerd/containerd.sock --namespace judge"
$ctr images import /tmp/image.tar >/tmp/ctr.log 2>&1 || sed 's/^/# /' /tmp/ctr.log
check 'containerd: run' 'hello' $ctr run --rm --runc-binary "$runtime" $image judged echo hello
check 'containerd: exit code' 'ctr: exit 3' sh -c '"$@" || echo "ctr: exit $?"' sh \
    $ctr run --rm --runc-binary "$runtime" $image judged sh -c 'exit 3'
kill $dockerd $dozen
wait $dockerd $dozen
