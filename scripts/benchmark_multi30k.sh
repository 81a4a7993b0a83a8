#!/usr/bin/env bash
# Trains and scores systems on Multi30k English-German, all from the same raw text and subwords, in one table.
#
# Usage: scripts/benchmark_multi30k.sh DATA [--out FOLDER] [--rows ROW,ROW,...] [--updates N] [--seed N] [--distilled BIN]
#        [--from CHECKPOINT] [--teacher CHECKPOINT] [--lr RATE] [--average N] [--judges CHECKPOINT,...]
#   DATA            folder with train, val, test_2016_flickr and test_2017_flickr, each .en and .de, raw text
#   --out FOLDER    where everything is written (default: data-bin/multi30k)
#   --rows ROWS     which systems, or none to print the table only (default: all but less-dropout, short-canvas, shallow, dynamic-*)
#                     transformer  Transformer-Tiny, 8,000 updates of 4,096 tokens, last 10 checkpoints averaged
#                     fconv, lstm  fairseq's own, of similar size; batches of 4,096 tokens
#                     position     bytenet_deconv_tiny with --target-alignment position
#                     ctc          with CTC; each of the next is ctc with one step more
#                     bytenet      with the bottleneck blocks of ByteNet, 15 and 10 of them, and 256 channels
#                     dynamic      with dynamic convolutions of 7 weights, 6 and 4 blocks
#                     glancing, feedback, word-dropout, consistency
#                     less-dropout for the large data of scripts/distill_multi30k.sh
#                     short-canvas less-dropout with 1.5 S + 2 canvas positions in the place of 2 S: faster
#                     shallow      less-dropout with 5 and 3 blocks in the place of 6 and 4: faster; --from is best what
#                                  scripts/first_blocks.py keeps of a less-dropout
#                     best         consistency and word-dropout together
#                     dag          a directed acyclic graph on 3 S + 2 canvas positions in the place of CTC
#                     dag-glancing the same with glancing
#                     autoregressive  the sibling: six causal blocks, as wide, on the same encoder
#                     channel      word-dropout from German to English, only trained: a judge for the others
#                     dynamic-autoregressive, dynamic-channel  these two with the dynamic convolutions of dynamic
#   --updates N     updates of all rows but transformer; those of this project take 2,048 tokens (default: 2400)
#   --seed N        (default: 1)
#   --distilled BIN train on what scripts/distill.sh made in place of the original pairs; BIN is FOLDER/bin, and the
#                   rows are called after FOLDER
#   --from CKPT     rows of CTC and graphs and autoregressive begin with the weights of CKPT, such as the average of a row on other
#                   data, and half the learning rate; needs --distilled, which the row is called after
#   --teacher CKPT  rows of CTC are taught by the canvas of CKPT too, such as the average of a row that is better and slower, and
#                   are called "taught"
#   --lr RATE       of the rows of this project (default: 2e-3, with --from 1e-3)
#   --average N     of how many of its best checkpoints such a row has the average, if there are as many (default: 5)
#   --judges CKPT,CKPT,...  models that choose among the 30 best of the search with the n-gram model, such as averages of
#                   other seeds or the rows autoregressive and channel: one way of decoding more, for rows of CTC and graphs
# Rows of CTC and graphs are decoded greedily, by their best checkpoint and by the average of the five best (one every 300
# updates; of all where there are fewer; --average), and by that average in a search without and with an n-gram model; position
# greedily by its best checkpoint, autoregressive greedily and with beam 5 by its average. Killed and started again, it
# goes on where it was; the table has the rows that were asked for, with --rows none all that are there. Trainings compute
# in bfloat16 where that is faster, which makes other networks; CONVTEXT_PRECISION=float32 has all of them in float32.
# Checkpoints, blank penalty and search weights are chosen by BLEU on val; the tests are
# translated with that choice only.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/arguments.sh"

