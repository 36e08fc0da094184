#!/bin/sh
# A file beyond 2 GiB opens, and its last block is read, also where a long has 32 bits and no feature macro asks for large
# files. As the machine has it, in steps of what a small long would hold, and built for 32 bits where that can be.
pass=0 fail=0 skip=0
out=${BUILD:-build}/tests/large; mkdir -p "$out"
file=$out/large.bitstack
trap 'rm -f "$file"' EXIT
try() { # name, flags
    name=$1; shift
    if "${CC:-cc}" -w -O0 "$@" -I. tests/large_file.c -o "$out/program" -lm -pthread >"$out/log" 2>&1 && "$out/program" read "$file" >"$out/log" 2>&1; then
        echo "ok    $name"; pass=$((pass + 1))
    else echo "FAIL  $name"; head -3 "$out/log"; fail=$((fail + 1)); fi
}
if "${CC:-cc}" -w -O0 -I. tests/large_file.c -o "$out/make" -lm -pthread && "$out/make" make "$file"; then
    try "as this machine has it, plain C" -std=c99
    try "in steps of a million" -std=c99 -DBITSTACK_STEP_=1000000L
    include=""
    [ -d /usr/include/asm ] || for folder in /usr/include/*-linux-gnu; do [ -d "$folder/asm" ] && include=-I$folder; done
    if echo '#include <errno.h>
int main(void) { return sizeof(void *) != 4; }' | "${CC:-cc}" -m32 $include -x c - -o "$out/small" >"$out/log" 2>&1 && "$out/small"; then
        for flags in -std=c99 "-std=gnu11 -D_GNU_SOURCE" -D_FILE_OFFSET_BITS=64; do
            # shellcheck disable=SC2086
            try "32 bits, $flags" -m32 $include $flags
        done
    else echo "skip  32 bits: ${CC:-cc} -m32 does not work here"; skip=$((skip + 1)); fi
else echo "skip  no room for a sparse file of 2.2 GiB"; skip=$((skip + 1)); fi
echo "## $pass $fail $skip"
