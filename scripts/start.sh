#!/usr/bin/env bash
# Sets up what is missing and starts the realm; arguments go to `start-all`. The realm is this checkout unless told.
set -euo pipefail
called_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/bootstrap_dev.sh

absolute() { case $1 in /*) echo "$1" ;; *) echo "$called_from/$1" ;; esac; }
REALM_ROOT=$(absolute "${REALM_ROOT:-$PWD}")
export REALM_ROOT
arguments=("$@")
for ((i = 0; i < $#; i++)); do
    case ${arguments[i]} in
        --root=*) arguments[i]=--root=$(absolute "${arguments[i]#--root=}") ;;
        --root) [ $((i + 1)) -ge $# ] || arguments[i + 1]=$(absolute "${arguments[i + 1]}") ;;
    esac
done
exec .venv/bin/python -m training start-all "${arguments[@]}"
