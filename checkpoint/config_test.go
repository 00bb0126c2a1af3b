package checkpoint

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func parse(t testing.TB, text string) *Config {
	t.Helper()
	c, err := ParseConfig("config.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wants(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("expected an error with %q, found %v", want, err)
	}
}

// A config that transformers wrote comes back byte for byte, and so does all
// of it that is not set.
func TestConfigKeepsWhatItDoesNotKnow(t *testing.T) {
	text, err := os.ReadFile("testdata/golden/single/config.json")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(parse(t, string(text)).Bytes()); got != string(text) {
		t.Errorf("rewritten:\n%s", got)
	}

	c := parse(t, `{"z": 1e-12, "é": {"b": [1, 2.50], "a": "<&>"}, "width": 1536, "x": null}`)
	for key, v := range map[string]any{"width": 384, "layers": []int{1, 2}} {
		if err := c.Set(key, v); err != nil {
			t.Fatal(err)
		}
	}
	c.Delete("x")
	c.Delete("none")
	want := `{
  "z": 1e-12,
  "é": {"b": [1, 2.50], "a": "<&>"},
  "width": 384,
  "layers": [
    1,
    2
  ]
}
`
	if got := string(c.Bytes()); got != want {
		t.Errorf("rewritten:\n%s", got)
	}
	if got := string(parse(t, want).Bytes()); got != want {
		t.Errorf("rewritten twice:\n%s", got)
	}
	copied := c.Clone()
	if err := copied.Set("width", 1); err != nil {
		t.Fatal(err)
	}
	if v, err := c.Int("width"); v != 384 || err != nil {
		t.Errorf("a clone changed the original: %d, %v", v, err)
	}
	if got := string(parse(t, "{}").Bytes()); got != "{\n}\n" {
		t.Errorf("empty: %q", got)
	}
}

func TestConfigGet(t *testing.T) {
	c := parse(t, `{"n": 12, "f": 0.5, "s": "gelu", "b": true, "a": ["x"], "null": null, "o": {"k":
		1}}`)
	if v, err := c.Int("n"); v != 12 || err != nil {
		t.Error(v, err)
	}
	if v, err := c.Float("f"); v != 0.5 || err != nil {
		t.Error(v, err)
	}
	if v, err := c.Float("n"); v != 12 || err != nil {
		t.Error(v, err)
	}
	if v, err := c.String("s"); v != "gelu" || err != nil {
		t.Error(v, err)
	}
	if v, err := c.Bool("b"); !v || err != nil {
		t.Error(v, err)
	}
	if v, err := c.Strings("a"); len(v) != 1 || err != nil {
		t.Error(v, err)
	}
	var o map[string]int
	if err := c.Get("o", &o); o["k"] != 1 || err != nil {
		t.Error(o, err)
	}
	if !c.Has("n") || c.Has("null") || c.Has("none") || c.Raw("none") != nil || len(c.Keys()) != 7 {
		t.Error("Has, Raw or Keys")
	}
	_, err := c.Int("f")
	wants(t, err, `config.json: key "f": expected a whole number, found 0.5`)
	_, err = c.Int("none")
	wants(t, err, `key "none": expected a whole number, found no such key`)
	_, err = c.String("null")
	wants(t, err, `key "null": expected a string, found null`)
	_, err = c.Bool("o")
	wants(t, err, `key "o": expected true or false, found {"k":1}`)
	wants(t, c.Get("s", &o), `key "s": expected a value of Go type map[string]int, found "gelu"`)
	wants(t, c.Set("x", func() {}), `key "x"`)
}

func TestConfigRefuses(t *testing.T) {
	for text, want := range map[string]string{
		``:                                   "config.json: expected a JSON object: the JSON ends too early",
		`[]`:                                 "expected a JSON object, found [",
		`12`:                                 "expected a JSON object, found 12",
		`null`:                               "expected a JSON object, found null",
		`{"a":1`:                             "ends too early",
		`{"a":1} x`:                          "found more after it",
		`{"a":1,"a":2}`:                      `key "a" occurs twice`,
		`{"a":NaN}`:                          `key "a"`,
		"{\"a\": \"\xff\"}":                  "not UTF-8",
		`{"a":` + strings.Repeat("[", 20000): `key "a"`,
	} {
		_, err := ParseConfig("config.json", []byte(text))
		wants(t, err, want)
	}
}

