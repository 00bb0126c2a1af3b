//go:build !noasm

package kernel

import (
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unsafe"
)

// The interpreter runs the package's assembly line by line, so that an
// implementation is tested by its results on machines that cannot run it. It works
// on real memory; a vector that is read and holds the guard, which tests put around
// all that they hand out, panics, as does an instruction that it does not know.

// interpreted returns a form that is interpreted.
var interpreted = interpretForm

// interpretForm returns a form that runs a function in assembly, or those of a product's
// implementation, interpreted.
func interpretForm(f any) any {
	if t, ok := f.(*gemmKernel); ok {
		return interpretKernel(t)
	}
	return interpretValue(reflect.ValueOf(f)).Interface()
}

// interpretValue returns a function of f's type that interprets f, or f if the machine
// can run it.
func interpretValue(f reflect.Value) reflect.Value {
	name := runtime.FuncForPC(f.Pointer()).Name()
	name = name[strings.LastIndexByte(name, '.')+1:]
	if strings.HasSuffix(name, "AVX2") && detected&AVX2 != 0 {
		return f // what packs for AVX-512 needs no more
	}
	code := assembly()[name]
	if code == nil {
		panic("no assembly of " + name)
	}
	t := f.Type()
	return reflect.MakeFunc(t, func(args []reflect.Value) []reflect.Value {
		// The arguments as Go passes them to assembly: in order, each aligned, and
		// behind them the result.
		frame := make([]uint64, 64)
		off := uintptr(0)
		place := func(t reflect.Type) reflect.Value {
			align := uintptr(t.Align())
			off = (off + align - 1) / align * align
			v := reflect.NewAt(t, unsafe.Add(unsafe.Pointer(&frame[0]), off)).Elem()
			off += t.Size()
			return v
		}
		for i, a := range args {
			place(t.In(i)).Set(a)
		}
		off = (off + 7) / 8 * 8
		var results []reflect.Value
		if t.NumOut() == 1 {
			results = []reflect.Value{place(t.Out(0))}
		}
		c := processors.Get().(*processor)
		c.frame = uintptr(unsafe.Pointer(&frame[0]))
		c.run(code)
		processors.Put(c)
		runtime.KeepAlive(args)
		if results != nil {
			results[0] = reflect.ValueOf(results[0].Interface())
		}
		runtime.KeepAlive(frame)
		return results
	})
}

// interpretKernel is the same for a product's implementation.
func interpretKernel(t *gemmKernel) *gemmKernel {
	i := *t
	v := reflect.ValueOf(&i).Elem()
	for n := range v.NumField() {
		f := v.Field(n)
		f = reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem() // may be set
		switch {
		case f.Kind() == reflect.Func && !f.IsNil():
			f.Set(interpretValue(f))
		case f.Kind() == reflect.Slice:
			s := reflect.MakeSlice(f.Type(), f.Len(), f.Len())
			for j := range f.Len() {
				if !f.Index(j).IsNil() {
					s.Index(j).Set(interpretValue(f.Index(j)))
				}
			}
			f.Set(s)
		}
	}
	return &i
}

var processors = sync.Pool{New: func() any { return new(processor) }}

// processor is the state of one.
type processor struct {
	gp                [16]uint64
	vec               [32][16]uint32
	mask              [8]uint64
	less, zero, carry bool
	frame             uintptr
	pc                int
	tile              [8][16][16]uint32
	tileRows          [8]int
	tileWords         [8]int
}

type instruction func(c *processor)

func (c *processor) run(code []instruction) {
	for c.pc = 0; c.pc >= 0; {
		i := code[c.pc]
		c.pc++
		i(c)
	}
}

// assembly returns the functions in the package's assembly files.
var assembly = sync.OnceValue(func() map[string][]instruction {
	a := assembler{functions: map[string][]instruction{}, data: map[string][]uint32{}}
	for _, file := range []string{"gemm_amd64.s", "vector_amd64.s"} {
		text, err := os.ReadFile(file)
		if err != nil {
			panic(err)
		}
		a.read(string(text))
	}
	return a.functions
})

// assembler turns assembly into instructions.
type assembler struct {
	functions map[string][]instruction
	data      map[string][]uint32
}

var (
	dataLine = regexp.MustCompile(`^DATA (\w+)<>\+(\d+)\(SB\)/4, \$0x([0-9a-f]+)$`)
	textLine = regexp.MustCompile(`^TEXT ·(\w+)\(SB\)`)
	comment  = regexp.MustCompile(`\s*//.*$`)
)