if [[ $# -eq 0 || "$1" == -h || "$1" == --help ]]; then
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit $(($# == 0 ? 2 : 0))
fi
data="$1" out="" rows=transformer,fconv,lstm,position,ctc,bytenet,dynamic,glancing,feedback,word-dropout,consistency,best
rows+=,dag,dag-glancing,autoregressive,channel
updates=2400 seed=1 distilled="" from="" teacher="" lr="" averaged=5 judges=()
shift
while [[ $# -gt 0 ]]; do
    [[ $# -ge 2 ]] || { echo "error: $1 needs a value." >&2; exit 2; }
    case "$1" in
        --out) out="$2" ;;
        --rows) rows="$2" ;;
        --updates) updates="$2" ;;
        --seed) seed="$2" ;;
        --distilled) distilled="$2" ;;
        --from) from="$2" ;;
        --teacher) teacher="$2" ;;
        --lr) lr="$2" ;;
        --average) averaged="$2" ;;
        --judges) IFS=, read -r -a judges <<<"$2" ;;
        *)
            echo "error: unknown argument $1; see $0 --help." >&2
            exit 2
            ;;
    esac
    shift 2
done
[[ "$updates" =~ ^[1-9][0-9]*$ ]] || { echo "error: --updates must be a number from 1 on; found $updates." >&2; exit 2; }
[[ "$seed" =~ ^[1-9][0-9]*$ ]] || { echo "error: --seed must be a number from 1 on; found $seed." >&2; exit 2; }
[[ -z "$lr" || "$lr" =~ ^[0-9]*\.?[0-9]+(e-?[0-9]+)?$ ]] ||
    { echo "error: --lr must be a number such as 1e-3; found $lr." >&2; exit 2; }
[[ "$averaged" =~ ^([1-9]|10)$ ]] ||
    { echo "error: --average must be from 1 to 10, as many as are kept; found $averaged." >&2; exit 2; }
data="$(convtext_multi30k_folder "$data")"
[[ -z "$out" ]] || out="$(mkdir -p "$out" && cd "$out" && pwd)"
if [[ -n "$distilled" ]]; then
    [[ -f "$distilled/DISTILLED" ]] || { echo "error: $distilled was not made by scripts/distill.sh." >&2; exit 1; }
    distilled="$(cd "$distilled" && pwd)"
fi

if [[ -n "$from" ]]; then
    [[ -n "$distilled" ]] || { echo "error: --from needs --distilled, other data than CKPT was trained on." >&2; exit 2; }
    from="$(convtext_checkpoint "$from" --from)"
fi
[[ -z "$teacher" ]] || teacher="$(convtext_checkpoint "$teacher" --teacher)"
for number in "${!judges[@]}"; do
    judges[number]="$(convtext_checkpoint "${judges[number]}" --judges)"
done

source "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
source "$ROOT/scripts/lib/recipe.sh"
out="${out:-$ROOT/data-bin/multi30k}"

tests=(test_2016_flickr test_2017_flickr)
dag=(--target-alignment dag --criterion convtext_dag --upsample-strides 3 --length-bound-a 3 --length-bound-b 2
    --longest-jump 12)

