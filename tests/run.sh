#!/bin/sh
# Every test: formatting and lints, then unit tests and tests on real Postfix, real SMTP on loopback and real Chromium.
# Arguments go to `cargo test`, for example:  ./tests/run.sh --test main_job one_recipient
set -eu
cd "$(dirname "$0")/.."
. tests/prepare.sh
need_root "./tests/run.sh $*"
need_cargo
need_packages postfix libsasl2-modules openssl faketime gcc g++ libc6-dev chromium nginx-light
export INSTA_UPDATE=no CARGO_TERM_COLOR=never

# Test programs that run at once. They mostly wait (for Postfix, for time to pass), so there is room for more than cores.
jobs=${TEST_JOBS:-$(($(nproc) + 1))}
# Each alone, before the others: a page says what was done within three seconds, and a browser is a load of its own; and
# some of what Postfix shows is there for milliseconds.
alone="browser browser_many web_browser endings passages late"
# Of the others the longest first: then the last one to end does not keep everybody waiting.
long="check crash_meddling faults campaign damaged reminders letters census crash courier courier_kept"

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# Everything that a test starts has this directory, which other users must be able to enter, in its environment or among
# its arguments: so it is found when it is left behind.
scratch=$logs/tmp
mkdir "$scratch"
chmod 755 "$logs" "$scratch"

# Processes of the tests, one a line.
running() {
    for process in /proc/[0-9]*; do
        if grep -aqsF "$scratch" "$process/environ" "$process/cmdline"; then
            echo "${process#/proc/} $(tr '\0' ' ' <"$process/cmdline")"
        fi
    done 2>/dev/null
}

# Nothing that a test started may outlive it: ends what has, and says so.
nothing_is_left() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        left=$(running)
        [ -n "$left" ] || return 0
        sleep 1
    done
    echo "left running by the tests, and ended now:"
    echo "$left"
    echo "$left" | while read -r pid _; do kill -9 "$pid" || true; done
    return 1
}

# The paths of these test programs of the last build, one a line.
named() {
    for name in "$@"; do built | grep "/$name-[0-9a-f]*\$" || true; done
}

# The paths of all test programs of the last build.
built() {
    sed -n '/"profile":{[^}]*"test":true/ s/.*"executable":"\([^"]*\)".*/\1/p' "$logs/built.json"
}

# Those that are in neither list.
others() {
    for path in $(built); do
        name=$(basename "$path" | sed 's/-[0-9a-f]*$//')
        case " $alone $long " in *" $name "*) ;; *) echo "$path" ;; esac
    done
}

# Runs the program $1 with its output in a file below $0, and prints that in one piece when it has ended.
run='name=$(basename "$1")
     TMPDIR="$0/tmp" "$1" >"$0/$name.log" 2>&1 || echo "test program failed: $name" >>"$0/$name.log"
     (flock 9; echo; echo "    Running $name"; cat "$0/$name.log") 9>"$0/turn"'

if cargo fmt --version >/dev/null 2>&1; then cargo fmt --check; else echo "rustfmt is not installed: formatting not checked"; fi
if cargo clippy --version >/dev/null 2>&1; then
    cargo clippy --quiet --locked --all-targets --features failpoints -- -D warnings
else
    echo "clippy is not installed: lints not checked"
fi
if [ $# -gt 0 ]; then
    { TMPDIR=$scratch cargo test --locked --features failpoints --no-fail-fast "$@" 2>&1 || echo "test program failed: cargo test"; } | tee "$logs/cargo.log"
else
    cargo test --quiet --locked --features failpoints --no-run --message-format=json-render-diagnostics >"$logs/built.json"
    CARGO_MANIFEST_DIR=$PWD
    export CARGO_MANIFEST_DIR
    # shellcheck disable=SC2086 # lists of names
    named $alone | xargs -I '{}' sh -c "$run" "$logs" '{}'
    # shellcheck disable=SC2086
    { named $long && others; } | xargs -P "$jobs" -I '{}' sh -c "$run" "$logs" '{}'
fi
status=0
if grep -h '^test program failed' "$logs"/*.log; then status=1; fi
awk '/^test result:/ { passed += $4; failed += $6; skipped += $8 }
     END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped; exit passed == 0 || failed > 0 }' "$logs"/*.log || status=1
nothing_is_left || status=1
# A choice of tests is not about these.
[ $# -gt 0 ] || tests/fuzz/run --seconds 5 || status=1
exit $status