func (a *assembler) read(text string) {
	lines := strings.Split(text, "\n")
	for _, l := range lines { // constants may follow the functions that use them
		if m := dataLine.FindStringSubmatch(l); m != nil {
			v, _ := strconv.ParseUint(m[3], 16, 32)
			a.data[m[1]] = append(a.data[m[1]], uint32(v))
			if off, _ := strconv.Atoi(m[2]); off != 4*(len(a.data[m[1]])-1) {
				panic("data out of order: " + l)
			}
		}
	}
	name, begin := "", 0
	end := func(to int) {
		if name != "" {
			a.functions[name] = a.function(lines[begin:to])
		}
	}
	for i, l := range lines {
		if m := textLine.FindStringSubmatch(l); m != nil {
			end(i)
			name, begin = m[1], i+1
		}
	}
	end(len(lines))
}

func (a *assembler) function(lines []string) (code []instruction) {
	labels := map[string]int{}
	var kept []string
	for _, l := range lines {
		l = strings.TrimSpace(comment.ReplaceAllString(l, ""))
		switch {
		case l == "" || l[0] == '#' || strings.HasPrefix(l, "DATA") || strings.HasPrefix(l, "GLOBL"):
		case strings.HasSuffix(l, ":"):
			labels[l[:len(l)-1]] = len(kept)
		default:
			kept = append(kept, l)
		}
	}
	for _, l := range kept {
		code = append(code, a.instruction(l, labels))
	}
	return code
}

// operand is a register, a number, a place in memory or a label.
type operand struct {
	kind        byte // g, v, k: registers; i: number; m: memory; f: of the frame; l: label
	n           int  // the register's number, or the number
	lanes       int  // of a vector register
	base, index int  // registers of an address, −1: none
	scale       int
	symbol      *uint32 // the address is of a constant
	label       string
}

var (
	general   = []string{"AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"}
	frameForm = regexp.MustCompile(`^\w+\+(\d+)\(FP\)$`)
	dataForm  = regexp.MustCompile(`^(\w+)<>\+(\d+)\(SB\)$`)
	memForm   = regexp.MustCompile(`^(-?\d*)\((\w+)\)(?:\((\w+)\*(\d)\))?$`)
)

func gpNumber(s string) int {
	for i, g := range general {
		if g == s {
			return i
		}
	}
	return -1
}

func (a *assembler) operand(s string) operand {
	if s[0] == '$' {
		v, err := strconv.ParseInt(s[1:], 0, 64)
		if err != nil {
			panic(err)
		}
		return operand{kind: 'i', n: int(v)}
	}
	if g := gpNumber(s); g >= 0 {
		return operand{kind: 'g', n: g}
	}
	if n, err := strconv.Atoi(s[1:]); err == nil {
		switch s[0] {
		case 'X', 'Y', 'Z':
			return operand{kind: 'v', n: n, lanes: map[byte]int{'X': 4, 'Y': 8, 'Z': 16}[s[0]]}
		case 'K':
			return operand{kind: 'k', n: n}
		}
	}
	if m := frameForm.FindStringSubmatch(s); m != nil {
		off, _ := strconv.Atoi(m[1])
		return operand{kind: 'f', n: off}
	}
	if m := dataForm.FindStringSubmatch(s); m != nil {
		off, _ := strconv.Atoi(m[2])
		return operand{kind: 'm', n: off, base: -1, index: -1, symbol: &a.data[m[1]][0]}
	}
	if m := memForm.FindStringSubmatch(s); m != nil {
		o := operand{kind: 'm', base: gpNumber(m[2]), index: -1}
		o.n, _ = strconv.Atoi(m[1])
		if m[3] != "" {
			o.index = gpNumber(m[3])
			o.scale, _ = strconv.Atoi(m[4])
		}
		return o
	}
	return operand{kind: 'l', label: s}
}

// address returns where a memory operand lies.
func (c *processor) address(o *operand) unsafe.Pointer {
	var a uintptr
	switch {
	case o.kind == 'f':
		a = c.frame
	case o.symbol != nil:
		a = uintptr(unsafe.Pointer(o.symbol))
	default:
		a = uintptr(c.gp[o.base])
	}
	a += uintptr(o.n)
	if o.kind == 'm' && o.index >= 0 {
		a += uintptr(c.gp[o.index]) * uintptr(o.scale)
	}
	return *(*unsafe.Pointer)(unsafe.Pointer(&a))
}

func load[T any](c *processor, o *operand) T     { return *(*T)(c.address(o)) }
func store[T any](c *processor, o *operand, v T) { *(*T)(c.address(o)) = v }

// get reads an integer operand of 8 bytes, set writes one.
func (c *processor) get(o *operand) uint64 {
	switch o.kind {
	case 'g':
		return c.gp[o.n]
	case 'i':
		return uint64(o.n)
	}
	return load[uint64](c, o)
}

func (c *processor) set(o *operand, v uint64) {
	if o.kind == 'g' {
		c.gp[o.n] = v
	} else {
		store(c, o, v)
	}
}

