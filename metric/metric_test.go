package metric

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlpfusion/internal/golden"

	"pgregory.net/rapid"
)

// scorers are the scores under the names of scripts/peers/metrics.py.
var scorers = map[string]func([]Segment) float64{
	"BLEU, sacrebleu": func(s []Segment) float64 { return BLEU(s, Tokenize13a, true) },
	"BLEU, WebNLG":    func(s []Segment) float64 { return BLEU(s, TokenizeWebNLG, false) },
	"BLEU, E2E":       func(s []Segment) float64 { return BLEU(s, Lower(Tokenize13a), false) },
	"NIST":            func(s []Segment) float64 { return NIST(s, Lower(Tokenize13a)) },
	"NIST, one reference": func(s []Segment) float64 {
		one := make([]Segment, len(s))
		for i, x := range s {
			one[i] = Segment{x.Hypothesis, x.References[:1]}
		}
		return NIST(one, Lower(Tokenize13a))
	},
	"METEOR":      func(s []Segment) float64 { return METEOR(s, TokenizeWebNLG) },
	"TER":         func(s []Segment) float64 { return TER(s, Lower(Fields)) },
	"TER, WebNLG": func(s []Segment) float64 { return TER(s, TokenizeWebNLG) },
	"ROUGE-L":     func(s []Segment) float64 { return ROUGEL(s, Lower(Tokenize13a)) },
	"CIDEr":       func(s []Segment) float64 { return CIDEr(s, Lower(Tokenize13a)) },
	"chrF":        func(s []Segment) float64 { return CHRF(s, 0) },
	"chrF++":      func(s []Segment) float64 { return CHRF(s, 2) },
}

// compare checks every score within a millionth of the peer's: the promised 0.01
// leaves room for no difference in definition, but rounding is far smaller.
func compare(t *testing.T, segments []Segment, want map[string]float64) {
	t.Helper()
	if len(want) != len(scorers) {
		t.Errorf("%d scores of the peers for %d of ours", len(want), len(scorers))
	}
	for name, score := range scorers {
		got, w := score(segments), want[name]
		if !(math.Abs(got-w) <= 1e-6*max(1, w)) {
			t.Errorf("%s: found %.8f, the peer %.8f", name, got, w)
		}
	}
}

func goldenSegments(t *testing.T) []Segment {
	var segments []Segment
	golden.JSON(t, filepath.Join("testdata", "segments.json"), &segments)
	return segments
}

func TestGoldens(t *testing.T) {
	var want map[string]float64
	golden.JSON(t, filepath.Join("testdata", "scores.json"), &want)
	compare(t, goldenSegments(t), want)
}

// TestPeers compares on every tenth entry of the E2E test set (the peers' TER takes
// minutes for all): one reference with some words moved, lost or changed against
// the others.
func TestPeers(t *testing.T) {
	python := os.Getenv("MLPFUSION_METRICS_PYTHON")
	if python == "" {
		t.Skip("MLPFUSION_METRICS_PYTHON is not set; make test-peers sets it")
	}
	f, err := os.Open(filepath.Join("..", "..", "shared", "data", "E2E", "testset_w_refs.csv"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("no shared/data/E2E")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var segments []Segment
	random := rand.New(rand.NewPCG(1, 1))
	last := ""
	for _, row := range rows[1:] {
		if row[0] == last {
			s := &segments[len(segments)-1]
			s.References = append(s.References, row[1])
			continue
		}
		last = row[0]
		words := strings.Fields(row[1])
		for range 1 + random.IntN(len(words)/4) {
			switch i, j := random.IntN(len(words)), random.IntN(len(words)); random.IntN(4) {
			case 0:
				words[i], words[j] = words[j], words[i]
			case 1:
				words = slices.Delete(words, min(i, j), min(i, j)+1)
			case 2:
				words[i] += "ing"
			case 3:
				words = slices.Insert(words, i, words[j:min(len(words), j+4)]...)
			}
		}
		segments = append(segments, Segment{Hypothesis: strings.Join(words, " ")})
	}
	n := 0
	segments = slices.DeleteFunc(segments, func(s Segment) bool {
		n++
		return n%10 != 0 || len(s.References) == 0
	})
	input, err := json.Marshal(segments)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, filepath.Join("..", "scripts", "peers", "metrics.py"), "score")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	// The COCO scorers print on their way; the scores are the last line.
	var want map[string]float64
	if err := json.Unmarshal(out[bytes.LastIndexByte(bytes.TrimSpace(out), '\n')+1:], &want); err != nil {
		t.Fatal(err)
	}
	compare(t, segments, want)
	t.Logf("%d segments", len(segments))
}

// texts draws segments of few different words, so that n-grams match.
func texts(t *rapid.T) []Segment {
	text := rapid.StringMatching(`((the|red|fox|foxes|ran|,|far) ){0,12}end\.`)
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Segment {
		return Segment{text.Draw(t, "hypothesis"), rapid.SliceOfN(text, 1, 4).Draw(t, "references")}
	}), 1, 5).Draw(t, "segments")
}

