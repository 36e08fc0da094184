#!/usr/bin/env python3
"""Writes unicode_table.h: which characters are letters, numbers and spaces. Run it in this folder after a new
edition of Unicode (Python carries one: unicodedata.unidata_version)."""
import sys
import unicodedata

SPACES = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}


def kind(code):
    if code in SPACES:
        return 3
    return {"L": 1, "N": 2}.get(unicodedata.category(chr(code))[0], 0)


runs, before = [], None
for code in range(0x110000):
    if kind(code) != before:
        before = kind(code)
        runs.append(code << 2 | before)
out = ["/* Made by unicode_table.py from Unicode %s: where each run of characters of one kind starts, times 4, plus the"
       % unicodedata.unidata_version, " * kind: 0 other, 1 letter (L*), 2 number (N*), 3 space (White_Space). */"]
line = ""
for run in runs:
    item = "0x%X, " % run
    if len(line) + len(item) > 111:
        out.append(line.rstrip())
        line = ""
    line += item
out.append(line.rstrip(", "))
open("unicode_table.h", "w").write("\n".join(out) + "\n")
print(len(runs), "runs", file=sys.stderr)
