package task

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

const webnlgXML = `<?xml version='1.0' encoding='UTF-8'?>
<benchmark>
  <entries>
    <entry category="Food" eid="Id1" size="2">
      <originaltripleset><otriple>a | b | c</otriple></originaltripleset>
      <modifiedtripleset>
        <mtriple>Bacon_&amp;_egg | mainIngredient | "Egg, fried"</mtriple>
        <mtriple>Bacon_&amp;_egg | region | Ireland</mtriple>
      </modifiedtripleset>
      <lex comment="good" lid="Id1"> Bacon &amp; egg comes from Ireland. </lex>
      <lex comment="toFix" lid="Id2">Bacon egg Ireland.</lex>
      <lex comment="good" lid="Id3">From Ireland: bacon with egg.</lex>
    </entry>
    <entry category="Artist" eid="Id2" size="1">
      <modifiedtripleset><mtriple>Aaron | genre | Folk</mtriple></modifiedtripleset>
      <lex comment="good" lid="Id1">Aaron plays folk.</lex>
    </entry>
  </entries>
</benchmark>
`

const webnlgJSON = `{"entries": [
  {"1": {"category": "Food", "size": "2", "modifiedtripleset": [
      {"object": "\"Egg, fried\"", "property": "mainIngredient", "subject": "Bacon_&_egg"},
      {"object": "Ireland", "property": "region", "subject": "Bacon_&_egg"}],
    "lexicalisations": [{"comment": "good", "lex": "Bacon & egg comes from Ireland."}, {"comment": "toFix", "lex": "Bacon egg Ireland."},
      {"comment": "good", "lex": "From Ireland: bacon with egg."}]}},
  {"2": {"category": "Artist", "modifiedtripleset": [{"object": "Folk", "property": "genre", "subject": "Aaron"}],
    "lexicalisations": [{"comment": "good", "lex": "Aaron plays folk."}]}}
]}`

const (
	eggPrompt   = `Bacon_&_egg : mainIngredient : "Egg, fried" | Bacon_&_egg : region : Ireland`
	aaronPrompt = "Aaron : genre : Folk"
)

var webnlgExamples = []Example{
	{Text: eggPrompt, Target: "Bacon & egg comes from Ireland.", Entry: 1, Category: "Food"},
	{Text: eggPrompt, Target: "From Ireland: bacon with egg.", Entry: 1, Category: "Food"},
	{Text: aaronPrompt, Target: "Aaron plays folk.", Entry: 2, Category: "Artist"},
}

var e2eExamples = []Example{
	{Text: "name : Blue Spice | Type : pub | price : less than £20 | family friendly : no", Target: "Blue Spice, a pub.", Entry: 1},
	{Text: "name : Zizzi | near : Avalon", Target: "Zizzi is near Avalon.", Entry: 2},
	{Text: "name : Blue Spice | Type : pub | price : less than £20 | family friendly : no", Target: "A pub.", Entry: 1},
}

func loadFiles(t *testing.T, name string, files map[string]string) (*Dataset, error) {
	t.Helper()
	dir := t.TempDir()
	for file, text := range files {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	spec, err := Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Load(spec, dir, Columns{})
	if err != nil {
		err = errors.New(strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), ""))
	}
	return d, err
}

func TestGenerationFiles(t *testing.T) {
	csv := "mr,ref\n\"name[Blue Spice], eatType[pub], priceRange[less than £20], familyFriendly[no]\",\"Blue Spice, a pub.\"\n" +
		"\"name[Zizzi], near[Avalon]\",Zizzi is near Avalon.\n" +
		"\"name[Blue Spice], eatType[pub], priceRange[less than £20], familyFriendly[no]\",A pub.\n"
	txt := "name : Blue Spice | Type : pub | price : less than £20 | family friendly : no||Blue Spice, a pub. \n" +
		"name : Zizzi | near : Avalon||Zizzi is near Avalon.\n\n" +
		"name : Blue Spice | Type : pub | price : less than £20 | family friendly : no||A pub.\n"
	for _, c := range []struct {
		name, task       string
		files            map[string]string
		train, dev, test []Example
		skipped          int
	}{
		{"WebNLG folders", "WebNLG", map[string]string{
			"train/1triples/a.xml": webnlgXML, "train/readme.txt": "x", "dev/a.xml": webnlgXML,
			"test/testdata_no_lex.xml": "<benchmark/>", "test/testdata_with_lex.xml": webnlgXML,
		}, webnlgExamples, webnlgExamples, webnlgExamples, 3},
		{"LoRA's WebNLG", "webnlg", map[string]string{"dev.json": webnlgJSON}, nil, webnlgExamples, nil, 1},
		{"E2E", "e2e", map[string]string{"trainset.csv": csv, "devset.csv": csv, "testset_w_refs.csv": csv}, e2eExamples, e2eExamples, e2eExamples, 0},
		{"LoRA's E2E", "e2e", map[string]string{"train.txt": txt, "valid.txt": txt, "test.txt": txt}, e2eExamples, e2eExamples, e2eExamples, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := loadFiles(t, c.task, c.files)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(d.Train, c.train) || !reflect.DeepEqual(d.Dev, c.dev) || !reflect.DeepEqual(d.Test, c.test) {
				t.Errorf("found train %v\ndev %v\ntest %v", d.Train, d.Dev, d.Test)
			}
			if d.Skipped != c.skipped {
				t.Errorf("skipped %d texts, want %d", d.Skipped, c.skipped)
			}
		})
	}
}

