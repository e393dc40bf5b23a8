# Sourced by bin/run, bin/test and bin/flask: sets $launcher, and $python to a Python that can make Kassa's .venv.
launcher="$(cd "$(dirname "$0")" && pwd)/launch.py"
python=""
spare=""
for candidate in python3.13 python3.12 python3.11 python3.14 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        spare="${spare:-$candidate}"
        # Debian ships Python without ensurepip; another Python on the machine may have it.
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            python="$candidate"
            break
        fi
    fi
done
python="${python:-$spare}"
if [ -z "$python" ]; then
    found="$(python3 --version 2>/dev/null || echo 'no python3 at all')"
    echo "Kassa needs Python 3.11 or newer, and this machine has $found." >&2
    echo "Debian 12, Ubuntu 24.04 and newer: apt-get install python3 python3-venv. macOS: brew install python@3.13." >&2
    exit 1
fi
