# crun's suite: crun.sh RUNTIME [FILTER]. A line of TAP for each test, named FILE: TEST, and behind it what it said.
# Each test is a process of its own: one that hangs takes no other along.
# A standard input that neither ends nor says anything: script(1) hands on an end as bytes.
mkfifo /tmp/silence
exec 3<>/tmp/silence
export OCI_RUNTIME=$1 INIT=/src/crun/tests/init LC_ALL=C.UTF-8
filter=${2:-}
cp -r /src/crun/tests /tmp/crun
cd /tmp/crun || exit 1
# The binding to libmount that the suite asks is no package of Debian's. This is all that it asks.
cat >libmount.py <<'PYTHON'
class Mount:
    def __init__(self, line):
        left, right = line.split(" - ")
        self.target, self.vfs_options = left.split()[4:6]
        self.fs_options = right.split()[2]
class Table(list):
    def __init__(self, path):
        super().__init__(Mount(line) for line in open(path) if " - " in line)
    def find_target(self, target):
        return [mount for mount in self if mount.target == target][-1]
PYTHON
for file in test_*.py; do
    module=${file%.py}
    python3 -c 'import sys; print(*__import__(sys.argv[1]).all_tests, sep="\n")' "$module" >/tmp/names || exit 1
    while read -r name; do
        case "$module: $name" in *"$filter"*) ;; *) continue ;; esac
        # Tests of terminals ask for one.
        RUN_TESTS=$name timeout --kill-after=5 60 script --quiet --return --command "python3 $file" /dev/null \
            >/tmp/raw 2>&1 <&3
        status=$?
        tr -d '\r' </tmp/raw >/tmp/said
        case $(grep -E '^(not )?ok ' /tmp/said) in
            ok*'#SKIP') echo "ok - $module: $name # SKIP said so itself" ;;
            ok*) echo "ok - $module: $name" ;;
            *) echo "not ok - $module: $name" ;;
        esac
        [ "$status" != 124 ] || echo '# gave no answer within 60 seconds'
        grep -vE '^(1\.\.|(not )?ok )' /tmp/said | tail -n 12 | sed 's/^/# /'
    done </tmp/names
done
