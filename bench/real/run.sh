#!/usr/bin/env bash
# run.sh: the yardstick, a real model (SmolLM2-135M) measured beside what others would do with it; called by `make real`.
# Writes bench/results/real.csv; rows that are there already are kept and not measured again.
#   REAL_DIR  where fetched and built things go, build/real; SHARED  more texts, ../shared/real, left out where absent
#   QUICK=1   a few sizes on few tokens, no llama.cpp unless it is there; into build/real/quick.csv
#   OURS=1    forgets the stack's rows and measures only them again; SPEED=1 the same with all rows of speed
#   PARTS     some of: fetch peers files ours speed; all
#   ROUNDS    of the speed part, 3; a trial needs one
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BUILD:-build} dir=${REAL_DIR:-$build/real} shared=${SHARED:-../shared/real} csv=bench/results/real.csv
parts=${PARTS:-fetch peers files ours speed} rows=${ROWS:-8} calibration_rows=32 threads=$(nproc)
# How our stacks are made; one with the embeddings as they are for the tables of layer matrices, one of the whole model.
compress="$build/bitstack compress"
layer_options="--compress-embeddings no" file_options="--compress-embeddings yes"
# AQLM is left out of these for its time; PEERS="aqlm" runs it: 3.8 s of a core a matrix of 1536 x 576, some 8 minutes for all.
# Two books of 256, about 2.1 bits; for 3 bits its books (of 4096 and more entries) are larger than most of these matrices' codes.
peers=${PEERS:-gptq mixed files ggml iabs}
# Files of llama.cpp, and what ggml type its table says.
types="IQ2_M Q2_K IQ3_XXS Q3_K_M IQ4_XS Q4_K_M Q5_K_M Q6_K Q8_0"
stack=ours stack_mark='^(quality|speed),[^,]*,BitStack,'
[ -z "${QUICK:-}" ] || { csv=$build/real/quick.csv rows=1 calibration_rows=4 peers="gptq=3 gptq=4" types="Q4_K_M"; mkdir -p "$build/real"
  layer_options="--compress-embeddings no --levels 3 --rank 1 --probe 8" file_options="$layer_options" stack=quick; }

say() { echo "real: $*" >&2; }
has() { case " $parts " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }
forget() { [ ! -f "$csv" ] || { grep -Ev "$1" "$csv" >"$csv.part" || true; mv "$csv.part" "$csv"; }; }

mkdir -p "$dir" bench/results
dir=$(cd "$dir" && pwd)
if has fetch; then
  fetch="model texts llama"
  [ -z "${QUICK:-}" ] || fetch="model texts"
  bench/real/fetch.sh "$dir" $fetch || { say "the model, the texts or llama.cpp could not be fetched (network?); $csv is left as it is"; exit 1; }
fi
for file in model-f16.gguf calibration.txt speeches.txt docs.txt; do
  [ -s "$dir/$file" ] || { say "$dir/$file is missing (PARTS=fetch gets it); $csv is left as it is"; exit 1; }
done
calibration=${CALIBRATION:-$dir/calibration.txt}
texts=(--text speeches="$dir/speeches.txt" --text docs="$dir/docs.txt")
for name in books tech; do
  if [ -s "$shared/$name.u16" ]; then texts+=(--text "$name=$shared/$name.u16"); else say "no $shared/$name.u16: rows of that text are left out"; fi
done
common=("$csv" "$dir/model-f16.gguf" --calibrate "$calibration" --rows "$rows" --calibration-rows "$calibration_rows" "${texts[@]}")
[ ! -x "$dir/bin/ggml_quantize" ] || common+=(--ggml "$dir/bin/ggml_quantize")
measure() { "$build/bench/real" "${common[@]}" "$@"; }
[ -z "${OURS:-}" ] || { forget "$stack_mark"; rm -f "$dir"/ours-*.bitstack; parts="ours speed"; SPEED=1; }

if has peers; then
  [ -n "${QUICK:-}" ] || [ -x "$dir/bin/ggml_quantize" ] || { say "no $dir/bin/ggml_quantize: llama.cpp's types are left out"; peers=${peers/ggml/}; peers=${peers/files/}; }
  measure full $peers
