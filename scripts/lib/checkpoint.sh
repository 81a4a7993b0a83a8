# shellcheck shell=bash
# Sourced before lib/env.sh, which may take minutes, by scripts that are given checkpoints: a wrong one is told at once.

# convtext_checkpoint FILE FLAG: prints the absolute path of the checkpoint that FLAG names; fails if there is none.
convtext_checkpoint() {
    [[ -f "$1" ]] || { echo "error: no checkpoint $1 ($2)." >&2; return 1; }
    echo "$(cd "$(dirname "$1")" && pwd)/${1##*/}"
}
