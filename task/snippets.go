package task

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"mlpfusion/internal/disk"
	"mlpfusion/tokenize"
)

// SnippetsSpec is the task of the movie-review snippets: is the mean rating
// below or above 0?
var SnippetsSpec = Spec{Name: "snippets", Labels: []string{"negative", "positive"}, Metrics: []string{Accuracy}, Main: Accuracy}

// neutral are mean ratings that are left out: too near 0 to have a sign.
const neutral = 0.25

// maxSnippets bounds what is unpacked of the archive, in bytes.
const maxSnippets = 64 << 20

// LoadSnippets reads the movie-review snippets with human ratings (Hutto &
// Gilbert 2014) out of the source archive of vaderSentiment 3.3.2: the file
// movieReviewSnippets_GroundTruth.txt in hutto_ICWSM_2014.tar.gz in it.
func LoadSnippets(archive string) ([]Example, error) {
	f, err := disk.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	const inner, text = "additional_resources/hutto_ICWSM_2014.tar.gz", "movieReviewSnippets_GroundTruth.txt"
	r, err := member(f, inner)
	if err == nil {
		if r, err = member(r, text); err == nil {
			var examples []Example
			examples, err = ReadSnippets(r)
			if err == nil {
				return examples, nil
			}
			err = fmt.Errorf("%s: %w", text, err)
		}
	}
	return nil, fmt.Errorf("%s: %w", archive, err)
}

// member finds the file of a .tar.gz whose path ends so.
func member(r io.Reader, suffix string) (io.Reader, error) {
	z, err := gzip.NewReader(io.LimitReader(r, maxSnippets))
	if err != nil {
		return nil, fmt.Errorf("expected a .tar.gz archive with %s: %w", suffix, err)
	}
	t := tar.NewReader(io.LimitReader(z, maxSnippets))
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil, fmt.Errorf("expected a .tar.gz archive with %s, found none", suffix)
		}
		if err != nil {
			return nil, fmt.Errorf("expected a .tar.gz archive with %s: %w", suffix, err)
		}
		if strings.HasSuffix(h.Name, "/"+suffix) {
			return t, nil
		}
	}
}

// ReadSnippets reads lines of an id, the mean rating from -4 to 4 and the text,
// with tabs between. The label is 1 for ratings above 0, else 0; ratings nearer
// to 0 than 0.25 are left out.
func ReadSnippets(r io.Reader) ([]Example, error) {
	var examples []Example
	next := lines(r)
	for {
		n, line, err := next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		cells := strings.SplitN(string(line), "\t", 3)
		if len(cells) < 3 {
			return nil, fmt.Errorf("line %d: expected an id, a rating and a text, found %d columns", n, len(cells))
		}
		rating, err := strconv.ParseFloat(cells[1], 64)
		if err != nil || !(math.Abs(rating) <= 4) {
			return nil, fmt.Errorf("line %d: column 2: expected a rating from -4 to 4, found %q", n, cells[1])
		}
		if math.Abs(rating) < neutral {
			continue
		}
		label := float32(0)
		if rating > 0 {
			label = 1
		}
		examples = append(examples, Example{Text: tokenize.Valid(strings.TrimSpace(cells[2])), Label: label})
	}
	if len(examples) == 0 {
		return nil, fmt.Errorf("expected at least one rated snippet, found an empty data set")
	}
	return examples, nil
}
