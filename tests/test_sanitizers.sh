#!/bin/sh
# The tests that matter for memory and threads, again with the headers built under ASan, UBSan and TSan.
# BITSTACK_FULL=1: all of those programs that need no more than the headers, optimised, by gcc and by clang.
pass=0 fail=0 skip=0 label= limit=200 # seconds a program
out=${BUILD:-build}/tests/sanitized; mkdir -p "$out"
case $out in /*) ;; *) out=$PWD/$out ;; esac
. tests/room.sh
make_room "$out/room"
CC=${CC:-cc}
# show NAME, PROGRAM, WHAT: runs it in the room and tells of it.
show() {
    if (cd "$out/room" && limited "$limit" $still "$2") >"$out/log" 2>&1; then
        echo "ok    $(basename "$2" | sed s/^test_//) under $1$label"; pass=$((pass + 1))
        sed -n 's/^      \([0-9]* resizes.*\)/      \1, under '"$1"'/p' "$out/log"
    else
        echo "FAIL  $(basename "$2") under $1: $3"; grep -v "^## " "$out/log" | tail -20; fail=$((fail + 1))
    fi
}
run() { # sanitizers, compiler and flags -- tests
    sanitizers=$1; shift
    command=""
    while [ "$1" != -- ]; do command="$command $1"; shift; done
    shift
    case $sanitizers in thread) name=ThreadSanitizer ;; *) name="AddressSanitizer and UBSan" ;; esac
    command="$command -std=c11 -D_GNU_SOURCE -w -g -I. -Iexamples -pthread -fno-sanitize-recover=all -fsanitize=$sanitizers"
    if ! here "$command"; then return; fi
    $command -DBITSTACK_IMPLEMENTATION -DBITSTACK_POOL -x c -c bitstack.h -o "$out/h.o" &&
        $command -DBITSTACK_COMPRESS_IMPLEMENTATION -x c -c bitstack_compress.h -o "$out/c.o"
    for test; do
        sources=""
        [ $test = test_resize_while_talking ] && sources="$talk"
        if $command "tests/$test.c" $sources "$out/h.o" "$out/c.o" -o "$out/$test" -lm >"$out/log" 2>&1; then show "$name" "$out/$test" "$command"
        else echo "FAIL  $test: $command"; tail -5 "$out/log"; fail=$((fail + 1)); fi
    done
}
here() { # compiler and flags: do its programs run here?
    echo 'int main(void){return 0;}' | $1 -x c - -o "$out/probe" 2>/dev/null && limited 20 $still "$out/probe" >/dev/null 2>&1 && return
    echo "skip  $1: not here"; skip=$((skip + 1)); return 1
}
# Those that `make` has built, or builds now.
built() { # sanitizers, folder, name -- tests
    sanitizers=$1 folder=${BUILD:-build}/$2 name=$3; shift 4
    here "$CC -fsanitize=$sanitizers" || return
    for test; do set -- "$@" "$folder/tests/$test"; shift; done
    if ! MAKEFLAGS= make -s BUILD="${BUILD:-build}" CC="$CC" "$@" >"$out/log" 2>&1; then echo "FAIL  does not build: $*"; tail -5 "$out/log"; fail=$((fail + 1)); return; fi
    for program; do
        case $program in /*) ;; *) program=$PWD/$program ;; esac
        show "$name" "$program" "make $program"
    done
}
talk="$(echo examples/llm/*.c) examples/bitstack/session.c examples/bitstack/resize.c examples/bitstack/memory.c examples/bitstack/follow.c"
headers_only=$(grep -L -e 'examples/llm' -e 'bench/peers' -e 'bitstack/' -e command.h -e popen tests/test_*.c | sed 's,tests/\(.*\)\.c,\1,' | grep -v -e test_command -e test_svd -e test_nested -e test_peers | tr '\n' ' ')
if [ -z "$BITSTACK_FULL" ]; then
    export BITSTACK_RESIZES=60
    built address,undefined asan "AddressSanitizer and UBSan" -- test_reader test_small_machines test_resize_while_multiplying test_writer test_threads_agree
    built thread tsan ThreadSanitizer -- test_resize_while_multiplying test_resize_while_talking
else
    limit=1200
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