# flags_of ROW: what the row adds to the common flags of its kind.
flags_of() {
    case "$1" in
        transformer) echo --arch transformer --encoder-layers 4 --decoder-layers 4 --encoder-embed-dim 128 \
            --decoder-embed-dim 128 --encoder-ffn-embed-dim 256 --decoder-ffn-embed-dim 256 \
            --encoder-attention-heads 4 --decoder-attention-heads 4 --share-all-embeddings \
            --lr 5e-3 --warmup-updates 2000 ;;
        fconv) echo --arch fconv --encoder-embed-dim 128 --decoder-embed-dim 128 --decoder-out-embed-dim 128 \
            --encoder-layers "[(128,3)]*6" --decoder-layers "[(128,3)]*6" --lr 2e-3 --warmup-updates 1000 --clip-norm 0.1 ;;
        lstm) echo --arch lstm --encoder-embed-dim 128 --decoder-embed-dim 128 --encoder-hidden-size 256 \
            --decoder-hidden-size 256 --decoder-out-embed-dim 128 --encoder-bidirectional \
            --lr 2e-3 --warmup-updates 1000 --clip-norm 1 ;;
        position | ctc) ;;
        bytenet) echo --encoder-block bytenet --encoder-channels 256 --encoder-layers 15 --decoder-layers 10 \
            --dilations 1,2,4,8,16 --length-bound-b 4 ;;
        dynamic) echo "${CONVTEXT_DYNAMIC[@]}" ;;
        glancing) echo --glancing-ratio "0.5:0.3@$updates" ;;
        feedback) echo --intermediate-ctc-layers 1,2 ;;
        word-dropout) echo --word-dropout 0.1 ;;
        channel) echo --word-dropout 0.1 --source-lang de --target-lang en ;;
        less-dropout) echo --spatial-dropout 0.1 ;;
        short-canvas) echo --spatial-dropout 0.1 --length-bound-a 1.5 --length-bound-b 2 ;;
        shallow) echo --spatial-dropout 0.1 --encoder-layers 5 --decoder-layers 3 ;;
        dag) echo "${dag[@]}" ;;
        dag-glancing) echo "${dag[@]}" --glancing-ratio "0.5:0.1@$updates" ;;
        # Every sentence is there twice: half the sentences, the same time.
        consistency) echo --consistency 0.2 --max-tokens 1024 ;;
        best) echo --consistency 0.2 --max-tokens 1024 --word-dropout 0.1 ;;
        autoregressive) echo --arch bytenet_tiny --encoder-block glu --encoder-channels 192 --encoder-layers 6 \
            --decoder-layers 6 --dilations 1,2,4,8 --dropout 0.2 --spatial-dropout 0.2 --word-dropout 0.1 ;;
        # Of flags that are there twice the last one counts.
        dynamic-autoregressive | dynamic-channel) echo "$(flags_of "${1#*-}")" "${CONVTEXT_DYNAMIC[@]}" ;;
        *) convtext_fail "--rows has an unknown row $1; see $0 --help." ;;
    esac
}
kind_of() {
    case "$1" in
        transformer | fconv | lstm) echo stock ;;
        *autoregressive) echo sibling ;;
        position | dag*) echo "${1%%-*}" ;;
        *) echo ctc ;;
    esac
}
chosen=()
[[ "$rows" == none ]] || IFS=, read -r -a chosen <<<"$rows"
for row in ${chosen[@]+"${chosen[@]}"}; do
    flags_of "$row" >/dev/null
    [[ -z "$from" || "$(kind_of "$row")" =~ ^(ctc|dag|sibling)$ ]] ||
        convtext_fail "--from is for the rows of CTC and graphs and for autoregressive; found $row in --rows."
    [[ -z "$teacher" || "$(kind_of "$row")" == ctc ]] ||
        convtext_fail "--teacher is for the rows of CTC; found $row in --rows."
    [[ (-z "$lr" && "$averaged" == 5) || "$(kind_of "$row")" != stock ]] ||
        convtext_fail "--lr and --average are for the rows of this project; found $row in --rows."
done

# translate_all BIN CHECKPOINT FOLDER: val and the tests with the flags in FOLDER/flags.
translate_all() {
    local bin="$1" checkpoint="$2" folder="$3" number
    convtext_translate "$bin" "$checkpoint" valid "$folder/valid.gen" "$folder/flags"
    # fairseq's names: test, test1, test2, ...
    for number in "${!tests[@]}"; do
        convtext_translate "$bin" "$checkpoint" "test${number#0}" "$folder/${tests[number]}.gen" "$folder/flags"
    done
}

# train_stock BIN FOLDER UPDATES FLAG...: the published recipe of Transformer-Tiny on Multi30k; what differs is in the flags.
train_stock() {
    local train_with="" precision
    precision="$(convtext_precision "$2")"
    [[ "$precision" == float32 ]] || train_with="$ROOT/scripts/lib/bfloat16_train.py"
    KEEP_CHECKPOINTS=10 TRAIN_WITH="$train_with" convtext_fit "${@:1:3}" --task translation --dropout 0.3 \
        --criterion label_smoothed_cross_entropy --label-smoothing 0.1 --lr-scheduler inverse_sqrt --max-tokens 4096 \
        --save-interval-updates 150 "${@:4}"
}

