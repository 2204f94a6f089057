#!/usr/bin/env bash
# Makes .venv-bench: .venv as it is, and on top of it the peers that requirements-bench.txt pins. .venv stays untouched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/bootstrap_dev.sh

stamp=.venv-bench/.requirements.sha256
wanted=$(cat requirements.txt requirements-bench.txt | sha256sum | cut -d' ' -f1)
if [ -x .venv-bench/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

# Everybody must run on the same torch and transformers, so they are seen from here, not installed a second time.
echo "Setting up .venv-bench ..." >&2
.venv/bin/python -m venv --clear --without-pip .venv-bench
echo '*' > .venv-bench/.gitignore
site() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
site .venv/bin/python > "$(site .venv-bench/bin/python)/realm.pth"
pip() { .venv/bin/python -m pip --python .venv-bench/bin/python --disable-pip-version-check "$@"; }
pip install --quiet --no-deps --requirement requirements-bench.txt
pip check
echo "$wanted" > "$stamp"
echo "Set up." >&2
