# runc's suite: runc.sh RUNTIME [FILTER]. Lines of TAP, the tests named FILE: TEST.
# A standard input that neither ends nor says anything: script(1) hands on an end as bytes.
mkfifo /tmp/silence
exec 3<>/tmp/silence
export RUNC=$1 BATS_TEST_TIMEOUT=60
filter=${2:-}
cd /src/runc/tests/integration || exit 1
# A test that fails leaves its helpers behind, for whose end bats waits. These are all of this cell's.
sed -i 's/^function teardown_bundle() {$/&\n\tpkill -KILL -x recvtty || true/' helpers.bash
# The terminal's helper is a child of the shell, too, and does not end by itself: only the two are waited for.
sed -i 's/^\twait # .*/\twait -n || true; wait -n || true/' events.bats
for file in *.bats; do
    # A filter of the form FILE.bats is one of files, any other one of tests' names.
    case $filter in
        *.bats) [ "$filter" = "$file" ] || continue; wanted= ;;
        *) wanted=$filter ;;
    esac
    # A test that fails may leave a helper behind for whose end bats waits: what the tests said is there all the same.
    # runc asks for a terminal of its own; Debian's way to run this suite (its debian/tests) gives it one, too.
    timeout --kill-after=5 480 script --quiet --return --command "bats --tap ${wanted:+--filter '$wanted'} $file" \
        /dev/null <&3 2>&1 |
        sed -u -E "s/\r//g; s/^(ok|not ok) [0-9]+ /\1 - ${file%.bats}: /; s/ in [0-9]+ ?m?s(ec)?\$//"
done
