#!/bin/sh
# The test command of the README: formatting, lints, documentation, every test, and the crash script in short.
# Installs what is missing only as root on a system with apt-get, and only from the system's own packages; the official
# OpenAI clients, pinned, come from PyPI and npm into target/openai (.ci/openai).
set -eu
cd "$(dirname "$0")"

say() { printf '\n== %s\n' "$*"; }

need() { # need COMMAND PACKAGE WHY
    command -v "$1" >/dev/null 2>&1 && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing $2 ($3)"
        apt-get update -q && apt-get install -y -q --no-install-recommends "$2"
    else
        echo "$1 is missing: it is needed $3. Install it (on Debian and Ubuntu: apt-get install $2) and start again." >&2
        exit 2
    fi
}

need cc build-essential "to compile SQLite and the cryptography"
need curl curl "to try the commands that the demo prints"
PATH="$PATH:/usr/sbin"
need pgbouncer pgbouncer "to try many nodes by way of it"
need nginx nginx-light "to try the guide to many nodes"
need redis-server redis-server "to try collectors of the daily history"
need redis-cli redis-tools "to try collectors of the daily history"
need node nodejs "to try the official OpenAI client"
need npm npm "to install the official OpenAI client"
need python3 python3-venv "to try the official OpenAI client"
if ! command -v cargo >/dev/null 2>&1; then
    echo "cargo is missing: install Rust (https://rustup.rs) and start again." >&2
    exit 2
fi

say "the official OpenAI clients"
if ! python3 -c 'import ensurepip' 2>/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -q && apt-get install -y -q --no-install-recommends python3-venv
fi
.ci/openai

say "formatting"
cargo fmt --all --check

say "lints"
cargo clippy --workspace --all-targets --quiet -- -D warnings

say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

# The tests of the store of many nodes need a PostgreSQL: a private one, unless there is one already.
if [ -z "${TIDEGATE_TEST_POSTGRES:-}" ]; then
    say "starting a private PostgreSQL"
    started=$(.ci/postgres start)
    eval "$started"
    trap '.ci/postgres stop' EXIT
    trap 'exit 130' INT TERM
fi

# How often the crash test kills a node; `.ci/crash` does it 200 times.
export TIDEGATE_CRASH_ROUNDS="${TIDEGATE_CRASH_ROUNDS:-10}"

say "tests, with $TIDEGATE_CRASH_ROUNDS times kill -9 under load among them"
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --no-fail-fast --status-level fail --final-status-level slow
    cargo test --workspace --doc --quiet
else
    cargo test --workspace --no-fail-fast --quiet
fi

say "all is well"
