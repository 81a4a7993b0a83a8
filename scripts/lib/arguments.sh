# shellcheck shell=bash
# Sourced before lib/env.sh, which may take minutes: a wrong argument is told at once.

# convtext_checkpoint FILE FLAG: prints the absolute path of the checkpoint that FLAG names; fails if there is none.
convtext_checkpoint() {
    [[ -f "$1" ]] || { echo "error: no checkpoint $1 ($2)." >&2; return 1; }
    echo "$(cd "$(dirname "$1")" && pwd)/${1##*/}"
}

# convtext_multi30k_folder FOLDER: prints its absolute path; fails if a text of Multi30k is not there.
convtext_multi30k_folder() {
    local split language
    [[ -d "$1" ]] || { echo "error: no folder $1: expected the one that holds train.en and train.de." >&2; return 1; }
    for split in train val test_2016_flickr test_2017_flickr; do
        for language in en de; do
            [[ -f "$1/$split.$language" ]] || { echo "error: no file $1/$split.$language." >&2; return 1; }
        done
    done
    (cd "$1" && pwd)
}
