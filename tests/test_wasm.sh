#!/bin/sh
# WebAssembly: the headers' tests run under node, with the kernels for SIMD128 and for relaxed SIMD, with the bits of all other
# machines; the runtime alone is a module of less than 200 KB, which JavaScript uses as C does.
pass=0 fail=0 skip=0
build=${BUILD:-build} out=${BUILD:-build}/tests/wasm
mkdir -p "$out"
out=$(cd "$out" && pwd)
. tests/room.sh
make_room "$out/room"
ok() { echo "ok    $1"; pass=$((pass + 1)); }
bad() { echo "FAIL  $1"; fail=$((fail + 1)); [ -z "$2" ] || tail -"$2" "$out/log"; }
skip() { echo "skip  $1"; skip=$((skip + 1)); }
finish() { echo "## $pass $fail $skip"; exit 0; }
node=${NODE:-node}
command -v "$node" >/dev/null || { skip "no node"; finish; }
wasi="" # before node 20
"$node" --experimental-wasi-unstable-preview1 -e 0 2>/dev/null && wasi=--experimental-wasi-unstable-preview1
cat >"$out/probe.c" <<'END'
#include <stdio.h>
#ifdef __wasm_relaxed_simd__ /* V8 before it was final added the product to itself */
#include <wasm_simd128.h>
typedef signed char bytes __attribute__((vector_size(16)));
typedef int sums __attribute__((vector_size(16)));
static int good(void) {
    volatile v128_t a = wasm_i8x16_splat(-3), b = wasm_i8x16_splat(5), c = wasm_i32x4_splat(1000);
    return wasm_i32x4_extract_lane((v128_t)__builtin_wasm_relaxed_dot_i8x16_i7x16_add_s_i32x4((bytes)a, (bytes)b, (sums)c), 2) == 940;
}
#else
static int good(void) { return 1; }
#endif
int main(void) { return puts("x") < 0 || !good(); }
END

# try NAME, COMPILER, ITS FLAGS, NODE'S, TESTS, KERNELS. `clang` links, as its part for wasm32 is the one that is installed.
link="clang --target=wasm32-wasi --sysroot=/usr -Wl,-z,stack-size=2097152"
try() {
    name=$1 cc="$2 --target=wasm32-wasi --sysroot=/usr -std=c11 -D_GNU_SOURCE -DBITSTACK_NO_THREADS -I. $3" engine="$node --no-warnings $wasi $4"
    if ! command -v "$2" >/dev/null || ! $cc -c "$out/probe.c" -o "$out/probe.o" 2>"$out/log" || ! $link "$out/probe.o" -o "$out/probe.wasm" 2>"$out/log"; then
        skip "$name: no $2 that builds for WASI (lld, wasi-libc, libclang-rt-dev-wasm32)"
        return 1
    fi
    if ! (cd "$out/room" && $engine tests/wasi.mjs "$out/probe.wasm") >"$out/log" 2>&1; then
        skip "$name: this node does not run it, or not as it is defined (NODE names another)"
        return 1
    fi
    if ! $cc -O1 -Wall -Wextra -Werror -DBITSTACK_IMPLEMENTATION -x c -c bitstack.h -o "$out/bitstack.o" >"$out/log" 2>&1 ||
        ! $cc -O0 -Wall -Wextra -Werror -DBITSTACK_COMPRESS_IMPLEMENTATION -x c -c bitstack_compress.h -o "$out/compress.o" >>"$out/log" 2>&1; then
        bad "$name: the headers build without a warning" 12
        return 1
    fi
    for test in $5; do
        if ! $cc -O1 -c "tests/$test.c" -o "$out/test.o" >"$out/log" 2>&1 || ! $link "$out/test.o" "$out/bitstack.o" "$out/compress.o" -lm -o "$out/$test.wasm" >"$out/log" 2>&1; then
            bad "$name: $test does not build" 6
            continue
        fi
        (cd "$out/room" && BITSTACK_BRIEF=1 limited 300 $engine tests/wasi.mjs "$out/$test.wasm") >"$out/log" 2>&1
        status=$?
        if [ $status -eq 0 ] && grep -q '^## [1-9][0-9]* 0 ' "$out/log" && { [ "$test" = test_popcount_exact ] || grep -q "$6" "$out/log"; }; then
            ok "$name: $(sed -n 's/^## \([0-9]*\) .*/\1/p' "$out/log") of ${test#test_}"
        else bad "$name: $test (status $status)" 8; fi
    done
}
ln -sfn "$PWD/tests" "$out/room/tests"
tests="test_golden_files test_popcount_exact"
[ -z "$BITSTACK_FULL" ] || tests="$tests test_gemv_agrees test_gemm_agrees test_reader test_nested test_float_modes"
try "SIMD128" clang -msimd128 "" "$tests" simd128
for newer in clang-19 clang-18 clang-17 clang-16 clang; do command -v $newer >/dev/null && break; done
if echo '#if __clang_major__ >= 16
yes
#endif' | $newer -E - 2>/dev/null | grep -q yes; then
    # node 20 has it behind a switch only, and there its dot product is not what the standard says
    if "$node" --v8-options 2>/dev/null | grep -q 'no-experimental-wasm-relaxed-simd'; then skip "relaxed SIMD: an experiment in this node (NODE names another)"
    else try "relaxed SIMD" $newer "-msimd128 -mrelaxed-simd" "" "$tests" relaxed; fi
