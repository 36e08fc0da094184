#!/bin/sh
# Which lines of the two headers do the tests run? Builds everything for gcov in a folder of its own, runs every
# test program there on every instruction set of this machine, and adds up over all files that include a header.
# At least 95 % each, and what is left out must be told in tests/uncovered.txt: one line of code each, as it stands
# in the header, below the reason. For those who look: the lines themselves are in $out/uncovered.
pass=0 fail=0 skip=0
root=$PWD/${BUILD:-build} out=${BUILD:-build}/coverage
ok() { echo "ok    $1"; pass=$((pass + 1)); }
bad() { echo "FAIL  $1"; fail=$((fail + 1)); }
command -v gcov >/dev/null || { echo "skip  no gcov here"; echo "## 0 0 1"; exit 0; }

find "$out" -name '*.gcda' -delete 2>/dev/null
case $out in /*) ;; *) out=$PWD/$out ;; esac
. tests/room.sh
make_room "$out/room"
# What is about the examples or the peers is left out: it takes long, and runs no line that the others do not.
programs=$(grep -L -e examples/llm -e bench/peers -e command.h -e bitstack/ tests/test_*.c | sed "s,tests/\(.*\)\.c,$out/tests/\1,")
make -s BUILD="$out" CC=gcc CFLAGS="-O1 -g --coverage" $programs >"$root/coverage.log" 2>&1 ||
    { bad "building for gcov"; tail -5 "$root/coverage.log"; }
for program in $programs; do
    (cd "$out/room" && BITSTACK_FULL= "$program") >>"$root/coverage.log" 2>&1 || echo "      (fails when built for gcov: $program)"
done

# One line per source line and object file: header, number, count (or 0); the greatest counts.
find "$out" -name '*.gcda' | while read -r data; do
    gcov -t -r -s "$PWD" "$data" 2>/dev/null
done | awk -v dir="$out" '
    /^ *-: *0:Source:/ { sub(/^.*Source:/, ""); sub(/^.*\//, ""); file = $0; next }
    file == "bitstack.h" || file == "bitstack_compress.h" {
        count = $0; sub(/:.*/, "", count); gsub(/[ *]/, "", count)
        number = $0; sub(/^[^:]*:/, "", number); sub(/:.*/, "", number); gsub(/ /, "", number)
        if (count == "-" || number == "0") next
        text = $0; sub(/^[^:]*:[^:]*:/, "", text); sub(/^ */, "", text)
        key = file ":" number
        if (!(key in line)) { line[key] = text; all[file]++ }
        if (count !~ /^[#=]/ && !(key in run)) { run[key] = 1; ran[file]++ }
    }
    END {
        while ((getline reason < "tests/uncovered.txt") > 0) if (reason !~ /^#/ && reason != "") told[reason] = 1
        for (key in line) if (!(key in run)) print (line[key] in told ? "told " : "new  ") key ":" line[key] | "sort -t: -k1,1 -k2,2n >" dir "/uncovered"
        close("sort -t: -k1,1 -k2,2n >" dir "/uncovered")
        for (file in all) print file, ran[file], all[file]
    }' | sort >"$out/summary"
while read -r file ran all; do
    percent=$(awk "BEGIN { printf \"%.1f\", 100 * $ran / $all }")
    echo "      $percent % of the lines of $file ($ran of $all)"
    if awk "BEGIN { exit !($ran >= 0.95 * $all) }"; then ok "$file: at least 95 % of the lines run"; else bad "$file: only $percent % of the lines run"; fi
done <"$out/summary"
[ "$(wc -l <"$out/summary")" -eq 2 ] || bad "no figures for both headers"
new=$(grep -c '^new ' "$out/uncovered")
if [ "$new" -eq 0 ]; then ok "every line that does not run is explained in tests/uncovered.txt"; else bad "$new lines that do not run are not explained"; grep '^new ' "$out/uncovered" | head -20; fi
echo "## $pass $fail $skip"
