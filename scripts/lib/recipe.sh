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
    local text="$1" out="$2" vocabulary="$3" prefixes="" split files=()
    shift 3
    if [[ -d "$out/bin" ]]; then
        echo "$out/bin exists and is kept" >&2
        return
    fi
    for split in train valid "$@"; do
        "$PYTHON" "$ROOT/scripts/corpus_checks.py" "$text/$split" en de
        files+=("$text/$split.en" "$text/$split.de")
    done
    for split in "$@"; do
        prefixes+="${prefixes:+,}$out/pieces/$split"
    done
    convtext_run "$PYTHON" "$ROOT/scripts/subwords.py" train --model "$out/spm.model" --vocabulary "$vocabulary" \
        "$text/train.en" "$text/train.de"
    convtext_run "$PYTHON" "$ROOT/scripts/subwords.py" encode --model "$out/spm.model" --out "$out/pieces" \
        "${files[@]}"
    rm -rf "$out/bin.part"
    convtext_run fairseq-preprocess --source-lang en --target-lang de --joined-dictionary --workers 1 \
        --trainpref "$out/pieces/train" --validpref "$out/pieces/valid" --testpref "$prefixes" \
        --destdir "$out/bin.part" >"$out/preprocess.log"
    mv "$out/bin.part" "$out/bin"
}

# convtext_translate CHECKPOINT BIN SUBSET OUTPUT: all sentences of the subset, in one pass each.
convtext_translate() {
    if [[ -s "$4" && "$4" -nt "$1" ]]; then
        echo "$4 exists and is kept" >&2
        return
    fi
    convtext_run fairseq-generate "$2" --user-dir "$ROOT/fairseq_convtext" --task translation_convtext \
        --path "$1" --gen-subset "$3" --batch-size 64 --num-workers 0 --beam 1 --remove-bpe sentencepiece \
        --log-format none >"$4.part" 2>"$4.log" || {
        tail -n 3 "$4.log" >&2
        convtext_fail "fairseq-generate failed, see $4.log."
    }
    mv "$4.part" "$4"
}
