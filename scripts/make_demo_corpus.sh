#!/usr/bin/env bash
# Make data-bin/demo, the corpus that ships with the project, from three Debian packages.
#
# Only maintainers need this: the corpus is part of the repository. It runs on Debian and its relatives,
# without root, and gives the same bytes for the same packages.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
packages=(libreoffice-help-en-us libreoffice-help-de trans-de-en)
licence_texts=(MPL-2.0 Apache-2.0 GPL-2)
licence_folder=/usr/share/common-licenses
python=${PYTHON:-python3}
debs=
out=$root/data-bin/demo
work=$root/data-bin/demo-work

usage() {
    cat <<EOF
Usage: make_demo_corpus.sh [--debs DIR] [--out DIR] [--work DIR]
  --debs DIR  use the .deb files in DIR: ${packages[*]}
              (default: apt-get download them into the work folder)
  --out DIR   where the corpus goes (default: data-bin/demo of this checkout)
  --work DIR  where packages are kept and unpacked (default: data-bin/demo-work)
PYTHON names the interpreter (default: python3).
EOF
}

fail() {
    echo "make_demo_corpus.sh: error: $1" >&2
    exit "${2:-1}"
}

while [[ $# -gt 0 ]]; do
    case $1 in
        --debs | --out | --work)
            [[ $# -ge 2 ]] || fail "$1 needs a folder" 2
            case $1 in
                --debs) debs=$2 ;;
                --out) out=$2 ;;
                --work) work=$2 ;;
            esac
            shift 2
            ;;
        -h | --help) usage; exit 0 ;;
        *) fail "unknown argument: $1 (see --help)" 2 ;;
    esac
done

need() {
    command -v "$1" >/dev/null || fail "$1 is needed and was not found; $2"
}
need dpkg-deb "run this on Debian or a relative of it"
need sha256sum "install coreutils"
need "$python" "install Python 3.9 or later, or name one with PYTHON"
"$python" -c 'import lzma, sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null ||
    fail "$python must be Python 3.9 or later with the lzma module; name another one with PYTHON"
for text in "${licence_texts[@]}"; do
    [[ -f $licence_folder/$text ]] || fail "$licence_folder/$text is missing; run this on Debian"
done

# find_deb PACKAGE: set deb to its one .deb file in the folder debs, or to nothing.
find_deb() {
    local found=()
    shopt -s nullglob
    found=("$debs/$1"_*.deb)
    shopt -u nullglob
    [[ ${#found[@]} -le 1 ]] || fail "$debs has ${#found[@]} files of $1; keep the one to use"
    deb=${found[0]:-}
}

mkdir -p "$work"
unpacked=$work/demo-corpus-unpacked
if [[ -n $debs ]]; then
    [[ -d $debs ]] || fail "no such folder: $debs (--debs)"
else
    debs=$work/debs
    mkdir -p "$debs"
    for package in "${packages[@]}"; do
        find_deb "$package"
        if [[ -z $deb ]]; then
            need apt-get "put the .deb files into a folder and give it with --debs"
            echo "Downloading $package"
            (cd "$debs" && apt-get download "$package") ||
                fail "apt-get could not download $package; run apt-get update, or give .deb files with --debs"
        fi
    done
fi

rm -rf "$unpacked"
mkdir -p "$unpacked"
described=()
for package in "${packages[@]}"; do
    find_deb "$package"
    [[ -n $deb ]] || fail "$debs has no file ${package}_*.deb"
    version=$(dpkg-deb -f "$deb" Version) || fail "$deb is not a Debian package"
    echo "Unpacking $package $version"
    dpkg-deb -x "$deb" "$unpacked" || fail "$deb could not be unpacked; download it again"
    digest=$(sha256sum "$deb")
    described+=(--package "$package" "$version" "${digest%% *}")
done

share=$unpacked/usr/share
echo "Extracting, cleaning and splitting"
"$python" "$root/scripts/demo_corpus.py" build \
    --help-en "$share/libreoffice/help/en-US/text" \
    --help-de "$share/libreoffice/help/de/text" \
    --ding "$share/trans/de-en" \
    --out "$out" "${described[@]}"

mkdir -p "$out/licences"
for text in "${licence_texts[@]}"; do
    install -m 644 "$licence_folder/$text" "$out/licences/$text.txt"
done
for package in "${packages[@]}"; do
    install -m 644 "$share/doc/$package/copyright" "$out/licences/$package.copyright"
done
rm -rf "$unpacked"
echo "Done: $out"
