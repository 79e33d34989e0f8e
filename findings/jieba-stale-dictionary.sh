#!/usr/bin/env bash
# jieba 0.42.1, the cache of a dictionary in the folder for temporary files.
# Expected: words are cut by the dictionary that is there. The project's README offers two ways to use another one:
# overwrite jieba/dict.txt, or jieba.set_dictionary(path).
# Seen, each in a process of its own after one that made the cache:
#   1. An overwritten jieba/dict.txt has no effect, although it is newer than the cache: the cache of the default
#      dictionary (jieba.cache, one for all environments of the machine) is never compared with it.
#   2. A dictionary of set_dictionary that is replaced by a file with an older time of change (cp -p, rsync -a, unpacked
#      from an archive) has no effect: only times are compared, neither size nor content.
# In both cases the new dictionary counts once the cache is removed.
# Exits 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check setuptools wheel
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation jieba==0.42.1
mkdir "$folder/tmp"
export TMPDIR="$folder/tmp"
status=0
cut() {
    "$folder/venv/bin/python" -W ignore - "$@" <<'PY'
import logging
import sys

import jieba

jieba.setLogLevel(logging.ERROR)
if sys.argv[1:]:
    jieba.set_dictionary(sys.argv[1])
print("/".join(jieba.cut("红苹果", HMM=False)))
PY
}
see() {  # what, the expected line, the line that was seen
    echo "$1: $3"
    [ "$2" = "$3" ] || { echo "changed: $2 was expected here"; status=1; }
}
printf '红 9 a\n苹果 9 n\n' > "$folder/apart"
printf '红苹果 9 n\n' > "$folder/whole"
touch -d '2020-01-02' "$folder/apart"
touch -d '2020-01-01' "$folder/whole"

default=$("$folder/venv/bin/python" -W ignore -c 'import jieba; print(jieba.get_dict_file().name)')
see "jieba/dict.txt as installed" "红/苹果" "$(cut)"
cat "$folder/whole" > "$default"  # newer than the cache
see "1. jieba/dict.txt overwritten" "红/苹果" "$(cut)"
rm "$TMPDIR"/jieba.*
see "   the same without the cache" "红苹果" "$(cut)"

cp -p "$folder/apart" "$folder/mine.txt"
see "set_dictionary" "红/苹果" "$(cut "$folder/mine.txt")"
cp -p "$folder/whole" "$folder/mine.txt"  # another content and size, older than the cache
see "2. its file replaced" "红/苹果" "$(cut "$folder/mine.txt")"
rm "$TMPDIR"/jieba.*
see "   the same without the cache" "红苹果" "$(cut "$folder/mine.txt")"
exit $status
