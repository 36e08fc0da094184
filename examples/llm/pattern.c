#include "pattern.h"
#include "unicode.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_CODE = 4096, MOST_RANGES = 8192, MOST_DEPTH = 16, FRAMES = 256 };

/* A set of characters: ranges and kinds. */
typedef struct set {
    uint32_t from, count; /* ranges */
    uint32_t kinds;       /* a bit a kind */
    int negated;
} set;

typedef enum op {
    OP_SET,    /* one character of set `a` */
    OP_REPEAT, /* least to most of them, as many as there are; `possessive` gives none back */
    OP_SPLIT,  /* go on at `a`, or else at `b` */
    OP_JUMP,   /* at `a` */
    OP_AHEAD,  /* what follows, up to OP_MATCH, matches here; or, if `negated`, does not. Goes on at `a` */
    OP_END,    /* the end of the text or of a line */
    OP_MATCH
} op;

typedef struct step {
    op op;
    uint32_t a, b, least, most;
    int possessive, negated;
} step;

struct llm_pattern {
    step *code;
    uint32_t count;
    set *sets;
    uint32_t set_count;
    uint32_t (*ranges)[2];
    uint32_t range_count;
};

/* ---- reading ---- */

typedef struct compiler {
    llm_pattern *p;
    const char *text;
    size_t bytes, at;
    int failed, depth, any_case;
} compiler;

static int peek(const compiler *c) { return c->at < c->bytes ? (unsigned char)c->text[c->at] : -1; }
static int take(compiler *c, const char *what) {
    size_t length = strlen(what);
    if (c->bytes - c->at < length || memcmp(c->text + c->at, what, length) != 0) return 0;
    c->at += length;
    return 1;
}

static uint32_t emit(compiler *c, op what, uint32_t a, uint32_t b) {
    llm_pattern *p = c->p;
    if (p->count == MOST_CODE) c->failed = 1;
    if (c->failed) return 0;
    step one = {what, a, b, 1, 1, 0, 0};
    p->code[p->count] = one;
    return p->count++;
}

static void add_range(compiler *c, set *s, uint32_t from, uint32_t to) {
    if (c->p->range_count == MOST_RANGES || from > to) c->failed = 1;
    if (c->failed) return;
    c->p->ranges[c->p->range_count][0] = from;
    c->p->ranges[c->p->range_count++][1] = to;
    s->count++;
}

/* A character, in both cases where case does not count. Without case, U+017F is an s and U+212A a k. */
static void add_character(compiler *c, set *s, uint32_t code) {
    add_range(c, s, code, code);
    if (!c->any_case) return;
    uint32_t lower = code | 32;
    if (lower >= 'a' && lower <= 'z' && code < 128) add_range(c, s, code ^ 32, code ^ 32);
    else if (code >= 128) c->failed = 1; /* other alphabets' cases are not known here */
    if (code < 128 && lower == 's') add_range(c, s, 0x17f, 0x17f);
    if (code < 128 && lower == 'k') add_range(c, s, 0x212a, 0x212a);
}

#define BIT(kind) (1u << LLM_KIND_##kind)
#define LETTERS (BIT(UPPER) | BIT(LOWER) | BIT(TITLE) | BIT(MODIFIER) | BIT(OTHER_LETTER))
#define NUMBERS (BIT(DIGIT) | BIT(OTHER_NUMBER))
#define ALL_KINDS ((1u << LLM_KINDS) - 1)

/* The kinds of \p{NAME}; 0 for a name that is not known. */
static uint32_t property(compiler *c) {
    static const struct { const char *name; uint32_t kinds; } known[] = {
        {"L", LETTERS}, {"Letter", LETTERS}, {"Lu", BIT(UPPER)}, {"Ll", BIT(LOWER)}, {"Lt", BIT(TITLE)}, {"Lm", BIT(MODIFIER)}, {"Lo", BIT(OTHER_LETTER)},
        {"M", BIT(MARK)}, {"N", NUMBERS}, {"Nd", BIT(DIGIT)}, {"P", BIT(PUNCTUATION)}, {"S", BIT(SYMBOL)}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t before = c->at;
        if (take(c, "{") && take(c, known[i].name) && take(c, "}")) return known[i].kinds;
        c->at = before;
        if (!known[i].name[1] && take(c, known[i].name)) return known[i].kinds; /* \pL */
    }
    c->failed = 1;
    return 0;
}

