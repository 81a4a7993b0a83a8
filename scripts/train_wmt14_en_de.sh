#!/usr/bin/env bash
# Trains one system of the WMT14 comparison, each with the same updates of the same number of tokens, and averages
# its five checkpoints that are best by BLEU on the validation set. Killed and started again, it goes on.
#
# Usage: scripts/train_wmt14_en_de.sh --row ROW --data BIN --out FOLDER [OPTION...] [-- FLAG OF fairseq-train...]
#   --row ROW               bytenet_deconv (CTC, glancing), or autoregressive: transformer, fconv, bytenet
#   --data BIN              folder that fairseq-preprocess made
#   --out FOLDER            checkpoints, logs and checkpoint_average.pt; on many machines, a folder they share
#   --updates N             (default: 300000)
#   --tokens-per-update N   on all processes together, padding counted (default: 64000)
#   --tokens-per-gpu N      at a time in one process (default: 4000); what is missing is accumulated (--update-freq)
#   --gpus N                processes on each machine, a GPU each (default: 1)
#   --nodes N               machines (default: 1); run the same command once on each
#   --node-rank N --master HOST:PORT   number of this machine and an address of machine 0, where SLURM does not say
#   --save-every N          updates between checkpoints, each scored by BLEU (default: a tenth of all, at most 3000)
#   --arch ARCH             another size of the row's model, such as bytenet_deconv_tiny
#   --seed N                (default: 1)
#   --cpu                   no GPUs, no half precision for the stock models
#   --dry-run               print fairseq's flags and stop
# Four machines with eight GPUs each under SLURM:
#   srun --nodes=4 --ntasks-per-node=1 --gpus-per-node=8 --kill-on-bad-exit=1 scripts/train_wmt14_en_de.sh \
#       --row bytenet_deconv --data BIN --out FOLDER --nodes 4 --gpus 8 --tokens-per-gpu 2000
set -euo pipefail

if [[ $# -eq 0 || "$1" == -h || "$1" == --help ]]; then
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit $(($# == 0 ? 2 : 0))
fi
usage_error() {
    echo "error: $*; see $0 --help." >&2
    exit 2
}
row="" data="" out="" updates=300000 tokens=64000 tokens_per_gpu=4000 gpus=1 nodes=1 save_every="" arch="" seed=1
cpu=() place=() dry_run="" extra=()
while [[ $# -gt 0 ]]; do
    case "$1" in
        --cpu) cpu=(--cpu); shift; continue ;;
        --dry-run) dry_run=yes; shift; continue ;;
        --) shift; extra=("$@"); break ;;
    esac
    [[ "$1" == --* ]] || usage_error "unknown argument $1"
    [[ $# -ge 2 && -n "$2" ]] || usage_error "$1 needs a value, or is unknown"
    case "$1" in
        --updates | --tokens-per-update | --tokens-per-gpu | --gpus | --nodes | --save-every)
            [[ "$2" =~ ^[1-9][0-9]*$ ]] || usage_error "$1 must be a number from 1 on; found $2" ;;
    esac
    case "$1" in
        --row) row="$2" ;;
        --data) data="$2" ;;
        --out) out="$2" ;;
        --updates) updates="$2" ;;
        --tokens-per-update) tokens="$2" ;;
        --tokens-per-gpu) tokens_per_gpu="$2" ;;
        --gpus) gpus="$2" ;;
        --nodes) nodes="$2" ;;
        --node-rank | --master) place+=("$1" "$2") ;;
        --save-every) save_every="$2" ;;
        --arch) arch="$2" ;;
        --seed) seed="$2" ;;
        *) usage_error "unknown argument $1" ;;
    esac
    shift 2
done
for flag in ${extra[@]+"${extra[@]}"}; do
    case "${flag%%=*}" in
        --max-tokens | --batch-size | --update-freq | --max-update | --save-dir | --cpu)
            usage_error "${flag%%=*} after -- would undo what the options before it say" ;;
    esac
