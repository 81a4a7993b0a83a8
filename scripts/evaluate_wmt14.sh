#!/usr/bin/env bash
# Translates the test set of prepared data with a trained system and scores it by the protocols of the field.
#
# Usage: scripts/evaluate_wmt14.sh --data OUT --run FOLDER [--beam N] [--cpu]
#   --data OUT      folder that scripts/prepare_wmt14_en_de.sh made (--route raw)
#   --run FOLDER    folder that scripts/train_wmt14_en_de.sh made (checkpoint_average.pt in it)
#   --beam N        of the CTC search and of autoregressive models (default: 10 and 5)
#   --cpu           no GPU
# A model that writes all positions at once is read greedily with a tuned blank penalty, and by CTC search with an
# n-gram model of the training targets; any other by fairseq's generator, greedily and with a beam. All weights are
# tuned on the validation set (those of the search on its first 1,000 sentences). Everything is written to
# FOLDER/DECODING; killed and started again, it goes on.
set -euo pipefail

usage_error() {
    echo "error: $*; see $0 --help." >&2
    exit 2
}
if [[ $# -eq 0 || "$1" == -h || "$1" == --help ]]; then
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit $(($# == 0 ? 2 : 0))
fi
data="" run="" beam=""
while [[ $# -gt 0 ]]; do
    case "$1" in
        --cpu) export CUDA_VISIBLE_DEVICES=""; shift; continue ;;
        --data | --run | --beam) [[ $# -ge 2 && -n "$2" ]] || usage_error "$1 needs a value" ;;
        *) usage_error "unknown argument $1" ;;
    esac
    printf -v "${1#--}" %s "$2"
    shift 2
done
for option in data run; do [[ -n "${!option}" ]] || usage_error "--$option is missing"; done
[[ -z "$beam" || "$beam" =~ ^([2-9]|[1-9][0-9]+)$ ]] || usage_error "--beam must be a number from 2 on; found $beam"
for file in "$data/bin" "$data/reference" "$data/pieces"; do
    [[ -d "$file" ]] || { echo "error: no folder $file: expected what scripts/prepare_wmt14_en_de.sh makes." >&2; exit 1; }
done
if [[ ! -f "$data/spm.model" ]]; then
    echo "error: $data holds no spm.model, so it is not of --route raw: translate with fairseq-generate --remove-bpe, and" \
        "score with scripts/score.py --protocol wmt14 --detokenise." >&2
    exit 1
fi
checkpoint="$run/checkpoint_average.pt"
[[ -s "$checkpoint" && -s "$run/settings" ]] || { echo "error: no $checkpoint: train with scripts/train_wmt14_en_de.sh first." >&2; exit 1; }
data="$(cd "$data" && pwd)" run="$(cd "$run" && pwd)" checkpoint="$run/checkpoint_average.pt"

source "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
source "$ROOT/scripts/lib/recipe.sh"
for file in "$data"/bin/test.*-*.*.idx; do
    pair="${file##*/test.}"
    pair="${pair%%.*}" target="${pair#*-}"
done

# translate NAME: the test set with the flags in FOLDER/NAME/flags.
translate() {
    convtext_translate "$data/bin" "$checkpoint" test "$run/$1/test.gen" "$run/$1/flags"
}
# decodings NAME...: the ways of decoding, each in its folder, which remembers the data.
decodings() {
    names=("$@")
    for name in "$@"; do convtext_settings "$run/$name" "data=$data"; done
}
# flags_of NAME FLAG...: FOLDER/NAME/flags.
flags_of() {
    mkdir -p "$run/$1"
    [[ -s "$run/$1/flags" ]] || { printf '%s\n' "${@:2}" >"$run/$1/flags.part" && mv "$run/$1/flags.part" "$run/$1/flags"; }
}
if grep -q '^row=bytenet_deconv ' "$run/settings"; then
    decodings greedy "search-${beam:-10}-lm"
    convtext_language_model "$data" "$target"
    convtext_tune_penalty "$data/bin" "$checkpoint" "$data/reference/valid.$target" "$run/greedy/flags"
    convtext_tune_search "$data/bin" "$checkpoint" "$data/reference/valid.$target" "$run/search-${beam:-10}-lm/flags" \
        "$data/lm.$target.pt" --beam "${beam:-10}" --sentences 1000
else
    decodings greedy "beam-${beam:-5}"
    limits=(--task=translation --required-batch-size-multiple=1 --max-len-a=1.5 --max-len-b=10)
    flags_of greedy "${limits[@]}" --beam=1
    flags_of "beam-${beam:-5}" "${limits[@]}" "--beam=${beam:-5}"
fi
for name in "${names[@]}"; do
    convtext_step "Translating: $name"
    translate "$name"
done
for name in "${names[@]}"; do
    printf '\n%s\n' "$name"
    "$PYTHON" "$ROOT/scripts/score.py" "$run/$name/test.gen" --reference "$data/reference/test.$target" --protocol wmt14 \
        --target-lang "$target"
done
