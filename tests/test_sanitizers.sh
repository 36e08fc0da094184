#!/bin/sh
# The tests that matter for memory and threads, again with the headers built under ASan, UBSan and TSan.
pass=0 fail=0 skip=0
out=${BUILD:-build}/tests/sanitized; mkdir -p "$out"
CC=${CC:-cc}
run() { # name, sanitizers, test, other sources
    sanitizers=$2 test=$3 sources=$4
    flags="-std=c11 -D_GNU_SOURCE -g -O1 -I. -Iexamples -fno-sanitize-recover=all -fsanitize=$sanitizers"
    if ! echo 'int main(void){return 0;}' | $CC -fsanitize=$sanitizers -x c - -o "$out/probe" 2>/dev/null || ! "$out/probe"; then
        echo "skip  $1: this compiler has no -fsanitize=$sanitizers"; skip=$((skip + 1)); return
    fi
    key=$(echo "$sanitizers" | tr , _)
    [ -f "$out/$key.h.o" ] || { $CC $flags -DBITSTACK_IMPLEMENTATION -DBITSTACK_POOL -x c -c bitstack.h -o "$out/$key.h.o" &&
        $CC $flags -DBITSTACK_COMPRESS_IMPLEMENTATION -x c -c bitstack_compress.h -o "$out/$key.c.o"; }
    if $CC $flags "tests/$test.c" $sources "$out/$key.h.o" "$out/$key.c.o" -o "$out/$test.$key" -lm -pthread && BITSTACK_RESIZES=60 "$out/$test.$key" >"$out/log" 2>&1; then
        echo "ok    $1"; pass=$((pass + 1))
    else
        echo "FAIL  $1"; grep -v "^## " "$out/log" | tail -20; fail=$((fail + 1))
    fi
}
rm -f "$out"/*.o
run "reader and writer under AddressSanitizer and UBSan" address,undefined test_reader
run "resizing while multiplying under AddressSanitizer and UBSan" address,undefined test_resize_while_multiplying
run "resizing while multiplying under ThreadSanitizer" thread test_resize_while_multiplying
talk="examples/bitstack/session.c examples/bitstack/resize.c examples/bitstack/memory.c examples/bitstack/follow.c"
run "a chat resized 1,000 times while it talks under ThreadSanitizer" thread test_resize_while_talking "$(echo examples/llm/*.c) $talk"
echo "## $pass $fail $skip"
