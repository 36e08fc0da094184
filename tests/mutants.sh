#!/bin/sh
# Every bug of tests/mutants.txt, planted alone into a copy of the sources, is noticed by the test that it names;
# without it that test passes. tests/mutants.sh PATTERN does those only whose "FILE: DESCRIPTION" it matches (grep -E).
# MUTANT_LIMIT: seconds that a test may take, 300; a busy machine needs more.
pass=0 fail=0 skip=0 only=$1
out=${BUILD:-build}/mutants
rm -rf "$out" && mkdir -p "$out/build/tests" "$out/plain" || exit 1
ok() { echo "ok    $1"; pass=$((pass + 1)); }
bad() { echo "FAIL  $1"; fail=$((fail + 1)); }
BITSTACK_SHARED=${BITSTACK_SHARED:-$PWD/../shared}; export BITSTACK_SHARED; BITSTACK_FULL=; export BITSTACK_FULL
cp -r bitstack.h bitstack_compress.h tests "$out/"
ln -s "$PWD/bench" "$out/bench"
mkdir "$out/examples" && cp -r examples/llm examples/bitstack "$out/examples/" && ln -s "$PWD/examples/models" "$out/examples/models"

. tests/room.sh

commands='command\.h\|/\.\./bitstack' # tests that run the command

# examples plain|mutant FOLDER: $made = the objects of a folder of examples, the edited file's compiled anew.
examples() {
    made=""
    for c in examples/"$2"/*.c; do
        object=plain/$2.$(basename "$c" .c).$key.o
        if [ "$1" = mutant ] && [ "$c" = "$file" ]; then object=build/$(basename "$c" .c).o; rm -f "$out/$object"; fi
        [ -f "$out/$object" ] || (cd "$out" && $command -c "$c" -o "$object") >"$out/log" 2>&1 || return 1
        made="$made $object"
    done
}

# build_and_run: 0 = the test passes, 1 = it fails, 2 = it does not build. Objects of unchanged headers are kept.
build_and_run() {
    cc=cc flags=-O0 runner=""
    for word in $how; do
        case $word in -*) flags="$flags $word" ;; *gcc | *clang | *cc) cc=$word ;; *) runner=$word ;; esac
    done
    case $cc in cc) more=-pthread ;; *) more="-pthread -static" ;; esac
    key=$(echo "$cc$flags" | tr -c 'a-z0-9\n' _)
    command="$cc -std=c11 -D_GNU_SOURCE -w $flags -I. -Iexamples $more" objects=""
    for header in bitstack bitstack_compress; do
        object=plain/$header.$key.o
        if [ "$1" = mutant ] && { [ $header.h = "$file" ] || [ "$file" = bitstack.h ]; }; then object=build/$header.o; fi
        case $object in plain/*) [ -f "$out/$object" ] && { objects="$objects $object"; continue; } ;; esac
        (cd "$out" && $command -D"$(echo $header | tr a-z A-Z)_IMPLEMENTATION" -DBITSTACK_POOL -x c -c $header.h -o "$object") >"$out/log" 2>&1 || return 2
        objects="$objects $object"
    done
    needs=""
    if grep -q -e examples/llm -e examples/bitstack "tests/$test.c" || grep -q "$commands" "tests/$test.c"; then
        examples "$1" llm && needs=$made || return 2
    fi
    if grep -q -e examples/bitstack "tests/$test.c" || grep -q "$commands" "tests/$test.c"; then
        examples "$1" bitstack || return 2
        (cd "$out" && $command $made $needs $objects -o build/bitstack -lm) >"$out/log" 2>&1 || return 2
        grep -q examples/bitstack "tests/$test.c" && needs="$(echo "$made" | tr ' ' '\n' | grep -v '/bitstack\.main\.' | tr '\n' ' ') $needs"
    fi
    (cd "$out" && $command "tests/$test.c" $needs $objects -o build/tests/program -lm) >"$out/log" 2>&1 || return 2
    (cd "$out" && BITSTACK_RESIZES=60 timeout "${MUTANT_LIMIT:-300}" $still $runner build/tests/program) >"$out/log" 2>&1
}

mutant() {
    [ -n "$edit" ] || return
    printf '%s\n' "$file: $name" | grep -qE -e "$only" || return
    set -- $how
    for word; do
        case $word in -*) ;; *) command -v "$word" >/dev/null || { echo "skip  $name: no $word here"; skip=$((skip + 1)); return; } ;; esac
    done
    if ! grep -qxF "$test $how" "$out/plain/passed" 2>/dev/null; then
        build_and_run plain
        case $? in 0) echo "$test $how" >>"$out/plain/passed" ;; *) bad "$test ($how) passes without bugs"; tail -3 "$out/log"; return ;; esac
    fi
    sed "$edit" "$file" >"$out/$file"
    changed=$(diff "$file" "$out/$file" | grep -c '^>')
    if [ "$changed" -ne 1 ]; then bad "$name: the edit changes $changed lines of $file"; cp "$file" "$out/$file"; return; fi
    build_and_run mutant
    case $? in
        0) bad "$name: $test does not notice" ;;
        2) bad "$name: does not build"; tail -3 "$out/log" ;;
        124) ok "$name: $test does not end" ;;
        *) ok "$name: $test notices" ;;
    esac
    cp "$file" "$out/$file"
}

while IFS= read -r line || [ -n "$line" ]; do
    case $line in
        '= '*) name=${line#= } edit="" how="" ;;
        'file '*) file=${line#file } ;;
        'test '*) line=${line#test }; test=${line%% *}; how=${line#"$test"} ;;
        'edit '*) edit=${line#edit }; mutant ;;
    esac
done <tests/mutants.txt
echo "      $pass planted bugs found by tests"
echo "## $pass $fail $skip"
[ "$fail" -eq 0 ]
