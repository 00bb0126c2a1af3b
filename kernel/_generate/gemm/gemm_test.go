package main

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	. "github.com/mmcloughlin/avo/reg"
)

// TestUpToDate compares the committed file with what the generator writes.
func TestUpToDate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gemm.s")
	if err := write(path); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../gemm_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("gemm_amd64.s is not what the generator writes; run go generate ./kernel")
	}
}

// TestEncoding disassembles emitted instructions with every register.
func TestEncoding(t *testing.T) {
	if _, err := exec.LookPath("objdump"); err != nil {
		t.Skip("no objdump")
	}
	var all []machine
	for i := range 32 {
		all = append(all, machine{name: "vdpbf16ps", dst: i, s1: (i * 7) % 32, s2: (i*11 + 5) % 32},
			machine{name: "vcvtne2ps2bf16", dst: i, s1: (i*5 + 3) % 32, s2: (i * 13) % 32})
	}
	gp := []Register{RAX, RCX, RDX, RBX, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15}
	for i, b := range gp {
		x := gp[(i*4+3)%len(gp)]
		all = append(all,
			machine{name: "tileloadd", dst: i % 8, base: b, index: x, disp: 64 * i},
			machine{name: "tilestored", dst: i % 8, base: x, index: b, disp: 4096 + i},
			machine{name: "ldtilecfg", base: b, disp: 8 * i})
	}
	for i := range 8 {
		all = append(all, machine{name: "tilezero", dst: i},
			machine{name: "tdpbf16ps", dst: i, s1: (i + 3) % 8, s2: (i + 5) % 8})
	}
	all = append(all, machine{name: "tilerelease"})
	var code []byte
	for _, m := range all {
		code = append(code, m.encode()...)
	}
	path := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(path, code, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "--no-show-raw-insn", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range strings.Split(string(out), "\n") {
		if m := regexp.MustCompile(`^\s*[0-9a-f]+:\s+(.*?)\s*$`).FindStringSubmatch(l); m != nil {
			got = append(got, normal(m[1]))
		}
	}
	if len(got) != len(all) {
		t.Fatalf("%d instructions disassembled, %d written:\n%s", len(got), len(all), out)
	}
	for i, m := range all {
		if want := normal(m.String()); got[i] != want {
			t.Errorf("% x is %q, want %q", m.encode(), got[i], want)
		}
	}
}

// normal writes objdump's forms of one thing in one way.
func normal(s string) string {
	s = regexp.MustCompile(`\s+`).ReplaceAllString(s, " ")
	s = strings.NewReplacer("+riz*1", "", "+0x0]", "]").Replace(s)
	return s
}

// tileArgs is kernel.tileArgs.
type tileArgs struct {
	a, b, c               unsafe.Pointer
	k                     int
	aRow, bK, cRow, aTile int
	tiles, n              int
	alpha                 float32
	accum                 uint32
	mask                  *int32
	rows                  int
	config                *[64]byte
	temp                  *[1024]float32
	stream, fetch         int
	next                  struct {
		at                            uintptr
		row, rows, left, back, places int
	}
}

// TestTiles interprets every microkernel at every width and compares with float64.
func TestTiles(t *testing.T) {
	f, emitted, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`^tile(\d+)x(\d+)(\w+)$`)
	count := 0
	for _, fn := range f.Functions() {
		m := name.FindStringSubmatch(fn.Name)
		if m == nil {
			continue
		}
		count++
		var rows, cols int
		fmt.Sscan(m[1], &rows)
		fmt.Sscan(m[2], &cols)
		t.Run(fn.Name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 1))
			heights := []int{rows}
			if m[3] == "AMX" {
				heights = []int{1, 5, 16, 17, 31, 32}
			}
			for _, h := range heights {
				for n := 1; n <= cols; n++ {
					for _, k := range []int{1, 3, 4, 9} {
						if m[3] == "AMX" && (k > 2 || n%4 > 1) {
							continue
						}
						s := newScene(r, m[3], h, cols, n, k, 1+r.IntN(2))
						c := &cpu{emitted: emitted, frame: []uint64{uint64(uintptr(unsafe.Pointer(s.args)))}, regions: s.regions}
						c.run(fn)
						runtime.KeepAlive(s)
						if err := s.check(); err != nil {
							t.Fatalf("%d rows, %d columns, %d steps, %d tiles, accumulate %d: %v", h, n, k, s.args.tiles, s.args.accum, err)
						}
					}
				}
			}
		})
	}
	if count != 6+12+12+1 {
		t.Errorf("%d microkernels", count)
	}
}

// scene is one call of a microkernel.
type scene struct {
	kind       string
	args       *tileArgs
	a, b, c    []float32
	c0         []float32
	words      int // of k
	aRow       int // in floats
	cols, cRow int
	regions    []region
}

