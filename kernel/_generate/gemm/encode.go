package main

import (
	"fmt"
	"strings"

	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/reg"
)

// machine is an instruction that Go's assembler does not know. Registers are
// numbers; an address is base + index + disp.
type machine struct {
	name        string
	dst, s1, s2 int // vector or tile registers
	base, index Register
	disp        int
}

// String is the instruction as objdump prints it in Intel's syntax.
func (m machine) String() string {
	addr := func() string {
		s := "[" + intelName(m.base)
		if m.index != nil {
			s += "+" + intelName(m.index) + "*1"
		}
		if m.disp != 0 {
			s += fmt.Sprintf("+%#x", m.disp)
		}
		return s + "]"
	}
	switch m.name {
	case "vdpbf16ps", "vcvtne2ps2bf16":
		return fmt.Sprintf("%s zmm%d,zmm%d,zmm%d", m.name, m.dst, m.s1, m.s2)
	case "tdpbf16ps":
		return fmt.Sprintf("tdpbf16ps tmm%d,tmm%d,tmm%d", m.dst, m.s1, m.s2)
	case "tilezero":
		return fmt.Sprintf("tilezero tmm%d", m.dst)
	case "tileloadd":
		return fmt.Sprintf("tileloadd tmm%d,%s", m.dst, addr())
	case "tilestored":
		return fmt.Sprintf("tilestored %s,tmm%d", addr(), m.dst)
	case "ldtilecfg":
		return "ldtilecfg " + addr()
	}
	return m.name
}

// number returns a register's number in an encoding.
func number(r Register) int { return int(r.(Physical).PhysicalIndex()) }

func intelName(r Register) string {
	return [...]string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
		"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}[number(r)]
}

// encode returns the instruction's bytes (Intel's manual, volume 2, chapters 2.3
// VEX and 2.7 EVEX).
func (m machine) encode() []byte {
	const f2, f3, none = 3, 2, 0
	switch m.name {
	case "vdpbf16ps": // EVEX.512.F3.0F38.W0 52 /r
		return m.evex(f3, 0x52)
	case "vcvtne2ps2bf16": // EVEX.512.F2.0F38.W0 72 /r
		return m.evex(f2, 0x72)
	case "tdpbf16ps": // VEX.128.F3.0F38.W0 5C 11:rrr:bbb
		return []byte{0xc4, 0xe2, byte(^m.s2&15)<<3 | f3, 0x5c, 0xc0 | byte(m.dst)<<3 | byte(m.s1)}
	case "tilezero": // VEX.128.F2.0F38.W0 49 11:rrr:000
		return []byte{0xc4, 0xe2, 0x78 | f2, 0x49, 0xc0 | byte(m.dst)<<3}
	case "tileloadd": // VEX.128.F2.0F38.W0 4B !11:rrr:100
		return m.address(0x78|f2, 0x4b)
	case "tilestored": // VEX.128.F3.0F38.W0 4B !11:rrr:100
		return m.address(0x78|f3, 0x4b)
	case "ldtilecfg": // VEX.128.NP.0F38.W0 49 !11:000:bbb
		return m.address(0x78|none, 0x49)
	case "tilerelease": // VEX.128.NP.0F38.W0 49 C0
		return []byte{0xc4, 0xe2, 0x78, 0x49, 0xc0}
	}
	panic("unknown instruction " + m.name)
}

// evex encodes an instruction of map 0F38 on three vector registers.
func (m machine) evex(prefix, opcode byte) []byte {
	inv := func(x, bit int) byte { return byte(^x >> bit & 1) }
	return []byte{0x62,
		inv(m.dst, 3)<<7 | inv(m.s2, 4)<<6 | inv(m.s2, 3)<<5 | inv(m.dst, 4)<<4 | 2,
		byte(^m.s1&15)<<3 | 4 | prefix,
		2<<5 | inv(m.s1, 4)<<3,
		opcode, 0xc0 | byte(m.dst&7)<<3 | byte(m.s2&7)}
}

// address encodes an instruction of map 0F38 with a memory operand, which
// always gets a SIB byte and a displacement of 4 bytes.
func (m machine) address(p2, opcode byte) []byte {
	b, i := number(m.base), 4 // index 4 means none
	if m.index != nil {
		i = number(m.index)
	}
	return []byte{0xc4,
		0x80 | byte(^i>>3&1)<<6 | byte(^b>>3&1)<<5 | 2, p2, opcode,
		0x84 | byte(m.dst&7)<<3,
		byte(i&7)<<3 | byte(b&7),
		byte(m.disp), byte(m.disp >> 8), byte(m.disp >> 16), byte(m.disp >> 24)}
}

// emit appends the instruction as bytes, on one line of the listing.
func (g *gen) emit(m machine) {
	var s []string
	for _, b := range m.encode() {
		s = append(s, fmt.Sprintf("BYTE $%#02x", b))
	}
	i := &ir.Instruction{Opcode: strings.Join(s, "; ") + " // " + m.String()}
	g.emitted[i] = m
	g.Instruction(i)
}

func (g *gen) vdpbf16ps(b, a, sum VecPhysical) {
	g.emit(machine{name: "vdpbf16ps", dst: number(sum), s1: number(a), s2: number(b)})
}

// vcvtne2ps2bf16 rounds low into the lower half of dst and high into the upper.
func (g *gen) vcvtne2ps2bf16(low, high, dst VecPhysical) {
	g.emit(machine{name: "vcvtne2ps2bf16", dst: number(dst), s1: number(high), s2: number(low)})
}

func (g *gen) tdpbf16ps(sum, a, b int) { g.emit(machine{name: "tdpbf16ps", dst: sum, s1: a, s2: b}) }

func (g *gen) tilezero(t int) { g.emit(machine{name: "tilezero", dst: t}) }

func (g *gen) tileload(t int, base, stride Register, disp int) {
	g.emit(machine{name: "tileloadd", dst: t, base: base, index: stride, disp: disp})
}

func (g *gen) tilestore(base, stride Register, disp, t int) {
	g.emit(machine{name: "tilestored", dst: t, base: base, index: stride, disp: disp})
}

func (g *gen) tileconfig(base Register) { g.emit(machine{name: "ldtilecfg", base: base}) }

func (g *gen) tilerelease() { g.emit(machine{name: "tilerelease"}) }