static uint32_t hexadecimal(compiler *c, int least, int most) {
    uint32_t value = 0;
    int digits = 0;
    for (; digits < most; digits++, c->at++) {
        int d = peek(c), digit = d >= '0' && d <= '9' ? d - '0' : (d | 32) >= 'a' && (d | 32) <= 'f' ? (d | 32) - 'a' + 10 : -1;
        if (digit < 0) break;
        value = value * 16 + (uint32_t)digit;
    }
    if (digits < least || value > 0x10ffff) c->failed = 1;
    return value;
}

/* What stands behind a backslash: kinds to add, or a single character (0 returned). */
static uint32_t escaped(compiler *c, uint32_t *code) {
    int letter = peek(c);
    c->at++;
    switch (letter) {
    case 's': return BIT(SPACE);
    case 'S': return ALL_KINDS & ~BIT(SPACE);
    case 'd': return BIT(DIGIT);
    case 'D': return ALL_KINDS & ~BIT(DIGIT);
    case 'p': return property(c);
    case 'P': return ALL_KINDS & ~property(c);
    case 'n': *code = '\n'; return 0;
    case 'r': *code = '\r'; return 0;
    case 't': *code = '\t'; return 0;
    case 'f': *code = '\f'; return 0;
    case 'v': *code = '\v'; return 0;
    case 'u': *code = hexadecimal(c, 4, 4); return 0;
    case 'x':
        if (!take(c, "{")) *code = hexadecimal(c, 2, 2);
        else {
            *code = hexadecimal(c, 1, 6);
            if (!take(c, "}")) c->failed = 1;
        }
        return 0;
    default: /* a sign that means itself; letters and digits would mean something else */
        if (letter < 33 || letter > 126 || (letter >= '0' && letter <= '9') || ((letter | 32) >= 'a' && (letter | 32) <= 'z')) c->failed = 1;
        *code = (uint32_t)letter;
        return 0;
    }
}

static uint32_t character(compiler *c) {
    size_t length;
    uint32_t code = c->at < c->bytes ? llm_character(c->text + c->at, c->bytes - c->at, &length) : UINT32_MAX;
    if (code == UINT32_MAX) c->failed = 1;
    else c->at += length;
    return code;
}

/* One character of a class; kinds are added to `s` and -1 is returned for them. */
static int64_t class_item(compiler *c, set *s) {
    uint32_t code = 0;
    if (!take(c, "\\")) return character(c);
    uint32_t kinds = escaped(c, &code);
    s->kinds |= kinds;
    return kinds ? -1 : (int64_t)code;
}

/* After "[". */
static void read_class(compiler *c, set *s) {
    s->negated = take(c, "^");
    for (int first = 1; !c->failed && (first || peek(c) != ']'); first = 0) {
        if (c->at >= c->bytes || peek(c) == '[' || (peek(c) == '&' && c->at + 1 < c->bytes && c->text[c->at + 1] == '&')) {
            c->failed = 1; /* classes inside of classes, and what both of two have */
            return;
        }
        int64_t from = class_item(c, s);
        int range = from >= 0 && peek(c) == '-' && c->at + 1 < c->bytes && c->text[c->at + 1] != ']';
        if (range) {
            c->at++;
            int64_t to = class_item(c, s);
            if (to < 0 || c->any_case) c->failed = 1;
            else add_range(c, s, (uint32_t)from, (uint32_t)to);
        } else if (from >= 0) add_character(c, s, (uint32_t)from);
    }
    if (!take(c, "]")) c->failed = 1;
}

