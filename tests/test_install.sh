#!/bin/sh
# What make install puts into a prefix is enough for each way to use it: pkg-config, CMake (installed, fetched, headers
# alone), Meson, C++, Python; all give the numbers of examples/minimal, and uninstall leaves no file behind.
pass=0 fail=0 skip=0
root=$PWD build=$(cd "${BUILD:-build}" && pwd) make=${MAKE:-make} CC=${CC:-cc}
out=$build/tests/install; rm -rf "$out"; mkdir -p "$out"
ok() { echo "ok    $1"; pass=$((pass + 1)); }
bad() { echo "FAIL  $1"; tail -5 "$out/log"; fail=$((fail + 1)); }
skip() { echo "skip  $1"; skip=$((skip + 1)); }
have() { command -v "$1" >/dev/null 2>&1; }
prefix=$out/prefix
unset PKG_CONFIG_PATH LD_LIBRARY_PATH CMAKE_PREFIX_PATH

# What all are compared with: the example as it stands in the repository.
"$build/compress_matrix" "$out/w.bitstack" >"$out/log" && "$build/minimal" "$out/w.bitstack" 300000 w >"$out/want" || bad "the examples"
same() { # name, program and arguments
    name=$1; shift
    if "$@" "$out/w.bitstack" 300000 w >"$out/got" 2>"$out/log" && cmp -s "$out/got" "$out/want"; then ok "$name"; else cat "$out/got" >>"$out/log"; bad "$name"; fi
}
sed '/^#define BITSTACK_IMPLEMENTATION/d; s/^    bitstack \*stack;/    if (bitstack_version() != BITSTACK_VERSION_NUMBER) return 3;\n&/' examples/minimal.c >"$out/user.c"

install() { $make -s install BUILD="$build" CC="$CC" "$@" >"$out/log" 2>&1; }
if install PREFIX="$prefix"; then ok "make install"; else bad "make install"; fi
if install PREFIX=/usr DESTDIR="$out/staged" && [ -f "$out/staged/usr/include/bitstack.h" ] && grep -qx 'prefix=/usr' "$out/staged/usr/lib/pkgconfig/bitstack.pc" &&
    ! grep -rq "$out" "$out/staged/usr/lib/pkgconfig" "$out/staged/usr/lib/cmake"; then ok "DESTDIR is a place to stage, and no file names it"
else bad "DESTDIR"; fi
if $make -s uninstall PREFIX=/usr DESTDIR="$out/staged" >"$out/log" 2>&1 && [ -z "$(find "$out/staged" ! -type d | tee -a "$out/log")" ]; then ok "uninstall leaves no file"
else bad "uninstall"; fi
version=$(sed -n 's/^#define BITSTACK_VERSION "\(.*\)"/\1/p' bitstack.h)
number=$(echo "$version" | awk -F. '{ print $1 * 10000 + $2 * 100 + $3 }')
printf '#include "bitstack.h"\nint main(void) { return BITSTACK_VERSION_NUMBER != %s; }\n' "$number" >"$out/number.c"
if $CC -I"$prefix/include" "$out/number.c" -o "$out/number" && "$out/number" && grep -q "Version $version\. " bitstack.h && grep -q "Version $version\. " bitstack_compress.h &&
    grep -q "^## $version" CHANGELOG.md && grep -q "version: '$version'" packaging/meson.build && grep -q "\"$version\"" packaging/vcpkg/bitstack/vcpkg.json &&
    "$prefix/bin/bitstack" --version | grep -q "^bitstack $version "; then ok "one version everywhere: $version"
else bad "versions differ"; fi

page=$prefix/share/man/man1/bitstack.1
missing=$("$prefix/bin/bitstack" help | sed -n 's/^  \([a-z-]*\)  *[^ ].*/\1/p' | tr '[:lower:]-' '[:upper:]_' | while read -r name; do
    tr -d '\\\\' <"$page" | tr - _ | grep -q "^.SH BITSTACK $name\$" || echo "$name"; done)
if [ -z "$missing" ] && { ! have groff || [ -z "$(groff -man -Tutf8 -ww "$page" 2>&1 >"$out/page.txt" | grep -v 'cannot adjust\|cannot break')" ]; }; then ok "a manual page, of all commands"
else echo "$missing" >"$out/log"; bad "manual page"; fi
if have bash; then
    cat >"$out/complete.bash" <<'END'
. "$1/share/bash-completion/completions/bitstack"
complete_() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _bitstack; echo "${COMPREPLY[*]}"; }
complete_ "$1/bin/bitstack" ru; complete_ "$1/bin/bitstack" help ver; complete_ "$1/bin/bitstack" run --bud; complete_ "$1/bin/bitstack" cut f --c; complete_ "$1/bin/bitstack" run m
END
    bash "$out/complete.bash" "$prefix" >"$out/log" 2>&1
    if printf 'run\nverify\n--budget\n--c-array\n\n' | cmp -s - "$out/log"; then ok "completion for bash"; else bad "completion for bash"; fi
else skip "completion: bash is not installed"; fi

