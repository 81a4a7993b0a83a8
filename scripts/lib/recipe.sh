# shellcheck shell=bash
# Sourced by the recipes after env.sh: the steps from plain text to translations, each done once.
#
# A step's result appears under its name only when it is complete, so a recipe that was killed goes on with
# the step it was in, and training with its last checkpoint.

# glibc gives large blocks of memory back at once, and to get their pages again took an eighth of a training's time on a
# CPU. Other allocators pass over these.
export MALLOC_MMAP_MAX_="${MALLOC_MMAP_MAX_:-0}" MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-67108864}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-8589934592}"

# The blocks that won on Multi30k in float32 (scripts/multi30k.md), as flags of fairseq-train.
# shellcheck disable=SC2034
CONVTEXT_DYNAMIC=(--encoder-block dynamic --kernel-size 7 --dilations "1,2")

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
    mkdir -p "$1"
    [[ -e "$file" ]] || { echo "${*:2}" >"$file.part" && mv "$file.part" "$file"; }
    convtext_same_settings "$@"
}

# convtext_same_settings OUT SETTING...: refuses what convtext_settings would refuse, and makes nothing.
convtext_same_settings() {
    local file="$1/settings"
    shift
    [[ ! -e "$file" || "$(<"$file")" == "$*" ]] ||
        convtext_fail "${file%/*} was made with other settings ($(<"$file"); now $*): give those, or write to another folder."
}

# convtext_multi30k_settings OUT FOLDER: the same for OUT made of the texts of Multi30k in FOLDER, which must not have changed
# either; other files there do not matter.
convtext_multi30k_settings() {
    convtext_settings "$1" "data=$2 cksum=$(cat "$2"/{test_2016_flickr,test_2017_flickr,train,val}.en \
        "$2"/{test_2016_flickr,test_2017_flickr,train,val}.de | cksum)"
}

# convtext_in_turn FILE COMMAND...: runs the command when no other process does so with the same FILE.
convtext_in_turn() {
    exec 6>"$1"
    ! command -v flock >/dev/null || flock 6
    "${@:2}"
    exec 6>&-
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
        # Never without one: a training that finds no checkpoint begins anew.
        if [[ -n "$newest" ]]; then cp "$newest" "$copy.part" && mv "$copy.part" "$copy"; else rm "$copy"; fi
    done
}

# convtext_fit BIN OUT UPDATES FLAG...: a training to OUT/checkpoints, gone on with where it was killed. The last
# KEEP_CHECKPOINTS are kept for averaging (default: 1); TRAIN_WITH is a Python file to run in place of fairseq-train.
convtext_fit() {
    local bin="$1" out="$2" updates="$3" progress=tqdm trainer=(fairseq-train)
    shift 3
    mkdir -p "$out"
    # The training holds it too: it may outlive a script that was killed, and two would write the same checkpoints.
    exec 7>"$out/lock"
    ! command -v flock >/dev/null || flock -w 5 7 ||
        convtext_fail "another training, or one whose script was killed, is at work in $out: stop it first."
    # fairseq would load a finished training and take one update more.
    if [[ -f "$out/checkpoints/finished" ]]; then
        echo "$out/checkpoints is finished and is kept" >&2
        exec 7>&-
        return
    fi
    convtext_mend_checkpoints "$out/checkpoints"
    [[ -t 2 ]] || progress=simple
    [[ -z "${TRAIN_WITH:-}" ]] || trainer=("$PYTHON" "$TRAIN_WITH")
    # A stock model needs the plugin too, which lets torch load the older kind of checkpoints again.
    convtext_run "${trainer[@]}" "$bin" --user-dir "$ROOT/fairseq_convtext" --optimizer adam --adam-betas '(0.9, 0.98)' \
        --max-update "$updates" --num-workers 0 --save-dir "$out/checkpoints" \
        --keep-interval-updates "${KEEP_CHECKPOINTS:-1}" --no-epoch-checkpoints --validate-interval 1000000 \
        --log-format "$progress" --log-interval 25 --log-file "$out/train.log" "$@"
    : >"$out/checkpoints/finished"
    exec 7>&-
}

# convtext_fit_small BIN OUT UPDATES FLAG...: a small model of this project. The learning rate reaches zero at UPDATES.
# The flags come last, so that they may say otherwise.
convtext_fit_small() {
    # bfloat16, where it is faster, is for activations in training; parameters, losses and translation stay float32.
    local precision
    precision="$(convtext_precision "$2")"
    convtext_fit "${@:1:3}" --task translation_convtext --share-all-embeddings --weight-decay 0.01 \
        --compute-dtype "$precision" --clip-norm 2 --lr 2e-3 --lr-scheduler polynomial_decay --total-num-update "$3" "${@:4}"
}

# convtext_train BIN OUT UPDATES FLAG...: the same by CTC, the best checkpoint by BLEU on the validation set.
convtext_train() {
    convtext_fit_small "${@:1:3}" --target-alignment ctc --criterion convtext_ctc \
        --eval-bleu --eval-bleu-args '{"beam": 1}' --eval-bleu-detok space --eval-bleu-remove-bpe sentencepiece \
        --best-checkpoint-metric bleu --maximize-best-checkpoint-metric "${@:4}"
}

