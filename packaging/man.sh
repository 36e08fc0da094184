#!/bin/sh
# man.sh COMMAND: the manual page of the command, out of what it says of itself.
set -eu
bitstack=$1
plain() { sed -e 's/\\/\\e/g' -e "s/^\([.']\)/\\\\\&\1/" -e 's/-/\\-/g'; }
version=$("$bitstack" --version | sed -n '1s/^bitstack \([^ ]*\).*/\1/p')
cat <<END
.TH BITSTACK 1 "" "bitstack $version" "User Commands"
.SH NAME
bitstack \\- compress a neural network once, run it at any size
.SH SYNOPSIS
.B bitstack
.I COMMAND
\\&...
.SH DESCRIPTION
.nf
END
"$bitstack" help | sed 1,2d | plain
echo .fi
"$bitstack" help | sed -n 's/^  \([a-z-]*\)  *[^ ].*/\1/p' | while read -r command; do
    printf '.SH BITSTACK %s\n.nf\n' "$(echo "$command" | tr '[:lower:]' '[:upper:]' | plain)"
    "$bitstack" help "$command" | plain
    echo .fi
done
