#!/usr/bin/env bash
# The main job on the corpus that ships with the project: trains a convolution-only parallel English-German
# translator, translates both test sets, scores them, and shows ten sentences.
#
# Usage: scripts/demo.sh [--quick] [--out FOLDER] [--updates N]
#   --quick       a part of the data and of the training, to see that everything works (about 3 minutes)
#   --out FOLDER  where everything is written (default: data-bin/demo-run, with --quick data-bin/demo-quick)
#   --updates N   length of the training instead of what the time allows
# Killed and started again, it goes on where it was. To start over, remove the folder.
# With CONVTEXT_PYTHON=/path/to/python that Python is used and nothing is installed. It stays on the CPU, several GPUs would
# take larger batches than its recipe is for; CUDA_VISIBLE_DEVICES=0 lets it have one.
set -euo pipefail

quick=no
out="" updates=""
while [[ $# -gt 0 ]]; do
    case "$1" in
        --quick) quick=yes ;;
        --out)
            [[ $# -ge 2 ]] || { echo "error: --out needs a folder." >&2; exit 2; }
            out="$2"
            shift
            ;;
        --updates)
            [[ "${2-}" =~ ^[1-9][0-9]*$ ]] || { echo "error: --updates needs a number from 1 on; found ${2-none}." >&2; exit 2; }
            updates="$2"
            shift
            ;;
        -h | --help)
            sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        *)
            echo "error: unknown argument $1; see $0 --help." >&2
            exit 2
            ;;
    esac
    shift
done
[[ -z "$out" ]] || out="$(mkdir -p "$out" && cd "$out" && pwd)"

source "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
source "$ROOT/scripts/lib/recipe.sh"
export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES-}"
SECONDS=0

if [[ "$quick" == yes ]]; then
    out="${out:-$ROOT/data-bin/demo-quick}"
    vocabulary=2000 updates="${updates:-200}" warmup=60 interval=50 limit=(--limit-train 6000)
    model=(--encoder-layers 4 --decoder-layers 2) search=(--beam 5 --weights 0.3 --bonuses 1 2)
else
    out="${out:-$ROOT/data-bin/demo-run}"
    vocabulary=4000 warmup=400 interval=400 limit=()
    model=(--spatial-dropout 0.1) search=(--beam 10 --weights 0.2 0.3 0.4 --bonuses 1 1.5 2 2.5 3 3.5)
    # A processor without instructions for bfloat16 trains in float32, and would not be ready in the time. There dynamic
    # convolutions learn more in the same time; in bfloat16 that has not been measured.
    precision="$(convtext_precision "$out")"
    if [[ "$precision" == bfloat16 ]]; then
        updates="${updates:-4000}"
    else
        updates="${updates:-1200}" model+=("${CONVTEXT_DYNAMIC[@]}")
    fi
fi
convtext_settings "$out" "vocabulary=$vocabulary updates=$updates tokens=1536" "${limit[@]-}" "${model[@]-}"

convtext_step "Corpus"
if [[ ! -d "$out/text" ]]; then
    rm -rf "$out/text.part"
    convtext_run "$PYTHON" "$ROOT/scripts/demo_corpus.py" unpack --out "$out/text.part" ${limit[@]+"${limit[@]}"}
    mv "$out/text.part" "$out/text"
fi
convtext_binarise "$out/text" "$out" "$vocabulary" lohelp.test ding.test

convtext_step "Training ($updates updates)"
convtext_train "$out/bin" "$out" "$updates" --arch bytenet_deconv_tiny ${model[@]+"${model[@]}"} \
    --max-tokens 1536 --warmup-updates "$warmup" --save-interval-updates "$interval" --seed 1

convtext_step "Translation"
best="$out/checkpoints/checkpoint_best.pt"
convtext_language_model "$out"
convtext_tune_search "$out/bin" "$best" "$out/text/valid.de" "$out/search.flags" "$out/lm.de.pt" "${search[@]}"
convtext_translate "$out/bin" "$best" test "$out/lohelp.gen" "$out/search.flags"
convtext_translate "$out/bin" "$best" test1 "$out/ding.gen" "$out/search.flags"

convtext_step "Scores"
"$PYTHON" "$ROOT/scripts/translation_report.py" "LibreOffice Help=$out/lohelp.gen:$out/text/lohelp.test.de" \
    "Ding sentences=$out/ding.gen:$out/text/ding.test.de"
printf '\nDone in %d:%02d minutes. To translate your own sentences:\n' $((SECONDS / 60)) $((SECONDS % 60))
printf '  %q %q --user-dir %q --task translation_convtext --path %q \\\n' "$(command -v fairseq-interactive)" \
    "$out/bin" "$ROOT/fairseq_convtext" "$out/checkpoints/checkpoint_best.pt"
printf '    --bpe sentencepiece --sentencepiece-model %q --source-lang en --target-lang de \\\n' "$out/spm.model"
mapfile -t flags <"$out/search.flags"
printf '   ' && printf ' %q' "${flags[@]}" && printf '\n'
