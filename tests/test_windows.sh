#!/bin/sh
# Windows and its compilers: the headers under the rules of cl and clang-cl, their tests on Windows (wine) with every
# instruction set and the pool, built by MinGW-w64's gcc and as cl reads them, and the command: names in UTF-8, long ones,
# pipes, and files that take each other's place.
pass=0 fail=0 skip=0
build=${BUILD:-build} out=${BUILD:-build}/tests/windows
mkdir -p "$out/files"
out=$(cd "$out" && pwd)
. tests/room.sh
make_room "$out/room"
ok() { echo "ok    $1"; pass=$((pass + 1)); }
bad() { echo "FAIL  $1"; fail=$((fail + 1)); [ -z "$2" ] || head -"$2" "$out/log"; }
skip() { echo "skip  $1"; skip=$((skip + 1)); }
finish() { echo "## $pass $fail $skip"; exit 0; }
is() { what=$1; shift; if "$@" >"$out/log" 2>&1; then ok "$what"; else bad "$what" 12; fi; }

# --- cl. clang without its own name reads the headers as cl does, with stand-ins for Microsoft's; all its intrinsics are
# there everywhere, as cl's are. -Wgnu: nothing that is gcc's alone.
cat >"$out/one.c" <<'END'
#define BITSTACK_IMPLEMENTATION
#define BITSTACK_POOL
#include "bitstack.h"
#define BITSTACK_COMPRESS_IMPLEMENTATION
#include "bitstack_compress.h"
int main(void) { return bitstack_isa() == 0; }
END
cl="clang --target=x86_64-pc-windows-msvc -fms-compatibility -fms-extensions -fms-compatibility-version=19.29 -isystem tests/msvc -I. -Wall -Wextra -Wvla -Werror -Wno-unknown-pragmas -Wno-unused-function"
any="-U__clang__ -Wgnu -msse4.1 -mavx2 -mf16c -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vnni -mavx512bitalg -mgfni -mavxvnni -mxsave"
if command -v clang >/dev/null && echo 'int x;' | clang --target=x86_64-pc-windows-msvc -x c -fsyntax-only - 2>/dev/null; then
    is "cl: both headers, C11, the pool too" $cl $any -std=c11 -fsyntax-only "$out/one.c"
    is "cl: both headers, C++14" $cl $any -x c++ -std=c++14 -fsyntax-only "$out/one.c"
    is "cl 2022: both headers" $cl -fms-compatibility-version=19.40 $any -std=c11 -fsyntax-only "$out/one.c"
    is "cl /Gv: where everything is __vectorcall" $cl $any -std=c11 -Xclang -fdefault-calling-conv=vectorcall -fsyntax-only "$out/one.c"
    is "cl without SIMD, threads, heap and files" $cl $any -std=c11 -DBITSTACK_NO_SIMD -DBITSTACK_NO_THREADS -DBITSTACK_STATIC -fsyntax-only "$out/one.c"
    is "cl: a program of plain C that uses both" $cl $any -std=c11 -DWITH_COMPRESSOR -fsyntax-only tests/switches.c
    is "clang-cl: both headers, C11" $cl -std=c11 -fsyntax-only "$out/one.c"
    is "clang-cl: both headers, C++14" $cl -x c++ -std=c++14 -fsyntax-only "$out/one.c"
    if $cl $any -D_M_FP_FAST=1 -fsyntax-only "$out/one.c" 2>&1 | grep -q "build this file with /fp:precise"; then ok "cl /fp:fast is refused"; else bad "cl /fp:fast is refused"; fi
else skip "the headers under cl's rules: no clang that can read as cl does"; fi

# --- MinGW-w64: everything is built once, in two processes.
gcc=x86_64-w64-mingw32-gcc
command -v $gcc >/dev/null || { skip "MinGW-w64: $gcc is not installed"; finish; }
win=$out/build
if ! ${MAKE:-make} -s -j2 CC=$gcc CFLAGS="-O1 -Wno-float-conversion -Werror" BUILD="$win" "$win/bitstack.exe" >"$out/log" 2>&1; then
    bad "MinGW-w64: the headers and the command build without a warning" 20
    finish
fi
ok "MinGW-w64: the headers and the command build without a warning"
export WINEDEBUG=-all WINEPREFIX="$out/wine" BITSTACK_BRIEF=1
command -v wine >/dev/null || { skip "running it: wine is not installed"; finish; }
wine wineboot -i >/dev/null 2>&1
printf 'int main(void){return 7;}' >"$out/probe.c" && $gcc "$out/probe.c" -o "$out/probe.exe"
limited 120 wine "$out/probe.exe" >/dev/null 2>&1
[ $? -eq 7 ] || { skip "running it: wine runs no program here"; finish; }

tests="test_golden_files test_threads_agree test_small_machines"
[ -z "$BITSTACK_FULL" ] || tests="$tests test_reader test_gemv_agrees test_gemm_agrees test_popcount_exact test_nested test_writer test_float_modes test_order
    test_moments test_compress_inputs test_stranger test_short_memory test_svd test_resize_while_multiplying"