static uint32_t new_set(compiler *c) {
    set empty = {c->p->range_count, 0, 0, 0};
    if (c->p->set_count == MOST_CODE) c->failed = 1;
    if (c->failed) return 0;
    c->p->sets[c->p->set_count] = empty;
    return c->p->set_count++;
}

static int alternatives(compiler *c); /* these return whether they may match nothing */

/* "(" is read. */
static int group(compiler *c) {
    int before = c->any_case, ahead = 0, negated = 0, empty;
    if (take(c, "?i:")) c->any_case = 1;
    else if (take(c, "?=")) ahead = 1;
    else if (take(c, "?!")) ahead = negated = 1;
    else if (!take(c, "?:") && peek(c) == '?') c->failed = 1;
    if (++c->depth > MOST_DEPTH) c->failed = 1;
    uint32_t look = ahead ? emit(c, OP_AHEAD, 0, 0) : 0;
    empty = c->failed ? 1 : alternatives(c);
    if (ahead) {
        emit(c, OP_MATCH, 0, 0);
        c->p->code[look].negated = negated;
        c->p->code[look].a = c->p->count;
        empty = 1;
    }
    c->depth--;
    c->any_case = before;
    if (!take(c, ")")) c->failed = 1;
    return empty;
}

/* ?, *, +, {n}, {n,}, {n,m}, each with a + behind it or not; once, where there is none of them. */
static void quantifier(compiler *c, uint32_t *least, uint32_t *most, int *possessive) {
    *least = *most = 1;
    *possessive = 0;
    if (take(c, "?")) *least = 0;
    else if (take(c, "*")) *least = 0, *most = UINT32_MAX;
    else if (take(c, "+")) *most = UINT32_MAX;
    else if (take(c, "{")) {
        uint32_t numbers[2] = {0, UINT32_MAX};
        int given = 0;
        for (int i = 0; i < 2; i++) {
            for (given = 0; peek(c) >= '0' && peek(c) <= '9' && given < 4; given++) numbers[i] = (given ? numbers[i] * 10 : 0) + (uint32_t)(c->text[c->at++] - '0');
            if (i == 0 && !given) c->failed = 1;
            if (i == 0 && !take(c, ",")) {
                numbers[1] = numbers[0];
                break;
            }
        }
        if (!take(c, "}") || numbers[0] > numbers[1]) c->failed = 1;
        *least = numbers[0], *most = numbers[1];
        if (take(c, "+")) c->failed = 1; /* not possessive there, but a repeat of a repeat */
        return;
    } else return;
    *possessive = take(c, "+");
    if (peek(c) == '?' || peek(c) == '*') c->failed = 1;
}

static int has_target(const step *s) { return s->op == OP_SPLIT || s->op == OP_JUMP || s->op == OP_AHEAD; }

/* Makes room for one step at `from`, everything behind it moving on. */
static void shift(compiler *c, uint32_t from) {
    llm_pattern *p = c->p;
    if (p->count == MOST_CODE) c->failed = 1;
    if (c->failed) return;
    memmove(p->code + from + 1, p->code + from, (p->count++ - from) * sizeof *p->code);
    for (uint32_t i = from + 1; i < p->count; i++)
        if (has_target(&p->code[i])) p->code[i].a++, p->code[i].b++;
}

/* Copies code [from, to) to the end, its targets with it. */
static void copy(compiler *c, uint32_t from, uint32_t to) {
    uint32_t by = c->p->count - from;
    for (uint32_t i = from; i < to && !c->failed; i++) {
        step one = c->p->code[i];
        uint32_t at = emit(c, one.op, one.a, one.b);
        if (has_target(&one)) one.a += by, one.b += by;
        if (!c->failed) c->p->code[at] = one;
    }
}

