# Writes nfc_table.h: canonical decompositions and combining classes. Needs `pip install unicodedata2`; it writes to the
# standard output.
import unicodedata2 as u

LAST, BEFORE = '0123456789ABCDEFGHIJKLMNOPQRSTUV', 'abcdefghijklmnopqrstuvwxyz+-*/#='
def number(n):
    text = LAST[n % 32]
    while n := n // 32:
        text = BEFORE[n % 32] + text
    return text
def signed(n):
    return number(2 * n if n >= 0 else -2 * n - 1)
def show(name, entries):
    print('static const char *const %s[] = {' % name)
    line = ''
    for entry in entries + [None]:
        if entry is None or len(line) + len(entry) > 106:
            print('    "%s",' % line)
            line = ''
        line += entry or ''
    print('    NULL};')

pairs, classes, before, first = [], [], 0, 0
seconds = sorted({int(p[1], 16) for c in range(0x110000) if not 0xAC00 <= c < 0xD7A4 and (d := u.decomposition(chr(c))) and d[0] != '<' and len(p := d.split()) == 2})
for c in range(0x110000):
    d = u.decomposition(chr(c))
    if not d or d[0] == '<' or 0xAC00 <= c < 0xD7A4: # Hangul is reckoned
        continue
    parts = [int(p, 16) for p in d.split()]
    kept = len(parts) == 2 and u.normalize('NFC', ''.join(map(chr, parts))) == chr(c)
    pairs.append(number(c - before) + signed(parts[0] - first) + number((seconds.index(parts[1]) + 1) * 2 + kept if len(parts) == 2 else 0))
    before, first = c, parts[0]
start, run, before = 0, 0, 0
for c in range(0x110001):
    ccc = u.combining(chr(c)) if c < 0x110000 else 0
    if ccc != run:
        if run:
            classes.append(number(start - before) + number(c - start) + number(run))
            before = c
        start, run = c, ccc
print('/* Made by nfc_table.py from Unicode %s, numbers as llm_next_number reads them. Pairs: for each character that' % u.unidata_version)
print(' * decomposes, how far it is from the one before, how far its first part from that one\'s (times 2, or times -2 minus 1),')
print(' * and twice the number of the second in the list plus whether they are put together again, or 0. Classes: for each run,')
print(' * how far from the end of the one before, how many characters, and their combining class. */')
out, last = [], 0
for s in seconds:
    out.append(number(s - last))
    last = s
show('nfc_seconds', out)
show('nfc_pairs', pairs)
show('nfc_classes', classes)