// get4 and set4 are get and set of 4 bytes.
func (c *processor) get4(o *operand) uint32 {
	if o.kind == 'm' || o.kind == 'f' {
		return load[uint32](c, o)
	}
	return uint32(c.get(o))
}

func (c *processor) set4(o *operand, v uint32) {
	if o.kind == 'g' {
		c.gp[o.n] = uint64(v)
	} else {
		store(c, o, v)
	}
}

// flags sets them for a comparison of a with b.
func (c *processor) flags(a, b int64) { c.less, c.zero = a < b, a == b }

// vector reads a vector operand's first lanes; those that a mask leaves out are 0 and
// are not touched in memory.
func (c *processor) vector(o *operand, lanes int, mask uint64) (v [16]uint32) {
	if o.kind == 'v' {
		return c.vec[o.n]
	}
	p := c.address(o)
	for l := range lanes {
		if mask>>l&1 == 1 {
			v[l] = *(*uint32)(unsafe.Add(p, 4*l))
			if v[l] == guardBits {
				panic("read outside the operands")
			}
		}
	}
	return v
}

// put writes a vector register or memory; lanes that the mask leaves out stay, or
// are cleared in a register with zero.
func (c *processor) put(o *operand, lanes int, v *[16]uint32, mask uint64, zero bool) {
	if o.kind == 'v' {
		r := &c.vec[o.n]
		for l := range r {
			switch {
			case l >= lanes:
				r[l] = 0
			case mask>>l&1 == 1:
				r[l] = v[l]
			case zero:
				r[l] = 0
			}
		}
		return
	}
	p := c.address(o)
	for l := range lanes {
		if mask>>l&1 == 1 {
			*(*uint32)(unsafe.Add(p, 4*l)) = v[l]
		}
	}
}

const allLanes = ^uint64(0)

var jumps = map[string]func(c *processor) bool{
	"JMP": func(c *processor) bool { return true },
	"JLT": func(c *processor) bool { return c.less }, "JGE": func(c *processor) bool { return !c.less },
	"JLE": func(c *processor) bool { return c.less || c.zero }, "JGT": func(c *processor) bool { return !c.less && !c.zero },
	"JG":  func(c *processor) bool { return !c.less && !c.zero },
	"JNE": func(c *processor) bool { return !c.zero }, "JEQ": func(c *processor) bool { return c.zero }, "JZ": func(c *processor) bool { return c.zero },
	"JNZ": func(c *processor) bool { return !c.zero },
	"JCC": func(c *processor) bool { return !c.carry }, "JCS": func(c *processor) bool { return c.carry },
}

// integers are the instructions on integers; o are the operands, the destination last.
var integers = map[string]func(c *processor, o []operand){
	"MOVQ": func(c *processor, o []operand) { c.set(&o[1], c.get(&o[0])) },
	"MOVL": func(c *processor, o []operand) { c.set4(&o[1], c.get4(&o[0])) },
	"LEAQ": func(c *processor, o []operand) { c.gp[o[1].n] = uint64(uintptr(c.address(&o[0]))) },
	"ADDQ": func(c *processor, o []operand) {
		v := c.get(&o[1]) + c.get(&o[0])
		c.set(&o[1], v)
		c.flags(int64(v), 0)
	},
	"SUBQ": func(c *processor, o []operand) {
		a, b := c.get(&o[1]), c.get(&o[0])
		c.set(&o[1], a-b)
		c.flags(int64(a), int64(b))
	},
	"INCQ": func(c *processor, o []operand) { c.set(&o[0], c.get(&o[0])+1); c.flags(int64(c.get(&o[0])), 0) },
	"DECQ": func(c *processor, o []operand) { c.set(&o[0], c.get(&o[0])-1); c.flags(int64(c.get(&o[0])), 0) },
	"NEGQ": func(c *processor, o []operand) { c.set(&o[0], -c.get(&o[0])); c.flags(int64(c.get(&o[0])), 0) },
	"XORQ": func(c *processor, o []operand) {
		c.set(&o[1], c.get(&o[0])^c.get(&o[1]))
		c.flags(int64(c.get(&o[1])), 0)
	},
	"ANDQ": func(c *processor, o []operand) {
		c.set(&o[1], c.get(&o[0])&c.get(&o[1]))
		c.flags(int64(c.get(&o[1])), 0)
	},
	"SHLQ":  func(c *processor, o []operand) { c.set(&o[1], c.get(&o[1])<<c.get(&o[0])) },
	"SHRQ":  func(c *processor, o []operand) { c.set(&o[1], c.get(&o[1])>>c.get(&o[0])) },
	"SHRL":  func(c *processor, o []operand) { c.set4(&o[1], c.get4(&o[1])>>c.get(&o[0])) },
	"CMPQ":  func(c *processor, o []operand) { c.flags(int64(c.get(&o[0])), int64(c.get(&o[1]))) },
	"CMPL":  func(c *processor, o []operand) { c.flags(int64(int32(c.get4(&o[0]))), int64(int32(c.get4(&o[1])))) },
	"TESTQ": func(c *processor, o []operand) { c.flags(int64(c.get(&o[0])&c.get(&o[1])), 0) },
	"BTQ":   func(c *processor, o []operand) { c.carry = c.get(&o[1])>>c.get(&o[0])&1 == 1 },
	"BZHIL": func(c *processor, o []operand) {
		v := c.get4(&o[1])
		if n := c.get(&o[0]) & 0xff; n < 32 {
			v &= 1<<n - 1
		}
		c.set4(&o[2], v)
	},
	"CMOVQGE": func(c *processor, o []operand) {
		if !c.less {
			c.set(&o[1], c.get(&o[0]))
		}
	},
	"KMOVW": func(c *processor, o []operand) { c.mask[o[1].n] = c.get(&o[0]) & 0xffff },
}

