package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// vec is a vector register: V0 to V31, or a value that gets one.
type vec int

const registers = 32

// gp is a general register.
type gp string

// function is one function under construction. Its values are of two kinds: those that
// keep made hold their register to the end, and others up to their last use, in the
// straight line in which they are made.
type function struct {
	name, doc string
	params    []param
	result    *param
	code      []line
	values    int // given out, from registers on
	kept      map[vec]bool
	general   int // general registers given out
	labels    int
	locals    int      // bytes of stack
	numbers   []uint32 // its constants, four in a register
	tables    []vec
	whole     map[uint32]vec // see everywhere
	first     []line         // what follows the loading of the constants
	starts    map[string]func(gp)
}

// line is one line of assembly: a label, one of Go's instructions with ? for each vector
// register, or a machine instruction.
type line struct {
	text    string
	machine *machine
	regs    []vec // of text
	defines bool  // the regs
}

// param is one parameter and where it lies in the frame.
type param struct {
	name, kind string
	at         int
}

// define begins a function; a signature is as Go writes it, without the names of results.
func define(name, signature, result, doc string) *function {
	f := &function{name: name, doc: doc, values: registers, kept: map[vec]bool{}, whole: map[uint32]vec{}, starts: map[string]func(gp){}}
	at := 0
	place := func(name, kind string) param {
		size, align := 8, 8
		switch {
		case strings.HasPrefix(kind, "[]"):
			size = 24
		case kind == "[8]float32":
			size, align = 32, 4
		case kind == "[4]uint32":
			size, align = 16, 4
		case kind == "float32" || kind == "uint32":
			size, align = 4, 4
		}
		at = (at + align - 1) / align * align
		p := param{name, kind, at}
		at += size
		return p
	}
	var names []string
	for field := range strings.SplitSeq(signature, ", ") {
		name, kind, ok := strings.Cut(field, " ")
		names = append(names, name)
		if ok {
			for _, name := range names {
				f.params = append(f.params, place(name, kind))
			}
			names = nil
		}
	}
	if result != "" {
		at = (at + 7) / 8 * 8
		r := place("ret", result)
		f.result = &r
	}
	f.params = append(f.params, param{"", "", at}) // the end
	return f
}

func (f *function) param(name string) param {
	i := slices.IndexFunc(f.params, func(p param) bool { return p.name == name })
	return f.params[i]
}

// register returns a general register: of those that the system, the assembler and Go
// leave free all but R17, which is for a moment's use.
func (f *function) register() gp {
	free := []gp{"R0", "R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15",
		"R16", "R19", "R20", "R21", "R22", "R23", "R24", "R25", "R26"}
	f.general++
	return free[f.general-1]
}

// word loads a slice's address or a word from the frame.
func (f *function) word(name string) gp {
	p, r := f.param(name), f.register()
	part := ""
	if strings.HasPrefix(p.kind, "[]") {
		part = "_base"
	}
	f.line("MOVD %s%s+%d(FP), %s", name, part, p.at, r)
	return r
}

// length loads a slice's length.
func (f *function) length(name string) gp {
	r := f.register()
	f.line("MOVD %s_len+%d(FP), %s", name, f.param(name).at+8, r)
	return r
}

// line appends one of Go's instructions without vector registers.
func (f *function) line(format string, args ...any) {
	f.code = append(f.code, line{text: fmt.Sprintf(format, args...)})
}

// into and from append one of Go's instructions that writes or reads vector registers,
// whose numbers are put for each ?.
func (f *function) into(text string, regs ...vec) {
	f.code = append(f.code, line{text: text, regs: regs, defines: true})
}

func (f *function) from(text string, regs ...vec) {
	f.code = append(f.code, line{text: text, regs: regs})
}

// do appends a machine instruction, destination first.
func (f *function) do(name string, args ...any) {
	f.code = append(f.code, line{machine: &machine{name, args}})
}

// value returns a new value; keep makes it last.
func (f *function) value() vec {
	f.values++
	return vec(f.values - 1)
}

func (f *function) keep(v vec) vec {
	f.kept[v] = true
	return v
}

// label returns a new label, and place puts it here.
func (f *function) label(name string) string {
	f.labels++
	return fmt.Sprintf("%s%d", name, f.labels)
}

func (f *function) place(label string) { f.line("%s:", label) }

func (l *line) isLabel() bool { return strings.HasSuffix(l.text, ":") }

// vectors returns what a line reads and what it writes.
func (l *line) vectors() (read, written []vec) {
	if l.machine == nil {
		if l.defines {
			return nil, l.regs
		}
		return l.regs, nil
	}
	for i, a := range l.machine.args {
		switch a := a.(type) {
		case vec:
			if i == 0 {
				written = append(written, a)
				if !destructive[l.machine.name] {
					continue
				}
			}
			read = append(read, a)
		case lane:
			read = append(read, a.v)
		}
	}
	return read, written
}

