#!/usr/bin/env bash
# Makes .venv in this checkout with everything that requirements.txt pins; at once where that was done before.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stamp=.venv/.requirements.sha256
wanted=$(sha256sum requirements.txt | cut -d' ' -f1)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

new_enough() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
python=
for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3 python; do
    if [ -n "$candidate" ] && new_enough "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "Python 3.11 or newer with its venv module is needed; none was found. PYTHON=/path/to/python names one." >&2
    exit 1
fi

echo "Setting up .venv with $("$python" --version) ..." >&2
[ -x .venv/bin/python ] && new_enough .venv/bin/python || "$python" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
echo "$wanted" > "$stamp"
echo "Set up." >&2
