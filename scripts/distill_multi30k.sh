#!/usr/bin/env bash
# Training data with sampled sentences for scripts/benchmark_multi30k.sh --distilled: besides the 29,000 English sentences
# of the training data, 116,000 that are put together from their n-grams.
#
# Usage: scripts/distill_multi30k.sh DATA KIND [--out FOLDER] [--workers N]
#   DATA          folder with train.en and train.de, raw text
#   KIND          distilled-more  the Transformer translates all of them, two of the project's models help to choose
#                                 among five translations of each (scripts/rerank.py)
#                 self-trained    no Transformer: a model of this project translates the sampled ones by CTC search with
#                                 the n-gram model, two others of other seeds help to choose among eight; the pairs of
#                                 the training data stay as they are, twice each
#   --out FOLDER  of scripts/benchmark_multi30k.sh, with its rows transformer (for distilled-more), best of 4,800 updates,
#                 and ctc of 2,400 updates with seeds 1 and 2 (for self-trained); default: data-bin/multi30k
#   --workers N   processes that translate (default: 1)
# Makes FOLDER/KIND/bin, for `scripts/benchmark_multi30k.sh DATA --distilled FOLDER/KIND/bin`. Killed and started again,
# it goes on where it was.
set -euo pipefail

if [[ $# -eq 0 || "$1" == -h || "$1" == --help ]]; then
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit $(($# == 0 ? 2 : 0))
fi
data="$1" kind="${2:-}" out="" workers=1
[[ "$kind" == distilled-more || "$kind" == self-trained ]] ||
    { echo "error: KIND must be distilled-more or self-trained; found '$kind'." >&2; exit 2; }
shift 2
while [[ $# -gt 0 ]]; do
    [[ $# -ge 2 ]] || { echo "error: $1 needs a value." >&2; exit 2; }
    case "$1" in
        --out) out="$2" ;;
        --workers) workers="$2" ;;
        *) echo "error: unknown argument $1; see $0 --help." >&2; exit 2 ;;
    esac
    shift 2
done
[[ -f "$data/train.en" ]] || { echo "error: no file $data/train.en." >&2; exit 1; }
data="$(cd "$data" && pwd)"
[[ -z "$out" ]] || out="$(mkdir -p "$out" && cd "$out" && pwd)"

source "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
source "$ROOT/scripts/lib/recipe.sh"
out="${out:-$ROOT/data-bin/multi30k}"
best="$out/best-4800-seed1" first="$out/ctc-2400-seed1/average.pt" second="$out/ctc-2400-seed2/average.pt"
teacher="$best/average.pt" judges=("$first" "$second") options=()
if [[ "$kind" == distilled-more ]]; then
    teacher="$out/transformer-8000-seed1/average.pt" judges=("$first" "$best/average.pt")
fi
for file in "$teacher" "${judges[@]}" "$out/spm.model"; do
    [[ -f "$file" ]] || convtext_fail "no file $file: run scripts/benchmark_multi30k.sh first; see $0 --help."
done

convtext_newer "$out/more/more.en" "$data/train.en" || {
    mkdir -p "$out/more"
    convtext_run "$PYTHON" "$ROOT/scripts/sample_sentences.py" "$data/train.en" --count 116000 --longest 41 \
        --out "$out/more/more.en"
}
convtext_run "$PYTHON" "$ROOT/scripts/subwords.py" encode --model "$out/spm.model" --out "$out/more/pieces" \
    "$out/more/more.en"
if [[ "$kind" == self-trained ]]; then
    mapfile -t search <"$best/averaged-search-lm/flags"
    options=(--references 2 --nbest 8 -- --task translation_convtext "${search[@]}")
    options+=(--model-overrides "{'generation_dtype': 'auto'}")
fi
convtext_run "$ROOT/scripts/distill.sh" --data "$out/bin" --path "$teacher" --more-source "$out/more/pieces/more.en" \
    --judge "${judges[0]}" --judge "${judges[1]}" --workers "$workers" --out "$out/$kind" \
    ${options[@]+"${options[@]}"}
