#!/bin/sh
# On a microcontroller: no heap, no files, no recursion, a bounded C stack, under 24 KiB of code; a network runs
# from flash and gives the host's bits.
pass=0 fail=0 skip=0
out=$(cd "${BUILD:-build}" && pwd)/embedded; mkdir -p "$out"
ok() { echo "ok    $1"; pass=$((pass + 1)); }
bad() { echo "FAIL  $1"; fail=$((fail + 1)); }
skip() { echo "skip  $1"; skip=$((skip + 1)); }
CC=${CC:-cc}
small="-DBITSTACK_NO_MALLOC -DBITSTACK_NO_STDIO -DBITSTACK_NO_THREADS -DBITSTACK_CHUNK_COLS=512"

# Bounds that bitstack_gemv documents, and for 512 columns a tighter one.
depth() { # name, bound, compiler and flags
    name=$1 bound=$2; shift 2
    if ! echo 'int f(void){return 0;}' | "$@" -fcallgraph-info=su -x c -c - -o "$out/probe.o" 2>/dev/null; then
        skip "$name: no -fcallgraph-info here"; return; fi
    "$@" -std=c11 -D_GNU_SOURCE -DBITSTACK_IMPLEMENTATION -I. -fcallgraph-info=su -x c -c bitstack.h -o "$out/depth.o" &&
        awk -f examples/embedded/stack_depth.awk "$out/depth.ci" >"$out/depth.txt" || { bad "$name: $(cat "$out/depth.txt")"; return; }
    bytes=$(sed -n 's/^C stack at most: \([0-9]*\) bytes.*/\1/p' "$out/depth.txt")
    if [ "${bytes:-999999}" -le "$bound" ]; then ok "$name: $bytes of $bound bytes, no recursion"; else bad "$name: $bytes bytes, more than $bound"; fi
}
bound() { echo $((5 * $1 + 16 * 1024 + ($1 < 9216) * 8 * 1024)); }
depth "C stack on this machine" "$(bound 16384)" $CC -O2
depth "C stack on this machine, small" 10752 $CC -O2 $small
if [ -n "$BITSTACK_FULL" ]; then
    for how in -O1 -O3 -Os; do
        for cols in 512 4096 9216 16384 65536; do depth "C stack with $how and $cols columns at once" "$(bound $cols)" $CC $how -DBITSTACK_CHUNK_COLS=$cols; done
    done
    depth "C stack without optimisation" $((524288 + $(bound 16384))) $CC -O0
fi

$CC -std=c11 -O1 -DBITSTACK_IMPLEMENTATION $small -I. -x c -c bitstack.h -o "$out/alone.o"
asked=$(nm -u "$out/alone.o" | awk '{print $2}' | grep -v -E '^(mem(cpy|set|cmp|move)|strlen|strcmp|lrintf|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_|__x86.*)$' | tr '\n' ' ')
if [ -z "$asked" ]; then ok "without heap, files and threads only memcpy, memset, memcmp, strlen, strcmp and lrintf are asked for"; else bad "also asks for: $asked"; fi

if ! command -v arm-none-eabi-gcc >/dev/null; then
    skip "Cortex-M4: arm-none-eabi-gcc is not installed"
else
    if make -s -C examples/embedded BUILD="$out" size >"$out/size.txt" 2>&1; then
        code=$(awk '/empty.elf/{e = $1 + $2} /least.elf/{print $1 + $2 - e}' "$out/size.txt")
        stack=$(sed -n 's/^C stack at most: \([0-9]*\) bytes.*/\1/p' "$out/size.txt")
        if [ "$code" -gt 4000 ] && [ "$code" -le 24576 ]; then ok "Cortex-M4 code of reader and scalar kernel: $code of 24576 bytes"; else bad "Cortex-M4 code: $code bytes"; fi
        if [ "$stack" -le 7168 ]; then ok "Cortex-M4 stack: $stack of 7168 bytes, no recursion"; else bad "Cortex-M4 stack: $stack bytes"; fi
        # what they are linked with; of the whole header only metadata is told in double
        calls='__aeabi_(c?d|.*2d)|(add|sub|mul|div|neg|eq|ne|lt|le|gt|ge|unord)df[23]|df[sdt]i|[sdt]idf|sfdf|dfsf'
        roots="-Wl,-u,bitstack_gemm -Wl,-u,bitstack_dequantize_rows -Wl,-u,bitstack_view_dequantize"
        make -s -C examples/embedded BUILD="$out/more" LINK="-nostartfiles -Wl,--gc-sections -lm $roots" "$out/more/least.elf" && arm-none-eabi-nm "$out/more/least.elf" >"$out/symbols.txt"
        if [ "$(grep -c -E ' bitstack_(reference_gemv_|tables_reference_|view_dequantize|gemm|gemv)$' "$out/symbols.txt")" -ne 5 ]; then bad "Cortex-M4: not all that multiplies is there to look at"
        elif grep -E "$calls" "$out/symbols.txt" >"$out/double.txt"; then bad "Cortex-M4 computes in double: $(tr '\n' ' ' <"$out/double.txt")"
        else ok "Cortex-M4: no double in products, their definition and dequantize"; fi
    else bad "Cortex-M4 build"; tail -5 "$out/size.txt"; fi
    if ! command -v qemu-system-arm >/dev/null; then
        skip "a network in flash: qemu-system-arm is not installed"
    elif timeout 120 make -s -C examples/embedded BUILD="$out" BITSTACK="$out/../bitstack" run >"$out/run.txt" 2>&1 && grep -q 'the host printed the same' "$out/run.txt"; then
        ok "a network in flash gives the host's bits: $(sed -n 's/.*bytes: \(.* right\).*/\1/p' "$out/run.txt" | tail -1)"
        right=$(sed -n 's/.*bytes: \([0-9]*\) of.*/\1/p' "$out/run.txt" | tail -1)
        if [ "$right" -ge 90 ]; then ok "and knows its digits"; else bad "and knows only $right digits"; fi
    else bad "a network in flash"; tail -5 "$out/run.txt"; fi
fi
echo "## $pass $fail $skip"
