#!/usr/bin/env bash
# Sequence-level distillation: replaces the training targets of a binarised corpus by a teacher's translations of the
# training source. A student that is trained on them has fewer ways to say the same to choose from.
#
# Usage: scripts/distill.sh --data BIN --path CHECKPOINT --out FOLDER [OPTION...] [-- FLAG OF fairseq-generate...]
#   --data BIN         folder that fairseq-preprocess made, which the teacher was trained on
#   --path CHECKPOINT  the teacher, any model of fairseq or of this project
#   --out FOLDER       FOLDER/bin is made: the teacher's dictionaries, the source as it was, the distilled targets;
#                      valid and test are the original references. FOLDER/bin/DISTILLED says what it is.
#   --more-source FILE more source sentences for the teacher, in the subwords of BIN, one a line: no reference is
#                      needed, so they may be sampled (scripts/sample_sentences.py). They come after those of BIN.
#   --references N     self-training: the pairs of BIN stay, N times each, and only --more-source is translated
#   --judge CHECKPOINT a model that helps to choose among the teacher's translations of each sentence, as
#                      scripts/rerank.py does, on the CPU; may be given several times
#   --nbest N          translations that the judges choose from (default: 5)
#   --shards N         pieces that the work is cut into; one that is finished is never done again (default: 16)
#   --workers N        shards that are translated at the same time, on GPUs in turn where there are any (default: 1)
#   --beam N           (default: 5)
#   --max-tokens N     source tokens in a batch (default: 4000)
#   --cpu              no GPUs
# Killed and started again, it goes on with the shards that are missing.
set -euo pipefail

if [[ $# -eq 0 || "$1" == -h || "$1" == --help ]]; then
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit $(($# == 0 ? 2 : 0))
fi
usage_error() {
    echo "error: $*; see $0 --help." >&2
    exit 2
}
data="" path="" out="" more_source="" references=0 judges=() nbest=5 shards=16 workers=1 beam=5 max_tokens=4000 extra=()
while [[ $# -gt 0 ]]; do
    case "$1" in
        --cpu) extra+=(--cpu); shift; continue ;;
        --) shift; extra+=("$@"); break ;;
        --data | --path | --out | --more-source | --references | --judge | --nbest | --shards | --workers | --beam | --max-tokens) ;;
        *) usage_error "unknown argument $1" ;;
    esac
    [[ $# -ge 2 && -n "$2" ]] || usage_error "$1 needs a value"
    case "$1" in
        --data) data="$2" ;;
        --path) path="$2" ;;
        --out) out="$2" ;;
        --more-source) more_source="$2" ;;
        --judge) judges+=("$2") ;;
        *)
            [[ "$2" =~ ^[1-9][0-9]*$ ]] || usage_error "$1 must be a number from 1 on; found $2"
            name="${1#--}"
            printf -v "${name//-/_}" %s "$2"
            ;;
    esac
    shift 2
