#!/usr/bin/env bash
# Makes a virtual environment with everything that developing geventpool needs: make_venv.sh DIRECTORY
set -euo pipefail
venv=$1
python=${PYTHON:-python3}
apt() { DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" >/dev/null; }
can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    can_apt || { echo "$python lacks the venv module: install it (Debian: apt-get install python3-venv)" >&2; exit 1; }
    apt update
    apt install python3-venv
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "Installing geventpool and its development tools into $venv ..."
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev]' 2> >(grep -v '^WARNING: Location' >&2)

# These have to be compiled. Their tests say so if they could not be.
for wanted in MySQLdb:'mysqlclient>=2.1' mariadb:'mariadb>=1.1'; do
    "$venv/bin/python" -c "import ${wanted%%:*}" 2>/dev/null && continue
    if can_apt && ! { command -v mariadb_config && command -v gcc && command -v pkg-config; } >/dev/null; then
        { apt update && apt install libmariadb-dev gcc pkg-config python3-dev; } || true
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${wanted#*:}" 2>/dev/null ||
        echo "${wanted#*:} could not be built (it needs libmariadb-dev, pkg-config, gcc and Python's headers): its tests will not run" >&2
done
if [ ! -x "$venv/bin/uwsgi" ]; then
    uwsgi() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'uwsgi>=2.0.22' >/dev/null 2>&1; }
    uwsgi || { can_apt && apt update && apt install gcc python3-dev && uwsgi; } ||
        echo "uWSGI could not be built (it needs gcc and Python's headers): its tests will not run" >&2
fi