done
for option in row data out; do [[ -n "${!option}" ]] || usage_error "--$option is missing"; done
for file in "$data"/train.*-*.*.idx; do
    [[ -e "$file" ]] || { echo "error: $data has no train.*.idx: expected what fairseq-preprocess made." >&2; exit 1; }
    pair="${file##*/train.}"
    pair="${pair%%.*}" source="${pair%-*}" target="${pair#*-}"
done

# One update is tokens_per_gpu x processes x update_freq tokens, whatever the number of processes.
processes=$((gpus * nodes))
update_freq=$((tokens / (tokens_per_gpu * processes)))
if ((update_freq * tokens_per_gpu * processes != tokens)); then
    nearest=$(((update_freq > 0 ? update_freq : 1) * tokens_per_gpu * processes))
    remedy="give all rows --tokens-per-update $nearest"
    ((tokens % processes)) || remedy="choose a --tokens-per-gpu that divides $((tokens / processes)), or $remedy"
    echo "error: --tokens-per-update $tokens is not a multiple of --tokens-per-gpu $tokens_per_gpu times $processes" \
        "process(es), so that updates would have another size: $remedy." >&2
    exit 1
fi
save_every="${save_every:-$((updates < 30000 ? (updates + 9) / 10 : 3000))}"

data="$(cd "$data" && pwd)"
[[ "$out" == /* ]] || out="$PWD/$out"
source "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
source "$ROOT/scripts/lib/recipe.sh"

# What all rows share.
flags=(--user-dir "$ROOT/fairseq_convtext" --source-lang "$source" --target-lang "$target"
    --max-tokens "$tokens_per_gpu" --update-freq "$update_freq" --max-update "$updates"
    --optimizer adam --adam-betas '(0.9, 0.98)' --lr-scheduler inverse_sqrt --lr 5e-4 --ddp-backend legacy_ddp
    --eval-bleu --eval-bleu-detok space --best-checkpoint-metric bleu --maximize-best-checkpoint-metric
    --keep-best-checkpoints 5 --keep-interval-updates 1 --no-epoch-checkpoints --save-interval-updates "$save_every"
    --validate-interval 1000000 --validate-interval-updates "$save_every" --required-batch-size-multiple 1
    --num-workers "$((${#cpu[@]} ? 0 : 2))" --seed "$seed" --log-format simple --log-interval 50)
# The warm-up of the recipes that each row follows, but at most a tenth of a short training.
warmup() { echo $(($1 * 10 < updates ? $1 : (updates + 9) / 10)); }
stock=(--task translation --criterion label_smoothed_cross_entropy --label-smoothing 0.1 --dropout 0.1
    --warmup-updates "$(warmup 4000)" --eval-bleu-args '{"beam": 1, "max_len_a": 1.5, "max_len_b": 10}')
joined=()
if cmp -s "$data/dict.$source.txt" "$data/dict.$target.txt"; then joined=(--share-all-embeddings); fi
fp16=(--fp16)
[[ ${#cpu[@]} -eq 0 ]] || fp16=()
case "$row" in
    bytenet_deconv)
        arch="${arch:-bytenet_deconv_wmt_en_de}"
        # bfloat16 (auto: where it is faster) is for activations: parameters, losses and translation stay float32.
        flags+=(--task translation_convtext --target-alignment ctc --criterion convtext_ctc
            --glancing-ratio "0.5:0.3@$updates" --compute-dtype auto --weight-decay 0.01 --clip-norm 2
            --warmup-updates "$(warmup 10000)" --eval-bleu-args '{"beam": 1}' ${joined[@]+"${joined[@]}"})
        ;;
    bytenet)
        arch="${arch:-bytenet_wmt_en_de}"
        flags+=("${stock[@]}" --compute-dtype auto --clip-norm 2 ${joined[@]+"${joined[@]}"})
        ;;
    transformer)
        arch="${arch:-transformer_wmt_en_de}"
        flags+=("${stock[@]}" ${joined[@]+"${joined[@]}"} ${fp16[@]+"${fp16[@]}"})
        ;;
    fconv)
        # Its source embedding, target embedding and output have no common width to share a matrix.
        arch="${arch:-fconv_wmt_en_de}"
        flags+=("${stock[@]}" --clip-norm 0.1 ${fp16[@]+"${fp16[@]}"})
        ;;
    *) convtext_fail "--row must be bytenet_deconv, transformer, fconv or bytenet; found $row." ;;
esac
# BLEU on the validation set is of words, so the subwords of the data must be known.
if grep -q '^▁' "$data/dict.$target.txt"; then
    flags+=(--eval-bleu-remove-bpe sentencepiece)
elif grep -q '^[^ ]*@@ ' "$data/dict.$target.txt"; then
    flags+=(--eval-bleu-remove-bpe --eval-bleu-detok moses)
fi
flags+=(--arch "$arch" ${extra[@]+"${extra[@]}"})
echo "$processes process(es) x $tokens_per_gpu tokens x --update-freq $update_freq = $tokens tokens per update" >&2
[[ ! -e "$data/DISTILLED" ]] || echo "the training targets are distilled, see $data/DISTILLED" >&2
if [[ -n "$dry_run" ]]; then
    printf '%q ' "${flags[@]}"
    echo
    exit
fi

launch=("$PYTHON" "$ROOT/scripts/launch_training.py" --gpus "$gpus" --nodes "$nodes" ${place[@]+"${place[@]}"}
    ${cpu[@]+"${cpu[@]}"})
node_rank="$("${launch[@]}" --check "${flags[@]}")"
if [[ "$node_rank" == 0 ]]; then
    # Not the number of processes: a training may go on with another.
    convtext_settings "$out" "row=$row arch=$arch data=$data updates=$updates tokens=$tokens seed=$seed ${extra[*]-}"
fi
# fairseq would load a finished training and take one update more.
if [[ -f "$out/checkpoints/finished" ]]; then
    echo "$out/checkpoints is finished and is kept" >&2
else
    convtext_step "Training $row: $arch, $updates updates"
    if [[ "$node_rank" == 0 ]]; then
        convtext_mend_checkpoints "$out/checkpoints"
        # These are copies too, and what they were copied from may be gone: one that a kill cut off is left out.
        for copy in "$out/checkpoints"/checkpoint.best_bleu_*.pt; do
            [[ ! -e "$copy" ]] ||
                "$PYTHON" -c 'import sys, zipfile; sys.exit(not zipfile.is_zipfile(sys.argv[1]))' "$copy" || rm "$copy"
        done
    fi
    # Once for all processes, and for a training that goes on elsewhere.
    if [[ " ${flags[*]} " == *" --compute-dtype auto "* ]]; then
        precision="$([[ ${#cpu[@]} -eq 0 ]] || export CUDA_VISIBLE_DEVICES=""; convtext_precision "$out")"
        for index in "${!flags[@]}"; do [[ "${flags[index]}" != auto ]] || flags[index]="$precision"; done
    fi
    convtext_run "${launch[@]}" "$data" --save-dir "$out/checkpoints" --log-file "$out/train.log" "${flags[@]}"
    [[ "$node_rank" != 0 ]] || : >"$out/checkpoints/finished"
fi
[[ "$node_rank" == 0 ]] || exit 0

if [[ ! -s "$out/checkpoint_average.pt" ]]; then
    convtext_step "Averaging the best checkpoints"
    kept="$(find "$out/checkpoints" -name 'checkpoint.best_bleu_*.pt' | wc -l)"
    # Fewer are there after a short training, and where BLEU fell before the fifth was kept.
    convtext_run "$PYTHON" "$ROOT/scripts/average_checkpoints.py" "$out/checkpoints" \
        --best "$((kept < 5 ? kept : 5))" --output "$out/checkpoint_average.pt"
fi
echo "$out/checkpoint_average.pt"
