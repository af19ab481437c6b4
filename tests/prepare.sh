# Sourced by postfix-conf/demo.sh and tests/run.sh: root, Debian packages, a Rust toolchain. Says what is missing and
# how to get it; installs only what is missing, and leaves a Postfix that is there alone.

# need_root COMMAND: Postfix's master process and queue files need root.
need_root() {
    if [ "$(id -u)" -ne 0 ]; then
        echo "Postfix's master needs root. Please run:  sudo $1" >&2
        exit 1
    fi
}

# need_packages NAME...: installs those Debian packages that are not installed.
need_packages() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "These are needed, by the names that Debian gives them:$missing" >&2
        exit 1
    fi
    echo "Installing Debian packages:$missing"
    case "$missing" in
        # A new Postfix shall neither be configured nor started: the sandbox has instances of its own.
        *postfix*) echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections ;;
    esac
    # Nor shall any other service that comes with them (invoke-rc.d(8), policy-rc.d): the tests start their own nginx.
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then policy=; else printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"; fi
    # shellcheck disable=SC2086 # a list of names
    (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing) \
        >"${TMPDIR:-/tmp}/posttls-apt.$$" 2>&1 || {
        [ -z "$policy" ] || rm -f "$policy"
        cat "${TMPDIR:-/tmp}/posttls-apt.$$" >&2
        echo "Could not install:$missing" >&2
        exit 1
    }
    [ -z "$policy" ] || rm -f "$policy"
    rm -f "${TMPDIR:-/tmp}/posttls-apt.$$"
}

# need_cargo: finds the toolchain also when sudo has hidden it.
need_cargo() {
    command -v cargo >/dev/null && return 0
    for home in "$HOME" "$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)" /root; do
        if [ -x "$home/.cargo/bin/cargo" ]; then
            PATH="$home/.cargo/bin:$PATH"
            RUSTUP_HOME="${RUSTUP_HOME:-$home/.rustup}"
            export PATH RUSTUP_HOME
            return 0
        fi
    done
    echo "cargo is not found: install a Rust toolchain (Cargo.toml names the oldest version that works)." >&2
    exit 1
}