else skip "relaxed SIMD: no clang 16 or later"; fi

# The module.
if ! ${MAKE:-make} -s BUILD="$out" wasm >"$out/log" 2>&1; then
    if clang --target=wasm32-wasi --sysroot=/usr "$out/probe.c" -o "$out/probe.wasm" 2>/dev/null; then bad "make wasm" 8
    else skip "the module: no clang that builds for WASI"; fi
    finish
fi
size=$(wc -c <"$out/bitstack.wasm")
[ "$size" -lt 200000 ] && ok "the runtime is one module of less than 200 KB" || bad "the module has $size bytes"
echo "      $size bytes, the runtime as a module"
"$build/compress_matrix" "$out/w.bitstack" >"$out/log" && "$build/minimal" "$out/w.bitstack" 300000 w >"$out/want"
if "$node" examples/minimal.mjs "$out/bitstack.wasm" "$out/w.bitstack" 300000 w >"$out/got" 2>"$out/log" && cmp "$out/got" "$out/want" >>"$out/log"; then
    ok "examples/minimal.mjs gives the numbers of examples/minimal"
else bad "examples/minimal.mjs" 8; fi
cat >"$out/use.mjs" <<'END'
import { Stack } from "./minimal.mjs";
import { readFile } from "node:fs/promises";
const module = await WebAssembly.compile(await readFile(process.argv[2])), file = await readFile(process.argv[3]);
const check = (condition, what) => { if (!condition) { console.log(what); process.exit(1); } };
const stack = await Stack.open(module, file);
const x = Float32Array.from({ length: stack.matrix("w").cols }, (_, i) => (i % 7) - 3), full = stack.multiply("w", x), most = stack.resident;
stack.budget = Math.floor(most / 2);
check(stack.isa === "simd128" && stack.resident < most && stack.matrix("w").level < stack.matrix("w").levels, "a smaller budget");
stack.budget = 0;
check(stack.resident === most && stack.multiply("w", x).every((v, i) => v === full[i]), "the larger one again");
for (const bytes of [file.subarray(0, 100), file.subarray(0, 0), file.map((b, i) => (i === 90 ? b ^ 1 : b))])
    check(await Stack.open(module, bytes).then(() => false, (error) => error.message.length > 10), "a bad file opens");
const cut = await Stack.open(module, file.subarray(0, file.length - 1));
check(cut.matrix("w").level === stack.matrix("w").levels - 1, "a truncated file is a smaller model");
END
cp examples/minimal.mjs "$out/minimal.mjs"
if "$node" "$out/use.mjs" "$out/bitstack.wasm" "$out/w.bitstack" >"$out/log" 2>&1; then ok "budgets, damaged and truncated files from JavaScript"; else bad "from JavaScript" 8; fi
finish