done
for option in data path out; do [[ -n "${!option}" ]] || usage_error "--$option is missing"; done
for flag in ${extra[@]+"${extra[@]}"}; do
    case "${flag%%=*}" in
        --remove-bpe | --post-process | --skip-invalid-size-inputs-valid-test | --required-batch-size-multiple | \
            --gen-subset | --nbest | --quiet | --results-path | --distributed-*)
            usage_error "${flag%%=*} after -- would lose sentences or their subwords" ;;
        --beam | --max-tokens) usage_error "${flag%%=*} goes before --" ;;
        --lenpen | --unnormalized)
            ((${#judges[@]} == 0)) || usage_error "${flag%%=*} after -- would mislead the judges about the scores" ;;
    esac
done
((references == 0)) || [[ -n "$more_source" ]] || usage_error "--references keeps the targets of BIN: give --more-source too"
((${#judges[@]})) || nbest=1
((nbest <= beam)) || [[ "${extra[*]-}" == *--ctc-beam* ]] ||
    usage_error "--nbest $nbest asks for more translations than --beam $beam holds: raise --beam"
((${#judges[@]} == 0 || nbest > 1)) || usage_error "--judge needs an --nbest of 2 or more to choose from"
[[ -f "$path" ]] || { echo "error: no checkpoint $path." >&2; exit 1; }
[[ -z "$more_source" || -f "$more_source" ]] || { echo "error: no file $more_source (--more-source)." >&2; exit 1; }
pair=""
for file in ${judges[@]+"${judges[@]}"}; do
    [[ -f "$file" ]] || { echo "error: no checkpoint $file (--judge)." >&2; exit 1; }
done
for file in "$data"/train.*-*.*.idx; do
    [[ -e "$file" ]] || { echo "error: $data has no train.*.idx: expected what fairseq-preprocess made." >&2; exit 1; }
    pair="${file##*/train.}"
    pair="${pair%%.*}"
done
for file in "$data"/train[0-9]*.idx; do
    [[ ! -e "$file" ]] || {
        echo "error: $data has more training data, ${file##*/}, which fairseq-train would add as they are: put all into train." >&2
        exit 1
    }
done
[[ ! -e "$data/DISTILLED" ]] || { echo "error: $data is distilled already, see $data/DISTILLED." >&2; exit 1; }
source_lang="${pair%-*}" target_lang="${pair#*-}"
data="$(cd "$data" && pwd)" path="$(cd "$(dirname "$path")" && pwd)/${path##*/}"
mkdir -p "$out"
out="$(cd "$out" && pwd)"

source "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
source "$ROOT/scripts/lib/recipe.sh"

# The workers hold the lock too: it tells of those that outlived a script that was killed.
exec 8>"$out/lock"
! command -v flock >/dev/null || flock -n 8 ||
    convtext_fail "another distill.sh, or a worker of one that was killed, is at work in $out: stop it first."
# Before the folder remembers them; they are at work only when there are translations.
((${#judges[@]} == 0)) || [[ -e "$out/settings" ]] || "$PYTHON" "$ROOT/scripts/rerank.py" "$data" --source-lang "$source_lang" \
    --target-lang "$target_lang" --judges "${judges[@]}" --check
teacher="$(cksum <"$path")"
# The data by what they are: sentences are told by their numbers, which other data of the same name have too.
more="data $(cat "$data"/train.*.bin "$data"/dict.*.txt | cksum)"
[[ -z "$more_source" ]] || more+=" source $(cksum <"$more_source")"
((references == 0)) || more+=" references $references"
for file in ${judges[@]+"${judges[@]}"}; do more+=" judge $(cksum <"$file")"; done
# (by-shard: an earlier version kept in a shard what its judges had still to choose from.)
((${#judges[@]} == 0)) || more+=" nbest $nbest by-shard"
# Language model and judges of the search, which the flags name, may be made anew under the same names.
for flag in ${extra[@]+"${extra[@]}"}; do
    IFS='=:' read -r -a words <<<"$flag"
    for file in ${words[@]+"${words[@]}"}; do
        [[ ! -f "$file" ]] || more+=" file $(cksum <"$file")"
    done
done
convtext_settings "$out" "data=$data teacher=$path cksum=${teacher// /-} shards=$shards beam=$beam" \
    "max_tokens=$max_tokens ${extra[*]-} more=${more// /-}"

gpus=0
[[ " ${extra[*]-} " == *" --cpu "* ]] || gpus="$("$PYTHON" -c 'import torch; print(torch.cuda.device_count())')"
# Those that this shell may use, by their names.
IFS=, read -r -a devices <<<"${CUDA_VISIBLE_DEVICES:-$(seq -s , 0 "$((gpus - 1))")}"

# translate SHARD: the shard's translations as lines `id TAB subwords`, to shards/SHARD. With judges the several of each
# sentence are `id TAB score TAB subwords` in shards/SHARD.nbest before that.
translate() {
    local shard="$1" file="$out/shards/$1" log="$out/shards/$1.log" made="$out/shards/$1" device=()
    [[ ! -e "$file" ]] || return 0
    ((${#judges[@]} == 0)) || made="$file.nbest"
    ((gpus == 0)) || device=(env "CUDA_VISIBLE_DEVICES=${devices[shard % gpus]}")
    # fairseq-generate passes over its own --num-shards; it cuts by what is the number of processes elsewhere.
    # Without subwords removed, for the student has the same ones; no sentence may be too long or left over.
    [[ -e "$made" ]] || ${device[@]+"${device[@]}"} fairseq-generate "$sources" --user-dir "$ROOT/fairseq_convtext" \
        --path "$path" --source-lang "$source_lang" --target-lang "$target_lang" --gen-subset train --beam "$beam" \
        --nbest "$nbest" --distributed-world-size "$shards" --distributed-rank "$shard" --max-len-a 1.5 --max-len-b 10 \
        --max-tokens "$max_tokens" --batch-size "$((expected / shards))" --required-batch-size-multiple 1 \
        --num-workers 0 --log-format none \
        ${extra[@]+"${extra[@]}"} 2>"$log" | awk -F '\t' -v nbest="$nbest" '/^H-/ { print substr($1, 3) "\t" (nbest > 1 ? $2 "\t" : "") $3 }' >"$made.part" || {
        tail -n 3 "$log" >&2
        convtext_fail "shard $shard failed, see $log; the same command goes on with what is missing."
    }
    [[ -e "$made" ]] || mv "$made.part" "$made"
    ((${#judges[@]} == 0)) || "$PYTHON" "$ROOT/scripts/rerank.py" "$sources" --source-lang "$source_lang" \
        --target-lang "$target_lang" --candidates "$made" --judges "${judges[@]}" --dtype auto --out "$file" 2>>"$log" || {
        tail -n 3 "$log" >&2
        convtext_fail "the judges failed on shard $shard, see $log; the same command goes on with what is missing."
    }
    echo "shard $shard of $shards: $(wc -l <"$file") translations" >&2
}

if [[ -d "$out/bin" ]]; then
    echo "$out/bin exists and is kept" >&2
    exit
fi
sources="$data" source_file="train.$pair.$source_lang"
more_sources=("$PYTHON" "$ROOT/scripts/more_sources.py" "$data/$source_file")
if [[ -n "$more_source" ]]; then
    sources="$out/sources"
    more_sources+=(--more "$more_source" --dictionary "$data/dict.$source_lang.txt")
fi
# Their number is written last: it says that they are there.
if [[ ! -s "$out/sentences" ]]; then
    added=()
    if [[ -n "$more_source" ]]; then
        convtext_step "Adding $more_source"
        rm -rf "$sources"
        mkdir "$sources"
        cp "$data"/dict.*.txt "$sources"
        added=(--out "$sources/$source_file" --copies "$((references == 0))")
    fi
    convtext_run "${more_sources[@]}" ${added[@]+"${added[@]}"} >"$out/sentences.part"
    mv "$out/sentences.part" "$out/sentences"
fi
expected="$(<"$out/sentences")"
# A shard without a sentence would make fairseq-generate fail.
((shards <= expected)) || shards="$expected"
convtext_step "Translating the training source ($shards shards, $workers at a time)"
mkdir -p "$out/shards"
failed=""
for ((shard = 0; shard < shards; shard++)); do
    # Once one has failed no more are started.
    while (($(jobs -rp | wc -l) >= workers)); do wait -n || failed=yes; done
    [[ -z "$failed" ]] || break
    translate "$shard" &
done
wait
for ((shard = 0; shard < shards; shard++)); do [[ -e "$out/shards/$shard" ]] || exit 1; done

convtext_step "Making $out/bin"
export LC_ALL=C
sort -n -s -k 1,1 "$out"/shards/*[0-9] >"$out/joined.part"
# Every id from 0 on, once.
awk -F '\t' -v expected="$expected" '$1 != NR - 1 { exit 1 } END { if (NR != expected) exit 1 }' "$out/joined.part" ||
    convtext_fail "the shards have $(wc -l <"$out/joined.part") sentences, of which" \
        "$(cut -f 1 "$out/joined.part" | uniq | wc -l) are different, and $sources/train has $expected:" \
        "remove $out/shards and start again."
rm -rf "$out/bin.part" "$out/targets.part"
mkdir "$out/bin.part"
((references == 0)) || convtext_run "${more_sources[@]}" --out "$out/bin.part/$source_file" --copies "$references" \
    --targets "$data/train.$pair.$target_lang" --target-dictionary "$data/dict.$target_lang.txt" \
    --target-text "$out/references.part" >/dev/null
{
    ((references == 0)) || cat "$out/references.part"
    cut -f 2 "$out/joined.part"
} >"$out/train.part"
mv "$out/train.part" "$out/train.$target_lang"
rm -f "$out/joined.part" "$out/references.part"
convtext_run fairseq-preprocess --only-source --source-lang "$target_lang" --target-lang "$source_lang" \
    --trainpref "$out/train" --srcdict "$data/dict.$target_lang.txt" --workers "$workers" \
    --destdir "$out/targets.part" >"$out/preprocess.log" 2>&1 ||
    convtext_fail "fairseq-preprocess failed, see $out/preprocess.log."
for suffix in bin idx; do
    made=("$out/targets.part"/train*."$suffix")
    mv "${made[0]}" "$out/bin.part/train.$pair.$target_lang.$suffix"
done
rm -r "$out/targets.part"
# Copies, no links: fairseq-preprocess writes into files that are there.
((references)) || cp "$sources/$source_file".* "$out/bin.part/"
for file in "$data"/dict.*.txt "$data"/{valid,test}*".$pair".*.{bin,idx}; do
    [[ ! -e "$file" || -e "$out/bin.part/${file##*/}" ]] || cp "$file" "$out/bin.part/"
done
kept=""
((references == 0)) || kept=" after the pairs of the data with their references, $references times each"
cat >"$out/bin.part/DISTILLED" <<EOF
The $target_lang side of train is no human translation: a teacher translated it from the $source_lang side,
$expected sentences, beam $beam${more_source:+, those of $more_source at the end}${kept:+;$kept}.
Valid and test are the original references.
data: $data
teacher: $path (cksum $teacher)
judges: ${judges[*]:-none}
flags: ${extra[*]:-none}
EOF
mv "$out/bin.part" "$out/bin"
echo "$out/bin: $expected distilled training sentences" >&2