func newScene(r *rand.Rand, kind string, rows, cols, n, steps, tiles int) *scene {
	s := &scene{kind: kind, words: steps, cols: cols, cRow: n + r.IntN(3)}
	if kind == "AMX" {
		s.words *= 16
	}
	count := rows * tiles
	s.aRow = s.words + r.IntN(3)
	last := count
	if kind == "AMX" {
		last += 32 - rows // rows that it reads
	}
	size := (last-1)*s.aRow + s.words
	aTile := rows * s.aRow
	fill := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = r.Float32()*2 - 1
			if kind == "BF16" || kind == "AMX" { // two bfloat16
				lo, hi := math.Float32bits(r.Float32()*2-1), math.Float32bits(x[i])
				x[i] = math.Float32frombits(hi&0xffff0000 | lo>>16)
			}
		}
		return x
	}
	s.a, s.b = fill(size), fill(s.words*cols)
	stream := 0
	if strings.Contains("AVX512 BF16", kind) && n == cols && r.IntN(2) == 1 {
		stream, s.cRow = 1, cols+16*r.IntN(3)
	}
	s.c = aligned((count-1)*s.cRow + n)
	for i := range s.c {
		s.c[i] = r.Float32()
	}
	s.c0 = append([]float32(nil), s.c...)
	mask := make([]int32, cols)
	for i := range n {
		mask[i] = -1
	}
	config := new([64]byte)
	config[0] = 1
	for i := range 8 {
		config[16+2*i], config[48+i] = 64, 16
	}
	temp := new([1024]float32)
	s.args = &tileArgs{
		a: unsafe.Pointer(&s.a[0]), b: unsafe.Pointer(&s.b[0]), c: unsafe.Pointer(&s.c[0]),
		k: steps, aRow: 4 * s.aRow, bK: 4 * cols, cRow: 4 * s.cRow, aTile: 4 * aTile,
		tiles: tiles, n: n, alpha: 0.75, accum: uint32(r.IntN(2)), mask: &mask[0],
		rows: rows, config: config, temp: temp,
		stream: stream, fetch: r.IntN(2 * steps),
	}
	if stream == 1 {
		s.args.accum = 0
	}
	next := &s.args.next // 3 columns of 4 places
	next.row, next.rows, next.left, next.back, next.places = 640, 4, 4, 128-4*640, 12
	s.regions = []region{
		{"A", memoryOf(&s.a[0], len(s.a)), false},
		{"B", memoryOf(&s.b[0], len(s.b)), false},
		{"C", memoryOf(&s.c[0], len(s.c)), true},
		{"args", memoryOf(s.args, 1), true},
		{"mask", memoryOf(&mask[0], cols), false},
		{"config", memoryOf(config, 1), false},
		{"temp", memoryOf(temp, 1), true},
	}
	return s
}

// aligned returns n floats that begin with a line of the cache.
func aligned(n int) []float32 {
	x := make([]float32, n+15)
	for uintptr(unsafe.Pointer(&x[0]))%64 != 0 {
		x = x[1:]
	}
	return x[:n]
}

// memoryOf returns the bytes of n values at p.
func memoryOf[T any](p *T, n int) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(p)), n*int(unsafe.Sizeof(*p)))
}

// check compares C with the product in float64, within the bound of a float32
// sum, and what lies between C's rows with what was there.
func (s *scene) check() error {
	const eps = 1.0 / (1 << 24)
	n := s.args.n
	rows := (len(s.c)-n)/s.cRow + 1
	tileRows := s.args.rows
	tileFloats := s.args.aTile / 4
	for o, got := range s.c {
		i, j := o/s.cRow, o%s.cRow
		if j >= n || i >= rows {
			if got != s.c0[o] {
				return fmt.Errorf("wrote behind column %d of row %d", n, i)
			}
			continue
		}
		var sum, abs float64
		for l := range s.words {
			x := s.a[i/tileRows*tileFloats+i%tileRows*s.aRow+l]
			y := s.b[l*s.cols+j]
			if s.kind == "BF16" || s.kind == "AMX" {
				for _, shift := range []int{0, 16} {
					v := float64(half(x, shift)) * float64(half(y, shift))
					sum, abs = sum+v, abs+math.Abs(v)
				}
				continue
			}
			v := float64(x) * float64(y)
			sum, abs = sum+v, abs+math.Abs(v)
		}
		want := 0.75 * sum
		if s.args.accum != 0 {
			want += float64(s.c0[o])
			abs += math.Abs(float64(s.c0[o]))
		}
		if !(math.Abs(float64(got)-want) <= float64(2*s.words+3)*eps*abs) {
			return fmt.Errorf("C[%d][%d] = %v, want %v", i, j, got, want)
		}
	}
	return nil
}

// half returns the lower or (shift 16) upper bfloat16 of a word.
func half(x float32, shift int) float32 {
	return math.Float32frombits(math.Float32bits(x) >> shift << 16)
}
