#!/bin/sh
# The machinery of `make real` on the demo model, with this repository's own texts: rows are measured once and make sense,
# tables and plots are those of the file byte for byte, and what is missing is named and changes nothing
build=${BUILD:-build} out=${BUILD:-build}/tests/real passed=0 failed=0
model=examples/models/books-6m-f16.gguf csv=$out/results/real.csv
rm -rf "$out"; mkdir -p "$out/results"

ok() { echo "ok    $1"; passed=$((passed + 1)); }
bad() { echo "FAIL  $1: $2"; failed=$((failed + 1)); }
check() { # NAME: the last command's status
    if [ $? -eq 0 ]; then ok "$1"; else bad "$1" "see $out/log and $csv"; fi
}
measure() {
    "$build/bench/real" "$csv" "$model" --calibrate examples/llm/model.h --calibration-rows 2 --rows 1 --text readme=README.md --text tests=tests/README.md "$@" \
        >>"$out/log" 2>&1
}
kl() { awk -F, -v s="$1" '$4 == s && $9 == "readme" { print $12 }' "$csv"; }
less() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && b != "" && a + 0 < b + 0) }'; }
bytes() { awk -F, -v s="$1" '$4 == s && $9 == "readme" { print $8 }' "$csv"; }
rows() { grep -c "$1" "$csv"; }

"$build/bitstack" compress "$model" -o "$out/m.bitstack" --compress-embeddings no --levels 3 --probe 8 >"$out/log" 2>&1 || bad "a stack" "could not be made"
size=$(wc -c <"$out/m.bitstack")
half=$((size * 15 / 20))
everything="full gptq mixed layers=$out/m.bitstack stack=$out/m.bitstack,half:$half,all:$((size * 17 / 20))" # no level uses more than that of a file
measure $everything
[ "$(rows '^quality,.*,readme,')" -ge 17 ] && [ "$(rows ,readme,)" = "$(rows ,tests,)" ]
check "peers, mixtures and a stack are measured on both texts"
less "$(kl gptq-8)" "$(kl gptq-4)" && less "$(kl gptq-4)" "$(kl gptq-2)" && [ "$(kl F16)" = 0 ]
check "more bits are better, full precision diverges from itself by nothing"
less "$(kl gptq-4)" "$(kl mixed-3.6)" && less "$(kl mixed-3.6)" "$(kl gptq-2)" &&
    awk -F, '$4 ~ /^mixed-/ { split($4, m, "-"); if ($6 > m[2] + 0.001) bad = 1 } END { exit bad }' "$csv"
check "a mixture has no more bits than it may, and lies between its neighbours"
less "$(bytes stack-at-half)" "$((half + 1))" && less "$(kl stack-at-all)" "$(kl stack-at-half)"
check "a stack keeps to its budget and is better with more"
cp "$csv" "$out/before"
measure $everything
cmp -s "$csv" "$out/before"
check "a second run measures nothing again"

printf 'top\n<!-- real -->\nold\n<!-- /real -->\nend\n' | tee "$out/a.md" >"$out/b.md"
report() { "$build/bench/real_report" "$@" "$out/results" "$out/a.md" "$out/b.md" 2>>"$out/log"; }
report && report --check && grep -q GPTQ "$out/b.md" && ! grep -q "^old" "$out/a.md"
check "tables come from the file, and are then what the check wants"
sed 's/\(gptq-4,.*readme,[0-9]*,\)/\11/' "$out/before" >"$csv"
! report --check
check "a figure that is not the file's is noticed"

{
    head -1 "$out/before"
    while read -r who bytes x y; do
        printf 'quality,file,%s,4,,%s,x,9,1,%s,,\nquality,file,%s,4,,%s,y,9,1,%s,,\n' "$who" "$bytes" "$x" "$who" "$bytes" "$y"
    done <<END
BitStack,mine,1 1000 0.2 0.2
near,best,0 1004 0.3 0.1
near,other,0 900 0.1 0.9
near,larger,0 1006 0.01 0.01
END
} >"$csv"
report && grep -q '| near best, 0.0 MB | 0.3000 (1.0) | 0.1000 (1.0) | | \*\*behind\*\* on x (other), y (best) |' "$out/a.md"
check "a size says on which texts any peer of as many bytes is better, and whose"

QUICK=1 PARTS=peers REAL_DIR="$out/empty" BUILD="$build" bench/real/run.sh >"$out/missing" 2>&1
[ $? -ne 0 ] && grep -q "model-f16.gguf is missing" "$out/missing"
check "a missing input is named"
rm -f "$out/m.bitstack"
echo "## $passed $failed 0"
[ "$failed" -eq 0 ]
