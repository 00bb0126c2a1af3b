package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Config is a config.json: a JSON object whose keys keep their order, and
// whose values keep their text unless they are set. What mlpfusion does not
// know survives a rewrite.
type Config struct {
	path   string // for messages
	fields []field
}

// ReadConfig reads a config.json.
func ReadConfig(path string) (*Config, error) {
	data, err := readSmallFile(path)
	if err != nil {
		return nil, err
	}
	return ParseConfig(path, data)
}

// ParseConfig parses a config; path is for messages.
func ParseConfig(path string, data []byte) (*Config, error) {
	fields, err := parseObject(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Config{path, fields}, nil
}

// Clone returns a copy that is changed without changing c.
func (c *Config) Clone() *Config { return &Config{c.path, slices.Clone(c.fields)} }

// Keys returns the keys in their order.
func (c *Config) Keys() []string {
	keys := make([]string, len(c.fields))
	for i, f := range c.fields {
		keys[i] = f.key
	}
	return keys
}

func (c *Config) find(key string) int {
	return slices.IndexFunc(c.fields, func(f field) bool { return f.key == key })
}

// Has reports whether the key is there with a value other than null.
func (c *Config) Has(key string) bool {
	i := c.find(key)
	return i >= 0 && string(c.fields[i].raw) != "null"
}

// Raw returns the key's value as written, nil if there is none.
func (c *Config) Raw(key string) json.RawMessage {
	if i := c.find(key); i >= 0 {
		return c.fields[i].raw
	}
	return nil
}

// Get stores the key's value in v as encoding/json does. A key that is absent
// or null, or of another type than v, is an error.
func (c *Config) Get(key string, v any) error { return c.get(key, typeInWords(v), v) }

func (c *Config) get(key, expected string, v any) error {
	if !c.Has(key) {
		found := "no such key"
		if c.Raw(key) != nil {
			found = "null"
		}
		return fmt.Errorf("%s: key %q: expected %s, found %s", c.path, key, expected, found)
	}
	raw := c.Raw(key)
	if json.Unmarshal(raw, v) != nil {
		return fmt.Errorf("%s: key %q: expected %s, found %s", c.path, key, expected, shown(oneLine(raw)))
	}
	return nil
}

func typeInWords(v any) string {
	return "a value of Go type " + strings.TrimPrefix(fmt.Sprintf("%T", v), "*")
}

func oneLine(raw []byte) []byte {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return raw
	}
	return b.Bytes()
}

// Int returns a whole number.
func (c *Config) Int(key string) (v int, err error) {
	err = c.get(key, "a whole number", &v)
	return v, err
}

// Float returns a number.
func (c *Config) Float(key string) (v float64, err error) {
	err = c.get(key, "a number", &v)
	return v, err
}

// String returns a string.
func (c *Config) String(key string) (v string, err error) {
	err = c.get(key, "a string", &v)
	return v, err
}

// Bool returns true or false.
func (c *Config) Bool(key string) (v bool, err error) {
	err = c.get(key, "true or false", &v)
	return v, err
}

// Strings returns an array of strings.
func (c *Config) Strings(key string) (v []string, err error) {
	err = c.get(key, "an array of strings", &v)
	return v, err
}

// Set gives the key a value, in its old place or at the end.
func (c *Config) Set(key string, v any) error {
	raw, err := encodeJSON(v)
	if err != nil {
		return fmt.Errorf("%s: key %q: %w", c.path, key, err)
	}
	raw = indentJSON(raw, "  ")
	if i := c.find(key); i >= 0 {
		c.fields[i].raw = raw
	} else {
		c.fields = append(c.fields, field{key, raw})
	}
	return nil
}

// Delete removes the key, if it is there.
func (c *Config) Delete(key string) {
	c.fields = slices.DeleteFunc(c.fields, func(f field) bool { return f.key == key })
}

// Bytes returns the file's text: a key a line, two spaces deep as transformers
// writes it, each value as it was read or set.
func (c *Config) Bytes() []byte {
	var b bytes.Buffer
	separator := "{\n  "
	for _, f := range c.fields {
		key, _ := encodeJSON(f.key) // a string always encodes
		b.WriteString(separator)
		b.Write(key)
		b.WriteString(": ")
		b.Write(f.raw)
		separator = ",\n  "
	}
	if len(c.fields) == 0 {
		b.WriteString("{")
	}
	b.WriteString("\n}\n")
	return b.Bytes()
}

// fusionKey is the key of the Fusion block.
const fusionKey = "mlpfusion"

// fusionVersion is the newest version of the block that is understood.
const fusionVersion = 1

// The modes in which a checkpoint holds the cluster sizes P (docs/method.md).
const (
	ScaleKeep = "keep" // a tensor ….mlp_scale beside each fused block's weights
	ScaleFold = "fold" // multiplied into the down projection
)

