"""Goldens of package tokenize, made with transformers' fast tokenizers.

    python scripts/goldens/tokenization.py [--tables]

With --tables (minutes) writes tokenize/tables.go, the character classes that
those tokenizers use, read off them for every code point. Writes the tiny
tokenizers tokenize/testdata/*/ and tokenize/testdata/golden.json: for each
tokenizer the SHA-256 of all ids of 5,000 sentences, of 5,000 truncated pairs and
of the decoded texts, and some ids in full. The sentences come from a generator
that tokenize/sentences_test.go has too, and are followed by those of
tokenize/testdata/texts.json: code, numbers, emoji, white space. Needs tokenizers
and transformers; MLPFUSION_MINILM and MLPFUSION_SMOLLM2 name the real models'
folders and MLPFUSION_DATA the folder with tokenizers/ and the data sets (default
../shared/data); what is absent keeps its old golden.
"""

import hashlib
import json
import os
import struct
import sys
import tempfile

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.convert_slow_tokenizer import generate_merges
from transformers import AutoTokenizer, BertTokenizer, GPT2Tokenizer, MPNetTokenizer, RobertaTokenizer

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUT = os.path.join(ROOT, "tokenize", "testdata")
DATA = os.environ.get("MLPFUSION_DATA", os.path.join(ROOT, "..", "shared", "data"))
SENTENCES, SAMPLE = 5000, 10


# --- the sentences: keep in step with tokenize/sentences_test.go ---

WORDS = """the a of movie film good bad not never isn't don't I've we'll you're he'd I'm it's 'tis great awful
charming tedious unbelievable characterization performance director story plot 1984 3.14 10,000 2nd rock'n'roll
well-made self-indulgent e-mail www.example.org user@example.org C++ #tag @name $5.99 50% a_b (so) [so] {so}
"quoted" wait... what?! no!! -- / & + = < > [SEP] [MASK] [UNK] <s> </s> <mask> <|endoftext|> <tiny> Tiny straße
naïve café résumé fiancée Ünïcödé İstanbul ΣΑΣ ﬁne ½ Ⅷ ① 東京タワー 你好 안녕하세요 привет шалом مرحبا नमस्ते สวัสดี ▁under ##ing""".split()
RANGES = [(0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x370, 0x3FF), (0x400, 0x52F), (0x531, 0x58A), (0x5B0, 0x5EA),
          (0x600, 0x6FF), (0x900, 0x97F), (0xE01, 0xE5B), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1E00, 0x1FFF),
          (0x2000, 0x206F), (0x20A0, 0x20CF), (0x2100, 0x218F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
          (0xFB00, 0xFB4F), (0xFF00, 0xFFEF), (0x1D400, 0x1D7FF), (0x20000, 0x2A6DF), (0x0, 0x1F), (0x7F, 0x9F)]