func f32(b uint32) float32 { return math.Float32frombits(b) }
func b32(f float32) uint32 { return math.Float32bits(f) }

// fma rounds once. The float64 sum is rounded to odd, so that rounding it again gives
// the nearest float32.
func fma(a, b, c float32) float32 {
	p, d := float64(a)*float64(b), float64(c)
	s := p + d
	t := s - p
	lost := (p - (s - t)) + (d - t)
	if bits := math.Float64bits(s); lost != 0 && lost == lost && bits&1 == 0 {
		if (lost > 0) == (s > 0) {
			s = math.Float64frombits(bits + 1)
		} else {
			s = math.Float64frombits(bits - 1)
		}
	}
	return float32(s)
}

// elementwise are the instructions lane by lane: a and b are the sources in Intel's
// order, d is what the destination held.
var elementwise = map[string]func(a, b, d uint32) uint32{
	"VADDPS": func(a, b, d uint32) uint32 { return b32(f32(a) + f32(b)) },
	"VSUBPS": func(a, b, d uint32) uint32 { return b32(f32(a) - f32(b)) },
	"VMULPS": func(a, b, d uint32) uint32 { return b32(f32(a) * f32(b)) },
	"VDIVPS": func(a, b, d uint32) uint32 { return b32(f32(a) / f32(b)) },
	"VMAXPS": func(a, b, d uint32) uint32 {
		if f32(a) > f32(b) {
			return a
		}
		return b
	},
	"VMINPS": func(a, b, d uint32) uint32 {
		if f32(a) < f32(b) {
			return a
		}
		return b
	},
	"VSQRTPS":      func(a, b, d uint32) uint32 { return b32(float32(math.Sqrt(float64(f32(b))))) },
	"VFMADD231PS":  func(a, b, d uint32) uint32 { return b32(fma(f32(a), f32(b), f32(d))) },
	"VFNMADD231PS": func(a, b, d uint32) uint32 { return b32(fma(-f32(a), f32(b), f32(d))) },
	"VFMADD213PS":  func(a, b, d uint32) uint32 { return b32(fma(f32(a), f32(d), f32(b))) },
	"VFMSUB213PS":  func(a, b, d uint32) uint32 { return b32(fma(f32(a), f32(d), -f32(b))) },
	"VCVTDQ2PS":    func(a, b, d uint32) uint32 { return b32(float32(int32(b))) },
	"VXORPS":       func(a, b, d uint32) uint32 { return a ^ b },
	"VPXOR":        func(a, b, d uint32) uint32 { return a ^ b },
	"VPXORD":       func(a, b, d uint32) uint32 { return a ^ b },
	"VORPS":        func(a, b, d uint32) uint32 { return a | b },
	"VPOR":         func(a, b, d uint32) uint32 { return a | b },
	"VPORD":        func(a, b, d uint32) uint32 { return a | b },
	"VANDPS":       func(a, b, d uint32) uint32 { return a & b },
	"VPAND":        func(a, b, d uint32) uint32 { return a & b },
	"VPANDD":       func(a, b, d uint32) uint32 { return a & b },
	"VPANDN":       func(a, b, d uint32) uint32 { return ^a & b },
	"VPADDD":       func(a, b, d uint32) uint32 { return a + b },
	"VPMULLD":      func(a, b, d uint32) uint32 { return a * b },
	"VPCMPGTD": func(a, b, d uint32) uint32 {
		if int32(a) > int32(b) {
			return ^uint32(0)
		}
		return 0
	},
	"VMOVUPS": func(a, b, d uint32) uint32 { return b }, "VMOVAPS": func(a, b, d uint32) uint32 { return b },
	"VMOVDQU": func(a, b, d uint32) uint32 { return b }, "VMOVDQU32": func(a, b, d uint32) uint32 { return b },
	"VMOVNTPS": func(a, b, d uint32) uint32 { return b },
}

