#!/usr/bin/env bash
# Prepares WMT14 English-German for fairseq-train: downloads, cleans, splits into subwords, binarises, and counts.
#
# Usage: scripts/prepare_wmt14_en_de.sh [OPTION VALUE]...
#   --route raw|tokenised    raw (default): text as it is, joint sentencepiece of 32,000 pieces. tokenised: the set-up
#                            of the papers, Moses tokens and joint BPE of 40,000 merges
#   --direction en-de|de-en  (default: en-de)
#   --vocabulary N           size of the joint subword vocabulary, in place of the above
#   --news-commentary v9|v12 v9 (default) is the WMT14 set; v12 makes the set of papers that say WMT14 and model it on
#                            WMT17 (fairseq's own recipe without --icml17): say which one a score belongs to
#   --out FOLDER             where everything is written (default: data-bin/wmt14_en_de and so on, by the options)
#   --downloads FOLDER       the archives, 1.7 GB (default: data-bin/wmt14_downloads)
#   --mirror PLACE           folder, file:///... or https://... that holds the archives by their file names
#   --expected FILE          sizes, digests and pairs in place of the official ones; scripts/wmt14_sources.py list
#   --corpus PREFIX          PREFIX.en and PREFIX.de in place of all that is downloaded; needs the next two and --out
#   --valid PREFIX, --test PREFIX
#   --workers N              processes (default: all processors)
#   --shard-pairs N          pairs that a worker takes at once (default: 100000)
#   --sentences N            lines that sentencepiece learns from (default: 4000000; 0 is all)
#   --no-disk-check          do not ask beforehand whether the disk is large enough
# Killed and started again with the same options, it goes on where it was. Ends with bin/ for fairseq-train, text/ and
# pieces/ beside it, reference/ with valid and test to score against, raw/ with the text as it was downloaded, and a
# table, which is also in OUT/table.txt.
set -euo pipefail

usage_error() {
    echo "error: $*" >&2
    exit 2
}

route=raw direction=en-de vocabulary="" version=v9 out="" downloads="" mirror="" expected="" disk_check=yes
corpus="" valid="" test="" workers="" shard_pairs=100000 sentences=4000000
while [[ $# -gt 0 ]]; do
    case "$1" in
        -h | --help)
            sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --no-disk-check)
            disk_check=no
            shift
            continue
            ;;
    esac
    [[ $# -ge 2 ]] || usage_error "$1 needs a value, or is unknown; see $0 --help."
    case "$1" in
        --route) route="$2" ;;
        --direction) direction="$2" ;;
        --vocabulary) vocabulary="$2" ;;
        --news-commentary) version="$2" ;;
        --out) out="$2" ;;
        --downloads) downloads="$2" ;;
        --mirror) mirror="$2" ;;
        --expected) expected="$2" ;;
        --corpus) corpus="$2" ;;
        --valid) valid="$2" ;;
        --test) test="$2" ;;
        --workers) workers="$2" ;;
        --shard-pairs) shard_pairs="$2" ;;
        --sentences) sentences="$2" ;;
        *) usage_error "unknown argument $1; see $0 --help." ;;
    esac
    shift 2
done
[[ "$route" == raw || "$route" == tokenised ]] || usage_error "--route is raw or tokenised; found $route."
[[ "$direction" == en-de || "$direction" == de-en ]] || usage_error "--direction is en-de or de-en; found $direction."
[[ "$version" == v9 || "$version" == v12 ]] || usage_error "--news-commentary is v9 or v12; found $version."
[[ -n "$vocabulary" ]] || { [[ "$route" == raw ]] && vocabulary=32000 || vocabulary=40000; }
workers="${workers:-$(getconf _NPROCESSORS_ONLN)}"
for number in "$vocabulary" "$workers" "$shard_pairs"; do
    [[ "$number" =~ ^[1-9][0-9]*$ ]] ||
        usage_error "--vocabulary, --workers and --shard-pairs are numbers above 0; found $number."
done
[[ "$sentences" =~ ^[0-9]+$ ]] || usage_error "--sentences is a number; found $sentences."
if [[ -n "$corpus$valid$test" ]]; then
    [[ -n "$corpus" && -n "$valid" && -n "$test" && -n "$out" ]] ||
        usage_error "--corpus, --valid, --test and --out go together; one of them is missing."
    for option in corpus valid test; do
        prefix="${!option}"
        [[ -f "$prefix.en" && -f "$prefix.de" ]] ||
            { echo "error: expected the files $prefix.en and $prefix.de, found none or one." >&2; exit 1; }
        # The same from any folder, for the settings too.
        printf -v "$option" %s "$(cd "$(dirname "$prefix")" && pwd)/${prefix##*/}"
    done
fi
[[ -z "$out" ]] || out="$(mkdir -p "$out" && cd "$out" && pwd)"
[[ -z "$downloads" ]] || downloads="$(mkdir -p "$downloads" && cd "$downloads" && pwd)"

source "$(dirname "${BASH_SOURCE[0]}")/lib/env.sh"
source "$ROOT/scripts/lib/recipe.sh"
source_language="${direction%-*}" target_language="${direction#*-}"
if [[ -z "$out" ]]; then
    out="$ROOT/data-bin/wmt14_${source_language}_$target_language"
    [[ "$version" == v9 ]] || out+="_nc12"
    [[ "$route" == raw ]] || out+="_tokenised"