run_tests() { # what, objects and flags
    what=$1; shift
    for test in $tests; do
        $gcc -std=c11 -D_GNU_SOURCE -O0 -I. -DBITSTACK_POOL tests/$test.c "$@" -o "$out/$test.exe" -lm -static -pthread >"$out/log" 2>&1 || { bad "$what: $test does not build" 6; continue; }
        (cd "$out/room" && limited 300 wine "$out/$test.exe") >"$out/log" 2>&1
        status=$?
        if [ $status -eq 0 ] && grep -q '^## [1-9][0-9]* 0 ' "$out/log"; then ok "$what: $(sed -n 's/^## \([0-9]*\) .*/\1/p' "$out/log") of ${test#test_}"
        else bad "$what: $test (status $status)"; grep -v '^ok' "$out/log" | tail -8; fi
    done
}
run_tests "MinGW-w64" "$win/bitstack.o" "$win/bitstack_compress.o"

# The same as cl reads them, linked with MinGW's library, where the CPU has what clang was told that all have.
if [ -e "$out/one.c" ] && command -v clang >/dev/null && grep -q 'gfni.*avx512_bitalg\|avx512_bitalg.*gfni' /proc/cpuinfo 2>/dev/null; then
    if $cl $any -std=c11 -O1 -DBITSTACK_IMPLEMENTATION -DBITSTACK_POOL -x c -c bitstack.h -o "$out/cl.obj" >"$out/log" 2>&1 &&
        $cl $any -std=c11 -O0 -DBITSTACK_COMPRESS_IMPLEMENTATION -x c -c bitstack_compress.h -o "$out/clc.obj" >>"$out/log" 2>&1; then
        run_tests "as cl reads them" "$out/cl.obj" "$out/clc.obj" -Wl,--defsym,__chkstk=___chkstk_ms
    else bad "as cl reads them: objects" 12; fi
else skip "running what cl reads: no clang, or a CPU without AVX-512 (BITALG) and GFNI"; fi

# --- The command. The same work is done by the native one, and must come out the same.
cd "$out/files" && rm -rf ./*
echo '#include "tests/make_gguf.h"
int main(int n, char **path) {
    gguf_maker g;
    make_tiny_llama(&g, 3);
    FILE *file = n == 2 ? fopen(path[1], "wb") : NULL;
    return !file || fwrite(g.data, 1, g.bytes, file) != g.bytes || fclose(file);
}' >../tiny.c
cc -std=c11 -D_GNU_SOURCE -I../room ../tiny.c -o ../tiny -lm && ../tiny tiny.gguf
native=$out/../../bitstack name='größe-日本 *.bitstack'
w() { limited 200 wine "$win/bitstack.exe" "$@"; }
w compress tiny.gguf -o "$name" --levels 3 --calibrate none --effort fast --quiet >"$out/log" 2>&1
"$native" compress tiny.gguf -o native.bitstack --levels 3 --calibrate none --effort fast --quiet
if cmp "$name" native.bitstack >>"$out/log" 2>&1; then ok "compress makes, under a name beyond ASCII, the bytes that it makes here"; else bad "compress" 9; fi
[ "$(ls | wc -l)" -eq 3 ] && ok "nothing is left beside it" || { bad "files are left: $(ls | tr '\n' ' ')"; }
w run "$name" --prompt 'a*' -n 6 --temperature 0 --threads 2 >said 2>"$out/log"
"$native" run native.bitstack --prompt 'a*' -n 6 --temperature 0 >expected 2>/dev/null
if cmp said expected >>"$out/log" 2>&1; then ok "run writes what it writes here, and takes a * for a *"; else bad "run" 9; fi
cat "$name" | w run - --prompt 'a*' -n 6 --temperature 0 --wait 1GB >said 2>"$out/log"
if cmp said expected >>"$out/log" 2>&1; then ok "run takes a stack that comes by a pipe"; else bad "run -" 9; fi
half=$(($(wc -c <"$name") * 4 / 5))
echo old >cut.bitstack
w cut "$name" --budget $half -o cut.bitstack >"$out/log" 2>&1 && "$native" cut native.bitstack --budget $half -o native-cut.bitstack
if cmp cut.bitstack native-cut.bitstack >>"$out/log" 2>&1 && [ ! -e cut.bitstack.part ]; then ok "cut takes the place of a file that was there"; else bad "cut" 9; fi
w cut cut.bitstack --budget 1GB -o ./cut.bitstack >"$out/log" 2>&1
if [ $? -eq 1 ] && grep -q 'expected another -o' "$out/log" && cmp cut.bitstack native-cut.bitstack; then ok "a file is not cut in its own place"; else bad "cut in place" 9; fi
deep=$(printf 'a long name of a folder, %.0s' 1 2 3 4 5 6)
mkdir -p "$deep/$deep" && cp "$name" "$deep/$deep/a.bitstack"
w cut "$deep/$deep/a.bitstack" --budget $half -o "$deep/$deep/b.bitstack" >"$out/log" 2>&1
if cmp "$deep/$deep/b.bitstack" cut.bitstack >>"$out/log" 2>&1; then ok "names may be longer than 260 characters"; else bad "a long name" 9; fi
printf 'hello\n:info\n:budget 1GB\nagain\n:quit\n' | w chat cut.bitstack -n 4 --context 64 >said 2>"$out/log"
if [ $? -eq 0 ] && grep -q 'resident' said; then ok "chat answers, tells its size and changes it"; else bad "chat" 9; cat said; fi
w info nothing.bitstack >"$out/log" 2>&1
if [ $? -eq 1 ] && grep -q 'nothing.bitstack: .*No such file' "$out/log"; then ok "a file that is not there is told"; else bad "no file" 9; fi
w run tiny.gguf --prompt a -n 2 >said 2>"$out/log" && [ -s said ] && ok "an original model is mapped and runs" || bad "a mapped model" 9
limited 20 wineserver -k >/dev/null 2>&1
finish