func TestGenerationErrors(t *testing.T) {
	for _, c := range []struct{ task, file, text, want string }{
		{"webnlg", "dev.json", "", `dev.json: byte 0: expected JSON: unexpected EOF`},
		{"webnlg", "dev.json", `[]`, `dev.json: byte 1: expected an object {"entries": […]}, found "["`},
		{"webnlg", "dev.json", `{"data": []}`, `dev.json: byte 7: expected the key "entries", found "data"`},
		{"webnlg", "dev.json", `{"entries": []}`, `dev.json: expected at least one entry with a text, found none`},
		{"webnlg", "dev.json", `{"entries": [{}]}`, `dev.json: entry 1: expected an object of one key, its number, found 0 keys`},
		{"webnlg", "dev.json", `{"entries": [{"1": {"lexicalisations": []}}]}`, `dev.json: entry 1: expected at least one modified triple, found none`},
		{"webnlg", "dev.json", `{"entries": [{"1": {"modifiedtripleset": [{"subject": "a"}]}}]}`, `dev.json: entry 1: modifiedtripleset: expected subject, property and object, found triple 1 without one`},
		{"webnlg", "dev.json", webnlgJSON[:len(webnlgJSON)-2], `dev.json: byte 646: expected JSON: unexpected EOF`},
		{"webnlg", "dev.xml", "", `dev.xml: expected at least one entry with a text, found none`},
		{"webnlg", "dev.xml", "<html></html>", `dev.xml: line 1: expected the element benchmark of WebNLG's XML, found "html"`},
		{"webnlg", "dev.xml", "<benchmark>\n<entry eid='Id7'>", `dev.xml: line 2: expected XML: XML syntax error on line 2: unexpected EOF`},
		{"webnlg", "dev.xml", "<benchmark>\n<entry eid='Id7'></entry></benchmark>", `dev.xml: line 2: entry "Id7": expected one modifiedtripleset, found 0`},
		{"webnlg", "dev.xml", "<benchmark>\n<entry eid='Id7'><modifiedtripleset/></entry></benchmark>", `dev.xml: line 2: entry "Id7": expected at least one modified triple, found none`},
		{"webnlg", "dev.xml", "<benchmark>\n<entry eid='Id7'><modifiedtripleset><mtriple>a | b</mtriple></modifiedtripleset></entry></benchmark>", `dev.xml: line 2: entry "Id7": mtriple: expected subject | property | object, found "a | b"`},
		{"webnlg", "dev.xml", "<benchmark>\n<entry eid='Id7'><modifiedtripleset><mtriple>a | b | c</mtriple></modifiedtripleset><lex/></entry></benchmark>", `dev.xml: line 2: entry "Id7": expected a text, found an empty one`},
		{"e2e", "dev.csv", "mr,text\n", `dev.csv: expected a column "ref" (or another that --label names), found "mr", "text"`},
		{"e2e", "dev.csv", "mr,ref\nname[Zizzi]\n", `dev.csv: line 2: expected the column "ref", found a row without it`},
		{"e2e", "dev.csv", "mr,ref\nname,Zizzi\n", `dev.csv: line 2: expected slot[value], slot[value], …, found "name"`},
		{"e2e", "dev.csv", "mr,ref\n\"name[Zizzi], [x]\",Zizzi\n", `dev.csv: line 2: expected slot[value], slot[value], …, found "name[Zizzi], [x]"`},
		{"e2e", "dev.csv", "mr,ref\nname[Zizzi],\n", `dev.csv: line 2: expected a meaning representation and a text, found an empty one`},
		{"e2e", "valid.txt", "name : Zizzi||Zizzi\nname : Zizzi|Zizzi\n", `valid.txt: line 2: expected one || between meaning representation and text, found 0`},
		{"e2e", "valid.txt", "||Zizzi\n", `valid.txt: line 1: expected a meaning representation and a text, found an empty one`},
	} {
		if _, err := loadFiles(t, c.task, map[string]string{c.file: c.text}); err == nil || err.Error() != c.want {
			t.Errorf("%s %q: found error %v\nwant %s", c.file, c.text, err, c.want)
		}
	}
	if _, err := loadFiles(t, "e2e", map[string]string{"other.csv": "x"}); err == nil || !strings.HasSuffix(err.Error(), ": expected a train or dev file (.csv, .txt), found none") {
		t.Errorf("a folder without a split: %v", err)
	}
}