/* What stands at [from, to) as often as the quantifier says. */
static int repeat(compiler *c, uint32_t from, int empty) {
    uint32_t least, most, to = c->p->count;
    int possessive, single = to - from == 1 && c->p->code[from].op == OP_SET;
    quantifier(c, &least, &most, &possessive);
    if (c->failed || (least == 1 && most == 1)) return empty;
    if (single) {
        step *one = &c->p->code[from];
        one->op = OP_REPEAT, one->least = least, one->most = most, one->possessive = possessive;
        return least == 0;
    }
    if (possessive || (empty && most == UINT32_MAX) || (most != UINT32_MAX && most > 64) || least > 64) c->failed = 1;
    if (c->failed) return 1;
    /* The first of them stands there; it is preceded by a split where there may be none. */
    if (least == 0) {
        shift(c, from);
        if (c->failed) return 1;
        step split = {OP_SPLIT, from + 1, 0, 1, 1, 0, 0};
        c->p->code[from] = split;
        from++, to++;
    }
    for (uint32_t i = 1; i < least; i++) copy(c, from, to);
    uint32_t splits[64], count = 0;
    if (most == UINT32_MAX) {
        uint32_t split = emit(c, OP_SPLIT, 0, 0);
        if (c->failed) return 1;
        copy(c, from, to);
        emit(c, OP_JUMP, split, 0);
        if (c->failed) return 1;
        c->p->code[split].a = split + 1, c->p->code[split].b = c->p->count;
    } else
        for (uint32_t i = least ? least : 1; i < most && !c->failed; i++) {
            splits[count] = emit(c, OP_SPLIT, c->p->count + 1, 0);
            count++;
            copy(c, from, to);
        }
    if (c->failed) return 1;
    for (uint32_t i = 0; i < count; i++) c->p->code[splits[i]].b = c->p->count;
    if (least == 0) c->p->code[from - 1].b = c->p->count;
    return least == 0 || empty;
}

static int sequence(compiler *c) {
    int all_empty = 1;
    while (!c->failed && c->at < c->bytes && peek(c) != '|' && peek(c) != ')') {
        uint32_t from = c->p->count;
        int empty = 0;
        if (take(c, "(")) empty = group(c);
        else if (take(c, "$")) emit(c, OP_END, 0, 0), empty = 1;
        else {
            uint32_t s = new_set(c), code = 0;
            if (c->failed) return 1;
            set *one = &c->p->sets[s];
            if (strchr("?*+{^}", peek(c))) c->failed = 1;
            else if (take(c, "[")) read_class(c, one);
            else if (take(c, ".")) add_range(c, one, '\n', '\n'), one->negated = 1;
            else if (take(c, "\\")) {
                one->kinds = escaped(c, &code);
                if (!one->kinds) add_character(c, one, code);
            } else add_character(c, one, character(c));
            emit(c, OP_SET, s, 0);
        }
        if (!c->failed) all_empty &= repeat(c, from, empty);
    }
    return all_empty;
}

static int alternatives(compiler *c) {
    uint32_t ends[256], count = 0, from = c->p->count;
    int empty = sequence(c);
    while (!c->failed && take(c, "|")) { /* split in front of what was read, and jump to the end behind it */
        c->failed |= count == 256;
        shift(c, from);
        ends[count & 255] = emit(c, OP_JUMP, 0, 0);
        count++;
        if (c->failed) return 1;
        step split = {OP_SPLIT, from + 1, c->p->count, 1, 1, 0, 0};
        c->p->code[from] = split;
        from = c->p->count;
        empty |= sequence(c);
    }
    for (uint32_t i = 0; i < count && !c->failed; i++) c->p->code[ends[i]].a = c->p->count;
    return empty;
}

llm_pattern *llm_pattern_compile(llm_string text) {
    llm_pattern *p = calloc(1, sizeof *p);
    compiler c = {p, text.text, text.bytes, 0, !p || !text.text, 0, 0};
    if (!c.failed) {
        p->code = malloc(MOST_CODE * sizeof *p->code);
        p->sets = malloc(MOST_CODE * sizeof *p->sets);
        p->ranges = malloc(MOST_RANGES * sizeof *p->ranges);
        c.failed = !p->code || !p->sets || !p->ranges;
    }
    if (!c.failed) alternatives(&c);
    if (!c.failed && c.at < c.bytes) c.failed = 1;
    emit(&c, OP_MATCH, 0, 0);
    if (!c.failed) return p;
    llm_pattern_free(p);
    return NULL;
}

