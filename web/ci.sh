#!/usr/bin/env bash
# What a change of the page must pass: types, unit tests, the built files in src/deop/web, tests in a real browser.
# DEOP_PYTHON is a Python with deop and the extra serve (default: ../.venv): the page is compared with it, and served by it.
# CHROMIUM is the browser; if there is none, Debian's is installed. Takes about three minutes on two quiet cores.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
export CHROMIUM=${CHROMIUM:-/usr/bin/chromium}
if [ ! -x "$CHROMIUM" ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
fi
start=$SECONDS
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
npm test
printf 'the page: %d s\n' "$((SECONDS - start))"
