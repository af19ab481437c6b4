#!/bin/sh
# Every test: formatting and lints, then unit tests and tests on real Postfix, real SMTP on loopback and real Chromium.
# Arguments go to `cargo test`, for example:  ./tests/run.sh --test main_job one_recipient
set -eu
cd "$(dirname "$0")/.."
. tests/prepare.sh
need_root "./tests/run.sh $*"
need_cargo
need_packages postfix openssl gcc g++ libc6-dev chromium
export INSTA_UPDATE=no CARGO_TERM_COLOR=never
if cargo fmt --version >/dev/null 2>&1; then cargo fmt --check; else echo "rustfmt is not installed: formatting not checked"; fi
if cargo clippy --version >/dev/null 2>&1; then
    cargo clippy --quiet --locked --all-targets --features failpoints -- -D warnings
else
    echo "clippy is not installed: lints not checked"
fi
output=$(mktemp)
trap 'rm -f "$output"' EXIT
status=0
{ cargo test --locked --features failpoints --no-fail-fast "$@" 2>&1 || echo "cargo test failed"; } | tee "$output"
tail -n 1 "$output" | grep -q '^cargo test failed$' && status=1
awk '/^test result:/ { passed += $4; failed += $6; skipped += $8 }
     END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped; exit passed == 0 || failed > 0 }' "$output" || status=1
# A choice of tests is not about these.
[ $# -gt 0 ] || tests/fuzz/run --seconds 5 || status=1
exit $status
