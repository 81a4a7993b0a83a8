#!/usr/bin/env bash
# Trains and scores systems on Multi30k English-German, all from the same raw text and subwords.
#
# Usage: scripts/benchmark_multi30k.sh DATA [--out FOLDER] [--rows ROW,ROW,...] [--updates N] [--seed N]
#   DATA           folder with train, val, test_2016_flickr and test_2017_flickr, each .en and .de, raw text
#   --out FOLDER   where everything is written (default: data-bin/multi30k)
#   --rows ROWS    which systems (default: bytenet,depthwise,bytenet-glancing)
#   --updates N    updates of about 2,048 tokens (default: 3600)
# Killed and started again, it goes on where it was. The best checkpoint and the blank penalty are chosen by BLEU on
# val; the tests are translated once.
set -euo pipefail

if [[ $# -eq 0 || "$1" == -h || "$1" == --help ]]; then
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit $(($# == 0 ? 2 : 0))
fi
data="$1" out="" rows=bytenet,depthwise,bytenet-glancing updates=3600 seed=1
shift
while [[ $# -gt 0 ]]; do
    [[ $# -ge 2 ]] || { echo "error: $1 needs a value." >&2; exit 2; }
    case "$1" in
        --out) out="$2" ;;
        --rows) rows="$2" ;;
        --updates) updates="$2" ;;
        --seed) seed="$2" ;;
        *)
            echo "error: unknown argument $1; see $0 --help." >&2
            exit 2
            ;;
    esac
    shift 2
done
[[ -d "$data" ]] || { echo "error: no folder $data: expected the one that holds train.en and train.de." >&2; exit 1; }
data="$(cd "$data" && pwd)"
[[ -z "$out" ]] || out="$(mkdir -p "$out" && cd "$out" && pwd)"

source "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
source "$ROOT/scripts/lib/recipe.sh"
out="${out:-$ROOT/data-bin/multi30k}"
tests=(test_2016_flickr test_2017_flickr)

# flags_of ROW: what the row adds to the common flags.
flags_of() {
    case "$1" in
        bytenet) ;;
        depthwise) echo --encoder-block depthwise --encoder-layers 8 --decoder-layers 4 --kernel-size 5 ;;
        bytenet-glancing) echo --glancing-ratio "0.5:0.3@$updates" ;;
        *) convtext_fail "--rows knows bytenet, depthwise and bytenet-glancing; found $1." ;;
    esac
}
IFS=, read -r -a chosen <<<"$rows"
for row in "${chosen[@]}"; do flags_of "$row" >/dev/null; done

convtext_step "Corpus"
mkdir -p "$out/text"
for language in en de; do
    for split in train "${tests[@]}"; do
        ln -sf "$data/$split.$language" "$out/text/"
    done
    ln -sf "$data/val.$language" "$out/text/valid.$language"
done
convtext_binarise "$out/text" "$out" 4000 "${tests[@]}"

for row in "${chosen[@]}"; do
    folder="$out/$row-$updates-seed$seed"
    convtext_settings "$folder" "$(flags_of "$row") updates=$updates seed=$seed"
    convtext_step "Training $row ($updates updates)"
    read -r -a flags <<<"$(flags_of "$row")"
    convtext_train "$out/bin" "$folder" "$updates" --arch bytenet_deconv_tiny --spatial-dropout 0.2 \
        --max-tokens 2048 --warmup-updates 400 --save-interval-updates 300 --seed "$seed" ${flags[@]+"${flags[@]}"}
    convtext_step "Translating with $row"
    convtext_tune "$folder" "$out/text/valid.de" "$out/bin"
    subsets=(valid test test1)
    for test in valid "${tests[@]}"; do
        convtext_translate "$folder" "$out/bin" "${subsets[0]}" "$test"
        subsets=("${subsets[@]:1}")
    done
done

for row in "${chosen[@]}"; do
    folder="$out/$row-$updates-seed$seed"
    printf '\n%s: %s parameters, %s updates, %s minutes of training, blank penalty %s\n' "$row" \
        "$(sed -n 's/.*num. shared model params: \([0-9,]*\).*/\1/p' "$folder/train.log" | tail -n 1)" "$updates" \
        "$(convtext_training_minutes "$folder")" "$(<"$folder/blank-penalty")"
    specifications=()
    for test in valid "${tests[@]}"; do
        specifications+=("$test=$folder/$test.gen:$out/text/$test.de")
    done
    "$PYTHON" "$ROOT/scripts/translation_report.py" "${specifications[@]}" --examples 0
done
