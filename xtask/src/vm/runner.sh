#!/bin/sh
# Runs in the virtual machine, as a service of systemd: each test of /payload/plan in a process of its own, two at a
# time. Standard output is a serial port that `cargo xtask vm` reads:
#
#   @ok MILLISECONDS BINARY TEST             the test has passed
#   @failed CODE MILLISECONDS BINARY TEST    it has not; the lines after it, up to @end, are the last that it said
#   @done                                    all have been run
set -u
. /payload/environment
export HOME=/root TMPDIR=/var/tmp PYTHONDONTWRITEBYTECODE=1 RUST_BACKTRACE=0

one() {
    said=$(mktemp) begun=$(date +%s%3N)
    # A test that waits for what never comes says so itself; this is for one that hangs. A test of the crash suite plays
    # a round for every failpoint.
    case $1 in testbox::crash) limit=2h ;; *) limit=15m ;; esac
    timeout --kill-after=10 $limit "/payload/tests/$1" --exact "$2" --include-ignored --nocapture \
        >"$said" 2>&1 </dev/null
    code=$? spent=$(($(date +%s%3N) - begun))
    (
        # One at a time: two tests must not talk into each other's lines.
        flock 9
        if [ $code = 0 ]; then
            echo "@ok $spent $1 $2"
        else
            echo "@failed $code $spent $1 $2"
            tail -c 16384 "$said"
            printf '\n@end\n'
        fi
    ) 9>/run/dozen-vm.lock
    rm -f "$said"
}

if [ $# = 2 ]; then
    one "$1" "$2"
    exit 0
fi
echo "$(uname -r), $(systemctl --version | head -n 1), $(stat -f -c %T /sys/fs/cgroup), $(nproc) processors"
# The tests know the programs that were built beside them by their paths on the machine that built them.
while read -r path; do
    mkdir -p "${path%/*}"
    ln -s "/payload/programs/${path##*/}" "$path"
done </payload/programs.list
if [ -e /payload/shell ]; then
    echo "a shell in the virtual machine; the tests lie in /payload/tests, their plan is /payload/plan"
    echo "run one: /payload/run BINARY TEST. Leave: exit"
    exec setsid --wait --ctty bash --login </dev/ttyS1
fi
run() { xargs --no-run-if-empty --max-procs=2 --max-args=2 "$0"; }
# Debian loads br_netfilter only where something asks for it: the network's own tests know both ways.
if grep -q '^network' /payload/plan; then
    modprobe br_netfilter
    grep '^network' /payload/plan | run
    modprobe --remove br_netfilter
fi
grep -v '^network' /payload/plan | run
echo @done