fi
if has files && [ -z "${QUICK:-}" ] && [ -x "$dir/bin/llama-quantize" ]; then
  files=()
  [ -s "$dir/imatrix.gguf" ] || "$dir/bin/llama-imatrix" -m "$dir/model-f16.gguf" -f "$calibration" -o "$dir/imatrix.gguf" -c 512 --chunks 32 -t "$threads" >"$dir/imatrix.log" 2>&1
  for t in $types; do
    [ -s "$dir/$t.gguf" ] || { "$dir/bin/llama-quantize" --imatrix "$dir/imatrix.gguf" "$dir/model-f16.gguf" "$dir/$t.gguf.part" "$t" "$threads" >"$dir/$t.log" 2>&1; mv "$dir/$t.gguf.part" "$dir/$t.gguf"; }
    # Its IQ types are unpacked by ggml's own Python package; the judge is the same program for all.
    [ -s "$dir/$t-half.gguf" ] || { "$dir/venv/bin/pip" -q install --disable-pip-version-check numpy==2.4.6 gguf==0.19.0 >&2
      "$dir/venv/bin/python" bench/real/prepare.py half "$dir/$t.gguf" "$dir/$t-half.part" && mv "$dir/$t-half.part" "$dir/$t-half.gguf"; }
    files+=(file="llama.cpp,$t,$(stat -L -c %s "$dir/$t.gguf"),$dir/$t-half.gguf")
  done
  measure "${files[@]}"
fi
if has ours; then
  for kind in layer file; do
    options=$layer_options
    [ $kind = layer ] || options=$file_options
    [ $kind = layer ] || [ $stack = ours ] || continue
    [ -s "$dir/$stack-$kind.bitstack" ] || $compress "$dir/model-f16.gguf" -o "$dir/$stack-$kind.bitstack" --calibrate "$calibration" $options
  done
  budgets=
  for mb in 50 55 61.2 65 71 76 80 85; do budgets="$budgets,${mb}MB:$(awk "BEGIN { print $mb * 1000000 }")"; done
  for t in $types; do [ ! -s "$dir/$t.gguf" ] || budgets="$budgets,$t:$(stat -L -c %s "$dir/$t.gguf")"; done
  file=$stack-file
  [ $stack = ours ] || file=$stack-layer
  measure full layers="$dir/$stack-layer.bitstack" stack="$dir/$file.bitstack$budgets"
fi
# Speed: llama-bench and our stack at the same bytes by turns, some rounds; the median of each. Rows are replaced when
# there are new ones, not before.
bench_file() { [ -s "$dir/$1.gguf" ] || "$dir/bin/llama-quantize" "$dir/model-f16.gguf" "$dir/$1.gguf" "$1" "$threads" >"$dir/$1.log" 2>&1; }
bench_runs() { # on some machines it dies in its own kernels; a weaker build of it would be no peer
  bench_file Q4_0
  "$dir/bin/llama-bench" -m "$dir/Q4_0.gguf" -t 1 -p 512 -n 1 -r 1 >/dev/null 2>&1 && return
  say "llama-bench fails on this machine: rows of speed are left as they are"; return 1
}
if has speed && [ -z "${QUICK:-}" ] && [ -x "$dir/bin/llama-bench" ] && [ -s "$dir/ours-file.bitstack" ] && bench_runs; then
  counts=1
  [ "$threads" = 1 ] || counts="1 $threads"
  for t in Q4_0 IQ4_XS Q4_K_M Q6_K; do
    bench_file "$t"
    bytes=$(stat -L -c %s "$dir/$t.gguf")
    for n in $counts; do
      [ -n "${SPEED:-}" ] || ! grep -q "^speed,file,llama.cpp,$t,.*,$n,[0-9.]*$" "$csv" || continue
      : >"$dir/speed.txt"
      for ((round = 1; round <= ${ROUNDS:-3}; round++)); do
        say "speed: $t, $n threads, round $round"
        "$dir/bin/llama-bench" -m "$dir/$t.gguf" -t "$n" -p 128,512,2048 -n 64 -r 1 -o csv 2>"$dir/speed.log" | tr -d '"' |
          awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) c[$i] = i; next } { print "llama.cpp", ($c["n_gen"] > 0 ? "decode" : "prompt-" $c["n_prompt"]), $c["avg_ts"] }' >>"$dir/speed.txt"
        "$build/bench/speed" "$dir/ours-file.bitstack" "$bytes" "$n" 64 128 512 2048 | sed 's/^/BitStack /' >>"$dir/speed.txt"
      done
      forget "^speed,file,[^,]*,(stack-at-)?$t,.*,$n,[0-9.]*$"
      for what in decode prompt-128 prompt-512 prompt-2048; do
        for method in llama.cpp BitStack; do
          value=$(awk -v m="$method" -v w="$what" '$1 == m && $2 == w { print $3 }' "$dir/speed.txt" | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }')
          setting=$t any=0
          [ $method = llama.cpp ] || { setting=stack-at-$t any=1; }
          echo "speed,file,$method,$setting,$any,,,$bytes,$what,,,,$n,$value" >>"$csv"
        done
      done
    done
  done
fi
say "$csv: $(wc -l <"$csv") lines"
