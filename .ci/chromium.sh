#!/usr/bin/env bash
# Installs Debian's Chromium, which the tests of pages drive, unless there is one: without a user interface, where Debian
# has it. Without root, apt or a network, those tests are skipped.
set -euo pipefail

if command -v chromium-headless-shell chromium chromium-browser google-chrome google-chrome-stable > /dev/null; then
    exit 0
fi
if ! command -v apt-get > /dev/null || [ "$(id -u)" != 0 ]; then
    echo "chromium: not installed, and only root can install it with apt-get: the tests with it are skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get -qq install --no-install-recommends "$1" fonts-dejavu-core > /dev/null; }
get() { install chromium-headless-shell || install chromium; }
if ! get 2> /dev/null && ! { apt-get -qq update && get; }; then
    echo "chromium: apt-get can't install it: the tests with it are skipped" >&2
fi
