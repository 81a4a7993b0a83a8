#!/usr/bin/env bash
# Training data with sampled sentences for scripts/benchmark_multi30k.sh --distilled: besides the 29,000 English sentences
# of the training data, others that are put together from their n-grams.
#
# Usage: scripts/distill_multi30k.sh DATA KIND [--out FOLDER] [--teacher ROW] [--sentences N] [--seed N]
#        [--judges CHECKPOINT,...] [--no-judges] [--name NAME] [--workers N]
#   DATA           the folder that scripts/benchmark_multi30k.sh was given
#   KIND           distilled-more  the Transformer translates all of them, models of the project help to choose among
#                                  five translations of each (scripts/rerank.py)
#                  self-trained    no Transformer: ROW translates the sampled ones by search with the n-gram model, and
#                                  its judges, if it was translated with some, choose among its five best; the pairs of
#                                  the training data stay as they are
#   --out FOLDER   of scripts/benchmark_multi30k.sh (default: data-bin/multi30k)
#   --judges CHECKPOINT,...  for distilled-more (default: the averages of FOLDER's rows ctc, 2,400 updates, and best,
#                  4,800)
#   --no-judges    for self-trained: nothing chooses, even if ROW was translated with judges
#   --teacher ROW  a folder in FOLDER (default: transformer-8000-seed1 for distilled-more, ctc-2400-seed1 for self-trained)
#   --sentences N  how many are sampled (default: 116000 for distilled-more, 40000 for self-trained)
#   --seed N       of the sampling: another one for the next round of self-training (default: 1)
#   --name NAME    of the folder that is made in FOLDER (default: KIND)
#   --workers N    processes that translate (default: 1)
# Makes FOLDER/NAME/bin, for `scripts/benchmark_multi30k.sh DATA --distilled FOLDER/NAME/bin`. Killed and started again,
# it goes on where it was.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/arguments.sh"

if [[ $# -eq 0 || "$1" == -h || "$1" == --help ]]; then
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit $(($# == 0 ? 2 : 0))
fi
data="$1" kind="${2:-}" out="" teacher="" sentences="" seed=1 name="" workers=1 judges=() judged=yes
[[ "$kind" == distilled-more || "$kind" == self-trained ]] ||
    { echo "error: KIND must be distilled-more or self-trained; found '$kind'." >&2; exit 2; }
shift 2
while [[ $# -gt 0 ]]; do
    if [[ "$1" == --no-judges ]]; then
        judged=no
        shift
        continue
    fi
    [[ $# -ge 2 ]] || { echo "error: $1 needs a value." >&2; exit 2; }
    case "$1" in
        --out) out="$2" ;;
        --teacher) teacher="$2" ;;
        --sentences) sentences="$2" ;;
        --seed) seed="$2" ;;
        --judges) IFS=, read -r -a judges <<<"$2" ;;
        --name) name="$2" ;;
        --workers) workers="$2" ;;
        *) echo "error: unknown argument $1; see $0 --help." >&2; exit 2 ;;
    esac
    shift 2
done
[[ -z "$sentences" || "$sentences" =~ ^[1-9][0-9]*$ ]] ||
    { echo "error: --sentences must be a number from 1 on; found $sentences." >&2; exit 2; }
[[ "$seed" =~ ^(0|[1-9][0-9]*)$ ]] || { echo "error: --seed must be a number; found $seed." >&2; exit 2; }
[[ "$workers" =~ ^[1-9][0-9]*$ ]] || { echo "error: --workers must be a number from 1 on; found $workers." >&2; exit 2; }
[[ "$kind" == distilled-more ]] || ((${#judges[@]} == 0)) ||
    { echo "error: --judges is for distilled-more; the teacher of self-trained has its own." >&2; exit 2; }
[[ "$kind" == self-trained || "$judged" == yes ]] ||
    { echo "error: --no-judges is for self-trained; in distilled-more judges always choose." >&2; exit 2; }
for number in "${!judges[@]}"; do
    judges[number]="$(convtext_checkpoint "${judges[number]}" --judges)"
done
data="$(convtext_multi30k_folder "$data")"
[[ -z "$out" ]] || out="$(mkdir -p "$out" && cd "$out" && pwd)"

source "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
source "$ROOT/scripts/lib/recipe.sh"
out="${out:-$ROOT/data-bin/multi30k}"
if [[ "$kind" == distilled-more ]]; then
    sentences="${sentences:-116000}" path="$out/${teacher:-transformer-8000-seed1}/average.pt"
    ((${#judges[@]})) || judges=("$out/ctc-2400-seed1/average.pt" "$out/best-4800-seed1/average.pt")
    needed=("${judges[@]}") options=()
    for file in "${judges[@]}"; do options+=(--judge "$file"); done
else
    teacher="${teacher:-ctc-2400-seed1}" sentences="${sentences:-40000}"
    path="$out/$teacher/average.pt"
    search_flags="$out/$teacher/averaged-search-lm-judged/flags"
    if [[ "$judged" == no || ! -f "$search_flags" ]]; then
        search_flags="$out/$teacher/averaged-search-lm/flags"
        [[ "$judged" == no ]] ||
            echo "$teacher was not translated with judges: nothing chooses among what its search finds" >&2
    fi
    needed=("$search_flags")
fi
for file in "$path" "${needed[@]}" "$out/spm.model"; do
    [[ -f "$file" ]] || convtext_fail "no file $file: run scripts/benchmark_multi30k.sh first; see $0 --help."
done
if [[ "$kind" == self-trained ]]; then
    # As many as are worth their time: all thirty would take six times as long for 0.7 BLEU.
    mapfile -t search < <(sed 's/^--ctc-beam=.*/--ctc-beam=10/' "$search_flags")
    options=(--references 1 -- --task translation_convtext "${search[@]}")
    [[ "$search_flags" != *-judged/flags ]] || options+=(--ctc-judged 5)
    options+=(--model-overrides "{'generation_dtype': 'auto'}")
fi

convtext_multi30k_settings "$out" "$data"
more="$out/more-$sentences"
((seed == 1)) || more+="-seed$seed"
sample() {
    convtext_newer "$more/more.en" "$data/train.en" ||
        convtext_run "$PYTHON" "$ROOT/scripts/sample_sentences.py" "$data/train.en" --count "$sentences" --longest 41 \
            --seed "$seed" --out "$more/more.en"
    convtext_newer "$more/pieces/more.en" "$more/more.en" "$out/spm.model" ||
        convtext_run "$PYTHON" "$ROOT/scripts/subwords.py" encode --model "$out/spm.model" --out "$more/pieces" \
            "$more/more.en"
}
mkdir -p "$more"
# Another distillation may want the same sentences.
convtext_in_turn "$more/lock" sample
convtext_run "$ROOT/scripts/distill.sh" --data "$out/bin" --path "$path" --more-source "$more/pieces/more.en" \
    --workers "$workers" --out "$out/${name:-$kind}" "${options[@]}"