// TestIdentical: a text is the best answer to itself.
func TestIdentical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		segments := texts(t)
		for i := range segments {
			segments[i].Hypothesis = segments[i].References[0] + " and so on to the end"
			segments[i].References[0] = segments[i].Hypothesis
		}
		for name, want := range map[string]float64{"BLEU, sacrebleu": 100, "BLEU, WebNLG": 100, "TER": 0, "ROUGE-L": 1, "chrF": 100, "chrF++": 100} {
			if got := scorers[name](segments); !(math.Abs(got-want) <= 1e-9) {
				t.Fatalf("%s of identical texts is %v", name, got)
			}
		}
		// METEOR takes off half a cubed share of chunks even here.
		if got := scorers["METEOR"](segments); !(got >= 0.95) {
			t.Fatalf("METEOR of identical texts is %v", got)
		}
	})
}

// TestReferenceOrder: the order of the references and of the segments does not
// count. Of TER's and chrF's equally good references the first counts, and the
// sum of lengths does not care, so chrF may differ where two tie; it is left out.
func TestReferenceOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		segments := texts(t)
		turned := make([]Segment, len(segments))
		for i, s := range segments {
			turned[len(segments)-1-i] = Segment{s.Hypothesis, slices.Clone(s.References)}
			slices.Reverse(turned[len(segments)-1-i].References)
		}
		for name, score := range scorers {
			if name == "NIST, one reference" || strings.HasPrefix(name, "chrF") {
				continue
			}
			if a, b := score(segments), score(turned); !(math.Abs(a-b) <= 1e-9*max(1, a)) {
				t.Fatalf("%s is %v, and %v with references turned round", name, a, b)
			}
		}
	})
}

// TestBounds: scores are numbers within their range, whatever the texts.
func TestBounds(t *testing.T) {
	most := map[string]float64{"NIST": math.Inf(1), "NIST, one reference": math.Inf(1), "CIDEr": 10, "METEOR": 1, "ROUGE-L": 1,
		"TER": math.Inf(1), "TER, WebNLG": math.Inf(1)}
	rapid.Check(t, func(t *rapid.T) {
		segments := texts(t)
		if rapid.Bool().Draw(t, "odd") {
			segments = append(segments, Segment{rapid.String().Draw(t, "odd hypothesis"), []string{rapid.String().Draw(t, "odd reference")}})
		}
		for name, score := range scorers {
			top, ok := most[name]
			if !ok {
				top = 100
			}
			if got := score(segments); !(got >= 0 && got <= top*(1+1e-9)) {
				t.Fatalf("%s is %v", name, got)
			}
		}
	})
}

// TestEmpty: nothing said scores nothing; of TER it is every word to insert.
func TestEmpty(t *testing.T) {
	for name, score := range scorers {
		want := 0.0
		if strings.HasPrefix(name, "TER") {
			want = 100
		}
		if got := score([]Segment{{"", []string{"a fox ran", "the red fox ran"[:9]}}}); got != want && !strings.HasPrefix(name, "TER") {
			t.Errorf("%s of an empty text is %v", name, got)
		}
		if got := score([]Segment{{"", []string{"a fox ran"}}}); got != want {
			t.Errorf("%s of an empty text is %v, want %v", name, got, want)
		}
		if got := score([]Segment{{"", []string{""}}}); got != 0 {
			t.Errorf("%s of two empty texts is %v", name, got)
		}
		if got := score(nil); got != 0 {
			t.Errorf("%s of no texts is %v", name, got)
		}
	}
}

func TestNoReference(t *testing.T) {
	for name, score := range scorers {
		if name == "NIST, one reference" {
			continue
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s accepts a segment without a reference", name)
				}
			}()
			score([]Segment{{Hypothesis: "a"}})
		}()
	}
}

func TestTokenizers(t *testing.T) {
	for _, c := range []struct {
		tok        Tokenizer
		text, want string
	}{
		{Tokenize13a, `It's "near" £20-25, e.g. 1,000.5 (Zizzi's); x-y.`, `It's " near " £20 - 25 , e . g . 1,000.5 ( Zizzi's ) ; x-y .`},
		{Tokenize13a, "a &quot;b&quot; &amp;lt; c-\nd\ne ... ", `a " b " < cd e . . .`},
		{TokenizeWebNLG, `It's A_1 café, 3.5 %.`, `it ' s a_1 café , 3 . 5 % .`},
		{Lower(Fields), " A  b.\n", "a b."},
	} {
		if got := strings.Join(c.tok(c.text), " "); got != c.want {
			t.Errorf("%q: found %q, want %q", c.text, got, c.want)
		}
	}
}

// TestShifts counts edits worked out by hand.
func TestShifts(t *testing.T) {
	for _, c := range []struct {
		hypothesis, reference string
		edits                 int
	}{
		{"a b c d e", "a b c d e", 0},
		{"d e a b c", "a b c d e", 1},     // one phrase moved
		{"a b x d e", "a b c d e", 1},     // one word replaced
		{"e d c b a", "a b c d e", 4},     // each of four words moved
		{"a b c", "a b c d e", 2},         // two words missing
		{"c d e x a b", "a b c d e", 2},   // a phrase moved, a word too many
		{"b c a", "x y z a b c q r s", 7}, // one shift, six insertions
		{"", "a b", 2},
		{"a b", "", 2},
	} {
		if got := editsTo(strings.Fields(c.hypothesis), strings.Fields(c.reference)); got != c.edits {
			t.Errorf("%q to %q: found %d edits, want %d", c.hypothesis, c.reference, got, c.edits)
		}
	}
}