void llm_pattern_free(llm_pattern *p) {
    if (!p) return;
    free(p->code), free(p->sets), free(p->ranges);
    free(p);
}

/* ---- matching ---- */

static int has(const llm_pattern *p, uint32_t index, uint32_t code) {
    const set *s = &p->sets[index];
    int found = 0;
    for (uint32_t i = s->from; i < s->from + s->count && !found; i++) found = code >= p->ranges[i][0] && code <= p->ranges[i][1];
    if (!found && s->kinds) found = (int)(s->kinds >> llm_kind_of(code) & 1);
    return found != s->negated;
}

/* Bytes of the character in front of `at`, as llm_character counts them from the beginning. */
static size_t back(const char *text, size_t at, size_t least) {
    for (size_t n = 2; n <= 4 && at >= least + n; n++) {
        size_t length;
        llm_character(text + at - n, n, &length);
        if (length == n) return n;
    }
    return 1;
}

typedef struct frame {
    uint32_t pc;
    size_t at, least; /* least: a repeat may give back down to here; `at` itself for a split */
} frame;

typedef struct effort {
    size_t steps, reach; /* how far the text was looked at */
} effort;

enum { FREE_STEPS = 2000, STEPS_A_BYTE = 16 };

/* Where the match of the code at `pc` ends; SIZE_MAX if there is none. */
static size_t run(const llm_pattern *p, uint32_t pc, const char *text, size_t bytes, size_t at, effort *e) {
    frame frames[FRAMES];
    size_t count = 0, length;
    for (;;) {
        const step *s = &p->code[pc];
        int good = 1;
        if (at > e->reach) e->reach = at;
        if (++e->steps > FREE_STEPS + STEPS_A_BYTE * e->reach) return SIZE_MAX;
        switch (s->op) {
        case OP_MATCH: return at;
        case OP_JUMP: pc = s->a; continue;
        case OP_END: good = at == bytes || text[at] == '\n'; pc++; break;
        case OP_SET:
            good = at < bytes && has(p, s->a, llm_character(text + at, bytes - at, &length));
            if (good) at += length;
            pc++;
            break;
        case OP_SPLIT:
            if (count == FRAMES) return SIZE_MAX;
            frames[count].pc = s->b, frames[count].at = frames[count].least = at, count++;
            pc = s->a;
            continue;
        case OP_AHEAD:
            good = (run(p, pc + 1, text, bytes, at, e) != SIZE_MAX) != s->negated;
            pc = s->a;
            break;
        case OP_REPEAT: {
            size_t least = at;
            uint32_t times = 0;
            for (; times < s->most && at < bytes && has(p, s->a, llm_character(text + at, bytes - at, &length)); times++) {
                at += length;
                if (times < s->least) least = at;
            }
            good = times >= s->least;
            pc++;
            if (good && at > least && !s->possessive) {
                if (count == FRAMES) return SIZE_MAX;
                frames[count].pc = pc, frames[count].at = at, frames[count].least = least, count++;
            }
            break;
        }
        }
        if (good) continue;
        if (!count) return SIZE_MAX; /* back to the last choice */
        frame *f = &frames[count - 1];
        if (f->at > f->least) f->at -= back(text, f->at, f->least);
        pc = f->pc, at = f->at;
        if (f->at == f->least) count--;
    }
}

size_t llm_pattern_match(const llm_pattern *p, const char *text, size_t bytes) {
    effort e = {0, 0};
    size_t end = run(p, 0, text, bytes, 0, &e);
    return end == SIZE_MAX ? 0 : end;
}

size_t llm_pattern_word(const llm_pattern *p, const char *text, size_t bytes) {
    size_t at = 0, length;
    while (at < bytes) {
        size_t found = llm_pattern_match(p, text + at, bytes - at);
        if (found) return at ? at : found;
        llm_character(text + at, bytes - at, &length);
        at += length;
    }
    return at;
}
