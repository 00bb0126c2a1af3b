package task

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

func spec(t testing.TB, name string) Spec {
	t.Helper()
	s, err := Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// write puts files into a new folder; names may hold folders.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func pairOf(a, b string, label float32) Example {
	return Example{Text: a, Pair: b, HasPair: true, Label: label}
}

func TestLoad(t *testing.T) {
	for _, c := range []struct {
		name, task string
		cols       Columns
		files      map[string]string
		train, dev []Example
	}{
		{name: "GLUE's TSV does not quote", task: "sst2",
			files: map[string]string{"train.tsv": "sentence\tlabel\n\"a film\t1\r\n\nbad \"one\" \t0\n", "dev.tsv": "sentence\tlabel\nx\tpositive\n"},
			train: []Example{{Text: "\"a film", Label: 1}, {Text: "bad \"one\" ", Label: 0}}, dev: []Example{{Text: "x", Label: 1}}},
		{name: "CoLA without a header", task: "cola",
			files: map[string]string{"train.tsv": "gj04\t1\t\tOne.\nbc01\t0\t*\tTwo the.\n"},
			train: []Example{{Text: "One.", Label: 1}, {Text: "Two the.", Label: 0}}},
		{name: "CoLA with a header", task: "cola",
			files: map[string]string{"dev.tsv": "label\tsentence\n1\tOne.\n"}, dev: []Example{{Text: "One.", Label: 1}}},
		{name: "MRPC with a byte order mark", task: "mrpc",
			files: map[string]string{"dev.tsv": "\uFEFFQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t5\t6\ta\t\"b\n"}, dev: []Example{pairOf("a", "\"b", 1)}},
		{name: "STS-B of GLUE", task: "stsb",
			files: map[string]string{"train.tsv": "index\tgenre\tsentence1\tsentence2\tscore\n0\tx\ta\tb\t3.25\n"}, train: []Example{pairOf("a", "b", 3.25)}},
		{name: "STS-B benchmark", task: "stsb",
			files: map[string]string{"sts-train.csv": "g\tf\t2012\t0001\t5.000\tA plane, \"x\tAn air plane\tsource\tlicence\n", "sts-dev.csv": "g\tf\t2012\t0001\t0.5\ta\tb\n"},
			train: []Example{pairOf("A plane, \"x", "An air plane", 5)}, dev: []Example{pairOf("a", "b", 0.5)}},
		{name: "MNLI takes the matched split", task: "mnli",
			files: map[string]string{"dev_matched.tsv": "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\ta\tb\tneutral\tcontradiction\n",
				"dev_mismatched.tsv": "sentence1\tsentence2\tgold_label\nc\td\tneutral\n", "dev.tsv": "broken"},
			dev: []Example{pairOf("a", "b", 2)}},
		{name: "QQP leaves short rows out", task: "qqp",
			files: map[string]string{"train.tsv": "id\tquestion1\tquestion2\tis_duplicate\n0\ta\tb\t1\n1\tbroken\n"}, train: []Example{pairOf("a", "b", 1)}},
		{name: "CSV quotes", task: "text", cols: Columns{Text: "review", Label: "stars"},
			files: map[string]string{"train.csv": "\uFEFFid,review,stars\n1,\"good, \"\"really\"\"\ntwo lines\",10\n2,bad,2\n"},
			train: []Example{{Text: "good, \"really\"\ntwo lines", Label: 1}, {Text: "bad", Label: 0}}},
		{name: "JSONL", task: "text", cols: Columns{Pair: "other"},
			files: map[string]string{"train.jsonl": `{"text":"a\u0301","other":"b","label":"no"}` + "\n" + `{"label":"yes","other":"d","text":"c","more":[1]}` + "\n", "dev.json": `{"text":"e","other":"f","label":"yes"}`},
			train: []Example{pairOf("a\u0301", "b", 0), pairOf("c", "d", 1)}, dev: []Example{pairOf("e", "f", 1)}},
		{name: "a JSON array", task: "text",
			files: map[string]string{"train.json": "\uFEFF [\n {\"text\": \"a\", \"label\": true},\n {\"label\": false, \"text\": \"b\"}]\n"},
			train: []Example{{Text: "a", Label: 1}, {Text: "b", Label: 0}}},
		{name: "labels by value", task: "text",
			files: map[string]string{"train.csv": "text,label\na,1.0\nb, 2.0\nc,10.0\n", "dev.csv": "text,label\nd,10\ne,02\nf,1e0 \n"},
			train: []Example{{Text: "a", Label: 0}, {Text: "b", Label: 1}, {Text: "c", Label: 2}},
			dev:   []Example{{Text: "d", Label: 2}, {Text: "e", Label: 1}, {Text: "f", Label: 0}}},
		{name: "truth values and white space", task: "text",
			files: map[string]string{"train.csv": "text,label\na,True\nb, true\nc,FALSE\n", "dev.tsv": "text\tlabel\nd\t false \n"},
			train: []Example{{Text: "a", Label: 1}, {Text: "b", Label: 1}, {Text: "c", Label: 0}}, dev: []Example{{Text: "d", Label: 0}}},
		{name: "numbers for GLUE's classes", task: "sst2",
			files: map[string]string{"train.csv": "sentence,label\na,1.0\nb, 0\nc, Positive\n"},
			train: []Example{{Text: "a", Label: 1}, {Text: "b", Label: 0}, {Text: "c", Label: 1}}},
		{name: "quotation marks within a CSV cell", task: "text",
			files: map[string]string{"train.csv": "text,label\r\nhe said \"wow\" twice,1\r\n\r\n5\" tall,0\r\n\"a \"\"b\"\"\r\nc\",1"},
			train: []Example{{Text: "he said \"wow\" twice", Label: 1}, {Text: "5\" tall", Label: 0}, {Text: "a \"b\"\r\nc", Label: 1}}},
		{name: "invalid UTF-8", task: "sst2",
			files: map[string]string{"data/train.tsv": "sentence\tlabel\na\xe2\x82b\xff\t1\n"}, train: []Example{{Text: "a\uFFFDb\uFFFD", Label: 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := Load(spec(t, c.task), write(t, c.files), c.cols)
			if err != nil {
				t.Fatal(err)
			}
			if len(d.Train) > 0 && !strings.HasPrefix(d.Train[0].Place, "train.") && !strings.HasPrefix(d.Train[0].Place, "sts-train.") {
				t.Errorf("the first row's place is %q", d.Train[0].Place)
			}
			for _, examples := range [][]Example{d.Train, d.Dev} {
				for i := range examples {
					examples[i].Place = ""
				}
			}
			if !reflect.DeepEqual(d.Train, c.train) || !reflect.DeepEqual(d.Dev, c.dev) {
				t.Errorf("got train %+v\nand dev %+v\nwant %+v\nand %+v", d.Train, d.Dev, c.train, c.dev)
			}
			if c.task == "mnli" && (d.DevName != "dev_matched" || len(d.Extra) != 1 || d.Extra[0].Name != "dev_mismatched" || d.Extra[0].Examples[0].Label != 1) {
				t.Errorf("got dev %q and further splits %+v", d.DevName, d.Extra)
			}
			if c.task == "qqp" && d.Skipped != 1 {
				t.Errorf("expected 1 row left out, found %d", d.Skipped)
			}
		})
	}
}

func TestLoadParquet(t *testing.T) {
	type nli struct {
		Premise    string `parquet:"premise,snappy,dict"`
		Hypothesis string `parquet:"hypothesis,snappy"`
		Label      int64  `parquet:"label"`
		Idx        int32  `parquet:"idx"`
	}
	shard := func(rows ...nli) string {
		var b bytes.Buffer
		if err := parquet.Write(&b, rows); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	many := make([]nli, 1000)
	for i := range many {
		many[i] = nli{fmt.Sprint("p", i), fmt.Sprint("h", i), int64(i % 3), int32(i)}
	}
	dir := write(t, map[string]string{
		"mnli/train-00000-of-00002.parquet":                 shard(many[:600]...),
		"mnli/train-00001-of-00002.parquet":                 shard(many[600:]...),
		"mnli/validation_matched-00000-of-00001.parquet":    shard(many[0]),
		"mnli/validation_mismatched-00000-of-00001.parquet": shard(many[1]),
	})
	d, err := Load(spec(t, "mnli"), dir, Columns{})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range d.Train {
		want := pairOf(many[i].Premise, many[i].Hypothesis, float32(i%3))
		if want.Place = fmt.Sprintf("train-0000%d-of-00002.parquet: row %d", i/600, i%600+1); !reflect.DeepEqual(e, want) {
			t.Fatalf("row %d: got %+v", i, e)
		}
	}
	if len(d.Train) != 1000 || len(d.Dev) != 1 || d.DevName != "validation_matched" || len(d.Extra) != 1 {
		t.Errorf("got %d rows, dev %q of %d, further %v", len(d.Train), d.DevName, len(d.Dev), d.Extra)
	}
	bad := write(t, map[string]string{"train.parquet": shard(nli{"a", "b", -1, 0})})
	if _, err := Load(spec(t, "mnli"), bad, Columns{}); err == nil || !strings.Contains(err.Error(), `row 1: column "label": expected one of the labels`) {
		t.Errorf("got error %v for a row without a label", err)
	}
}

// TestUnknownLabel checks that a dev set's label must be one of the training set's,
// and is not taken for the place of one.
func TestUnknownLabel(t *testing.T) {
	for _, c := range []struct{ train, dev, say string }{
		{"a,0\nb,2\n", "c,1\n", `dev.csv: line 2: column "label": expected one of the labels 0, 2 of the training set, found "1"`},
		{"a,no\nb,yes\n", "c,no\nd,1\n", `dev.csv: line 3: column "label": expected one of the labels no, yes of the training set, found "1"`},
	} {
		dir := write(t, map[string]string{"train.csv": "text,label\n" + c.train, "dev.csv": "text,label\n" + c.dev})
		if _, err := Load(spec(t, "text"), dir, Columns{}); err == nil || !strings.HasSuffix(err.Error(), c.say) {
			t.Errorf("got error %v\nexpected %s", err, c.say)
		}
	}
}

// TestParquetNumbers reads labels of the types that pandas and datasets write.
func TestParquetNumbers(t *testing.T) {
	label := func(node parquet.Node, values ...parquet.Value) []float32 {
		t.Helper()
		var b bytes.Buffer
		schema := parquet.NewSchema("rows", parquet.Group{"label": node, "text": parquet.String()})
		w := parquet.NewWriter(&b, schema)
		for _, v := range values {
			if _, err := w.WriteRows([]parquet.Row{{v.Level(0, 0, 0), parquet.ValueOf("x").Level(0, 0, 1)}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		d, err := Load(spec(t, "text").AsRegression(), write(t, map[string]string{"train.parquet": b.String()}), Columns{})
		if err != nil {
			t.Fatal(err)
		}
		var got []float32
		for _, e := range d.Train {
			got = append(got, e.Label)
		}
		return got
	}
	bytes2 := func(s string) parquet.Value { return parquet.FixedLenByteArrayValue([]byte(s)) }
	for _, c := range []struct {
		name   string
		node   parquet.Node
		values []parquet.Value
		want   []float32
	}{
		{"float16", parquet.Leaf(float16Type{parquet.FixedLenByteArrayType(2)}), []parquet.Value{bytes2("\x00\x3c"), bytes2("\x00\xc1"), bytes2("\x01\x00"), bytes2("\xff\x7b")}, []float32{1, -2.5, 0x1p-24, 65504}},
		{"float32", parquet.Leaf(parquet.FloatType), []parquet.Value{parquet.FloatValue(0.1)}, []float32{0.1}},
		{"float64", parquet.Leaf(parquet.DoubleType), []parquet.Value{parquet.DoubleValue(-3)}, []float32{-3}},
		{"int32", parquet.Int(32), []parquet.Value{parquet.Int32Value(7)}, []float32{7}},
		{"decimal", parquet.Decimal(2, 9, parquet.Int32Type), []parquet.Value{parquet.Int32Value(-1234)}, []float32{-12.34}},
		{"decimal of bytes", parquet.Decimal(1, 20, parquet.FixedLenByteArrayType(9)), []parquet.Value{bytes2("\xff\xff\xff\xff\xff\xff\xff\xff\xf1")}, []float32{-1.5}},
		{"decimal of two bytes", parquet.Decimal(0, 4, parquet.FixedLenByteArrayType(2)), []parquet.Value{bytes2("\x80\x01"), bytes2("\x7f\xff")}, []float32{-32767, 32767}},
	} {
		if got := label(c.node, c.values...); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %v, expected %v", c.name, got, c.want)
		}
	}
}

// TestParquetMismatch: a logical type that does not fit the physical one, as only a
// broken file has it, is left aside.
func TestParquetMismatch(t *testing.T) {
	for _, l := range []format.LogicalTypeValue{&format.Float16Type{}, &format.DecimalType{Scale: 1}, &format.IntType{}} {
		for _, v := range []parquet.Value{parquet.BooleanValue(true), parquet.FloatValue(1), parquet.DoubleValue(2.5), parquet.ByteArrayValue([]byte("abc")), parquet.Int32Value(7)} {
			_, isFloat16 := l.(*format.Float16Type)
			if isFloat16 || v.Kind() != parquet.Int32 && v.Kind() != parquet.ByteArray {
				if got, ok := valueText(l)(v); got != v.String() || !ok {
					t.Errorf("%v of %v: got %q, expected %q", l, v.Kind(), got, v.String())
				}
			}
		}
	}
}

// Every compression and encoding that the library writes passes the check of pages.
func TestParquetPages(t *testing.T) {
	type r struct {
		Text  string  `parquet:"text"`
		Maybe *string `parquet:"maybe,optional,dict"`
		Label bool    `parquet:"label"`
		List  []int64 `parquet:"list"`
	}
	long := "a text that comes again and again"
	rows := make([]r, 5000)
	for i := range rows {
		rows[i] = r{Text: fmt.Sprint(long, i%7), Label: i%3 == 0, List: make([]int64, i%4)}
		if i%5 != 0 {
			rows[i].Maybe = &long
		}
	}
	for _, codec := range []compress.Codec{&parquet.Uncompressed, &parquet.Snappy, &parquet.Gzip, &parquet.Brotli, &parquet.Zstd, &parquet.Lz4Raw} {
		for _, version := range []int{1, 2} {
			for _, encoding := range []encoding.Encoding{&parquet.Plain, &parquet.DeltaLengthByteArray, &parquet.DeltaByteArray, &parquet.RLEDictionary} {
				var b bytes.Buffer
				w := parquet.NewGenericWriter[r](&b, parquet.Compression(codec), parquet.DataPageVersion(version), parquet.PageBufferSize(1<<12),
					parquet.DefaultEncodingFor(parquet.ByteArray, encoding), parquet.DefaultEncodingFor(parquet.Int64, &parquet.DeltaBinaryPacked), parquet.DefaultEncodingFor(parquet.Boolean, &parquet.RLE))
				if _, err := w.Write(rows); err != nil {
					t.Fatal(err)
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				d, err := Load(spec(t, "text"), write(t, map[string]string{"train.parquet": b.String()}), Columns{})
				if err != nil {
					t.Fatalf("%s, version %d, %s: %v", codec, version, encoding, err)
				}
				if len(d.Train) != len(rows) || d.Train[9].Text != rows[9].Text {
					t.Errorf("%s, version %d, %s: %d rows, the tenth %q", codec, version, encoding, len(d.Train), d.Train[9].Text)
				}
			}
		}
	}
}

// Parquet files made to fill the memory are a sentence.
func TestParquetHostile(t *testing.T) {
	type r struct {
		Label int64  `parquet:"label"`
		Text  string `parquet:"text,dict"`
	}
	pack := func(codec compress.Codec, n int, text string) string {
		var b bytes.Buffer
		w := parquet.NewGenericWriter[r](&b, parquet.Compression(codec))
		for range n {
			if _, err := w.Write([]r{{1, text}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	// edit rewrites the header of a page and its bytes; the footer is found where it was.
	edit := func(file string, page func(h *format.PageHeader, data []byte) []byte) string {
		f, err := parquet.OpenFile(strings.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		m := f.Metadata()
		column := &m.RowGroups[0].Columns[1].MetaData // text
		begin, end := column.DictionaryPageOffset, column.DictionaryPageOffset+column.TotalCompressedSize
		r := bufio.NewReader(strings.NewReader(file[begin:end]))
		var out bytes.Buffer
		out.WriteString(file[:begin])
		for column.DataPageOffset = 0; ; {
			var h format.PageHeader
			if err := thrift.NewDecoder(new(thrift.CompactProtocol).NewReader(r)).Decode(&h); err != nil {
				break
			}
			data := make([]byte, h.CompressedPageSize)
			if _, err := io.ReadFull(r, data); err != nil {
				t.Fatal(err)
			}
			data = page(&h, data)
			h.CompressedPageSize, h.CRC = int32(len(data)), 0
			if h.DataPageHeader.Valid || h.DataPageHeaderV2.Valid {
				column.DataPageOffset = int64(out.Len())
			}
			head, err := thrift.Marshal(new(thrift.CompactProtocol), &h)
			if err != nil {
				t.Fatal(err)
			}
			out.Write(head)
			out.Write(data)
		}
		column.TotalCompressedSize = int64(out.Len()) - begin
		m.RowGroups[0].Columns[1].OffsetIndexOffset, m.RowGroups[0].Columns[1].ColumnIndexOffset = 0, 0
		m.RowGroups[0].Columns[0].OffsetIndexOffset, m.RowGroups[0].Columns[0].ColumnIndexOffset = 0, 0
		foot, err := thrift.Marshal(new(thrift.CompactProtocol), m)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(foot)
		out.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(foot))))
		out.WriteString("PAR1")
		return out.String()
	}
	dictionary := func(change func(h *format.PageHeader, data []byte) []byte) func(*format.PageHeader, []byte) []byte {
		return func(h *format.PageHeader, data []byte) []byte {
			if !h.DictionaryPageHeader.Valid {
				return data
			}
			return change(h, data)
		}
	}
	bomb := func(codec compress.Codec) []byte {
		out, err := codec.Encode(nil, make([]byte, 64<<20))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	few := func(codec compress.Codec) string { return pack(codec, 3, "a text") }
	fromExpansion = 1 << 20
	defer func() { fromExpansion = 1 << 30 }()
	for name, c := range map[string]struct{ file, say string }{
		"unchanged":              {edit(few(&parquet.Zstd), func(h *format.PageHeader, data []byte) []byte { return data }), ""},
		"equal rows":             {pack(&parquet.Zstd, 20_000, strings.Repeat("text ", 200)), "expected rows of at most 100 times the file's"},
		"a page said to be huge": {edit(few(&parquet.Snappy), dictionary(func(h *format.PageHeader, data []byte) []byte { h.UncompressedPageSize = math.MaxInt32; return data })), "expected at most 268435456 bytes, found 2147483647"},
		"a page of too few":      {edit(few(&parquet.Zstd), dictionary(func(h *format.PageHeader, data []byte) []byte { h.UncompressedPageSize++; return data })), "expected a page of 11 bytes, found 10"},
		"values said to be many": {edit(few(&parquet.Zstd), dictionary(func(h *format.PageHeader, data []byte) []byte {
			h.DictionaryPageHeader.V.NumValues = math.MaxInt32
			return data
		})), "expected at most 67108864 values, found 2147483647"},
		"a bomb of zstd":            {edit(few(&parquet.Zstd), dictionary(func(h *format.PageHeader, data []byte) []byte { return bomb(&parquet.Zstd) })), "expected a page of 10 bytes, found"},
		"a bomb of gzip":            {edit(few(&parquet.Gzip), dictionary(func(h *format.PageHeader, data []byte) []byte { return bomb(&parquet.Gzip) })), "expected a page of 10 bytes, found more"},
		"a bomb of brotli":          {edit(few(&parquet.Brotli), dictionary(func(h *format.PageHeader, data []byte) []byte { return bomb(&parquet.Brotli) })), "expected a page of 10 bytes, found more"},
		"a bomb of snappy":          {edit(few(&parquet.Snappy), dictionary(func(h *format.PageHeader, data []byte) []byte { return []byte("\xff\xff\xff\xff\x0f\x00a") })), "expected a page of 10 bytes, found"},
		"a broken page of LZ4":      {edit(few(&parquet.Lz4Raw), dictionary(func(h *format.PageHeader, data []byte) []byte { return bytes.Repeat([]byte{0xff}, 20) })), "expected a page of 10 bytes, found"},
		"a run of many":             {edit(few(&parquet.Uncompressed), runs(1<<30<<1)), "expected runs of at most 3 values, found 1073741824"},
		"a packed run of many":      {edit(few(&parquet.Uncompressed), runs(1<<27<<1|1)), "expected runs of at most 3 values, found 1073741824"},
		"many packed runs of a few": {edit(few(&parquet.Uncompressed), runs(1<<1|1, 1<<1|1)), "expected runs of at most 3 values, found 16"},
	} {
		dir := write(t, map[string]string{"train.parquet": c.file})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Load(spec(t, "text"), dir, Columns{})
		runtime.ReadMemStats(&after)
		if c.say == "" && err == nil {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "train.parquet: ") || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: expected an error with %q, found %v", name, c.say, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 48<<20 {
			t.Errorf("%s: %d bytes were allocated for a file of %d", name, used, len(c.file))
		}
	}
}

// runs puts runs with these heads in the place of a data page's indices.
func runs(heads ...uint64) func(*format.PageHeader, []byte) []byte {
	return func(h *format.PageHeader, data []byte) []byte {
		if h.DictionaryPageHeader.Valid {
			return data
		}
		data = []byte{1} // the bits of an index
		for _, head := range heads {
			data = append(binary.AppendUvarint(data, head), 0)
		}
		h.UncompressedPageSize = int32(len(data))
		return data
	}
}

// float16Type is Parquet's, which the library reads but has no constructor for.
type float16Type struct{ parquet.Type }

func (float16Type) LogicalType() *format.LogicalType {
	return &format.LogicalType{Value: new(format.Float16Type)}
}

func TestLoadErrors(t *testing.T) {
	for _, c := range []struct{ task, file, text, say string }{
		{"sst2", "train.tsv", "", "train.tsv: expected at least one row, found an empty data set"},
		{"sst2", "train.tsv", "sentence\tlabel\n", "train.tsv: expected at least one row, found an empty data set"},
		{"sst2", "other.tsv", "", "expected a train or dev file"},
		{"sst2", "train.tsv", "sentence\tlabel\na\t1\nb\n", `train.tsv: line 3: expected the column "label", found a row without it`},
		{"sst2", "train.tsv", "sentence\tlabel\na\tgood\n", `train.tsv: line 2: column "label": expected one of the labels negative, positive, found "good"`},
		{"sst2", "train.tsv", "sentence\tlabel\na\t2\n", `found "2"`},
		{"sst2", "train.tsv", "text\tlabel\na\t1\n", `train.tsv: expected a column "sentence" (or another that --text names), found "text", "label"`},
		{"stsb", "train.tsv", "sentence1\tsentence2\tscore\na\tb\tmany\n", `train.tsv: line 2: column "score": expected a number, found "many"`},
		{"stsb", "train.tsv", "sentence1\tsentence2\tscore\na\tb\tNaN\n", `expected a number, found "NaN"`},
		{"stsb", "sts-dev.csv", "a\tb\tc\td\te\tf\tg\n", `sts-dev.csv: line 1: column "5": expected a number, found "e"`},
		{"text", "train.csv", "text,label\n\"a,1\nb,0\n", `train.csv: line 2: expected a closing quotation mark, found the end of the file`},
		{"text", "train.csv", "text,label\n\"a\"b,1\n", `train.csv: line 2: expected a comma or the end of the line behind a closing quotation mark, found 'b'`},
		{"text", "train.csv", "text,label\ngood,1\nbad, very bad film,0\n", `train.csv: line 3: expected 2 cells as in the header, found 3`},
		{"text", "train.tsv", "text\tlabel\ngood\t1\nbad\tfilm\t0\n", `train.tsv: line 3: expected 2 cells as in the header, found 3`},
		{"text", "train.json", "[{\"text\":\"a\",\"label\":1}, 5]", `train.json: entry 2: expected a JSON object, found "5"`},
		{"text", "train.json", "[{\"text\":\"a\",\"label\":1}, {\"text\":\"b\"}]", `train.json: entry 2: expected the column "label"`},
		{"text", "train.json", "[{\"text\":\"a\",\"label\":1}", `train.json: entry 2: expected a list of JSON objects: unexpected EOF`},
		{"text", "train.json", "[]", `train.json: expected at least one row, found an empty data set`},
		{"text", "train.csv", "text,label\na,1\nb\n", `train.csv: line 3: expected the column "label"`},
		{"text", "train.csv", "text,label\na,1\nb,1\n", `expected 2 to 1000 labels, found 1`},
		{"text", "train.jsonl", "{\"text\":\"a\",\"label\":1}\n[1]\n", `train.jsonl: line 2: expected a JSON object a line, found "[1]"`},
		{"text", "train.jsonl", "{\"text\":\"a\",\"label\":1}\n{\"text\":\"b\"}\n", `train.jsonl: line 2: expected the column "label"`},
		{"text", "train.jsonl", "{\"text\":\"a\",\"label\":1}\n{\"text\":null,\"label\":2}\n", `expected the column "text"`},
		{"text", "train.parquet", "PAR1 and so on PAR1", `train.parquet: expected a Parquet file`},
	} {
		_, err := Load(spec(t, c.task), write(t, map[string]string{c.file: c.text}), Columns{})
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s %q:\n got error %v\nexpected %s", c.file, c.text, err, c.say)
		}
	}
	if _, err := Lookup("sst3"); err == nil || !strings.Contains(err.Error(), `found "sst3"`) {
		t.Errorf("got error %v", err)
	}
	if _, err := Load(spec(t, "sst2"), filepath.Join(t.TempDir(), "none"), Columns{}); err == nil {
		t.Error("expected an error for a missing folder")
	}
}

// TestRealData reads the real data sets where they are; the numbers of rows are
// those of their SOURCE.md files.
func TestRealData(t *testing.T) {
	root := os.Getenv("MLPFUSION_DATA")
	if root == "" {
		root = "../../shared/data"
	}
	if _, err := os.Stat(root); err != nil {
		t.Skipf("no real data sets: %v", err)
	}
	for _, c := range []struct {
		task, folder string
		train, dev   int
		ones         int // examples of label 1 in train
	}{
		{"sst2", "SST-2", 67349, 872, 37569}, {"mnli", "MNLI", 8999, 1000, 2980}, {"stsb", "STS-B", 5749, 1500, -1},
		{"qnli", "QNLI", 8999, 1000, 4476}, {"rte", "RTE", 2490, 277, 1241}, {"mrpc", "MRPC", 3667, 408, 2473}, {"cola", "CoLA", 8551, 0, 6023},
	} {
		d, err := Load(spec(t, c.task), filepath.Join(root, c.folder), Columns{})
		if err != nil {
			t.Error(err)
			continue
		}
		ones := 0
		for _, e := range d.Train {
			if e.Label == 1 {
				ones++
			}
		}
		if len(d.Train) != c.train || len(d.Dev) != c.dev || c.ones >= 0 && ones != c.ones {
			t.Errorf("%s: got %d and %d rows, %d of label 1; expected %d, %d and %d", c.task, len(d.Train), len(d.Dev), ones, c.train, c.dev, c.ones)
		}
	}
}

func FuzzReaders(f *testing.F) {
	for _, s := range []string{"sentence\tlabel\na\t1\n", "a\tb\tc\td\te\tf\tg\n", "gj04\t1\t\tOne.\n", "\uFEFFtext,label\n\"a\",1\n",
		`{"text":"a","label":1}`, `[{"text":"a","label":1},{"text":"b"}]`, "text,label\na \"b\" c,1\n\"d\"\"e\",0\n", "1\t2.5\tgood\n", "PAR1\x00\x00\x00\x00\x00\x00\x00\x00PAR1"} {
		f.Add([]byte(s))
	}
	var b bytes.Buffer
	if err := parquet.Write(&b, []struct {
		Text  string `parquet:"text,snappy"`
		Label int64  `parquet:"label"`
	}{{"a", 1}, {"b", 0}}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		defer time.AfterFunc(10*time.Second, func() { panic("a reader hangs") }).Stop()
		for _, name := range []string{"sst2", "stsb", "cola", "text"} {
			for _, ext := range []string{".tsv", ".csv", ".jsonl", ".parquet"} {
				d := Dataset{Spec: spec(t, name)}
				rows, err := d.readTable("train"+ext, bytes.NewReader(data))
				if err != nil && !strings.HasPrefix(err.Error(), "train"+ext+": ") {
					t.Errorf("an error that does not name the file: %v", err)
				}
				read := d.Spec.labels()
				for _, r := range rows {
					_, _ = read(r.label)
				}
			}
		}
		_, _ = ReadSnippets(bytes.NewReader(data))
	})
}