// doubles are the same for lanes of 64 bits.
var doubles = map[string]func(a, b, d float64) float64{
	"VADDPD":      func(a, b, d float64) float64 { return a + b },
	"VMULPD":      func(a, b, d float64) float64 { return a * b },
	"VFMADD231PD": func(a, b, d float64) float64 { return math.FMA(a, b, d) },
}

// scalars work on the first lane; the others come from a.
var scalars = map[string]func(a, b float32) float32{
	"VADDSS":  func(a, b float32) float32 { return a + b },
	"VMULSS":  func(a, b float32) float32 { return a * b },
	"VDIVSS":  func(a, b float32) float32 { return a / b },
	"VSQRTSS": func(a, b float32) float32 { return float32(math.Sqrt(float64(b))) },
}

// shuffles make a vector of lanes lanes from two; imm is the constant operand.
var shuffles = map[string]func(r, a, b *[16]uint32, lanes, imm int){
	"VUNPCKLPS": func(r, a, b *[16]uint32, lanes, _ int) {
		for g := 0; g < lanes; g += 4 {
			r[g], r[g+1], r[g+2], r[g+3] = a[g], b[g], a[g+1], b[g+1]
		}
	},
	"VUNPCKHPS": func(r, a, b *[16]uint32, lanes, _ int) {
		for g := 0; g < lanes; g += 4 {
			r[g], r[g+1], r[g+2], r[g+3] = a[g+2], b[g+2], a[g+3], b[g+3]
		}
	},
	"VUNPCKLPD": func(r, a, b *[16]uint32, lanes, _ int) {
		for g := 0; g < lanes; g += 4 {
			r[g], r[g+1], r[g+2], r[g+3] = a[g], a[g+1], b[g], b[g+1]
		}
	},
	"VUNPCKHPD": func(r, a, b *[16]uint32, lanes, _ int) {
		for g := 0; g < lanes; g += 4 {
			r[g], r[g+1], r[g+2], r[g+3] = a[g+2], a[g+3], b[g+2], b[g+3]
		}
	},
	"VSHUFF32X4": func(r, a, b *[16]uint32, lanes, imm int) {
		for q, from := range []*[16]uint32{a, a, b, b} {
			copy(r[4*q:4*q+4], from[4*(imm>>(2*q)&3):])
		}
	},
	"VPERM2F128": func(r, a, b *[16]uint32, lanes, imm int) {
		for h := range 2 {
			from := a
			if imm>>(4*h)&2 != 0 {
				from = b
			}
			copy(r[4*h:4*h+4], from[4*(imm>>(4*h)&1):])
		}
	},
	"VINSERTF128": func(r, a, b *[16]uint32, lanes, imm int) {
		*r = *a
		copy(r[4*imm:4*imm+4], b[:4])
	},
	"VPERMW": func(r, a, b *[16]uint32, lanes, _ int) {
		for i := range 2 * lanes {
			from := a[i/2] >> (16 * (i % 2)) & uint32(2*lanes-1)
			r[i/2] |= b[from/2] >> (16 * (from % 2)) & 0xffff << (16 * (i % 2))
		}
	},
	"VPSHUFD": func(r, _, b *[16]uint32, lanes, imm int) {
		for l := range lanes {
			r[l] = b[l/4*4+imm>>(2*(l%4))&3]
		}
	},
	"VPERMILPD": func(r, _, b *[16]uint32, lanes, imm int) {
		for h := range lanes / 2 {
			copy(r[2*h:2*h+2], b[h/2*4+2*(imm>>h&1):])
		}
	},
	"VEXTRACTF128":  func(r, _, b *[16]uint32, lanes, imm int) { copy(r[:4], b[4*imm:]) },
	"VEXTRACTF64X4": func(r, _, b *[16]uint32, lanes, imm int) { copy(r[:8], b[8*imm:]) },
	"VPSLLD": func(r, _, b *[16]uint32, lanes, imm int) {
		for l := range lanes {
			r[l] = b[l] << imm
		}
	},
	"VPSRLD": func(r, _, b *[16]uint32, lanes, imm int) {
		for l := range lanes {
			r[l] = b[l] >> imm
		}
	},
}