func TestFusionBlock(t *testing.T) {
	c := parse(t, `{"model_type": "bert"}`)
	if f, err := c.Fusion(); f != nil || err != nil {
		t.Errorf("none: %v, %v", f, err)
	}
	err := c.SetFusion(Fusion{
		Method: "fusion", Scale: ScaleKeep, Seed: 7,
		Layers: map[string]Layer{"encoder.layer.1": {Width: 4, Original: 16, Inertia: 0.25}, "encoder.layer.0": {Width: 4}},
		Source: Source{Name: "org/name", SHA256: map[string]string{weightsFile: "00ff"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "model_type": "bert",
  "mlpfusion": {
    "version": 1,
    "method": "fusion",
    "scale": "keep",
    "layers": {
      "encoder.layer.0": {
        "width": 4
      },
      "encoder.layer.1": {
        "width": 4,
        "original": 16,
        "inertia": 0.25
      }
    },
    "source": {
      "name": "org/name",
      "sha256": {
        "model.safetensors": "00ff"
      }
    },
    "seed": 7
  }
}
`
	if got := string(c.Bytes()); got != want {
		t.Errorf("written:\n%s", got)
	}
	f, err := parse(t, want).Fusion()
	if err != nil || f.Version != 1 || f.Layers["encoder.layer.1"].Inertia != 0.25 || f.Source.SHA256[weightsFile] != "00ff" || f.Seed != 7 {
		t.Errorf("read back %+v, %v", f, err)
	}
	wants(t, c.SetFusion(Fusion{Method: "fusion", Scale: "half"}), `scale: expected "keep" or "fold", found "half"`)

	good := `{"version":1,"method":"fusion","scale":"fold","layers":{"a":{"width":2}},"seed":1}`
	for _, edit := range []struct{ old, new, want string }{
		{good, `7`, "expected an object with a version"},
		{`"version":1,`, ``, "expected an object with a version"},
		{`"version":1`, `"version":0`, "at least 1"},
		{`"version":1`, `"version":2`, "expected version 1 or older, found 2: a newer mlpfusion wrote it"},
		{`"fold"`, `"identity"`, `scale: expected "keep" or "fold", found "identity"`},
		{`"method":"fusion",`, ``, "method: expected a name"},
		{`"a":{"width":2}`, ``, "layers: expected at least one"},
		{`"width":2`, `"width":0`, `layers: "a": expected a width of at least 1, found 0`},
		{`"width":2`, `"width":"2"`, "string"},
		{`"width":2`, `"width":2,"padded":2`, "expected 0 to 1 padded units, found 2"},
		{`"seed":1`, `"seed":1,"rotation":"x"`, "rotation"},
	} {
		block := strings.Replace(good, edit.old, edit.new, 1)
		_, err := parse(t, `{"mlpfusion": `+block+`}`).Fusion()
		wants(t, err, `config.json: key "mlpfusion": `)
		wants(t, err, edit.want)
	}
}

func FuzzConfig(f *testing.F) {
	golden, err := os.ReadFile("testdata/golden/single/config.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(`{"mlpfusion":{"version":1,"method":"fusion","scale":"fold","layers":{"a":{"width":2}},"seed":1}}`))
	f.Add([]byte(`{"a":1,"a":2}`))
	f.Add([]byte(`{"":{"b":[1,2.5e3,null,"\u2028<\ud800"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig("config.json", data)
		if err != nil {
			return
		}
		if !json.Valid(c.Bytes()) {
			t.Fatalf("rewritten as %q", c.Bytes())
		}
		again, err := ParseConfig("config.json", c.Bytes())
		if err != nil || string(again.Bytes()) != string(c.Bytes()) {
			t.Fatalf("rewritten twice: %v", err)
		}
		for _, key := range c.Keys() {
			if string(c.Raw(key)) != string(again.Raw(key)) {
				t.Fatalf("key %q: %s became %s", key, c.Raw(key), again.Raw(key))
			}
		}
		fusion, err := c.Fusion()
		if err != nil || fusion == nil {
			return
		}
		if err := c.SetFusion(*fusion); err != nil {
			t.Fatal(err)
		}
	})
}
