#!/usr/bin/env bash
# Sets up what is missing, checks the style, runs the tests; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/bootstrap_bench.sh  # .venv, and .venv-bench with TRL, which the losses are held to

# Tests of the pages need a browser: the system's, else Debian's, else Playwright's own.
has_browser() {
    command -v chromium chromium-browser google-chrome google-chrome-stable > /dev/null ||
        compgen -G "${PLAYWRIGHT_BROWSERS_PATH:-$HOME/.cache/ms-playwright}/chromium*" > /dev/null
}
if ! has_browser && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "Installing Chromium with apt-get ..." >&2
    (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium) > /dev/null || true
fi
has_browser || .venv/bin/python -m playwright install chromium

.venv/bin/python -m ruff check .
if [ $# -gt 0 ]; then
    exec .venv/bin/python -m pytest "$@"
fi
# One more than a small machine has cores, for a good part of these tests is waiting: for disks, processes, browsers. Files
# in their order: sorted by their number of tests, those with few long ones would come last and be waited for.
.venv/bin/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder -m "not alone"
grep -l 'pytest\.mark\.alone' tests/test_*.py | xargs .venv/bin/python -m pytest -m alone  # the other files need not be read