func (a *assembler) instruction(line string, labels map[string]int) instruction {
	if strings.HasPrefix(line, "BYTE") {
		return emitted(line)
	}
	opcode, rest, _ := strings.Cut(line, " ")
	opcode, zero := strings.CutSuffix(opcode, ".Z")
	var o []operand
	for _, s := range strings.Split(rest, ",") {
		if s = strings.TrimSpace(s); s != "" {
			o = append(o, a.operand(s))
		}
	}
	if jump := jumps[opcode]; jump != nil {
		to, ok := labels[o[0].label]
		if !ok {
			panic("no label " + o[0].label)
		}
		return func(c *processor) {
			if jump(c) {
				c.pc = to
			}
		}
	}
	if f := integers[opcode]; f != nil {
		return func(c *processor) { f(c, o) }
	}
	if i := a.vectorInstruction(opcode, zero, o); i != nil {
		return i
	}
	panic("unknown instruction " + line)
}

func (a *assembler) vectorInstruction(opcode string, zero bool, o []operand) instruction {
	imm := 0
	if len(o) > 0 && o[0].kind == 'i' {
		imm, o = o[0].n, o[1:]
	}
	if len(o) == 0 {
		switch opcode {
		case "RET":
			return func(c *processor) { c.pc = -1 }
		case "VZEROUPPER", "PAUSE":
			return func(c *processor) {}
		}
		return nil
	}
	d := o[len(o)-1]
	lanes := d.lanes
	if d.kind != 'v' && o[0].kind == 'v' {
		lanes = o[0].lanes
	}
	// A write mask stands before the destination.
	k, src := -1, o[:len(o)-1]
	if n := len(src); n > 0 && src[n-1].kind == 'k' {
		k, src = src[n-1].n, src[:n-1]
	}
	mask := func(c *processor) uint64 {
		if k < 0 {
			return allLanes
		}
		return c.mask[k]
	}
	// The sources in Intel's order: a, if there are two, and b.
	sa, sb := &operand{}, &operand{}
	switch len(src) {
	case 1:
		sa, sb = &src[0], &src[0]
	case 2:
		sa, sb = &src[1], &src[0]
	}
	if f := elementwise[opcode]; f != nil {
		if opcode == "VMOVNTPS" {
			if d.kind != 'm' {
				return nil
			}
			return func(c *processor) {
				if uintptr(c.address(&d))%64 != 0 {
					panic("VMOVNTPS to an address that is not aligned")
				}
				c.put(&d, lanes, &c.vec[sb.n], allLanes, false)
			}
		}
		return func(c *processor) {
			m := mask(c)
			va, vb := c.vector(sa, lanes, m), c.vector(sb, lanes, m)
			if d.kind == 'v' {
				was := &c.vec[d.n]
				for l := range lanes {
					va[l] = f(va[l], vb[l], was[l])
				}
				c.put(&d, lanes, &va, m, zero)
				return
			}
			c.put(&d, lanes, &vb, m, false)
		}
	}
	if f := doubles[opcode]; f != nil {
		return func(c *processor) {
			va, vb := c.vector(sa, lanes, allLanes), c.vector(sb, lanes, allLanes)
			w := &c.vec[d.n]
			for l := 0; l < lanes; l += 2 {
				setDouble(&va, l, f(double(&va, l), double(&vb, l), double(w, l)))
			}
			c.put(&d, lanes, &va, allLanes, false)
		}
	}
	if f := scalars[opcode]; f != nil {
		return func(c *processor) {
			va, vb := c.vector(sa, 1, allLanes), c.vector(sb, 1, allLanes)
			va[0] = b32(f(f32(va[0]), f32(vb[0])))
			c.put(&d, 4, &va, allLanes, false)
		}
	}
	if f := shuffles[opcode]; f != nil {
		return func(c *processor) {
			var r [16]uint32
			va, vb := c.vector(sa, lanes, allLanes), c.vector(sb, lanes, allLanes)
			f(&r, &va, &vb, lanes, imm)
			c.put(&d, lanes, &r, allLanes, false)
		}
	}
	// compare writes one bit or one lane of ones for each pair of lanes.
	compare := func(n int, f func(a, b uint32) bool) instruction {
		return func(c *processor) {
			va, vb := c.vector(sa, n, allLanes), c.vector(sb, n, allLanes)
			var bits uint64
			var r [16]uint32
			for l := range n {
				if f(va[l], vb[l]) {
					bits |= 1 << l
					r[l] = ^uint32(0)
				}
			}
			if d.kind == 'k' {
				c.mask[d.n] = bits
			} else {
				c.put(&d, n, &r, allLanes, false)
			}
		}
	}
	switch opcode {
	case "PREFETCHT0", "PREFETCHT1", "PREFETCHNTA":
		return func(c *processor) {}
	case "VBROADCASTSS", "VPBROADCASTD":
		return func(c *processor) {
			v := c.vector(sb, 1, allLanes)
			for l := range v {
				v[l] = v[0]
			}
			c.put(&d, lanes, &v, allLanes, false)
		}
	case "VMASKMOVPS": // the mask is the upper bit of each lane
		return func(c *processor) {
			var m uint64
			for l := range lanes {
				m |= uint64(c.vec[sa.n][l]>>31) << l
			}
			v := c.vector(sb, lanes, m)
			c.put(&d, lanes, &v, m, true)
		}
	case "VMOVD":
		return func(c *processor) { c.put(&d, 4, &[16]uint32{c.get4(sb)}, allLanes, false) }
	case "VMOVSS", "MOVSS":
		return func(c *processor) {
			v := c.vector(sb, 1, allLanes)
			if d.kind == 'v' {
				c.put(&d, 4, &[16]uint32{v[0]}, allLanes, false)
			} else {
				store(c, &d, v[0])
			}
		}
	case "VMOVLPS", "MOVSD":
		return func(c *processor) { store(c, &d, [2]uint32(c.vec[sb.n][:2])) }
	case "VBLENDMPS":
		return func(c *processor) {
			va, vb := c.vector(sa, lanes, allLanes), c.vector(sb, lanes, allLanes)
			for l := range lanes {
				if c.mask[k]>>l&1 == 1 {
					va[l] = vb[l]
				}
			}
			c.put(&d, lanes, &va, allLanes, false)
		}
	case "VBLENDVPS", "VPBLENDVB": // mask, b, a
		sm, sb, sa := &src[0], &src[1], &src[2]
		return func(c *processor) {
			m, va, vb := c.vec[sm.n], c.vector(sa, lanes, allLanes), c.vector(sb, lanes, allLanes)
			for l := range lanes {
				if m[l]>>31 == 1 {
					va[l] = vb[l]
				}
			}
			c.put(&d, lanes, &va, allLanes, false)
		}
	case "VCMPPS":
		n := max(lanes, sa.lanes)
		switch imm {
		case 3:
			return compare(n, func(a, b uint32) bool { return f32(a) != f32(a) || f32(b) != f32(b) })
		case 6:
			return compare(n, func(a, b uint32) bool { return !(f32(a) <= f32(b)) })
		}
	case "VPCMPD":
		if imm == 5 {
			return compare(sa.lanes, func(a, b uint32) bool { return int32(a) >= int32(b) })
		}
	case "VPMOVSXBD":
		return func(c *processor) {
			v := c.vector(sb, lanes/4, allLanes)
			var r [16]uint32
			for l := range lanes {
				r[l] = uint32(int32(int8(v[l/4] >> (8 * (l % 4)))))
			}
			c.put(&d, lanes, &r, allLanes, false)
		}
	case "VPMOVZXWD":
		return func(c *processor) {
			v := c.vector(sb, lanes/2, allLanes)
			var r [16]uint32
			for l := range lanes {
				r[l] = v[l/2] >> (16 * (l % 2)) & 0xffff
			}
			c.put(&d, lanes, &r, allLanes, false)
		}
	case "VPTESTNMD":
		return compare(sa.lanes, func(a, b uint32) bool { return a&b == 0 })
	case "VPMOVD2M":
		return compare(sb.lanes, func(a, b uint32) bool { return b>>31 == 1 })
	case "VCVTPS2PD":
		return func(c *processor) {
			v := c.vector(sb, lanes/2, allLanes)
			var r [16]uint32
			for l := 0; l < lanes; l += 2 {
				setDouble(&r, l, float64(f32(v[l/2])))
			}
			c.put(&d, lanes, &r, allLanes, false)
		}
	case "VPERMI2PS": // the destination holds indices into a and, from 16 on, b
		return func(c *processor) {
			va, vb := c.vector(sa, lanes, allLanes), c.vector(sb, lanes, allLanes)
			r := &c.vec[d.n]
			for l := range lanes {
				if i := r[l] % 32; i < 16 {
					r[l] = va[i]
				} else {
					r[l] = vb[i-16]
				}
			}
		}
	}
	return nil
}

