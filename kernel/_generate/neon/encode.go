package main

import (
	"fmt"
	"strings"
)

// An encoding is an instruction on vector registers: its bits where all operands are 0,
// and how its operands are written, destination first: an arrangement of lanes (4s),
// one lane (s, d, 2h), the first lane with zeros behind it (scalar), or a number: of a shift
// of 32-bit lanes (#left, #right), or one that is part of the bits (16, zero). Arm
// Architecture Reference Manual, C7.2.
type encoding struct {
	bits     uint32
	operands string
}

// Names are the manual's, with a suffix where one name has several forms. Those of
// destructive are read as well as written.
var encodings = map[string]encoding{
	"fadd": {0x4e20d400, "4s 4s 4s"}, "fsub": {0x4ea0d400, "4s 4s 4s"}, "fmul": {0x6e20dc00, "4s 4s 4s"}, "fdiv": {0x6e20fc00, "4s 4s 4s"},
	"fmax": {0x4e20f400, "4s 4s 4s"}, "fmin": {0x4ea0f400, "4s 4s 4s"}, "fmla": {0x4e20cc00, "4s 4s 4s"}, "fmls": {0x4ea0cc00, "4s 4s 4s"},
	"faddp": {0x6e20d400, "4s 4s 4s"}, "fmaxp": {0x6e20f400, "4s 4s 4s"},
	"fmla/lane": {0x4f801000, "4s 4s s"}, "fmls/lane": {0x4f805000, "4s 4s s"}, "fmul/lane": {0x4f809000, "4s 4s s"},
	"fsqrt": {0x6ea1f800, "4s 4s"}, "fcmeq": {0x4e20e400, "4s 4s 4s"}, "fcmle/zero": {0x6ea0d800, "4s 4s zero"},
	"fadd/64": {0x4e60d400, "2d 2d 2d"}, "fmul/64": {0x6e60dc00, "2d 2d 2d"}, "fmla/64": {0x4e60cc00, "2d 2d 2d"}, "faddp/64": {0x6e60d400, "2d 2d 2d"},
	"fcvtl": {0x0e617800, "2d 2s"}, "fcvtl2": {0x4e617800, "2d 4s"}, "scvtf": {0x4e21d800, "4s 4s"},
	"add": {0x4ea08400, "4s 4s 4s"}, "sub": {0x6ea08400, "4s 4s 4s"}, "mul": {0x4ea09c00, "4s 4s 4s"}, "cmgt": {0x4ea03400, "4s 4s 4s"}, "cmlt/zero": {0x4ea0a800, "4s 4s zero"},
	"and": {0x4e201c00, "16b 16b 16b"}, "orr": {0x4ea01c00, "16b 16b 16b"}, "eor": {0x6e201c00, "16b 16b 16b"}, "bic": {0x4e601c00, "16b 16b 16b"}, "bsl": {0x6e601c00, "16b 16b 16b"},
	"shl": {0x4f005400, "4s 4s #left"}, "ushr": {0x6f000400, "4s 4s #right"}, "sri": {0x6f004400, "4s 4s #right"},
	"sxtl/8": {0x0f08a400, "8h 8b"}, "sxtl2/8": {0x4f08a400, "8h 16b"}, "sxtl": {0x0f10a400, "4s 4h"}, "sxtl2": {0x4f10a400, "4s 8h"},
	"shll": {0x2e613800, "4s 4h 16"}, "shll2": {0x6e613800, "4s 8h 16"},
	"bfcvtn": {0x0ea16800, "4h 4s"}, "bfcvtn2": {0x4ea16800, "8h 4s"}, "bfdot/lane": {0x4f40f000, "4s 8h 2h"},
	"zip1/16": {0x4e403800, "8h 8h 8h"}, "zip2/16": {0x4e407800, "8h 8h 8h"},
	"zip1": {0x4e803800, "4s 4s 4s"}, "zip2": {0x4e807800, "4s 4s 4s"}, "zip1/64": {0x4ec03800, "2d 2d 2d"}, "zip2/64": {0x4ec07800, "2d 2d 2d"},
	"fneg": {0x6ea0f800, "4s 4s"}, "orr/8": {0x0ea01c00, "8b 8b 8b"}, "fmov": {0x1e204000, "scalar scalar"},
	"dup": {0x4e000400, "4s s"}, "dup/64": {0x4e000400, "2d d"},
}

var destructive = map[string]bool{"fmla": true, "fmls": true, "fmla/lane": true, "fmls/lane": true, "fmla/64": true, "bsl": true, "sri": true, "bfdot/lane": true, "bfcvtn2": true}

// lane is one lane of a register.
type lane struct {
	v vec
	i int
}

// machine is an instruction: its name in encodings, and its operands, destination first:
// numbers of registers, lanes and immediate numbers.
type machine struct {
	name string
	args []any // vec, lane, int
}

// encode returns the instruction's bits and how objdump prints it.
func (m machine) encode() (bits uint32, text string) {
	e, ok := encodings[m.name]
	kinds := strings.Fields(e.operands)
	if !ok || len(m.args) != len(kinds) && kinds[len(kinds)-1] != "zero" && kinds[len(kinds)-1] != "16" {
		panic("no instruction " + m.name)
	}
	bits = e.bits
	name, _, _ := strings.Cut(m.name, "/")
	for i, kind := range kinds {
		at := []int{0, 5, 16}[i] // Rd, Rn, Rm
		separator := ", "
		if i == 0 {
			separator = " "
		}
		text += separator
		switch {
		case kind == "zero":
			text += "#0.0"
			if strings.HasPrefix(name, "cm") {
				text = strings.TrimSuffix(text, ".0")
			}
		case kind == "16":
			text += "#16"
		case kind == "scalar":
			bits |= uint32(m.args[i].(vec)) << at
			text += fmt.Sprintf("s%d", m.args[i])
		case kind == "#left":
			bits |= uint32(32+m.args[i].(int)) << 16
			text += fmt.Sprintf("#%d", m.args[i])
		case kind == "#right":
			bits |= uint32(64-m.args[i].(int)) << 16
			text += fmt.Sprintf("#%d", m.args[i])
		case kind == "s" || kind == "d" || kind == "2h":
			l := m.args[i].(lane)
			n := uint32(l.i)
			bits |= uint32(l.v) << at
			switch {
			case i == 2: // the index is in bits H and L
				bits |= n&1<<21 | n>>1<<11
			case kind == "s":
				bits |= (n<<3 | 4) << 16
			default:
				bits |= (n<<4 | 8) << 16
			}
			text += fmt.Sprintf("v%d.%s[%d]", l.v, kind, l.i)
		default:
			bits |= uint32(m.args[i].(vec)) << at
			text += fmt.Sprintf("v%d.%s", m.args[i], kind)
		}
	}
	return bits, name + text
}
