#!/bin/sh
# Hostile input: whatever bytes come, the reader, the compressor and the examples' parsers end in a result, stay
# in their memory and leak none. A few thousand mutations of the seeds; BITSTACK_FULL=1 adds libFuzzer and AFL++.
pass=0 fail=0 skip=0
out=${BUILD:-build}/fuzz; mkdir -p "$out"
ok() { echo "ok    $1"; pass=$((pass + 1)); }
bad() { echo "FAIL  $1"; fail=$((fail + 1)); tail -8 "$out/test.log"; }
rm -rf "$out/seeds" # of these sources
# campaign NAME, COMMAND...: what fuzz.sh says a target and then of all.
campaign() {
    name=$1; shift
    if "$@" >"$out/test.log" 2>&1; then ok "$name"; else bad "$name"; fi
    sed -n 's/^[a-z]*: \([0-9]* \(executions\|inputs\).*\)/      \1/p' "$out/test.log" | paste -d' ' - "$out/targets" 2>/dev/null
}
printf 'of the reader\nof the compressor\nof the parsers\nof what import reads\nof the tokenizers\nof the folders\nof the other files\n' >"$out/targets"
if [ -z "$BITSTACK_FULL" ]; then
    FUZZ_OPT=-O0 campaign "mutated stacks, matrices, models and JSON under AddressSanitizer and UBSan" tests/fuzz/fuzz.sh replay 600
else
    campaign "mutated stacks, matrices, models and JSON under AddressSanitizer and UBSan" tests/fuzz/fuzz.sh replay 20000
    if command -v clang >/dev/null; then campaign "libFuzzer finds nothing" tests/fuzz/fuzz.sh libfuzzer 20
    else echo "skip  libFuzzer: no clang"; skip=$((skip + 1)); fi
    if command -v afl-clang-fast >/dev/null && command -v afl-fuzz >/dev/null; then campaign "AFL++ finds nothing" tests/fuzz/fuzz.sh afl 15
    else echo "skip  AFL++ is not installed"; skip=$((skip + 1)); fi
fi
echo "## $pass $fail $skip"