func TestEntries(t *testing.T) {
	want := []Entry{
		{Prompt: e2eExamples[0].Text, References: []string{"Blue Spice, a pub.", "A pub."}},
		{Prompt: e2eExamples[1].Text, References: []string{"Zizzi is near Avalon."}},
	}
	if got := Entries(e2eExamples); !reflect.DeepEqual(got, want) {
		t.Errorf("found %v", got)
	}
}

// TestPublishedGenerationData reads the data sets as they are published; the
// numbers of entries and texts are those that their SOURCE.md states, less the
// texts that are not marked as good and the entries that have no other.
func TestPublishedGenerationData(t *testing.T) {
	shared := filepath.Join("..", "..", "shared", "data")
	archive := filepath.Join(shared, "WebNLG", "webnlg_challenge_2017.tar.gz")
	if _, err := os.Stat(archive); errors.Is(err, fs.ErrNotExist) {
		t.Skip("no shared/data/WebNLG")
	}
	dir := t.TempDir()
	unpack(t, archive, dir)
	load := func(name, path string) *Dataset {
		t.Helper()
		spec, _ := Lookup(name)
		d, err := Load(spec, path, Columns{})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := load("webnlg", filepath.Join(dir, "webnlg_challenge_2017"))
	for _, s := range []struct {
		name           string
		examples       []Example
		entries, texts int
	}{{"train", d.Train, 6940 - 5, 18102 - 77}, {"dev", d.Dev, 872 - 1, 2268 - 10}, {"test", d.Test, 1862, 4928}} {
		if n := len(Entries(s.examples)); n != s.entries || len(s.examples) != s.texts {
			t.Errorf("%s: found %d entries, %d texts, want %d, %d", s.name, n, len(s.examples), s.entries, s.texts)
		}
	}
	seen := 0
	for _, e := range Entries(d.Test) {
		if Seen(e.Category) {
			seen++
		}
	}
	if seen != 1862-891 {
		t.Errorf("%d test entries of seen categories, want %d", seen, 1862-891)
	}
	// The dev split is published in both forms.
	lora := load("webnlg", filepath.Join(shared, "WebNLG"))
	text := func(e Example) string { return e.Text + "\n" + e.Target }
	fromXML, fromJSON := map[string]int{}, map[string]int{}
	for _, e := range d.Dev {
		fromXML[text(e)]++
	}
	for _, e := range lora.Dev {
		fromJSON[text(e)]++
	}
	if !reflect.DeepEqual(fromXML, fromJSON) {
		t.Errorf("XML and JSON disagree: %d and %d pairs", len(fromXML), len(fromJSON))
	}

	e2e := load("e2e", filepath.Join(shared, "E2E"))
	csv := load("e2e", filepath.Join(shared, "E2E", "testset_w_refs.csv"))
	if n := len(Entries(e2e.Dev)); n != 547 || len(e2e.Dev) != 4672 {
		t.Errorf("E2E dev: %d entries, %d texts, want 547, 4672", n, len(e2e.Dev))
	}
	if n, m := len(Entries(e2e.Test)), len(Entries(csv.Train)); n != 630 || m != 630 {
		t.Errorf("E2E test: %d and %d entries, want 630", n, m)
	}
}

func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err == nil {
			err = os.WriteFile(path, data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzGeneration(f *testing.F) {
	f.Add("webnlg", ".xml", []byte(webnlgXML))
	f.Add("webnlg", ".json", []byte(webnlgJSON))
	f.Add("e2e", ".csv", []byte("mr,ref\n\"name[a], eatType[b]\",c\n"))
	f.Add("e2e", ".txt", []byte("name : a | Type : b||c\n"))
	f.Add("E2E", ".txt", []byte("name : a | Type : b||c\n")) // Lookup takes any case
	f.Fuzz(func(t *testing.T, name, ext string, data []byte) {
		spec, err := Lookup(name)
		if err != nil || !spec.Generation {
			return
		}
		to := &texts{}
		d := &Dataset{Spec: spec}
		if err := sources[spec.Name].read(d, "train"+ext, bytes.NewReader(data), to); err != nil {
			if !strings.HasPrefix(err.Error(), "train"+ext+": ") {
				t.Fatalf("an error without the file: %v", err)
			}
			return
		}
		for _, e := range to.examples {
			if e.Text == "" || e.Target == "" || e.Entry < 1 || !utf8.ValidString(e.Text+e.Target+e.Category) {
				t.Fatalf("not an example: %+v", e)
			}
		}
	})
}
