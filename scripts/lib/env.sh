# shellcheck shell=bash
# Sourced by the scripts: finds or makes a Python that has all that the project needs.
#
#     source "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
#
# Afterwards ROOT is the checkout, PYTHON an absolute path, and the commands of that Python (fairseq-train and
# so on) come first in PATH. By default that Python is the checkout's own .venv, made from requirements.txt on
# the first call and reused later. With CONVTEXT_PYTHON=/path/to/python it is the caller's, and nothing is
# installed. The project itself is not copied: fairseq takes it as --user-dir "$ROOT/fairseq_convtext", and a second
# copy of it would clash with that one. .venv only knows where it is, so that generation does without the flag.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)"
export PIP_DISABLE_PIP_VERSION_CHECK=1

convtext_fail() {
    echo "error: $*" >&2
    exit 1
}

# Prints the first Python 3.11 or 3.12 that can make virtual environments. 3.11 is tried first: most tested.
convtext_find_python() {
    local path without_venv=""
    while IFS= read -r path; do
        [[ "$path" != "$ROOT/.venv/"* ]] || continue
        # A name may be a shim that finds no such version, so only a Python that runs counts.
        "$path" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null || continue
        if "$path" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$path"
            return
        fi
        without_venv="${without_venv:-$path}"
    done < <(type -aP python3.11 python3.12 python3 python)
    if [[ -n "$without_venv" ]]; then
        convtext_fail "$without_venv cannot make virtual environments: install its venv and ensurepip modules" \
            "(on Debian and Ubuntu the package python3-venv), or set CONVTEXT_PYTHON to a Python that has" \
            "everything in requirements.txt."
    fi
    convtext_fail "no Python 3.11 or 3.12 was found: install one of them, or set CONVTEXT_PYTHON to a Python" \
        "that has torch and fairseq."
}

# The stamp file of .venv is empty while the environment is being made; once finished it holds what the
# environment was made from and where (one that was copied or moved does not work).
convtext_stamp() {
    echo "$1 $(cksum <"$ROOT/requirements.txt")"
}

convtext_venv_is_ready() {
    local stamp="$1/convtext-stamp"
    [[ -f "$stamp" && "$(<"$stamp")" == "$(convtext_stamp "$1")" ]] && "$1/bin/python" -c '' 2>/dev/null
}

# Puts the checkout on the Python path of an environment, and its Hydra plugin, which finds the package for a checkpoint
# that needs it, where Hydra looks.
convtext_point_to_checkout() {
    local site
    site="$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" &&
        echo "$ROOT" >"$site/fairseq_convtext.pth" && mkdir -p "$site/hydra_plugins" &&
        ln -sfn "$ROOT/fairseq_convtext/hydra_plugin" "$site/hydra_plugins/fairseq_convtext_autoload"
}

# Makes .venv, anew where it is half-made, outdated or moved: a killed pip can leave a package that only looks
# complete, so nothing is repaired. Runs where `set -e` is off (left of ||), hence the checks.
convtext_make_venv() {
    local venv="$1" log="$ROOT/.venv-install.log" base no_compile=()
    convtext_venv_is_ready "$venv" && return
    if [[ -e "$venv" && ! -f "$venv/convtext-stamp" ]]; then
        convtext_fail "$venv was not made by this project's scripts: move it away, or use it by" \
            "CONVTEXT_PYTHON=$venv/bin/python."
    fi
    base="$(convtext_find_python)" || exit 1
    echo "Setting up .venv with $("$base" --version 2>&1) (once; a few minutes, log in ${log##*/}) ..." >&2
    SECONDS=0
    # By renaming, so that .venv has its stamp file whenever it exists, and is known as ours.
    {
        rm -rf "$venv.old" "$venv.new" && mkdir "$venv.new" && : >"$venv.new/convtext-stamp" &&
            { [[ ! -e "$venv" ]] || mv "$venv" "$venv.old"; } && mv "$venv.new" "$venv" && rm -rf "$venv.old"
    } || convtext_fail "cannot write to $venv."
    # Not compiled: half of pip's time would go into that, and a quarter of the modules is ever imported. But where Python
    # keeps nothing that it compiles, every start of a command would do it again and take twice as long.
    [[ -n "${PYTHONDONTWRITEBYTECODE:-}" ]] || no_compile=(--no-compile)
    # The import at the end proves that what was installed works together.
    if ! { "$base" -m venv "$venv" &&
        "$venv/bin/python" -m pip install --quiet --no-input ${no_compile[@]+"${no_compile[@]}"} -r "$ROOT/requirements.txt" &&
        convtext_point_to_checkout "$venv" &&
        "$venv/bin/python" -c 'import fairseq_cli.train'; } >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        convtext_fail "setting up .venv failed, see $log; the same command run again starts over."
    fi
    convtext_stamp "$venv" >"$venv/convtext-stamp.new" && mv "$venv/convtext-stamp.new" "$venv/convtext-stamp"
    echo "Set up .venv in $SECONDS seconds." >&2
}

if [[ -n "${CONVTEXT_PYTHON:-}" ]]; then
    PYTHON="$(command -v "$CONVTEXT_PYTHON")" || convtext_fail "CONVTEXT_PYTHON=$CONVTEXT_PYTHON is not a program."
    PYTHON="$("$PYTHON" -c 'import sys; print(sys.executable)')" ||
        convtext_fail "CONVTEXT_PYTHON=$CONVTEXT_PYTHON is not a Python that runs."
    PATH="$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$PATH"
    # compat.py alone, not the package: what this asks is whether the environment will do. Scripts called by others
    # need not ask again, which takes seconds.
    [[ "${CONVTEXT_CHECKED:-}" == "$PYTHON" ]] || "$PYTHON" - "$ROOT/fairseq_convtext/compat.py" <<'PYTHON' || exit 1
import logging
import runpy
import sys

logging.disable(logging.WARNING)
try:
    runpy.run_path(sys.argv[1])["check_environment"]()
except ImportError as error:
    sys.exit(f"error: CONVTEXT_PYTHON: {error}")
PYTHON
else
    if ! convtext_venv_is_ready "$ROOT/.venv"; then
        # Two scripts started at once must not both make it.
        (
            if command -v flock >/dev/null; then flock 9; fi
            convtext_make_venv "$ROOT/.venv"
        ) 9>"$ROOT/.venv.lock" || exit 1
    fi
    PYTHON="$ROOT/.venv/bin/python"
    PATH="$ROOT/.venv/bin:$PATH"
fi
export PATH PYTHON CONVTEXT_CHECKED="$PYTHON"