// allocate puts registers for values.
func (f *function) allocate() {
	last := map[vec]int{}
	for i := range f.code {
		read, written := f.code[i].vectors()
		for _, v := range append(read, written...) {
			last[v] = i
		}
	}
	place := map[vec]vec{}
	owner := [registers]vec{}
	for i := range owner {
		owner[i] = -1
	}
	put := func(v vec) vec {
		if v < registers {
			return v
		}
		r, ok := place[v]
		if !ok {
			panic(fmt.Sprintf("%s: value %d is read before it is written", f.name, v))
		}
		return r
	}
	var out []line
	for i := range f.code {
		l := &f.code[i]
		if l.isLabel() {
			for _, v := range owner {
				if v >= 0 && !f.kept[v] {
					panic(fmt.Sprintf("%s: value %d is alive at %s", f.name, v, l.text))
				}
			}
		}
		read, written := l.vectors()
		// A copy of what is not read again is the thing itself.
		if m := l.machine; m != nil && m.name == "orr" && m.args[1] == m.args[2] {
			from, to := m.args[1].(vec), m.args[0].(vec)
			if _, held := place[to]; !held && from >= registers && !f.kept[from] && last[from] == i {
				place[to] = put(from)
				owner[place[to]] = to
				continue
			}
		}
		for _, v := range read {
			put(v)
		}
		free := func(vs []vec) {
			for _, v := range vs {
				if r, ok := place[v]; ok && !f.kept[v] && last[v] == i && owner[r] == v {
					owner[r] = -1
				}
			}
		}
		free(read)
		for _, v := range written {
			if _, ok := place[v]; ok || v < registers {
				continue
			}
			r := slices.Index(owner[:], -1)
			if r < 0 {
				panic(f.name + ": out of registers")
			}
			place[v], owner[r] = vec(r), v
		}
		free(written)
		n := *l
		if l.machine != nil {
			m := machine{name: l.machine.name}
			for _, a := range l.machine.args {
				switch x := a.(type) {
				case vec:
					a = put(x)
				case lane:
					a = lane{put(x.v), x.i}
				}
				m.args = append(m.args, a)
			}
			n.machine = &m
		}
		n.regs = nil
		for _, v := range l.regs {
			n.regs = append(n.regs, put(v))
		}
		out = append(out, n)
	}
	f.code = out
}

// print writes the function's assembly and its declaration.
func (f *function) print(text, decl io.Writer) {
	f.loadNumbers(text)
	f.allocate()
	fmt.Fprintf(text, "\n// %s %s\nTEXT ·%s(SB), NOSPLIT, $%d-%d\n", f.name, f.doc, f.name, f.locals, f.frame())
	for _, l := range f.code {
		switch {
		case l.machine != nil:
			bits, name := l.machine.encode()
			fmt.Fprintf(text, "\tWORD $%#08x // %s\n", bits, name)
		case l.isLabel():
			fmt.Fprintln(text, l.text)
		default:
			s := l.text
			for _, v := range l.regs {
				s = strings.Replace(s, "?", fmt.Sprint(int(v)), 1)
			}
			fmt.Fprintf(text, "\t%s\n", s)
		}
	}
	fmt.Fprint(text, "\tRET\n")

	var params []string
	for _, p := range f.params[:len(f.params)-1] {
		params = append(params, p.name+" "+p.kind)
	}
	result := ""
	if f.result != nil {
		result = " " + f.result.kind
	}
	fmt.Fprintf(decl, "\n// %s %s\n//\n//go:noescape\nfunc %s(%s)%s\n", f.name, f.doc, f.name, strings.Join(params, ", "), result)
}

// frame returns the bytes of parameters and result.
func (f *function) frame() int {
	if f.result == nil {
		return f.params[len(f.params)-1].at
	}
	size := 8
	if f.result.kind == "float32" {
		size = 4
	}
	return f.result.at + size
}

// bits returns a constant, as a lane of a register that holds four of them from the
// function's beginning to its end.
func (f *function) bits(x uint32) lane {
	i := slices.Index(f.numbers, x)
	if i < 0 {
		i = len(f.numbers)
		f.numbers = append(f.numbers, x)
	}
	if i/4 == len(f.tables) {
		f.tables = append(f.tables, f.keep(f.value()))
	}
	return lane{f.tables[i/4], i % 4}
}

// quad returns a register of four constants.
func (f *function) quad(x ...uint32) vec {
	for len(f.numbers)%4 != 0 {
		f.numbers = append(f.numbers, 0)
	}
	f.numbers = append(f.numbers, x...)
	f.tables = append(f.tables, f.keep(f.value()))
	return f.tables[len(f.tables)-1]
}

func (f *function) number(x float64) lane { return f.bits(math.Float32bits(float32(x))) }

// loadNumbers puts the loading of the constants at the beginning.
func (f *function) loadNumbers(w io.Writer) {
	if len(f.numbers) == 0 {
		return
	}
	table := f.name + "Numbers<>"
	fmt.Fprintln(w)
	for len(f.numbers)%4 != 0 {
		f.numbers = append(f.numbers, 0)
	}
	for i, x := range f.numbers {
		fmt.Fprintf(w, "DATA %s+%d(SB)/4, $%#08x\n", table, 4*i, x)
	}
	fmt.Fprintf(w, "GLOBL %s(SB), RODATA|NOPTR, $%d\n", table, 4*len(f.numbers))
	load := []line{{text: fmt.Sprintf("MOVD $%s(SB), R17", table)}}
	for i, v := range f.tables {
		load = append(load, line{text: fmt.Sprintf("FMOVQ %d(R17), F?", 16*i), regs: []vec{v}, defines: true})
	}
	f.code = slices.Concat(load, f.first, f.code)
}