func double(v *[16]uint32, l int) float64 {
	return math.Float64frombits(uint64(v[l+1])<<32 | uint64(v[l]))
}

func setDouble(v *[16]uint32, l int, d float64) {
	b := math.Float64bits(d)
	v[l], v[l+1] = uint32(b), uint32(b>>32)
}

// emitted decodes an instruction that Go's assembler does not know: AVX512_BF16 and
// AMX, as kernel/_generate/gemm/encode.go writes them (Intel's manual, volume 2,
// chapters 2.3 VEX and 2.7 EVEX).
func emitted(line string) instruction {
	var b []byte
	for _, s := range strings.Split(line, ";") {
		v, err := strconv.ParseUint(strings.TrimPrefix(strings.TrimSpace(s), "BYTE $"), 0, 8)
		if err != nil {
			panic(err)
		}
		b = append(b, byte(v))
	}
	bit := func(b byte, n int) int { return int(b >> n & 1) }
	if b[0] == 0x62 && len(b) == 6 {
		dst := int(b[5]>>3&7) | (1-bit(b[1], 7))<<3 | (1-bit(b[1], 4))<<4
		s1 := int(^b[2]>>3&15) | (1-bit(b[3], 3))<<4
		s2 := int(b[5]&7) | (1-bit(b[1], 5))<<3 | (1-bit(b[1], 6))<<4
		switch kind := [2]byte{b[2] & 3, b[4]}; kind {
		case [2]byte{2, 0x52}: // VDPBF16PS
			return func(c *processor) {
				for l := range 16 {
					c.vec[dst][l] = dotPair(c.vec[dst][l], c.vec[s1][l], c.vec[s2][l])
				}
			}
		case [2]byte{3, 0x72}: // VCVTNE2PS2BF16: s2 into the lower half
			return func(c *processor) {
				var r [16]uint32
				for i := range 32 {
					from := &c.vec[s2]
					if i >= 16 {
						from = &c.vec[s1]
					}
					r[i/2] |= uint32(ToBF16(f32(from[i%16]))) << (16 * (i % 2))
				}
				c.vec[dst] = r
			}
		}
	}
	if b[0] == 0xc4 && b[1]&0x1f == 2 {
		reg := int(b[4] >> 3 & 7)
		kind := [2]byte{b[2] & 3, b[3]}
		if kind == [2]byte{2, 0x5c} { // TDPBF16PS
			s1, s2 := int(b[4]&7), int(^b[2]>>3&15)
			return func(c *processor) { c.dotTiles(reg, s1, s2) }
		}
		if kind == [2]byte{3, 0x49} { // TILEZERO
			return func(c *processor) { c.tile[reg] = [16][16]uint32{} }
		}
		if kind == [2]byte{0, 0x49} && b[4] == 0xc0 { // TILERELEASE
			return func(c *processor) { c.tileRows, c.tileWords = [8]int{}, [8]int{} }
		}
		base, index := int(b[5]&7)|(1-bit(b[1], 5))<<3, int(b[5]>>3&7)|(1-bit(b[1], 6))<<3
		disp := int(int32(uint32(b[6]) | uint32(b[7])<<8 | uint32(b[8])<<16 | uint32(b[9])<<24))
		row := func(c *processor, r, words int) []uint32 {
			o := operand{kind: 'm', n: disp, base: base, index: index, scale: r}
			if index == 4 {
				o.index = -1
			}
			return unsafe.Slice((*uint32)(c.address(&o)), words)
		}
		switch kind {
		case [2]byte{0, 0x49}: // LDTILECFG
			return func(c *processor) { c.configure((*[64]byte)(unsafe.Pointer(&row(c, 0, 16)[0]))) }
		case [2]byte{3, 0x4b}: // TILELOADD
			return func(c *processor) {
				c.tile[reg] = [16][16]uint32{}
				for r := range c.tileRows[reg] {
					copy(c.tile[reg][r][:], row(c, r, c.tileWords[reg]))
				}
			}
		case [2]byte{2, 0x4b}: // TILESTORED
			return func(c *processor) {
				for r := range c.tileRows[reg] {
					n := c.tileWords[reg]
					copy(row(c, r, n), c.tile[reg][r][:n])
				}
			}
		}
	}
	panic(fmt.Sprintf("unknown instruction % x", b))
}

