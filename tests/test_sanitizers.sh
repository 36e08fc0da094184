#!/bin/sh
# The tests that matter for memory and threads, again with the headers built under ASan, UBSan and TSan.
# BITSTACK_FULL=1: all of those programs that need no more than the headers, optimised, by gcc and by clang.
pass=0 fail=0 skip=0 label=
out=${BUILD:-build}/tests/sanitized; mkdir -p "$out"
case $out in /*) ;; *) out=$PWD/$out ;; esac
. tests/room.sh
make_room "$out/room"
CC=${CC:-cc}
run() { # sanitizers, compiler and flags -- tests
    sanitizers=$1; shift
    command=""
    while [ "$1" != -- ]; do command="$command $1"; shift; done
    shift
    case $sanitizers in thread) name=ThreadSanitizer ;; *) name="AddressSanitizer and UBSan" ;; esac
    command="$command -std=c11 -D_GNU_SOURCE -w -g -I. -Iexamples -pthread -fno-sanitize-recover=all -fsanitize=$sanitizers"
    if ! echo 'int main(void){return 0;}' | $command -x c - -o "$out/probe" 2>/dev/null || ! "$out/probe"; then
        echo "skip  $command: not here"; skip=$((skip + 1)); return
    fi
    $command -DBITSTACK_IMPLEMENTATION -DBITSTACK_POOL -x c -c bitstack.h -o "$out/h.o" &&
        $command -DBITSTACK_COMPRESS_IMPLEMENTATION -x c -c bitstack_compress.h -o "$out/c.o"
    for test; do
        sources=""
        [ $test = test_resize_while_talking ] && sources="$talk"
        if $command "tests/$test.c" $sources "$out/h.o" "$out/c.o" -o "$out/program" -lm >"$out/log" 2>&1 && (cd "$out/room" && "$out/program") >"$out/log" 2>&1; then
            echo "ok    ${test#test_} under $name$label"; pass=$((pass + 1))
            sed -n 's/^      \([0-9]* resizes.*\)/      \1, under '"$name"'/p' "$out/log"
        else
            echo "FAIL  $test under $name: $command"; grep -v "^## " "$out/log" | tail -20; fail=$((fail + 1))
        fi
    done
}
talk="$(echo examples/llm/*.c) examples/bitstack/session.c examples/bitstack/resize.c examples/bitstack/memory.c examples/bitstack/follow.c"
headers_only=$(grep -L -e 'examples/llm' -e 'bench/peers' -e 'bitstack/' -e command.h -e popen tests/test_*.c | sed 's,tests/\(.*\)\.c,\1,' | grep -v -e test_command -e test_svd -e test_nested -e test_peers | tr '\n' ' ')
if [ -z "$BITSTACK_FULL" ]; then
    export BITSTACK_RESIZES=60
    run address,undefined $CC -O0 -- test_reader test_small_machines test_resize_while_multiplying
    run thread $CC -O0 -- test_resize_while_multiplying test_resize_while_talking
else
    BITSTACK_FULL=; export BITSTACK_FULL # the tests themselves as they are
    export BITSTACK_RESIZES=2000
    for cc in gcc clang; do
        command -v $cc >/dev/null || continue
        label=", $cc"
        run address,undefined $cc -O1 -- $headers_only
        run thread $cc -O1 -- test_resize_while_multiplying test_resize_while_talking test_threads_agree test_nested
    done
fi
echo "## $pass $fail $skip"
