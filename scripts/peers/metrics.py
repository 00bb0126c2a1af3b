"""Scores texts with sacrebleu, NLTK and pycocoevalcap, as package metric is to.

    python scripts/peers/metrics.py make DATA      writes metric/testdata
    python scripts/peers/metrics.py score < SEGMENTS > SCORES

SEGMENTS is a list of {"hypothesis", "references"}; SCORES an object. DATA is the
folder shared/data. The texts of the goldens are references of E2E and WebNLG
entries: the first of each is taken from the references and changed by the rules
of `perturb` to stand in for a system's output.
"""

import collections
import csv
import json
import math
import pathlib
import re
import sys

import sacrebleu
from nltk.stem.snowball import SnowballStemmer
from nltk.translate.meteor_score import meteor_score
from nltk.translate.nist_score import corpus_nist
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

ROOT = pathlib.Path(__file__).resolve().parents[2]


class NoSynonyms:
    """In place of WordNet."""

    def synsets(self, word):
        return []


def webnlg(text):
    """The tokenization of WebNLG's and LoRA's scripts."""
    return " ".join(re.split(r"(\W)", text.lower())).split()


def e2e(text):
    """That of the E2E challenge's: mteval's, in lower case."""
    return Tokenizer13a()(text.lower()).split()


def nist(references, hypotheses, order=5):
    """mteval's NIST for several references, restated: NLTK's takes the matches of
    the best reference only."""
    grams = lambda words, n: collections.Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    occurs = collections.Counter()
    for refs in references:
        for r in refs:
            occurs[()] += len(r)
            for n in range(1, order + 1):
                occurs.update(grams(r, n))
    score = 0
    for n in range(1, order + 1):
        found = total = 0
        for refs, hyp in zip(references, hypotheses):
            merged = collections.Counter()
            for r in refs:
                merged |= grams(r, n)
            mine = grams(hyp, n)
            found += sum(c * math.log2(occurs[g[:-1]] / occurs[g]) for g, c in (mine & merged).items())
            total += sum(mine.values())
        score += found / total
    ratio = sum(map(len, hypotheses)) / sum(sum(map(len, refs)) / len(refs) for refs in references)
    return score * math.exp(math.log(0.5) / math.log(1.5) ** 2 * math.log(min(1, ratio)) ** 2)


def score(segments):
    hyps = [s["hypothesis"] for s in segments]
    refs = [s["references"] for s in segments]
    most = max(map(len, refs))
    columns = [[r[i] if i < len(r) else None for r in refs] for i in range(most)]
    join = lambda tok, text: None if text is None else " ".join(tok(text))
    tokenized = lambda tok: ([join(tok, h) for h in hyps], [[join(tok, r) for r in c] for c in columns])
    words = lambda tok: ([[tok(r) for r in rs] for rs in refs], [tok(h) for h in hyps])
    coco = lambda tok: ({i: [join(tok, r) for r in rs] for i, rs in enumerate(refs)}, {i: [join(tok, h)] for i, h in enumerate(hyps)})
    stemmer = SnowballStemmer("english")
    meteors = [meteor_score(r, h, stemmer=stemmer, wordnet=NoSynonyms()) for r, h in zip(*words(webnlg))]
    many, each = words(e2e)
    return {
        "BLEU, sacrebleu": sacrebleu.corpus_bleu(hyps, columns).score,
        "BLEU, WebNLG": sacrebleu.corpus_bleu(*tokenized(webnlg), tokenize="none", smooth_method="none", force=True).score,
        "BLEU, E2E": sacrebleu.corpus_bleu(hyps, columns, lowercase=True, smooth_method="none").score,
        "NIST": nist(many, each),
        "NIST, one reference": corpus_nist([r[:1] for r in many], each),
        "METEOR": sum(meteors) / len(meteors),
        "TER": sacrebleu.corpus_ter(hyps, columns).score,
        "TER, WebNLG": sacrebleu.corpus_ter(*tokenized(webnlg)).score,
        "ROUGE-L": float(Rouge().compute_score(*coco(e2e))[0]),
        "CIDEr": float(Cider().compute_score(*coco(e2e))[0]),
        "chrF": sacrebleu.corpus_chrf(hyps, columns).score,
        "chrF++": sacrebleu.corpus_chrf(hyps, columns, word_order=2).score,
    }


def perturb(i, text):
    words = text.split()
    half = len(words) // 2
    return " ".join(
        [
            words,
            [w for j, w in enumerate(words) if j % 5 != 3],  # every fifth word left out
            words[half:] + words[:half],  # halves exchanged
            words[: half + 1],  # cut
            [w for j, w in enumerate(words) for _ in range(1 + (j % 6 == 2))],  # every sixth doubled
            [w + "s" if j % 4 == 1 else w for j, w in enumerate(words)],  # every fourth inflected
            words[3:6] + words[:3] + words[6:],  # a phrase moved
        ][i % 7]
    )


def make(data):
    entries = collections.OrderedDict()
    with open(data / "E2E" / "testset_w_refs.csv", encoding="utf-8") as f:
        for row in csv.DictReader(f):
            entries.setdefault(row["mr"], []).append(row["ref"])
    groups = list(entries.values())[::45]
    for n, entry in enumerate(json.loads((data / "WebNLG" / "dev.json").read_text(encoding="utf-8"))["entries"]):
        texts = [t["lex"] for e in entry.values() for t in e["lexicalisations"] if t["comment"] == "good"]
        if n % 40 == 7 and len(texts) > 1:
            groups.append(texts)
    segments = [{"hypothesis": perturb(i, g[0]), "references": g[1:6]} for i, g in enumerate(groups)]
    segments.append({"hypothesis": "", "references": groups[0][:2]})
    segments.append({"hypothesis": groups[1][0], "references": groups[1][:3]})
    out = ROOT / "metric" / "testdata"
    out.mkdir(parents=True, exist_ok=True)
    for name, value in ("segments", segments), ("scores", score(segments)):
        (out / f"{name}.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["score"]:
        json.dump(score(json.load(sys.stdin)), sys.stdout)
    elif len(sys.argv) == 3 and sys.argv[1] == "make":
        make(pathlib.Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
