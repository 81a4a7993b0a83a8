#!/usr/bin/env bash
# Sets up the project's environment, then runs lint and all tests.
#
# Usage: scripts/test.sh [--no-lint] [pytest arguments]
#   --no-lint   leave out ruff and shellcheck
# Everything else goes to pytest: scripts/test.sh -x tests/modules
# Two processes share the tests; CONVTEXT_TEST_PROCESSES=N makes it N, with 0 for none besides this one.
# With CONVTEXT_PYTHON=/path/to/python that Python is used and nothing is installed.
set -euo pipefail

case "${1:-}" in
    -h | --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
esac

lint=yes
pytest_arguments=()
for argument in "$@"; do
    if [[ "$argument" == --no-lint ]]; then
        lint=no
    else
        pytest_arguments+=("$argument")
    fi
done

source "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
cd "$ROOT"

if [[ "$lint" == yes ]]; then
    for tool in ruff shellcheck; do
        command -v "$tool" >/dev/null ||
            convtext_fail "$tool is not installed: take its version from requirements.txt, or pass --no-lint."
    done
    ruff check --quiet .
    shellcheck scripts/*.sh scripts/lib/*.sh .ci/run
fi

# The tests work on small tensors, where a second thread costs more than it gains.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# A file's tests stay together: they share what is trained once. Files go in the order of tests/conftest.py.
parallel=()
if "$PYTHON" -c 'import xdist' 2>/dev/null; then
    parallel=(-n "${CONVTEXT_TEST_PROCESSES:-2}" --dist loadfile --no-loadscope-reorder)
fi
exec "$PYTHON" -m pytest -q ${parallel[@]+"${parallel[@]}"} ${pytest_arguments[@]+"${pytest_arguments[@]}"}
