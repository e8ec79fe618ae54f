"""Run uv with the indexes of pip's configuration, or pip where uv can't be had.

`make` calls it with the Python of the environment to install into:

    .venv/bin/python .ci/install.py -e '.[dev]' -c constraints.txt
    .venv/bin/python .ci/install.py --uv-only pip compile pyproject.toml

uv installs in a tenth of pip's CPU time, but it does not read pip's configuration: where that names an index, a mirror
or a certificate, uv would look elsewhere. So each setting of `pip config list` becomes uv's own environment variable:
https://docs.astral.sh/uv/reference/environment/.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# pip's names of settings, and uv's environment variable with the separator of several values.
VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "constraint": ("UV_CONSTRAINT", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
}
# Settings that may name folders.
FOLDERS = ("extra-index-url", "find-links")
# Of several sections with one setting, pip takes the last of these.
SECTIONS = ("global", "install", ":env:")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def uv_environment(listed: str) -> dict[str, str]:
    r"""Return uv's environment variables for the settings that ``pip config list`` printed.

    Example:
        >>> uv_environment("global.index-url='https://a/simple'\nglobal.find-links='/b\\n/c'\n:env:.find-links='/'")
        {'UV_DEFAULT_INDEX': 'https://a/simple', 'UV_FIND_LINKS': '/'}
        >>> uv_environment("global.extra-index-url='https://a https://b'")
        {'UV_INDEX': 'https://a https://b', 'UV_INDEX_STRATEGY': 'unsafe-best-match'}
        >>> uv_environment("global.extra-index-url='file:///not/there https://b'\nglobal.find-links='/not/there'")
        {'UV_INDEX': 'https://b', 'UV_INDEX_STRATEGY': 'unsafe-best-match'}
    """
    settings: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in settings and name in VARIABLES:
            settings[section][name] = ast.literal_eval(value)
    environment = {}
    for section in SECTIONS:
        for name, value in settings[section].items():
            variable, separator = VARIABLES[name]
            environment[variable] = separator.join(
                place for place in value.split() if not _is_missing_folder(name, place)
            )
    environment = {variable: value for variable, value in environment.items() if value}
    if "UV_INDEX" in environment:
        # pip takes the best version of all indexes, uv that of the first index that has the package.
        environment["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return environment


def _is_missing_folder(setting: str, place: str) -> bool:
    # pip only warns of one; uv fails.
    path = place.removeprefix("file://")
    return setting in FOLDERS and path.startswith("/") and not os.path.exists(path)


def find_uv(environment: Mapping[str, str]) -> Path | None:
    """Return uv of this Python's environment, after pip has installed it when it is not there; None if pip can't."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        subprocess.run([*PIP, "install", "--quiet", "uv", "-c", "constraints.txt"], check=False)
    runs = uv.exists() and subprocess.run([uv, "--version"], env=environment, stdout=subprocess.DEVNULL).returncode == 0
    return uv if runs else None


def main(arguments: list[str]) -> int:
    """Install what the arguments name, or run uv with them after ``--uv-only``; return the exit code."""
    listed = subprocess.run([*PIP, "config", "list"], stdout=subprocess.PIPE, text=True, check=True).stdout
    # What is set for uv itself comes first.
    environment = {**uv_environment(listed), **os.environ}
    uv = find_uv(environment)
    if arguments[:1] == ["--uv-only"]:
        if uv is None:
            print("This needs uv, which pip can't install here.", file=sys.stderr)
            return 1
        return subprocess.run([str(uv), *arguments[1:]], env=environment).returncode
    if uv is not None:
        install = [str(uv), "pip", "install", "--quiet", "--python", sys.executable, *arguments]
        if subprocess.run(install, env=environment).returncode == 0:
            return 0
    print("uv can't install here; pip does, in more time.", file=sys.stderr)
    return subprocess.run([*PIP, "install", "--quiet", *arguments]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