// dotPair adds the products of two pairs of bfloat16, the odd one first (Intel's
// manual).
func dotPair(sum, a, b uint32) uint32 {
	s := fma(f32(a&^0xffff), f32(b&^0xffff), f32(sum))
	return b32(fma(f32(a<<16), f32(b<<16), s))
}

// configure is LDTILECFG, which faults on what is not a configuration.
func (c *processor) configure(b *[64]byte) {
	if b[0] != 1 || b[1] != 0 {
		panic("tiles: palette or first row")
	}
	for i := range 8 {
		words, rows := int(b[16+2*i])|int(b[17+2*i])<<8, int(b[48+i])
		if words%4 != 0 || words > 64 || rows > 16 {
			panic("tiles: too large")
		}
		c.tileWords[i], c.tileRows[i] = words/4, rows
	}
}

func (c *processor) dotTiles(dst, s1, s2 int) {
	if c.tileRows[s1] < c.tileRows[dst] || c.tileRows[s2] < c.tileWords[s1] || c.tileWords[s2] < c.tileWords[dst] || c.tileRows[dst] == 0 {
		panic("tiles: shapes that do not fit")
	}
	for r := range c.tileRows[dst] {
		for k := range c.tileWords[s1] {
			for n := range c.tileWords[dst] {
				c.tile[dst][r][n] = dotPair(c.tile[dst][r][n], c.tile[s1][r][k], c.tile[s2][k][n])
			}
		}
	}
}
