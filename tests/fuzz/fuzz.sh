#!/bin/sh
# fuzz.sh replay RUNS       every seed and RUNS deterministic mutations of the seeds, under ASan and UBSan
# fuzz.sh libfuzzer SECONDS each target under libFuzzer for so long (clang), and what it covers
# fuzz.sh afl SECONDS       the same under AFL++ (afl-clang-fast)
# Targets named after that are those that run, in their order; else all.
# From the project's root. Corpora grow in build/fuzz; findings are left in build/fuzz/*/crash*.
way=$1 amount=$2 status=0
targets="reader compressor examples published tokenizer folder files"
[ $# -gt 2 ] && shift 2 && targets=$*
out=${BUILD:-build}/fuzz
# What the targets need of the command; of the rest they hold what they test.
command=$(printf 'examples/bitstack/%s.c ' cli output line resident session resize journal)
mkdir -p "$out" || exit 1
. tests/room.sh
warn="-w"
base="-std=c11 -D_GNU_SOURCE -g -I. -Iexamples -Itests/fuzz $warn"
sanitize="-fsanitize=address,undefined -fno-sanitize-recover=all"
ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=1; export ASAN_OPTIONS
[ -d "$out/seeds" ] || { cc $base -DBITSTACK_IMPLEMENTATION -DBITSTACK_POOL -x c -c bitstack.h -o "$out/h.o" && cc $base -DBITSTACK_COMPRESS_IMPLEMENTATION -x c -c bitstack_compress.h -o "$out/c.o" &&
    cc $base tests/fuzz/seeds.c "$out/h.o" "$out/c.o" -o "$out/make_seeds" -lm -pthread && "$out/make_seeds" "$out/seeds"; } || exit 1

# build COMPILER AND FLAGS: the targets, with what each needs.
build() {
    key=$1; shift
    mkdir -p "$out/$key"
    "$@" $base -DBITSTACK_IMPLEMENTATION -DBITSTACK_POOL -x c -c bitstack.h -o "$out/$key/h.o" &&
    "$@" $base -DBITSTACK_COMPRESS_IMPLEMENTATION -x c -c bitstack_compress.h -o "$out/$key/c.o" || return 1
    for c in examples/llm/*.c $command; do "$@" $base -c "$c" -o "$out/$key/$(basename "$c").o" || return 1; done
    rm -f "$out/$key/examples.a" && ar rcs "$out/$key/examples.a" "$out/$key"/*.c.o && # each takes from it what it needs
    "$@" $base $last tests/fuzz/fuzz_reader.c $driver "$out/$key/h.o" -o "$out/$key/reader" -lm -pthread &&
    "$@" $base $last tests/fuzz/fuzz_compressor.c $driver -o "$out/$key/compressor" -lm -pthread || return 1
    for target in examples published tokenizer folder files; do
        "$@" $base $last tests/fuzz/fuzz_$target.c $driver "$out/$key/examples.a" "$out/$key/h.o" "$out/$key/c.o" -o "$out/$key/$target" -lm -pthread || return 1
    done
}

case $way in
replay)
    if [ "$FUZZ_OPT" = -O0 ]; then # those that `make test` has built, or builds now
        mkdir -p "$out/replay"
        for target in $targets; do
            MAKEFLAGS= make -s BUILD="${BUILD:-build}" ${CC:+CC="$CC"} "${BUILD:-build}/asan/fuzz/$target" && ln -sf "../../asan/fuzz/$target" "$out/replay/$target" || exit 1
        done
    else
        last="" driver=tests/fuzz/replay.c
        build replay ${CC:-cc} ${FUZZ_OPT:--O1} $sanitize || exit 1
    fi
    for target in $targets; do
        runs=$amount
        [ $target = compressor ] && runs=$((amount / 10))
        LAST="$out/replay/last-$target" RUNS=$runs $still "$out/replay/$target" "$out/seeds/$target"/* >"$out/replay/$target.log" 2>&1 || status=1
        echo "$target: $(tail -1 "$out/replay/$target.log")"
    done ;;
libfuzzer)
    last="-DFUZZ_LIBFUZZER -fsanitize=fuzzer" driver=""
    build libfuzzer clang ${FUZZ_OPT:--O2} $sanitize -fsanitize=fuzzer-no-link || exit 1
    for target in $targets; do
        mkdir -p "$out/corpus/$target"
        case $target in reader) most=8000 ;; compressor) most=600 ;; tokenizer | files) most=3000 ;; *) most=20000 ;; esac
        $still "$out/libfuzzer/$target" -max_total_time="$amount" -max_len=$most -timeout=20 -rss_limit_mb=2048 -dict="tests/fuzz/$target.dict" \
            -artifact_prefix="$out/libfuzzer/crash-$target-" -print_final_stats=1 "$out/corpus/$target" "$out/seeds/$target" >"$out/libfuzzer/$target.log" 2>&1 || status=1
        grep -h -E "SUMMARY|this must hold" "$out/libfuzzer/$target.log"
        echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$out/libfuzzer/$target.log") executions, $(grep -o 'cov: [0-9]*' "$out/libfuzzer/$target.log" | tail -1 | cut -c6-) edges of $(sed -n 's/.*Loaded 1 modules *(\([0-9]*\) .*/\1/p' "$out/libfuzzer/$target.log" | head -1), $(ls "$out/corpus/$target" | wc -l) inputs kept"
    done ;;
afl)
    AFL_SKIP_CPUFREQ=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_NO_UI=1 AFL_NO_AFFINITY=1; export AFL_SKIP_CPUFREQ AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES AFL_NO_UI AFL_NO_AFFINITY
    unset ASAN_OPTIONS
    last="-fsanitize=fuzzer" driver=""
    AFL_QUIET=1 build afl afl-clang-fast -O1 -DBITSTACK_NO_SIMD >"$out/afl.log" 2>&1 || { tail -3 "$out/afl.log"; exit 1; }
    for target in $targets; do
        rm -rf "$out/afl/$target.out" "$out/afl/$target.in" && mkdir "$out/afl/$target.in" || exit 1
        find "$out/seeds/$target" -type f -size -20k -exec cp {} "$out/afl/$target.in" \;
        timeout $((amount + 60)) afl-fuzz -V "$amount" -t 5000 -x "tests/fuzz/$target.dict" -i "$out/afl/$target.in" -o "$out/afl/$target.out" -- "$out/afl/$target" >"$out/afl/$target.log" 2>&1
        stats=$out/afl/$target.out/default/fuzzer_stats
        get() { sed -n "s/^$1 *: *//p" "$stats"; }
        [ -f "$stats" ] || { tail -3 "$out/afl/$target.log"; status=1; continue; }
        [ "$(get saved_crashes)" = 0 ] && [ "$(get saved_hangs)" = 0 ] || status=1
        echo "$target: $(get execs_done) executions, $(get edges_found) edges of $(get total_edges), $(get corpus_count) inputs kept, $(get saved_crashes) crashes, $(get saved_hangs) hangs"
    done ;;
*) sed -n '2,6s/^# //p' "$0"; exit 2 ;;
esac
exit $status
