package train

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/task"
)

// settings are what has to be the same when a run goes on.
type settings struct {
	Config
	Objective Objective `json:"objective"`
	Main      string    `json:"best_by"`         // the metric that the best weights are chosen by
	Model     string    `json:"model,omitempty"` // Runner.Model
	Train     string    `json:"train"`           // digests of the data
	Dev       string    `json:"dev"`
}

// Earlier returns the configuration of the run that left its snapshot in a folder; nil if
// none did.
func Earlier(dir string) (*Config, error) {
	path := filepath.Join(dir, snapshotFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var state runState
	s, err := checkpoint.LoadSnapshot(path, &state)
	if err != nil {
		return nil, err
	}
	s.Close()
	var of Config
	return &of, json.Unmarshal(state.Settings, &of)
}

func (r *Runner) settings() (json.RawMessage, error) {
	return json.Marshal(settings{r.Config, r.Objective, r.Objective.main(r.Data.Spec), r.Model, Digest(r.Data.Train), Digest(r.Data.Dev)})
}

// inputs are the settings whose values say nothing to a reader.
var inputs = map[string]string{"model": "the weights of MODEL", "train": "the training set", "dev": "the dev set"}

// Digest is a hash of all that is read of a set's rows.
func Digest(e *task.Encoded) string {
	sum := sha256.New()
	for _, part := range []any{int64s(e.Offsets), e.IDs, e.Types, e.Labels, e.Targets, e.LabelWords, e.DecoderIDs, int64s(e.DecoderOffsets)} {
		_ = binary.Write(sum, binary.LittleEndian, int64(binary.Size(part)))
		_ = binary.Write(sum, binary.LittleEndian, part) // a hash takes all
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

func int64s(v []int) []int64 {
	w := make([]int64, len(v))
	for i, x := range v {
		w[i] = int64(x)
	}
	return w
}

// Changed names the settings that differ between two JSON objects, in words: "model",
// "train" and "dev" are taken for digests.
func Changed(was, is json.RawMessage) string {
	a, b := flat(was), flat(is)
	all := map[string]bool{}
	for key := range a {
		all[key] = true
	}
	for key := range b {
		all[key] = true
	}
	var list []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		switch old, now := a[key], b[key]; {
		case old == now:
		case inputs[key] != "":
			list = append(list, inputs[key]+" changed")
		default:
			list = append(list, fmt.Sprintf("%s was %s and is %s", key, orNone(old), orNone(now)))
		}
	}
	return strings.Join(list, ", ")
}

func orNone(v string) string {
	if v == "" {
		return "not set"
	}
	return v
}

// flat lists the values of a JSON object, those of objects in it by their path.
func flat(raw json.RawMessage) map[string]string {
	values := map[string]string{}
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(raw, &fields) // no object: it has no fields
	for key, v := range fields {
		if inner := flat(v); len(inner) > 0 {
			for k, v := range inner {
				values[key+"."+k] = v
			}
			continue
		}
		var line bytes.Buffer
		if json.Compact(&line, v) == nil {
			values[key] = line.String()
		}
	}
	return values
}