if have pkg-config; then
    export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
    # shellcheck disable=SC2046
    if $CC -std=c99 "$out/user.c" -o "$out/shared" $(pkg-config --cflags --libs "bitstack = $version") -Wl,-rpath,"$prefix/lib" >"$out/log" 2>&1; then
        same "pkg-config, the shared library" "$out/shared"; else bad "pkg-config"; fi
    # shellcheck disable=SC2046
    if $CC -std=c99 "$out/user.c" -o "$out/static" $(pkg-config --cflags bitstack) "$prefix/lib/libbitstack.a" -lm -pthread >"$out/log" 2>&1; then
        same "the static library" "$out/static"; else bad "the static library"; fi
else skip "pkg-config: not installed"; fi
leaked=$(nm -D --defined-only "$prefix/lib/libbitstack.so" | awk '{ print $3 }' | grep -v '^bitstack_[a-z0-9_]*[a-z0-9]$')
if [ -z "$leaked" ] && readelf -d "$prefix/lib/libbitstack.so" | grep -q "libbitstack.so.${version%.*}\]"; then ok "the shared library exports the API alone, under a name with its version"
else echo "$leaked" >"$out/log"; bad "exports"; fi

if have g++; then
    if $make -s "$build/minimal_cpp" BUILD="$build" CFLAGS=-O0 >"$out/log" 2>&1; then same "C++: a class of one screen" "$build/minimal_cpp"; else bad "C++"; fi
    if "$build/minimal_cpp" "$out/none" 0 w >"$out/log" 2>&1 || [ "$(wc -l <"$out/log")" -ne 1 ]; then bad "C++ throws"; else ok "C++: what fails is thrown"; fi
else skip "C++: g++ is not installed"; fi

if have cmake; then
    list() { # name, how the target is found, target, source, more arguments
        where=$out/cmake-$1; mkdir -p "$where"; cp "$4" "$where/user.c"
        printf 'cmake_minimum_required(VERSION 3.15)\nproject(user C)\n%s\nadd_executable(user user.c)\ntarget_link_libraries(user %s)\n' "$2" "$3" >"$where/CMakeLists.txt"
        name="CMake: $1"; shift 4
        if cmake -S "$where" -B "$where/build" -DCMAKE_BUILD_TYPE=Debug "$@" >"$out/log" 2>&1 && cmake --build "$where/build" >>"$out/log" 2>&1; then same "$name" "$where/build/user"; else bad "$name"; fi
    }
    list find_package 'find_package(bitstack 0.2 REQUIRED)' bitstack::bitstack "$out/user.c" -DCMAKE_PREFIX_PATH="$prefix"
    list headers 'find_package(bitstack REQUIRED)' bitstack::headers examples/minimal.c -DCMAKE_PREFIX_PATH="$prefix"
    list FetchContent "include(FetchContent)
FetchContent_Declare(bitstack SOURCE_DIR \"$root\")
FetchContent_MakeAvailable(bitstack)" bitstack::bitstack "$out/user.c"
    if cmake -S . -B "$out/by-cmake" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_INSTALL_PREFIX="$out/second" -DCMAKE_INSTALL_LIBDIR=lib -DBUILD_SHARED_LIBS=ON >"$out/log" 2>&1 &&
        cmake --build "$out/by-cmake" >>"$out/log" 2>&1 && cmake --install "$out/by-cmake" >>"$out/log" 2>&1; then
        list installed-by-CMake 'find_package(bitstack 0.2 REQUIRED)' bitstack::bitstack "$out/user.c" -DCMAKE_PREFIX_PATH="$out/second"
    else bad "CMake's own install"; fi
    printf 'cmake_minimum_required(VERSION 3.15)\nproject(user C)\nfind_package(bitstack 0.9 REQUIRED)\n' >"$out/cmake-headers/CMakeLists.txt"
    if cmake -S "$out/cmake-headers" -B "$out/cmake-headers/other" -DCMAKE_PREFIX_PATH="$prefix" >"$out/log" 2>&1 || ! grep -q "version: $version" "$out/log"; then bad "CMake: another version"
    else ok "CMake: another version is refused"; fi
else skip "CMake: not installed"; fi

if have meson && have ninja; then
    where=$out/meson; mkdir -p "$where/subprojects/bitstack/packaging"
    cp "$out/user.c" "$where/user.c"
    cp bitstack.h bitstack_compress.h packaging/meson.build "$where/subprojects/bitstack"
    cp packaging/bitstack.c packaging/bitstack_compress.c "$where/subprojects/bitstack/packaging"
    printf "project('user', 'c')\nexecutable('user', 'user.c', dependencies: dependency('bitstack', fallback: ['bitstack', 'bitstack_dep']))\n" >"$where/meson.build"
    if (unset PKG_CONFIG_PATH; meson setup "$where/build" "$where" --buildtype=debug --wrap-mode=forcefallback && ninja -C "$where/build") >"$out/log" 2>&1; then same "Meson, a subproject" "$where/build/user"; else bad "Meson"; fi
else skip "Meson: not installed"; fi

if have python3 && python3 -c 'import numpy' 2>/dev/null; then
    BITSTACK_LIBRARY=$prefix/lib/libbitstack.so same "Python: ctypes and numpy" python3 examples/minimal.py
else skip "Python: no python3 with numpy"; fi
echo "## $pass $fail $skip"
