#!/bin/sh
# Runs in the virtual machine, as a service of systemd: each test of /payload/plan in a process of its own, two at a
# time. Standard output is a serial port that `cargo xtask vm` reads:
#
#   @ok MILLISECONDS BINARY TEST             the test has passed
#   @failed CODE MILLISECONDS BINARY TEST    it has not; the lines after it, up to @end, are the last that it said
#   @done                                    all have been run
#
# A test in whose middle the machine goes down (vm_only_reboot_...) is run alone, after all others, and again after each
# boot: DOZEN_TEST_BOOT counts them. What is kept meanwhile lies in DOZEN_TEST_KEPT:
#
#   begun        the tests are being run: a machine that begins them once more has gone down
#   test         BINARY TEST MILLISECONDS BOOT: the one that is under way, when it began, and its present boot
#   goes-down    the test's own word that the machine is to go down now
set -u
. /payload/environment
export HOME=/root TMPDIR=/var/tmp PYTHONDONTWRITEBYTECODE=1 RUST_BACKTRACE=0
export DOZEN_TEST_KEPT=/var/lib/dozen-vm

now() { date +%s%3N; }

# BINARY TEST [BEGUN]
one() {
    said=$(mktemp) begun=${3:-$(now)}
    # A test that waits for what never comes says so itself; this is for one that hangs. A test of the crash suite plays
    # a round for every failpoint.
    case $1 in testbox::crash) limit=${DOZEN_VM_CRASH_LIMIT:-2h} ;; *) limit=15m ;; esac
    timeout --kill-after=10 $limit "/payload/tests/$1" --exact "$2" --include-ignored --nocapture \
        >"$said" 2>&1 </dev/null
    tell $? "$begun" "$1" "$2" "$said"
    rm -f "$said"
}

# CODE BEGUN BINARY TEST SAID
tell() {
    spent=$(($(now) - $2))
    (
        # One at a time: two tests must not talk into each other's lines.
        flock 9
        if [ $1 = 0 ]; then
            # What a soak has found is the point.
            [ -z "${DOZEN_TEST_SOAK_MINUTES:-}" ] || tail -c 16384 "$5"
            echo "@ok $spent $3 $4"
        else
            echo "@failed $1 $spent $3 $4"
            tail -c 16384 "$5"
            printf '\n@end\n'
        fi
    ) 9>/run/dozen-vm.lock
}

# BINARY TEST BEGUN BOOT
one_of_several_boots() {
    echo "$*" >"$DOZEN_TEST_KEPT/test"
    DOZEN_TEST_BOOT=$4 one "$1" "$2" "$3"
    rm "$DOZEN_TEST_KEPT/test"
    # It ended, and the machine did not.
    rm -f "$DOZEN_TEST_KEPT/goes-down"
}

if [ $# = 2 ]; then
    one "$1" "$2"
    exit 0
fi
echo "$(uname -r), $(systemctl --version | head -n 1), $(stat -f -c %T /sys/fs/cgroup), $(nproc) processors"
# The tests know the programs that were built beside them by their paths on the machine that built them.
while read -r path; do
    mkdir -p "${path%/*}"
    ln -sf "/payload/programs/${path##*/}" "$path"
done </payload/programs.list
if [ -e /payload/shell ]; then
    echo "a shell in the virtual machine; the tests lie in /payload/tests, their plan is /payload/plan"
    echo "run one: /payload/run BINARY TEST. Leave: exit"
    exec setsid --wait --ctty bash --login </dev/ttyS1
fi
several=' .*vm_only_reboot_'
run() { xargs --no-run-if-empty --max-procs=2 --max-args=2 "$0"; }
if [ ! -e "$DOZEN_TEST_KEPT/begun" ]; then
    mkdir -p "$DOZEN_TEST_KEPT"
    echo >"$DOZEN_TEST_KEPT/begun"
    grep "$several" /payload/plan >"$DOZEN_TEST_KEPT/several"
    sync
    # Debian loads br_netfilter only where something asks for it: the network's own tests know both ways.
    if grep -q '^network' /payload/plan; then
        modprobe br_netfilter
        grep '^network' /payload/plan | run
        modprobe --remove br_netfilter
    fi
    grep -v -e '^network' -e "$several" /payload/plan | run
elif [ ! -e "$DOZEN_TEST_KEPT/test" ]; then
    echo "the machine went down by itself: its console's log may say why"
    exit 1
else
    read -r binary test begun boot <"$DOZEN_TEST_KEPT/test"
    if [ -e "$DOZEN_TEST_KEPT/goes-down" ]; then
        rm "$DOZEN_TEST_KEPT/goes-down"
        one_of_several_boots "$binary" "$test" "$begun" $((boot + 1))
    else
        echo "the machine went down by itself, in boot $boot of the test" >/run/said
        tell 1 "$begun" "$binary" "$test" /run/said
        rm "$DOZEN_TEST_KEPT/test"
    fi
    sed -i "/ $test\$/d" "$DOZEN_TEST_KEPT/several"
fi
while read -r binary test; do
    one_of_several_boots "$binary" "$test" "$(now)" 1
    sed -i "/ $test\$/d" "$DOZEN_TEST_KEPT/several"
done <"$DOZEN_TEST_KEPT/several"
echo @done
