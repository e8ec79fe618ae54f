#!/usr/bin/env bash
# Puts Debian's prometheus and promtool, which tests run, into a folder, unless they are installed already. Nothing else
# on the machine changes, and no service starts. Without apt, or without a network, those tests are skipped.
# Usage: .ci/prometheus.sh FOLDER
set -euo pipefail
folder=$1
if command -v prometheus promtool > /dev/null || [ -x "$folder/prometheus" ]; then
    exit 0
fi
if ! command -v apt-get dpkg-deb > /dev/null; then
    echo "prometheus: not installed, and there is no apt-get: the tests with it are skipped" >&2
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# The lists of packages may be missing or old; root may renew them.
download() { apt-get -qq -o APT::Sandbox::User=root download prometheus; }
if ! download 2> /dev/null && ! { apt-get -qq update && download; }; then
    echo "prometheus: apt-get can't download it: the tests with it are skipped" >&2
    exit 0
fi
dpkg-deb --fsys-tarfile prometheus_*.deb | tar --extract --strip-components=3 ./usr/bin/prometheus ./usr/bin/promtool
install -m 755 prometheus promtool "$OLDPWD/$folder/"
