#!/bin/sh
# Shows PostTLS's main job on real Postfix: builds it, starts three Postfix instances in a directory of their own, sends
# one mail to a domain with TLS and one to a domain without. With --auto it clicks by itself, checks that everything
# came out right, cleans up, and says so by its exit code.
set -eu
cd "$(dirname "$0")/.."
. tests/prepare.sh
need_root "./postfix-conf/demo.sh $*"
need_cargo
need_packages postfix openssl gcc libc6-dev
echo "Building PostTLS (the first time takes a few minutes) ..."
cargo build --release --locked --quiet
exec "${CARGO_TARGET_DIR:-target}/release/posttls" demo "$@"