GAPS = [" ", " ", " ", " ", " ", " ", "  ", "", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u200b", ", ", "-"]
BROKEN = [b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\x80\x80", b"\xf4\x90\x80\x80"]


class Random:
    """Knuth's 64-bit linear congruential generator; the high bits are used."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n


def word(r):
    kind = r.below(16)
    if kind < 6:
        w = WORDS[r.below(len(WORDS))]
        case = r.below(4)
        if case == 0 and w.isascii():
            return w.upper()
        return w
    if kind == 6:
        return str(r.below(1000000))
    if kind < 12:
        lo, hi = RANGES[r.below(len(RANGES))]
        return "".join(chr(lo + r.below(hi - lo + 1)) for _ in range(1 + r.below(8)))
    if kind == 12:
        return "".join(chr(0x61 + r.below(26)) + chr(0x300 + r.below(0x70)) for _ in range(1 + r.below(5)))
    if kind == 13:
        return "".join(chr(0x1F300 + r.below(0x350)) + ["", "\u200d", "\ufe0f", "\U0001f3fd"][r.below(4)] for _ in range(1 + r.below(4)))
    if kind == 14:
        if r.below(20) == 0:
            return "".join(chr(0x61 + r.below(3)) for _ in range(90 + r.below(40)))
        return "".join(chr(0x61 + r.below(26)) for _ in range(1 + r.below(14)))
    out = ""
    for _ in range(1 + r.below(4)):
        c = r.below(0x110000 - 0x800)
        out += chr(c if c < 0xD800 else c + 0x800)
    return out


def written():
    with open(os.path.join(OUT, "texts.json")) as f:
        return json.load(f)


def sentences():
    r, out = Random(2308), []
    for _ in range(SENTENCES):
        s = b""
        for _ in range(1 + r.below(14)):
            s += word(r).encode() + GAPS[r.below(len(GAPS))].encode()
        if r.below(16) == 0:
            at = r.below(len(s) + 1)
            s = s[:at] + BROKEN[r.below(len(BROKEN))] + s[at:]
        out.append(s.decode("utf-8", errors="replace"))
    return out


# --- the character classes ---

def code_points():
    return [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def ranges(points):
    out = []
    for c in points:
        if out and c in (out[-1][1] + 1, 0xE000 if out[-1][1] == 0xD7FF else -1):
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def alone(pre, points):
    """For each code point c the pieces that 'a' + c + 'a' is split into."""
    pre = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre])
    text = "".join(" a" + chr(c) + "a" for c in points)
    out = [[] for _ in points]
    for piece, (start, _) in pre.pre_tokenize_str(text):
        out[start // 4].append(piece)
    return out


CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn".split()


def write_tables():
    points = code_points()
    matches = lambda regex: sorted({ord(c) for piece, _ in pre_tokenizers.Split(Regex(regex), "removed", invert=True)
                                    .pre_tokenize_str("".join(map(chr, points))) for c in piece})
    bert = lambda **o: normalizers.BertNormalizer(**{**dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False), **o})
    clean, accents, ideographs, marks = bert(clean_text=True), bert(strip_accents=True), bert(handle_chinese_chars=True), normalizers.StripAccents()
    three = lambda pre: [c for c, p in zip(points, alone(pre, points)) if len(p) == 3]
    tables = [
        ("Control", [c for c in points if clean.normalize_str(chr(c)) == ""]),
        ("Punctuation", three(pre_tokenizers.Punctuation())),
        ("NonSpacing", [c for c in points if accents.normalize_str(chr(c)) == ""]),
        ("Mark", [c for c in points if marks.normalize_str(chr(c)) == ""]),
        ("Numeric", three(pre_tokenizers.Digits())),
        ("Word", [c for c, p in zip(points, alone(pre_tokenizers.Whitespace(), points)) if len(p) == 1]),
        ("Ideograph", [c for c in points if ideographs.normalize_str(chr(c)) != chr(c)]),
    ]
    lines = ["// Code generated by scripts/goldens/tokenization.py; DO NOT EDIT.", "", "package tokenize", "",
             "var classTables = []classTable{"]
    for name, members in tables:
        lines.append(f"\t{{class{name}, []rune{{")
        flat = [f"0x{x:X}" for r in ranges(members) for x in r]
        for i in range(0, len(flat), 16):
            lines.append("\t\t" + ", ".join(flat[i:i + 16]) + ",")
        lines.append("\t}},")
    lines += ["}", "", "var categoryRuns = []uint32{"]
    category = {c: i for i, name in enumerate(CATEGORIES) for c in matches(r"\p{%s}" % name)}
    runs = [f"0x{c << 8 | category[c]:X}" for c, before in zip(points, [-1] + points) if category[c] != category.get(before)]
    for i in range(0, len(runs), 16):
        lines.append("\t" + ", ".join(runs[i:i + 16]) + ",")
    lines.append("}")
    with open(os.path.join(ROOT, "tokenize", "tables.go"), "w") as f:
        f.write("\n".join(lines) + "\n")


def every_code_point():
    """A SHA-256 of what each component makes of each code point."""
    points, out = code_points(), {}
    for name in ("BertNormalizer", "Lowercase", "StripAccents", "NFC", "NFD", "NFKC", "NFKD"):
        n = getattr(normalizers, name)()
        h = hashlib.sha256()
        for c in points:
            h.update(n.normalize_str(chr(c)).encode() + b"\n")
        out[name] = h.hexdigest()
    for name in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits"):
        h = hashlib.sha256()
        for pieces in alone(getattr(pre_tokenizers, name)(), points):
            h.update("\0".join(pieces).encode() + b"\n")
        out[name] = h.hexdigest()
    h = hashlib.sha256()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for c in points:
        h.update(" ".join(p for p, _ in byte_level.pre_tokenize_str("a" + chr(c) + "1" + chr(c) + "  " + chr(c) + "!")).encode() + b"\n")
    out["ByteLevel"] = h.hexdigest()
    return out


# --- the tiny tokenizers, trained on the sentences; the trainers break ties at
# random, so files that are there are kept ---

TINY = ["wordpiece", "bpe", "unigram", "bytefallback", "parts", "llama3", "qwen", "o200k", "deepseek", "smollm", "gemma", "mistral"]

# The splits of today's models. LLAMA3 is also OLMo 2's and GPT-4's.
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace("{1,3}", "")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]

# Patterns of these and of other models, and of what else is read.
REGEXES = [
    LLAMA3, QWEN, O200K, *DEEPSEEK,
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r" ?[^(\s|[.,!?…。，、।۔،])]+", "[0-9][0-9][0-9]", r"\p{N}", r"\p{N}{2}", r"\d+", r"\D+?(?=\d)",
    r"[^\S\n]+|\p{Lu}\p{Ll}*", r"\P{L}{2,4}", r"[\p{^L}\p{M}]", r"(?:a|b)?c|.+?e", r"(?i:[a-k]+)", r"(?i:[^a-kſ]+)",
    r"\p{P}|\p{S}|\p{Z}", r"[^\]\-a]{1,}[\]x-]", r"a(?!b|\s)|(?=x)xy?", r"[ab]++b|.",
]


def tiny_tokenizers(texts):
    texts = texts[:400] + [w for w in WORDS for _ in range(20)]

    def bert_template(t, cls, sep):
        return processors.TemplateProcessing(
            single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B:1 {sep}:1",
            special_tokens=[(cls, t.token_to_id(cls)), (sep, t.token_to_id(sep))])

    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer, t.pre_tokenizer, t.decoder = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    t.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=700, limit_alphabet=250, show_progress=False,
                          special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    yield "wordpiece", t

    t = Tokenizer(models.BPE())
    t.normalizer, t.pre_tokenizer, t.decoder = normalizers.NFC(), pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=500, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                          special_tokens=["<s>", "<pad>", "</s>", "<unk>"]))
    t.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    t.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    yield "bpe", t

    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()])
    t.pre_tokenizer, t.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    latin = [s for s in texts if max(map(ord, s)) < 0x180]
    t.train_from_iterator(latin, trainers.UnigramTrainer(vocab_size=600, show_progress=False, unk_token="<unk>", special_tokens=["<pad>", "</s>", "<unk>"]))
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    yield "unigram", t

    # As Llama's: spaces become characters of the words, unknown ones bytes.
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, limit_alphabet=120, show_progress=False,
                          special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]))
    t.pre_tokenizer = None
    t.post_processor = bert_template(t, "<s>", "</s>")
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    spec = json.loads(t.to_str())
    spec["added_tokens"] = spec["added_tokens"][:3]
    yield "bytefallback", Tokenizer.from_str(json.dumps(spec))

    # The parts that no other has.
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=12))
    t.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase(), normalizers.StripAccents()])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("merged_with_previous"),
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Split("e", "contiguous"), pre_tokenizers.Split(Regex("[xyz]+"), "merged_with_next")])
    t.decoder = decoders.WordPiece(cleanup=False)
    t.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=400, limit_alphabet=150, show_progress=False,
                          special_tokens=["[UNK]", "[CLS]", "[SEP]"]))
    t.add_tokens([AddedToken("Tiny", normalized=True, single_word=True), AddedToken("<tiny>", rstrip=True, lstrip=True, normalized=False),
                  AddedToken("movie", normalized=True), AddedToken("film", normalized=False, single_word=True)])
    t.post_processor = processors.Sequence([processors.ByteLevel(), bert_template(t, "[CLS]", "[SEP]")])
    yield "parts", t

    # Byte-level kinds. The last merges are cut off, so that some tokens are found as
    # whole words only (ignore_merges).
    texts = texts + written() * 3
    split = lambda *patterns: pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns] + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    for name, normalizer, pre, whole in (
            ("llama3", None, split(LLAMA3), True), ("qwen", normalizers.NFC(), split(QWEN), False), ("o200k", None, split(O200K), True),
            ("deepseek", None, split(*DEEPSEEK), False),
            ("smollm", None, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]), False)):
        t = Tokenizer(models.BPE(ignore_merges=whole))
        if normalizer:
            t.normalizer = normalizer
        t.pre_tokenizer, t.decoder = pre, decoders.ByteLevel()
        t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        t.add_special_tokens(["<|begin_of_text|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"])
        t.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("return", normalized=False)])
        bos = ("<|begin_of_text|>", t.token_to_id("<|begin_of_text|>"))
        t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
            single=f"{bos[0]} $A", pair=f"{bos[0]} $A {bos[0]}:1 $B:1", special_tokens=[bos])]) if name == "llama3" else processors.ByteLevel(trim_offsets=False)
        spec = json.loads(t.to_str())
        if whole:
            del spec["model"]["merges"][-60:]
        yield name, Tokenizer.from_str(json.dumps(spec))

    # Gemma's and Mistral's: spaces are characters of the words, unknown ones bytes.
    for name in ("gemma", "mistral"):
        special = ["<pad>", "<eos>", "<bos>", "<unk>"] if name == "gemma" else ["<unk>", "<s>", "</s>"]
        t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        if name == "gemma":
            t.normalizer = normalizers.Replace(" ", "▁")
            t.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        else:
            t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
        t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=700, limit_alphabet=150, show_progress=False,
                              special_tokens=special + [f"<0x{b:02X}>" for b in range(256)]))
        spec = json.loads(t.to_str())
        spec["added_tokens"] = spec["added_tokens"][:len(special)]
        t = Tokenizer.from_str(json.dumps(spec))
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        if name == "gemma":
            t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
            t.add_tokens([AddedToken(s, normalized=False) for s in ("\n\n", "▁▁", "\t\t", "<unused0>")])
            t.add_special_tokens(["<start_of_turn>"])
            bos = "<bos>"
        else:
            t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
            t.add_special_tokens([AddedToken("<|im_end|>", rstrip=True), "[INST]", "[/INST]"])
            parts.append(decoders.Strip(" ", 1, 0))
            bos = "<s>"
        t.decoder = decoders.Sequence(parts)
        t.post_processor = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, t.token_to_id(bos))])
        yield name, t


# --- T5 from spiece.model: the pipeline that transformers' T5Tokenizer builds ---

def protobuf(data):
    at = 0
    def varint():
        nonlocal at
        v = s = 0
        while True:
            b = data[at]; at += 1
            v |= (b & 127) << s
            if b < 128:
                return v
            s += 7
    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        elif tag & 7 == 5:
            yield tag >> 3, struct.unpack("<f", data[at:at + 4])[0]; at += 4
        else:
            n = varint()
            yield tag >> 3, data[at:at + n]; at += n


def t5(path, eos):
    pieces, unk, chars = [], 0, b""
    for field, value in protobuf(open(path, "rb").read()):
        if field == 1:
            p = {1: b"", 2: 0.0, 3: 1, **dict(protobuf(value))}
            pieces.append((p[1].decode(), p[2], p[3]))
        elif field == 2:
            unk = dict(protobuf(value)).get(40, 0)
        elif field == 3:
            chars = dict(protobuf(value)).get(2, b"")
    t = Tokenizer(models.Unigram([p[:2] for p in pieces], unk_id=unk, byte_fallback=False))
    if chars:
        t.normalizer = normalizers.Precompiled(chars)
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", "always", True)])
    t.decoder = decoders.Metaspace("▁", "always", True)
    end = t.token_to_id(eos)
    t.post_processor = processors.TemplateProcessing(single=["$A", eos], pair=["$A", eos, "$B", eos], special_tokens=[(eos, end)])
    t.add_special_tokens([AddedToken(p[0], normalized=False) for i, p in enumerate(pieces) if p[2] == 3 or i == unk])
    t.add_tokens([AddedToken(p[0], normalized=False) for p in pieces if p[2] == 4])
    t.add_special_tokens([AddedToken(f"<extra_id_{i}>", normalized=False) for i in reversed(range(100))])
    return t


# --- tokenizers from vocabulary files ---

CONFIGS = {  # name: (class, folder, tokenizer_config.json)
    "bert": (BertTokenizer, "bert-base-uncased", None),
    "bert-cased": (BertTokenizer, "bert-base-uncased", dict(tokenizer_class="BertTokenizer", do_lower_case=False, tokenize_chinese_chars=False, truncation_side="left")),
    "mpnet": (MPNetTokenizer, "bert-base-uncased", dict(tokenizer_class="MPNetTokenizer", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]",
              mask_token="[MASK]", bos_token="[CLS]", eos_token="[SEP]")),
    "gpt2": (GPT2Tokenizer, "gpt2", None),
    "gpt2-bos": (GPT2Tokenizer, "gpt2", dict(tokenizer_class="GPT2Tokenizer", add_bos_token=True, add_prefix_space=True)),
    "roberta": (RobertaTokenizer, "gpt2", dict(tokenizer_class="RobertaTokenizer", **{k + "_token": "<|endoftext|>" for k in ("bos", "eos", "cls", "sep", "pad", "unk", "mask")})),
}


def from_vocabulary(cls, folder, config):
    with tempfile.TemporaryDirectory() as d:
        for name in os.listdir(folder):
            if name != "SOURCE.md":
                os.symlink(os.path.abspath(os.path.join(folder, name)), os.path.join(d, name))
        if config:
            with open(os.path.join(d, "tokenizer_config.json"), "w") as f:
                json.dump(config, f)
        return cls.from_pretrained(d)


# --- tokenizers out of a GGUF file's vocabulary and scores ---

def from_scores(spec, prefix):
    """What GGUF keeps of spec: scores for merges, '▁' in front of each part or of none, no white space taken by added tokens.

    Those that stand for spaces are found behind the normalizer: transformers has merges for them as well."""
    spec = json.loads(json.dumps(spec))
    for a in spec["added_tokens"]:
        a["rstrip"] = False
        a["normalized"] = not prefix and not a["special"]
    vocab, added = spec["model"]["vocab"], {a["content"] for a in spec["added_tokens"]}
    scores = {s: -float(i) for s, i in vocab.items() if s not in added and not s.startswith("<0x")}
    spec["model"]["merges"] = generate_merges(vocab, scores)
    t = Tokenizer.from_str(json.dumps(spec))
    t.pre_tokenizer = None
    steps = [normalizers.Prepend("▁")] * prefix + [normalizers.Replace(" ", "▁")]
    t.normalizer = normalizers.Sequence(steps)
    return t


# --- what is compared ---

def golden(t, texts, config=None):
    side = (config or {}).get("truncation_side", "right")
    t.no_padding()
    t.no_truncation()
    ids, pairs, decoded = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    sample = []
    for i, text in enumerate(texts):
        e = t.encode(text)
        ids.update((" ".join(map(str, e.ids)) + "\n").encode())
        decoded.update(t.decode(e.ids, skip_special_tokens=True).encode() + b"\n")
        if i < SAMPLE:
            sample.append(e.ids)
    for i, text in enumerate(texts):
        t.enable_truncation(max_length=6 + i % 40, direction=side)
        e = t.encode(text, texts[(i + 1) % len(texts)])
        pairs.update((" ".join(map(str, e.ids)) + "|" + " ".join(map(str, e.type_ids)) + "\n").encode())
    t.no_truncation()
    return dict(ids=ids.hexdigest(), pairs=pairs.hexdigest(), decoded=decoded.hexdigest(), sample=sample)


LINES = ["SST-2/dev.tsv", "GSM8K/test.jsonl", "E2E/devset.csv", "CoNLL-2003/test.txt", "WikiText-2/wiki.test.raw", "tinyshakespeare/input.txt"]


def lines():
    """The data sets' lines, each with its end; what is no UTF-8 is replaced."""
    for name in LINES:
        with open(os.path.join(DATA, name), "rb") as f:
            yield from (line.decode("utf-8", errors="replace") for line in f)


def line_ids(t):
    h = hashlib.sha256()
    for e in t.encode_batch(list(lines())):
        h.update((" ".join(map(str, e.ids)) + "\n").encode())
    return h.hexdigest()


# --- what is said beside a vocabulary: files of tiny tokenizers, and transformers' ids ---

def beside():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "Good", "film", "naïve", "naive", "東", "<", ">", "e"]
    wordpiece = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    wordpiece.normalizer, wordpiece.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    wordpiece.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    letters = {c: i for i, c in enumerate(["<|endoftext|>", "Ġ", "Ċ", "a", "b", "<", ">", "e", "ab", "Ġab"])}
    merges = [("a", "b"), ("Ġ", "ab")]
    bytelevel = Tokenizer(models.BPE(letters, merges))
    bytelevel.pre_tokenizer, bytelevel.post_processor = pre_tokenizers.ByteLevel(add_prefix_space=False), processors.ByteLevel()
    grown = Tokenizer.from_str(bytelevel.to_str())
    grown.add_tokens([AddedToken("<p>", normalized=False)])
    bert = lambda **more: {"tokenizer.json": wordpiece.to_str(), "config.json": '{"model_type": "bert"}', "tokenizer_config.json": json.dumps(more)}
    vocab = lambda **more: {"vocab.txt": "\n".join(words) + "\n", "config.json": '{"model_type": "bert"}', "tokenizer_config.json": json.dumps(more)}
    gpt2 = lambda **more: {"tokenizer.json": bytelevel.to_str(), "config.json": '{"model_type": "gpt2"}', "tokenizer_config.json": json.dumps(more)}
    pairs = lambda **more: {"vocab.json": json.dumps(letters), "merges.txt": "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges),
                            "config.json": '{"model_type": "gpt2"}', "tokenizer_config.json": json.dumps(more)}
    more = lambda files, **others: {**files, **{name: json.dumps(value) for name, value in others.items()}}
    plain, text, letter = "PreTrainedTokenizerFast", "Good film, naïve <e1>東 good<e2>", "ab<e1>b ab <e2><p>"
    e1 = dict(__type="AddedToken", content="<e1>", lstrip=True, rstrip=False, single_word=False, normalized=False, special=True)
    yield text, bert()
    for cls in ("BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "MPNetTokenizer", plain):
        special = {"bos_token": "[CLS]", "eos_token": "[SEP]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]", "unk_token": "[UNK]"} if cls == "MPNetTokenizer" else {}
        yield text, bert(tokenizer_class=cls, do_lower_case=False, **special)
        yield text, bert(tokenizer_class=cls, do_lower_case=True, strip_accents=False, tokenize_chinese_chars=False, **special)
    yield text, bert(do_lower_case=False, strip_accents=True)
    yield text, bert(additional_special_tokens=["<e2>", "<e1>"])
    yield text, bert(extra_special_tokens=["<e2>", "<e1>"])
    yield text, bert(additional_special_tokens=[e1, "good"], pad_token="<e2>")
    yield text, bert(tokenizer_class=plain, additional_special_tokens=["<e2>"], bos_token="<e1>")
    yield text, bert(added_tokens_decoder={"15": e1, "16": dict(e1, content="<e2>", normalized=True, special=False)})
    yield text, vocab(additional_special_tokens=["<e2>", "<e1>"], mask_token="film")
    yield text, more(vocab(additional_special_tokens=["<e2>"]), **{"added_tokens.json": {"<e1>": 16, "FILM": 15}})
    yield letter, gpt2()
    for cls in ("GPT2Tokenizer", "GPT2TokenizerFast", plain):
        yield letter, gpt2(tokenizer_class=cls, add_prefix_space=True)
        yield letter, gpt2(tokenizer_class=cls, additional_special_tokens=["<e1>"], pad_token="<p>")
    yield letter, gpt2(add_prefix_space=True)
    yield letter, {**gpt2(additional_special_tokens=["<e1>"]), "tokenizer.json": grown.to_str()}
    yield letter, pairs(additional_special_tokens=["<e1>"], pad_token="<p>")
    yield letter, more(pairs(additional_special_tokens=["<e2>"]), **{"added_tokens.json": {"<e1>": 11, "<p>": 10}})
    yield letter, more(pairs(added_tokens_decoder={"10": e1}), **{"added_tokens.json": {"<p>": 10}})


def write_beside():
    cases = []
    for text, files in beside():
        with tempfile.TemporaryDirectory() as d:
            for name, content in files.items():
                with open(os.path.join(d, name), "w") as f:
                    f.write(content)
            t = AutoTokenizer.from_pretrained(d)
            cases.append(dict(files=files, text=text, ids=t(text)["input_ids"], size=len(t), pad=t.pad_token_id if "pad_token" in files["tokenizer_config.json"] else -1))
    with open(os.path.join(OUT, "beside.json"), "w") as f:
        json.dump(cases, f, indent=0, ensure_ascii=False)
        f.write("\n")


def splits(regex, texts):
    h, pre = hashlib.sha256(), pre_tokenizers.Split(Regex(regex), "isolated")
    for text in texts:
        h.update("\0".join(p for p, _ in pre.pre_tokenize_str(text)).encode() + b"\n")
    return h.hexdigest()


def main():
    os.makedirs(OUT, exist_ok=True)
    path = os.path.join(OUT, "golden.json")
    out = json.load(open(path)) if os.path.exists(path) else {"tokenizers": {}}
    texts = sentences() + written()
    out["sentences"] = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    if "--tables" in sys.argv:
        write_tables()
        out["code_points"] = every_code_point()
    write_beside()
    out["regexes"] = {r: splits(r, texts) for r in REGEXES}
    files = {name: os.path.join(OUT, name, "tokenizer.json") for name in TINY}
    if not all(map(os.path.exists, files.values())):
        for name, t in tiny_tokenizers(sentences()):
            if os.path.exists(files[name]):
                continue
            os.makedirs(os.path.join(OUT, name), exist_ok=True)
            with open(files[name], "w") as f:
                json.dump(json.loads(t.to_str()), f, ensure_ascii=False, separators=(",", ":"))
                f.write("\n")
    for name, file in files.items():
        out["tokenizers"][name] = golden(Tokenizer.from_file(file), texts)
    for name, (cls, folder, config) in CONFIGS.items():
        folder = os.path.join(DATA, "tokenizers", folder)
        if os.path.isdir(folder):
            out["tokenizers"][name] = golden(from_vocabulary(cls, folder, config)._tokenizer, texts, config)
            out["tokenizers"][name]["config"] = config
    for name, folder, file, eos in (("t5-albert", "albert-sentencepiece", "spiece.model", "[SEP]"), ("t5-test", "sentencepiece-test", "test_sentencepiece.model", "</s>")):
        file = os.path.join(DATA, "tokenizers", folder, file)
        if os.path.exists(file):
            out["tokenizers"][name] = golden(t5(file, eos), texts)
            out["tokenizers"][name]["config"] = dict(eos_token=eos, tokenizer_class="T5Tokenizer")
    if os.environ.get("MLPFUSION_MINILM"):
        out["tokenizers"]["minilm"] = golden(AutoTokenizer.from_pretrained(os.environ["MLPFUSION_MINILM"])._tokenizer, texts)
    if os.environ.get("MLPFUSION_SMOLLM2"):
        out["tokenizers"]["smollm2"] = golden(Tokenizer.from_file(os.path.join(os.environ["MLPFUSION_SMOLLM2"], "tokenizer.json")), texts)
    out["gguf"] = {}
    for name, prefix in (("gemma", False), ("mistral", True)):
        with open(files[name]) as f:
            out["gguf"][name] = golden(from_scores(json.load(f), prefix), texts)
    if all(os.path.exists(os.path.join(DATA, name)) for name in LINES):
        out["lines"] = {name: line_ids(Tokenizer.from_file(files[name])) for name in TINY[5:]}
        if os.environ.get("MLPFUSION_SMOLLM2"):
            out["lines"]["smollm2"] = line_ids(Tokenizer.from_file(os.path.join(os.environ["MLPFUSION_SMOLLM2"], "tokenizer.json")))
    with open(path, "w") as f:
        json.dump(out, f, indent=0, sort_keys=True)
        f.write("\n")


if __name__ == "__main__":
    main()
