#!/usr/bin/env bash
# The main job on the corpus that ships with the project: trains a convolution-only parallel English-German
# translator, translates both test sets, scores them, and shows ten sentences.
#
# Usage: scripts/demo.sh [--quick] [--out FOLDER]
#   --quick       a part of the data and of the training, to see that everything works (under 3 minutes)
#   --out FOLDER  where everything is written (default: data-bin/demo-run, with --quick data-bin/demo-quick)
# Killed and started again, it goes on where it was. To start over, remove the folder.
# With CONVTEXT_PYTHON=/path/to/python that Python is used and nothing is installed.
set -euo pipefail

quick=no
out=""
while [[ $# -gt 0 ]]; do
    case "$1" in
        --quick) quick=yes ;;
        --out)
            [[ $# -ge 2 ]] || { echo "error: --out needs a folder." >&2; exit 2; }
            out="$2"
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
SECONDS=0

# Matrix products in bfloat16 pay where the processor has them; losses and parameters stay float32.
if [[ "$quick" == yes ]]; then
    out="${out:-$ROOT/data-bin/demo-quick}"
    vocabulary=2000 updates=150 warmup=50 limit=(--limit-train 6000)
    model=(--encoder-layers 5 --decoder-layers 5)
else
    out="${out:-$ROOT/data-bin/demo-run}"
    vocabulary=4000 updates=2400 warmup=300 limit=()
    model=()
fi
mkdir -p "$out"

convtext_step "Corpus"
if [[ ! -d "$out/text" ]]; then
    rm -rf "$out/text.part"
    convtext_run "$PYTHON" "$ROOT/scripts/demo_corpus.py" unpack --out "$out/text.part" ${limit[@]+"${limit[@]}"}
    mv "$out/text.part" "$out/text"
fi
convtext_binarise "$out/text" "$out" "$vocabulary" lohelp.test ding.test

convtext_step "Training ($updates updates)"
progress=tqdm
[[ -t 2 ]] || progress=simple
convtext_run fairseq-train "$out/bin" --user-dir "$ROOT/fairseq_convtext" \
    --arch bytenet_deconv_tiny --target-alignment ctc --criterion convtext_ctc --share-all-embeddings \
    --compute-dtype bfloat16 ${model[@]+"${model[@]}"} \
    --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.01 --clip-norm 2 \
    --lr 2e-3 --lr-scheduler polynomial_decay --warmup-updates "$warmup" \
    --max-update "$updates" --total-num-update "$updates" \
    --max-tokens 2048 --required-batch-size-multiple 1 --num-workers 0 --seed 1 \
    --save-dir "$out/checkpoints" --save-interval-updates 300 --keep-interval-updates 1 --no-epoch-checkpoints \
    --log-format "$progress" --log-interval 25 --log-file "$out/train.log"

convtext_step "Translation"
checkpoint="$out/checkpoints/checkpoint_best.pt"
convtext_translate "$checkpoint" "$out/bin" test "$out/lohelp.gen"
convtext_translate "$checkpoint" "$out/bin" test1 "$out/ding.gen"

convtext_step "Scores"
"$PYTHON" "$ROOT/scripts/translation_report.py" "LibreOffice Help=$out/lohelp.gen:$out/text/lohelp.test.de" \
    "Ding sentences=$out/ding.gen:$out/text/ding.test.de"
printf '\nDone in %d:%02d minutes. To translate your own sentences:\n' $((SECONDS / 60)) $((SECONDS % 60))
printf '  fairseq-interactive %q --user-dir %q --task translation_convtext --path %q \\\n' \
    "$out/bin" "$ROOT/fairseq_convtext" "$checkpoint"
printf '    --bpe sentencepiece --sentencepiece-model %q --source-lang en --target-lang de\n' "$out/spm.model"