# convtext_precision OUT: what the training in OUT computes in, float32 or bfloat16; what it began with, whatever the machine
# that it goes on on is faster in. CONVTEXT_PRECISION says what a new one begins with.
convtext_precision() {
    local chosen="${CONVTEXT_PRECISION:-}"
    [[ -z "$chosen" || "$chosen" == float32 || "$chosen" == bfloat16 ]] ||
        convtext_fail "CONVTEXT_PRECISION must be float32 or bfloat16; found $chosen."
    mkdir -p "$1"
    if [[ ! -s "$1/precision" ]]; then
        if [[ -z "$chosen" ]]; then
            if convtext_bfloat16_is_faster; then chosen=bfloat16; else chosen=float32; fi
        fi
        echo "$chosen" >"$1/precision.part"
        mv "$1/precision.part" "$1/precision"
    fi
    cat "$1/precision"
}

# Whether this machine's processor, or its GPU if it has one, computes faster in bfloat16 than in float32.
convtext_bfloat16_is_faster() {
    local answer
    answer="$("$PYTHON" - "$ROOT/fairseq_convtext/modules/precision.py" <<'PYTHON'
import runpy
import sys

import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
print(runpy.run_path(sys.argv[1])["bfloat16_is_faster"](device))
PYTHON
    )" || convtext_fail "cannot try out whether bfloat16 is faster."
    [[ "$answer" == True ]]
}

# convtext_newer RESULT SOURCE...: whether RESULT is there, complete, and younger than what it is made from.
convtext_newer() {
    local result="$1" source
    shift
    [[ -s "$result" ]] || return 1
    for source in "$@"; do
        [[ "$result" -nt "$source" ]] || return 1
    done
    echo "$result exists and is kept" >&2
}

# convtext_language_model OUT [LANGUAGE]: the n-gram model OUT/lm.LANGUAGE.pt of the training targets (default: de).
convtext_language_model() {
    local language="${2:-de}"
    convtext_newer "$1/lm.$language.pt" "$1/bin/dict.$language.txt" ||
        convtext_run "$PYTHON" "$ROOT/scripts/train_ngram.py" --dictionary "$1/bin/dict.$language.txt" \
            --out "$1/lm.$language.pt" --perplexity "$1/pieces/valid.$language" "$1/pieces/train.$language" >&2
}

# convtext_tune_penalty BIN CHECKPOINT REFERENCE FLAGS: the blank penalty that is best on the validation set, as flags
# of fairseq-generate, one a line, to the file FLAGS.
convtext_tune_penalty() {
    convtext_newer "$4" "$2" && return
    mkdir -p "${4%/*}"
    convtext_run "$PYTHON" "$ROOT/scripts/tune_blank_penalty.py" "$1" --path "$2" --reference "$3" >"$4.part"
    printf -- "--model-overrides={'blank_penalty': %s}\n" "$(<"$4.part")" >"$4.flags"
    rm "$4.part"
    mv "$4.flags" "$4"
}

# convtext_tune_search BIN CHECKPOINT REFERENCE FLAGS LM FLAG...: the same for the search with the language model LM.
convtext_tune_search() {
    local flags="$4" lm="$5"
    convtext_newer "$flags" "$2" "$lm" && return
    mkdir -p "${flags%/*}"
    convtext_run "$PYTHON" "$ROOT/scripts/tune_search.py" "$1" --path "$2" --reference "$3" --lm "$lm" "${@:6}" \
        >"$flags.part"
    mv "$flags.part" "$flags"
}

# convtext_tune_judges BIN CHECKPOINT REFERENCE FLAGS SEARCH JUDGE...: the flags in the file SEARCH with a beam of 30, for the
# search alone gains less than 0.1 by it, and those by which the judges, checkpoints, choose best among what that finds in
# the validation set.
convtext_tune_judges() {
    local flags="$4" search="$5" judges
    judges="$(IFS=: && echo "${*:6}")"
    # Other judges than last time may be older than what those gave.
    { [[ ! -e "$flags" ]] || grep -qxF -- "--ctc-judges=$judges" "$flags"; } &&
        convtext_newer "$flags" "$2" "$search" "${@:6}" && return
    mkdir -p "${flags%/*}"
    convtext_run "$PYTHON" "$ROOT/scripts/tune_judges.py" "$1" --path "$2" --reference "$3" --search "$search" \
        --beam 30 --judges "${@:6}" >"$flags.part"
    mv "$flags.part" "$flags"
}

# convtext_translate BIN CHECKPOINT SUBSET OUTPUT FLAGS: all sentences of the subset to OUTPUT, with the flags of
# fairseq-generate in the file FLAGS, one a line.
convtext_translate() {
    local bin="$1" checkpoint="$2" subset="$3" output="$4" flags
    convtext_newer "$output" "$checkpoint" "$5" && return
    mapfile -t flags <"$5"
    convtext_run fairseq-generate "$bin" --user-dir "$ROOT/fairseq_convtext" --task translation_convtext \
        --path "$checkpoint" --gen-subset "$subset" --batch-size 64 --num-workers 0 --beam 1 \
        --remove-bpe sentencepiece --log-format none "${flags[@]}" >"$output.part" 2>"$output.log" || {
        tail -n 3 "$output.log" >&2
        convtext_fail "fairseq-generate failed, see $output.log."
    }
    mv "$output.part" "$output"
}
