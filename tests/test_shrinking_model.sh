#!/bin/sh
# A model's file that becomes shorter while it is mapped ends the command with a message, not in a crash, and makes no stack.
pass=0 fail=0
build=${BUILD:-build} out=${BUILD:-build}/tests/shrinking; rm -rf "$out"; mkdir -p "$out"
name="compress, while its model is cut off"
[ -r /proc/self/maps ] || { echo "skip  $name: no /proc here"; echo "## 0 0 1"; exit 0; }
cp examples/models/books-6m-f16.gguf "$out/model.gguf"
"$build/bitstack" compress "$out/model.gguf" -o "$out/out.bitstack" --method iabs --rank 1 --levels 3 2>"$out/log" >/dev/null &
pid=$!
while kill -0 $pid 2>/dev/null && ! grep -q "$out/model.gguf" /proc/$pid/maps 2>/dev/null; do :; done
: >"$out/cut" && dd if="$out/cut" of="$out/model.gguf" bs=1 seek=4096 2>/dev/null
wait $pid; status=$?
left=$(ls "$out" | grep "^out.bitstack$")
if [ $status -eq 1 ] && grep -q -e "became shorter" "$out/log" && [ -z "$left" ]; then
    echo "ok    $name, says so and makes no stack"; pass=1
else echo "FAIL  $name: status $status, left '$left', said '$(cat "$out/log")'"; fail=1; fi
rm -f "$out/model.gguf"
echo "## $pass $fail 0"
