#!/usr/bin/env bash
# Installs Debian's Chromium for the tests of pages, unless there is one; without it these tests are skipped.
set -euo pipefail

for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" >/dev/null; then exit 0; fi
done
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "Chromium is not installed, and apt-get can't install it here: the tests of pages are skipped." >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
