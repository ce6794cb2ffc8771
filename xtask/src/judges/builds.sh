# Builds by one engine: builds.sh ENGINE. A line for each case: `built NAME` or `refused NAME`; what it said is in
# /tmp/results/NAME.log, what came of it in /tmp/results/NAME.tar.
engine=$1
mkdir /tmp/results

wait_for() {
    waited=0
    until "$@" >/dev/null 2>&1 || [ $waited = 300 ]; do waited=$((waited + 1)); sleep 0.1; done
}
case $engine in
    buildkit)
        dockerd --data-root /var/lib/docker >/tmp/engine.log 2>&1 &
        daemon=$!
        wait_for docker version
        docker load --quiet --input /cell/base.tar >/tmp/load.log 2>&1
        # No image is of several parts: the engine has no place for them.
        build() { timeout 120 docker buildx build --progress plain "$@"; }
        save() { docker save --output "$2" "$1"; }
        ;;
    buildah)
        mkdir -p /etc/containers
        echo '{ "default": [{ "type": "insecureAcceptAnything" }] }' >/etc/containers/policy.json
        # The limits of this place may not be raised.
        printf '[containers]\ndefault_ulimits = ["nofile=1024:1024"]\n' >/etc/containers/containers.conf
        export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
        buildah pull --quiet docker-archive:/cell/base.tar >/tmp/load.log 2>&1
        build() { timeout 120 buildah build --layers --pull=never --identity-label=false "$@"; }
        save() { buildah push --quiet "$1" "docker-archive:$2:$1"; }
        ;;
    dozen)
        export DOZEN_DATA_ROOT=/var/lib/dozen DOZEN_RUN_ROOT=/run/dozen DOZEN_AUTOSTART=0
        /cell/dozen daemon >/tmp/engine.log 2>&1 &
        daemon=$!
        wait_for /cell/dozen version
        /cell/dozen load --quiet --input /cell/base.tar >/tmp/load.log 2>&1
        build() { timeout 120 /cell/dozen build --progress plain "$@"; }
        save() { /cell/dozen save --output "$2" "$1"; }
        ;;
esac || { echo "# $engine does not start"; cat /tmp/load.log /tmp/engine.log; exit 1; }

for case in /cell/builds/*; do
    name=${case#*.}
    # A place of its own: BuildKit keeps what it has had from one, and sends what is new.
    mkdir -p "/tmp/contexts"
    cp -a "$case/context" "/tmp/contexts/$name"
    cd "/tmp/contexts/$name"
    # All files of a case are of one time, also those that are made now, but for those that say another.
    stamp() { find . -newermt 2020-01-01 -exec touch --no-dereference --date '2001-02-03 04:05:06.123 UTC' {} +; }
    stamp
    sh -eu "$case/prepare" >"/tmp/results/$name.log" 2>&1 || { echo "# $name: cannot be prepared"; exit 1; }
    stamp
    eval "set -- $(cat "$case/flags")"
    if build --no-cache --tag "judged/$name" "$@" . >>"/tmp/results/$name.log" 2>&1 </dev/null; then
        save "judged/$name:latest" "/tmp/results/$name.new" >>"/tmp/results/$name.log" 2>&1 || echo "# $name: cannot be saved"
        mv "/tmp/results/$name.new" "/tmp/results/$name.tar"
        echo "built $name"
    else
        echo "refused $name"
    fi
done
[ -z "${daemon:-}" ] || { kill "$daemon"; wait "$daemon"; } || true