// Fusion is the block "mlpfusion" of config.json, which says how a checkpoint
// was compressed.
type Fusion struct {
	Version int    `json:"version"`
	Method  string `json:"method"`
	Scale   string `json:"scale"` // ScaleKeep or ScaleFold
	// Layers holds the compressed blocks by the name that the family gives them.
	Layers map[string]Layer `json:"layers"`
	Source Source           `json:"source,omitzero"`
	// Experts is the number of experts that each mixture had where some were dropped, and
	// Kept the old numbers, by mixture, of those that stayed; their new numbers are 0, 1, ….
	Experts int              `json:"experts,omitempty"`
	Kept    map[string][]int `json:"kept,omitempty"`
	Seed    uint64           `json:"seed"`
}

// Layer is one compressed block.
type Layer struct {
	Width    int `json:"width"`              // hidden units c
	Original int `json:"original,omitempty"` // hidden units p_I before
	// Inertia is the clustering's sum of squared distances; Total is that of
	// one cluster, so that 1 - Inertia/Total is the share explained.
	Inertia float64 `json:"inertia,omitempty"`
	Total   float64 `json:"total,omitempty"`
	// Silhouette is the clustering's mean silhouette, -1 … 1.
	Silhouette float64 `json:"silhouette,omitempty"`
	Method     string  `json:"method,omitempty"` // when other than the checkpoint's
	Rank       int     `json:"rank,omitempty"`   // each matrix is two factors of this rank (svd)
	Masked     bool    `json:"masked,omitempty"` // zero weights stay zero in training (magnitude)
	// Weights is the block whose matrices this one uses, with P of its own where
	// there is one; "" when it has its own.
	Weights string `json:"weights,omitempty"`
	// Untaught tells that no calibration text came to the block, an expert, so that its
	// weights alone are what it was made of.
	Untaught bool `json:"untaught,omitempty"`
	// Padded counts dead units that fill the block up to Width on export.
	Padded int `json:"padded,omitempty"`
}

// Source is the checkpoint that was compressed.
type Source struct {
	Name   string            `json:"name,omitempty"`   // as the user gave it
	SHA256 map[string]string `json:"sha256,omitempty"` // by weight file, in hexadecimal
}

// Fusion returns the block "mlpfusion", nil if the config has none. A block
// that is not understood fully is an error: what it says changes the function
// that the tensors compute.
func (c *Config) Fusion() (*Fusion, error) {
	if !c.Has(fusionKey) {
		return nil, nil
	}
	fail := func(format string, args ...any) (*Fusion, error) {
		return nil, fmt.Errorf("%s: key %q: %s", c.path, fusionKey, fmt.Sprintf(format, args...))
	}
	raw := c.Raw(fusionKey)
	var head struct {
		Version *int `json:"version"`
	}
	if json.Unmarshal(raw, &head) != nil || head.Version == nil || *head.Version < 1 {
		return fail("expected an object with a version of at least 1, found %s", shown(oneLine(raw)))
	}
	if *head.Version > fusionVersion {
		return fail("expected version %d or older, found %d: a newer mlpfusion wrote it", fusionVersion, *head.Version)
	}
	var f Fusion
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return fail("%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if err := f.check(); err != nil {
		return fail("%v", err)
	}
	return &f, nil
}

// SetFusion stores the block; Version may be left 0.
func (c *Config) SetFusion(f Fusion) error {
	f.Version = fusionVersion
	if err := f.check(); err != nil {
		return fmt.Errorf("%s: key %q: %w", c.path, fusionKey, err)
	}
	return c.Set(fusionKey, f)
}

func (f *Fusion) check() error {
	if f.Method == "" {
		return errors.New("method: expected a name, found none")
	}
	if f.Scale != ScaleKeep && f.Scale != ScaleFold {
		return fmt.Errorf("scale: expected %q or %q, found %q", ScaleKeep, ScaleFold, f.Scale)
	}
	if len(f.Layers) == 0 {
		return errors.New("layers: expected at least one, found none")
	}
	for name, layer := range f.Layers {
		if layer.Width < 1 {
			return fmt.Errorf("layers: %q: expected a width of at least 1, found %d", name, layer.Width)
		}
		if owner := layer.Weights; owner != "" {
			if o, ok := f.Layers[owner]; !ok || o.Weights != "" || o.Width != layer.Width {
				return fmt.Errorf("layers: %q: weights: expected a layer of %d units that has its own, found %q", name, layer.Width, owner)
			}
		}
		if layer.Padded < 0 || layer.Padded >= layer.Width {
			return fmt.Errorf("layers: %q: expected 0 to %d padded units, found %d", name, layer.Width-1, layer.Padded)
		}
	}
	return nil
}

// configPath is a directory's config.json.
func configPath(dir string) string { return filepath.Join(dir, "config.json") }
