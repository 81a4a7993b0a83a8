# shellcheck shell=bash
# Sourced by the recipes after env.sh: the steps from plain text to translations, each done once.
#
# A step's result appears under its name only when it is complete, so a recipe that was killed goes on with
# the step it was in, and training with its last checkpoint.

# Prints a command as one can type it, then runs it.
convtext_run() {
    printf '+' >&2
    printf ' %q' "$@" >&2
    printf '\n' >&2
    "$@"
}

convtext_step() {
    printf '\n== %s\n' "$*" >&2
}

# convtext_binarise TEXT OUT VOCABULARY TEST...: plain TEXT/{train,valid,TEST...}.{en,de} to OUT/bin, by a joint
# sentencepiece model OUT/spm.model. The first TEST is fairseq's subset test, the second test1, and so on.
convtext_binarise() {
    local text="$1" out="$2" vocabulary="$3" split files=()
    shift 3
    if [[ -d "$out/bin" ]]; then
        echo "$out/bin exists and is kept" >&2
        return
    fi
    for split in train valid "$@"; do
        "$PYTHON" "$ROOT/scripts/corpus_checks.py" "$text/$split" en de
        files+=("$text/$split.en" "$text/$split.de")
    done
    convtext_run "$PYTHON" "$ROOT/scripts/subwords.py" train --model "$out/spm.model" --vocabulary "$vocabulary" \
        "$text/train.en" "$text/train.de"
    convtext_run "$PYTHON" "$ROOT/scripts/subwords.py" encode --model "$out/spm.model" --out "$out/pieces" \
        "${files[@]}"
    convtext_preprocess "$out" en de 1 "$@"
}

# convtext_preprocess OUT SOURCE TARGET WORKERS TEST...: OUT/pieces/{train,valid,TEST...} to OUT/bin, with one joint
# dictionary.
convtext_preprocess() {
    local out="$1" source="$2" target="$3" workers="$4" prefixes="" split
    shift 4
    if [[ -d "$out/bin" ]]; then
        echo "$out/bin exists and is kept" >&2
        return
    fi
    for split in "$@"; do
        prefixes+="${prefixes:+,}$out/pieces/$split"
    done
    rm -rf "$out/bin.part"
    convtext_run fairseq-preprocess --source-lang "$source" --target-lang "$target" --joined-dictionary \
        --workers "$workers" --trainpref "$out/pieces/train" --validpref "$out/pieces/valid" --testpref "$prefixes" \
        --destdir "$out/bin.part" >"$out/preprocess.log"
    mv "$out/bin.part" "$out/bin"
}

# convtext_settings OUT SETTING...: remembers what OUT is made with, and refuses to go on with anything else.
convtext_settings() {
    local file="$1/settings"
    shift
    mkdir -p "${file%/*}"
    [[ -e "$file" ]] || { echo "$*" >"$file.part" && mv "$file.part" "$file"; }
    [[ "$(<"$file")" == "$*" ]] ||
        convtext_fail "${file%/*} was made with other settings ($(<"$file"); now $*): remove it or choose another --out."
}

# convtext_mend_checkpoints FOLDER: fairseq writes checkpoint_best.pt and checkpoint_last.pt by copying, and a copy
# that a kill cut off would stop every restart; the newest whole checkpoint, which it was copied from, takes its place.
convtext_mend_checkpoints() {
    local name copy newest
    for name in best last; do
        copy="$1/checkpoint_$name.pt"
        [[ -e "$copy" ]] || continue
        "$PYTHON" -c 'import sys, zipfile; sys.exit(not zipfile.is_zipfile(sys.argv[1]))' "$copy" && continue
        newest="$(find "$1" -name 'checkpoint_[0-9]*_[0-9]*.pt' -printf '%T@ %p\n' | sort -rn | sed -n '1s/^[^ ]* //p')"
        echo "$copy was cut off by a kill: ${newest:-nothing} takes its place" >&2
        rm "$copy"
        [[ -z "$newest" ]] || { cp "$newest" "$copy.part" && mv "$copy.part" "$copy"; }
    done
}

# convtext_train BIN OUT UPDATES FLAG...: CTC training of a small model to OUT/checkpoints, the best checkpoint by
# BLEU on the validation set. The learning rate reaches zero at UPDATES, so that no averaging is needed.
convtext_train() {
    local bin="$1" out="$2" updates="$3" progress=tqdm
    shift 3
    # fairseq would load a finished training and take one update more.
    if [[ -f "$out/checkpoints/finished" ]]; then
        echo "$out/checkpoints is finished and is kept" >&2
        return
    fi
    convtext_mend_checkpoints "$out/checkpoints"
    [[ -t 2 ]] || progress=simple
    # bfloat16 is for activations in training; parameters, losses and translation stay float32.
    convtext_run fairseq-train "$bin" --user-dir "$ROOT/fairseq_convtext" --task translation_convtext \
        --target-alignment ctc --criterion convtext_ctc --share-all-embeddings --compute-dtype bfloat16 \
        --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.01 --clip-norm 2 \
        --lr 2e-3 --lr-scheduler polynomial_decay --max-update "$updates" --total-num-update "$updates" \
        --num-workers 0 \
        --eval-bleu --eval-bleu-args '{"beam": 1}' --eval-bleu-detok space --eval-bleu-remove-bpe sentencepiece \
        --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
        --save-dir "$out/checkpoints" --keep-interval-updates 1 --no-epoch-checkpoints \
        --validate-interval 1000000 --log-format "$progress" --log-interval 25 --log-file "$out/train.log" "$@"
    : >"$out/checkpoints/finished"
}

# convtext_training_minutes OUT: all runs together, where training was killed and started again.
convtext_training_minutes() {
    "$PYTHON" - "$1/checkpoints/checkpoint_last.pt" <<'PYTHON'
import sys

import torch

state = torch.load(sys.argv[1], map_location="cpu", weights_only=False)
print(round(state["extra_state"]["previous_training_time"] / 60, 1))
PYTHON
}

# convtext_tune OUT REFERENCE BIN: the blank penalty that is best on the validation set, to OUT/blank-penalty.
convtext_tune() {
    if [[ -s "$1/blank-penalty" && "$1/blank-penalty" -nt "$1/checkpoints/checkpoint_best.pt" ]]; then
        return
    fi
    convtext_run "$PYTHON" "$ROOT/scripts/tune_blank_penalty.py" "$3" --path "$1/checkpoints/checkpoint_best.pt" \
        --reference "$2" >"$1/blank-penalty.part"
    mv "$1/blank-penalty.part" "$1/blank-penalty"
}

# convtext_translate OUT BIN SUBSET NAME: OUT/NAME.gen, all sentences of the subset, in one pass each.
convtext_translate() {
    local checkpoint="$1/checkpoints/checkpoint_best.pt" output="$1/$4.gen"
    if [[ -s "$output" && "$output" -nt "$1/blank-penalty" ]]; then
        echo "$output exists and is kept" >&2
        return
    fi
    convtext_run fairseq-generate "$2" --user-dir "$ROOT/fairseq_convtext" --task translation_convtext \
        --path "$checkpoint" --model-overrides "{'blank_penalty': $(<"$1/blank-penalty")}" \
        --gen-subset "$3" --batch-size 64 --num-workers 0 --beam 1 --remove-bpe sentencepiece \
        --log-format none >"$output.part" 2>"$output.log" || {
        tail -n 3 "$output.log" >&2
        convtext_fail "fairseq-generate failed, see $output.log."
    }
    mv "$output.part" "$output"
}