fi
downloads="${downloads:-$ROOT/data-bin/wmt14_downloads}"
data="WMT14, News Commentary $version "
[[ -z "$corpus" ]] || data="$corpus $valid $test cksum=$(cat {"$corpus","$valid","$test"}.{en,de} | cksum)"
convtext_settings "$out" "route=$route direction=$direction vocabulary=$vocabulary shard-pairs=$shard_pairs" \
    "sentences=$sentences data=$data"
sources_py() {
    "$PYTHON" "$ROOT/scripts/wmt14_sources.py" "$@" --news-commentary "$version" ${expected:+--expected "$expected"} \
        ${mirror:+--mirror "$mirror"} ${corpus:+--corpus "$corpus"} --downloads "$downloads" --out "$out" \
        --raw "$out/raw" --route "$route" --source-language "$source_language"
}

# Subwords of OUT/text (tokenised: and of OUT/clean/train), each file once, to OUT/pieces.
subwords_raw() {
    convtext_run "$PYTHON" "$ROOT/scripts/subwords.py" train --model "$out/spm.model" --vocabulary "$vocabulary" \
        --sentences "$sentences" "$out/text/train.en" "$out/text/train.de"
    convtext_run "$PYTHON" "$ROOT/scripts/subwords.py" encode --model "$out/spm.model" --out "$out/pieces" \
        "$out"/text/{train,valid,test}.{en,de}
}

# bpe FROM TO: one file, unless it is there.
bpe() {
    [[ ! -e "$2" ]] || return 0
    mkdir -p "${2%/*}"
    convtext_run subword-nmt apply-bpe --codes "$out/bpe.codes" --num-workers "$workers" --input "$1" \
        --output "$2.part"
    mv "$2.part" "$2"
}

subwords_tokenised() {
    local language split
    if [[ ! -e "$out/bpe.codes" ]]; then
        # One stream of both languages: the vocabulary is joint.
        cat "$out"/clean/train.{en,de} | convtext_run subword-nmt learn-bpe --symbols "$vocabulary" \
            --output "$out/bpe.codes.part" 2>"$out/bpe.log" ||
            convtext_fail "subword-nmt learn-bpe failed, see $out/bpe.log."
        mv "$out/bpe.codes.part" "$out/bpe.codes"
    fi
    for language in en de; do
        for split in valid test; do
            bpe "$out/text/$split.$language" "$out/pieces/$split.$language"
        done
    done
    if [[ ! -e "$out/counts.json" ]]; then
        bpe "$out/clean/train.en" "$out/encoded/train.en"
        bpe "$out/clean/train.de" "$out/encoded/train.de"
        convtext_run "$PYTHON" "$ROOT/scripts/wmt14_lengths.py" --text "$out/clean/train" \
            --pieces "$out/encoded/train" --counts "$out/clean/counts.json" --out "$out"
    fi
    rm -rf "$out/encoded" "$out/clean"
}

clean_py() {
    convtext_run "$PYTHON" "$ROOT/scripts/wmt14_clean.py" "$1" --route "$route" "${@:2}" >&2
}

if [[ ! -d "$out/bin" ]]; then
    [[ "$disk_check" == no ]] || sources_py disk >&2
    if [[ -z "$corpus" ]]; then
        convtext_step "Sources"
        [[ "$version" == v9 ]] ||
            echo "News Commentary v12 in place of v9: the WMT17-modelled set, not the WMT14 one" >&2
        sources_py fetch
        valid="$out/raw/newstest2013" test="$out/raw/newstest2014"
    fi
    convtext_step "Cleaning"
    training=()
    if [[ -n "$corpus" ]]; then
        training+=(--source "${corpus##*/}=$corpus")
    else
        for name in $(sources_py names); do
            training+=(--source "$name=$out/raw/$name")
        done
    fi
    clean_py heldout "$valid" "$out/text/valid" "$out/reference/valid"
    clean_py heldout "$test" "$out/text/test" "$out/reference/test"
    # On the tokenised route the length filters come after the subwords, and they write text/train.
    train="$out/text" counts="$out/counts.json"
    [[ "$route" == raw ]] || train="$out/clean" counts="$out/clean/counts.json"
    [[ -e "$out/counts.json" ]] || clean_py train "${training[@]}" --shards "$out/shards" --out "$train/train" \
        --counts "$counts" --workers "$workers" --shard-pairs "$shard_pairs"
    convtext_step "Subwords"
    "subwords_$route" >&2
    convtext_step "Binarising"
    convtext_preprocess "$out" "$source_language" "$target_language" "$workers" test
fi

if [[ ! -s "$out/table.txt" ]]; then
    "$PYTHON" "$ROOT/scripts/wmt14_report.py" "$out" "$source_language" "$target_language" >"$out/table.txt.part"
    mv "$out/table.txt.part" "$out/table.txt"
fi
printf '\n'
cat "$out/table.txt"
printf '\nReady: %q %q\n' "$(command -v fairseq-train)" "$out/bin"