# train_sibling BIN FOLDER UPDATES FLAG...: the autoregressive model, the best checkpoint by valid loss.
train_sibling() {
    KEEP_CHECKPOINTS=10 convtext_fit_small "${@:1:3}" --criterion label_smoothed_cross_entropy --label-smoothing 0.1 \
        --warmup-updates 400 --max-tokens 2048 --save-interval-updates 300 "${@:4}"
}

# checkpoints_kept FOLDER MOST: how many there are to average; a training shorter than one interval has its best only.
checkpoints_kept() {
    local kept
    kept="$(find "$1/checkpoints" -name 'checkpoint_[0-9]*_[0-9]*.pt' | wc -l)"
    echo "$((kept < 1 ? 1 : kept < $2 ? kept : $2))"
}

# average FOLDER FLAG...: FOLDER/average.pt of the checkpoints that the flags choose.
average() {
    local folder="$1"
    shift
    convtext_newer "$folder/average.pt" "$folder/checkpoints/finished" ||
        convtext_run "$PYTHON" "$ROOT/scripts/average_checkpoints.py" "$folder/checkpoints" "$@" \
            --output "$folder/average.pt"
}

# flags_file FOLDER FLAG...: FOLDER/flags, unless it is there.
flags_file() {
    mkdir -p "$1"
    [[ -e "$1/flags" ]] || { printf '%s\n' "${@:2}" >"$1/flags.part" && mv "$1/flags.part" "$1/flags"; }
}

# tune_greedy CHECKPOINT FOLDER: FOLDER/flags, with the blank penalty where there are blanks.
tune_greedy() {
    if [[ "$kind" == ctc ]]; then
        convtext_tune_penalty "$out/bin" "$1" "$valid" "$2/flags"
    else
        flags_file "$2" --beam=1
    fi
}

# Texts, subwords, binarised data and n-gram model.
make_corpus() {
    local split language
    convtext_multi30k_settings "$out" "$data"
    mkdir -p "$out/text"
    for language in en de; do
        for split in train "${tests[@]}"; do
            ln -sf "$data/$split.$language" "$out/text/"
        done
        ln -sf "$data/val.$language" "$out/text/valid.$language"
    done
    convtext_binarise "$out/text" "$out" 4000 "${tests[@]}"
    convtext_language_model "$out"
}

