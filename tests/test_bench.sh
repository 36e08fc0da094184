#!/bin/sh
# The benchmark of products takes shapes of one's own and tells figures that fit each other; what it does not understand
# ends it at once.
pass=0 fail=0
build=${BUILD:-build} out=${BUILD:-build}/tests/bench; mkdir -p "$out"
ok() { echo "ok    $1"; pass=$((pass + 1)); }
bad() { echo "FAIL  $1"; head -5 "$out/log"; fail=$((fail + 1)); }
${MAKE:-make} -s "$build/bench/gemv" BUILD="$build" >"$out/log" 2>&1 || bad "it does not build"
# every line: bytes / median = GB/s; ours: as many bytes as level * planes and factors, which grow with the level
check='function of(name) { return match($0, "\"" name "\": [^,}]*") ? substr($0, RSTART + length(name) + 4, RLENGTH - length(name) - 4) : "" }
    { n++; speed = (of("bytes") + 0) / (of("median_ms") + 0) / 1e6; if (speed / of("gb_per_s") > 1.02 || speed / of("gb_per_s") < 0.98) print "speed", $0
      if ((of("rows") + 0) != 96 || (of("cols") + 0) != 260 || (of("threads") + 0) != 1 || of("state") != "\"warm\"" || (of("least_ms") + 0) > (of("median_ms") + 0)) print "shape", $0
      if (of("what") == "\"bitstack\"") { ours[(of("level") + 0)]++; if ((of("bytes") + 0) < 96 * 260 / 8 * (of("level") + 0) || (of("bytes") + 0) > 96 * 320 / 4 * ((of("level") + 0) + 1)) print "bytes", $0 }
      if (of("what") == "\"f32\"") dense++ }
    END { if (!ours[2] || !ours[4] || !ours[5] || ours[1] || ours[3] || ours[6] || !dense) print "levels" }'
if "$build/bench/gemv" --rows 96 --cols 260 --levels 2,4-5 --warm --seconds 0.05 --json >"$out/json" 2>"$out/log" && [ -s "$out/json" ] && ! awk "$check" "$out/json" >"$out/log" ||
    [ -s "$out/log" ]; then bad "a shape of one's own, as JSON"; else ok "a shape of one's own, as JSON"; fi
wrong=""
for options in "--rows 8" "--rows 0 --cols 8" "--rows 8 --cols 8 --levels 7" "--rows 8 --cols 8 --levels 3-2" "--rows 8 --cols 8 --levels 1,," "--rows 8x --cols 8" \
    "--rows 1048576 --cols 1048576" "--json" "--what" "a b"; do
    # shellcheck disable=SC2086
    "$build/bench/gemv" $options >"$out/said" 2>"$out/log"
    [ $? -eq 2 ] && [ ! -s "$out/said" ] && grep -q usage "$out/log" || wrong="$wrong '$options'"
done
if [ -z "$wrong" ]; then ok "what it does not understand ends it"; else bad "taken:$wrong"; fi
if "$build/bench/gemv" --help 2>&1 | grep -q -e '--levels LIST'; then ok "help"; else bad "help"; fi
echo "## $pass $fail 0"