convtext_step "Corpus"
mkdir -p "$out"
convtext_in_turn "$out/corpus.lock" make_corpus
((${#judges[@]} == 0)) || "$PYTHON" "$ROOT/scripts/rerank.py" "$out/bin" --source-lang en --target-lang de \
    --judges "${judges[@]}" --check
bin="${distilled:-$out/bin}" valid="$out/text/valid.de" data_name="" made_with=""
if [[ -n "$distilled" ]]; then
    cmp -s "$out/bin/dict.de.txt" "$distilled/dict.de.txt" ||
        convtext_fail "$distilled has another dictionary than $out/bin: distil the data of --out, with a teacher of its rows."
    made_with=" distilled=$distilled cksum=$(cat "$distilled"/train.*.bin | cksum)"
    data_name="-$(basename "${distilled%/*}")"
fi
[[ -z "$from" ]] || made_with+=" from=$from cksum=$(cksum <"$from")"
[[ -z "$teacher" ]] || made_with+=" teacher=$teacher cksum=$(cksum <"$teacher")" data_name+=-taught
[[ -z "$lr" ]] || made_with+=" lr=$lr"
((averaged == 5)) || made_with+=" averaged=$averaged"

# describe ROW: the kind of the row, its updates, its folder and what that is made with, in these variables.
describe() {
    kind="$(kind_of "$1")" count="$updates"
    [[ "$1" != transformer ]] || count=8000
    folder="$out/$1-$count-seed$seed$data_name"
    settings="$(flags_of "$1") updates=$count seed=$seed$made_with"
}
folders=()
for row in ${chosen[@]+"${chosen[@]}"}; do
    describe "$row"
    convtext_same_settings "$folder" "$settings"
    [[ "$row" == *channel ]] || folders+=("${folder##*/}")
done

for row in ${chosen[@]+"${chosen[@]}"}; do
    describe "$row"
    convtext_settings "$folder" "$settings"
    read -r -a flags <<<"$(flags_of "$row")"
    [[ -z "$from" ]] || flags+=(--finetune-from-model "$from")
    [[ -z "$from" && -z "$lr" ]] || flags+=(--lr "${lr:-1e-3}")
    [[ -z "$teacher" ]] || flags+=(--canvas-teacher "$teacher")
    convtext_step "Training $row ($count updates)"
    if [[ "$kind" == stock || "$kind" == sibling ]]; then
        "train_$kind" "$bin" "$folder" "$count" --seed "$seed" "${flags[@]}"
        if [[ "$kind" == stock ]]; then
            average "$folder" --last "$(checkpoints_kept "$folder" 10)"
        else
            average "$folder" --best "$(checkpoints_kept "$folder" "$averaged")"
        fi
        flags_file "$folder/greedy" --task=translation --beam=1 --required-batch-size-multiple=1
        flags_file "$folder/beam-5" --task=translation --beam=5 --required-batch-size-multiple=1
        translate_all "$out/bin" "$folder/average.pt" "$folder/greedy"
        translate_all "$out/bin" "$folder/average.pt" "$folder/beam-5"
        continue
    fi
    [[ "$kind" != position ]] || flags+=(--target-alignment position --criterion label_smoothed_cross_entropy --label-smoothing 0.1)
    # scripts/length_bound_coverage.py: for CTC twice the source is enough for all but 5 of the training pairs.
    KEEP_CHECKPOINTS=10 convtext_train "$bin" "$folder" "$updates" --arch bytenet_deconv_tiny --length-bound-b 0 \
        --max-tokens 2048 --warmup-updates 400 --save-interval-updates 300 --seed "$seed" ${flags[@]+"${flags[@]}"}
    average "$folder" --best "$(checkpoints_kept "$folder" "$averaged")"
    [[ "$row" != *channel ]] || continue
    convtext_step "Translating with $row"
    best="$folder/checkpoints/checkpoint_best.pt"
    if [[ "$kind" == position ]]; then
        tune_greedy "$best" "$folder/greedy"
        translate_all "$out/bin" "$best" "$folder/greedy"
        continue
    fi
    tune_greedy "$best" "$folder/greedy"
    translate_all "$out/bin" "$best" "$folder/greedy"
    tune_greedy "$folder/average.pt" "$folder/averaged-greedy"
    translate_all "$out/bin" "$folder/average.pt" "$folder/averaged-greedy"
    convtext_tune_search "$out/bin" "$folder/average.pt" "$valid" "$folder/averaged-search/flags" "$out/lm.de.pt" --weights 0
    translate_all "$out/bin" "$folder/average.pt" "$folder/averaged-search"
    convtext_tune_search "$out/bin" "$folder/average.pt" "$valid" "$folder/averaged-search-lm/flags" "$out/lm.de.pt"
    translate_all "$out/bin" "$folder/average.pt" "$folder/averaged-search-lm"
    ((${#judges[@]} != 0)) || continue
    convtext_tune_judges "$out/bin" "$folder/average.pt" "$valid" "$folder/averaged-search-lm-judged/flags" \
        "$folder/averaged-search-lm/flags" "${judges[@]}"
    translate_all "$out/bin" "$folder/average.pt" "$folder/averaged-search-lm-judged"
done

# A channel model has no translations to tell of.
[[ "$rows" != none && ${#folders[@]} == 0 ]] ||
    "$PYTHON" "$ROOT/scripts/benchmark_table.py" "$out" ${folders[@]+"${folders[@]}"}
