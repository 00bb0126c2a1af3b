package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// cpu interprets the generator's own instructions, so that microkernels are
// tested by their results on machines that cannot run them. It works on real
// memory, but only inside the given regions: a read or a write outside panics,
// as does an instruction that it does not know.
type cpu struct {
	emitted           map[*ir.Instruction]machine
	regions           []region
	frame             []uint64 // arguments
	gp                [16]uint64
	vec               [32][64]byte
	mask              [8]uint64
	tile              [8][16][64]byte
	rows              [8]int // of the tile configuration
	colBytes          [8]int
	less, zero, carry bool
}

// region is an operand's memory.
type region struct {
	name  string
	data  []byte
	write bool
}

// memory returns n bytes at an address.
func (c *cpu) memory(addr uintptr, n int, write bool) []byte {
	for _, r := range c.regions {
		// Wraps around to a large number for an address below the region.
		if o := addr - uintptr(unsafe.Pointer(&r.data[0])); o <= uintptr(len(r.data)) && o+uintptr(n) <= uintptr(len(r.data)) {
			if write && !r.write {
				panic("write to " + r.name)
			}
			return r.data[o : o+uintptr(n)]
		}
	}
	panic(fmt.Sprintf("access to %d bytes outside all operands", n))
}

func (c *cpu) address(m Mem) uintptr {
	a := c.gp[number(m.Base)] + uint64(m.Disp)
	if m.Index != nil {
		a += c.gp[number(m.Index)] * uint64(m.Scale)
	}
	return uintptr(a)
}

// run executes a function to its return.
func (c *cpu) run(f *ir.Function) {
	var code []*ir.Instruction
	labels := map[string]int{}
	for _, n := range f.Nodes {
		switch n := n.(type) {
		case *ir.Instruction:
			code = append(code, n)
		case ir.Label:
			labels[string(n)] = len(code)
		}
	}
	for pc := 0; ; {
		i := code[pc]
		pc++
		if m, ok := c.emitted[i]; ok {
			c.machine(m)
			continue
		}
		jump := false
		switch i.Opcode {
		case "RET":
			return
		case "JMP":
			jump = true
		case "JLT":
			jump = c.less
		case "JGE":
			jump = !c.less
		case "JLE":
			jump = c.less || c.zero
		case "JNE":
			jump = !c.zero
		case "JEQ":
			jump = c.zero
		case "JCC":
			jump = !c.carry
		default:
			c.execute(i)
		}
		if jump {
			pc = labels[string(i.Operands[0].(LabelRef))]
		}
	}
}

// get reads an integer operand.
func (c *cpu) get(o Op) uint64 {
	switch o := o.(type) {
	case U8:
		return uint64(o)
	case U16:
		return uint64(o)
	case U32:
		return uint64(o)
	case reg.Register:
		v := c.gp[number(o)]
		if o.Size() == 4 {
			v &= 0xffffffff
		}
		return v
	case Mem:
		if o.Symbol.Name != "" {
			return c.frame[o.Disp/8]
		}
		return binary.LittleEndian.Uint64(c.memory(c.address(o), 8, false))
	}
	panic(fmt.Sprintf("operand %v", o))
}

func (c *cpu) set(o Op, v uint64) {
	if m, ok := o.(Mem); ok {
		binary.LittleEndian.PutUint64(c.memory(c.address(m), 8, true), v)
		return
	}
	c.gp[number(o.(reg.Register))] = v
}

// flags sets them for a comparison of a with b.
func (c *cpu) flags(a, b int64) { c.less, c.zero = a < b, a == b }

func (c *cpu) execute(i *ir.Instruction) {
	o := i.Operands
	last := len(o) - 1
	add := func(d int64) {
		v := int64(c.get(o[last])) + d
		c.set(o[last], uint64(v))
		c.flags(v, 0)
	}
	switch i.Opcode {
	case "MOVQ", "MOVL":
		c.set(o[1], c.get(o[0]))
	case "LEAQ":
		c.set(o[1], uint64(c.address(o[0].(Mem))))
	case "ADDQ":
		add(int64(c.get(o[0])))
	case "DECQ":
		add(-1)
	case "SUBQ":
		a, b := int64(c.get(o[1])), int64(c.get(o[0]))
		c.set(o[1], uint64(a-b))
		c.flags(a, b)
	case "CMPQ":
		c.flags(int64(c.get(o[0])), int64(c.get(o[1])))
	case "CMPL":
		c.flags(int64(int32(c.get(o[0]))), int64(int32(c.get(o[1]))))
	case "SHLQ":
		c.set(o[1], c.get(o[1])<<c.get(o[0]))
	case "SHRL":
		c.set(o[1], c.get(o[1])>>c.get(o[0]))
	case "BTQ":
		c.carry = c.get(o[1])>>c.get(o[0])&1 == 1
	case "BZHIL":
		v := c.get(o[1])
		if n := c.get(o[0]) & 0xff; n < 32 {
			v &= 1<<n - 1
		}
		c.set(o[2], v)
	case "KMOVW":
		c.mask[number(o[1].(reg.Register))] = c.get(o[0]) & 0xffff
	case "PREFETCHT0", "PREFETCHT1", "VZEROUPPER":
	case "VXORPS", "VPXORD":
		c.lanes(o[2], 4, func(x []byte, l int) {
			a, b := c.word(o[1], l), c.word(o[0], l)
			binary.LittleEndian.PutUint32(x, a^b)
		})
	case "VMOVUPS", "VMOVAPS":
		c.move(o, i.Suffixes)
	case "VMOVNTPS":
		if c.address(o[1].(Mem))%64 != 0 {
			panic("VMOVNTPS to an address that is not aligned")
		}
		c.move(o, nil)
	case "VMASKMOVPS":
		// The mask is the upper bit of each lane of the second operand.
		var m uint64
		for l := range o[1].(reg.Register).Size() / 4 {
			m |= uint64(c.word(o[1], int(l))>>31) << l
		}
		c.masked(o[0], o[2], m, true)
	case "VBROADCASTSS":
		v := append([]byte(nil), c.memory(c.address(o[0].(Mem)), 4, false)...)
		c.lanes(o[1], 4, func(x []byte, _ int) { copy(x, v) })
	case "VFMADD231PS":
		c.lanes(o[2], 4, func(x []byte, l int) {
			setFloat(x, fma(c.float(o[1], l), c.float(o[0], l), c.float(o[2], l)))
		})
	case "VFMADD213PS":
		c.lanes(o[2], 4, func(x []byte, l int) {
			setFloat(x, fma(c.float(o[1], l), c.float(o[2], l), c.float(o[0], l)))
		})
	case "VMULPS":
		c.lanes(o[2], 4, func(x []byte, l int) { setFloat(x, c.float(o[0], l)*c.float(o[1], l)) })
	case "VEXTRACTF128":
		src := c.vec[number(o[1].(reg.Register))]
		d := &c.vec[number(o[2].(reg.Register))]
		*d = [64]byte{}
		copy(d[:16], src[16*c.get(o[0]):][:16])
	case "VMOVLPS":
		copy(c.memory(c.address(o[1].(Mem)), 8, true), c.vec[number(o[0].(reg.Register))][:])
	case "VMOVSS":
		copy(c.memory(c.address(o[1].(Mem)), 4, true), c.vec[number(o[0].(reg.Register))][:])
	case "VPERMILPD":
		src := c.vec[number(o[1].(reg.Register))]
		d := &c.vec[number(o[2].(reg.Register))]
		*d = [64]byte{}
		for h := range 2 {
			copy(d[8*h:8*h+8], src[8*(c.get(o[0])>>h&1):])
		}
	default:
		panic("unknown instruction " + i.Opcode)
	}
}

// lanes applies f to the lanes of a vector register, whose upper part it clears.
func (c *cpu) lanes(dst Op, width int, f func(x []byte, lane int)) {
	r := dst.(reg.Register)
	v := &c.vec[number(r)]
	for l := range int(r.Size()) / width {
		f(v[l*width:(l+1)*width], l)
	}
	clear(v[r.Size():])
}

// word reads a lane of a register or a memory operand.
func (c *cpu) word(o Op, lane int) uint32 {
	if m, ok := o.(Mem); ok {
		return binary.LittleEndian.Uint32(c.memory(c.address(m)+uintptr(4*lane), 4, false))
	}
	return binary.LittleEndian.Uint32(c.vec[number(o.(reg.Register))][4*lane:])
}

func (c *cpu) float(o Op, lane int) float32 { return math.Float32frombits(c.word(o, lane)) }

func setFloat(x []byte, v float32) { binary.LittleEndian.PutUint32(x, math.Float32bits(v)) }

func fma(a, b, c float32) float32 { return float32(float64(a)*float64(b) + float64(c)) }

// move is VMOVUPS: source, mask if any, destination.
func (c *cpu) move(o []Op, suffixes []string) {
	m := ^uint64(0)
	if len(o) == 3 {
		m = c.mask[number(o[1].(reg.Register))]
	}
	c.masked(o[0], o[len(o)-1], m, len(suffixes) == 1 && suffixes[0] == "Z" || len(o) == 2)
}

// masked copies lanes; those left out are cleared in a register with zero, and
// not touched in memory.
func (c *cpu) masked(src, dst Op, m uint64, zero bool) {
	if d, ok := dst.(Mem); ok {
		for l := range int(src.(reg.Register).Size()) / 4 {
			if m>>l&1 == 1 {
				binary.LittleEndian.PutUint32(c.memory(c.address(d)+uintptr(4*l), 4, true), c.word(src, l))
			}
		}
		return
	}
	c.lanes(dst, 4, func(x []byte, l int) {
		switch {
		case m>>l&1 == 1:
			binary.LittleEndian.PutUint32(x, c.word(src, l))
		case zero:
			clear(x)
		}
	})
}

// machine executes an instruction that is emitted as bytes.
func (c *cpu) machine(m machine) {
	pair := func(b []byte) (lo, hi float32) {
		w := binary.LittleEndian.Uint32(b)
		return math.Float32frombits(w << 16), math.Float32frombits(w &^ 0xffff)
	}
	// Both instructions add the odd product first (Intel's manual).
	multiply := func(sum, a, b []byte) {
		a0, a1 := pair(a)
		b0, b1 := pair(b)
		s := math.Float32frombits(binary.LittleEndian.Uint32(sum))
		setFloat(sum, fma(a0, b0, fma(a1, b1, s)))
	}
	// A tile's row r lies index·r behind the address.
	row := func(r int) uintptr {
		a := c.gp[number(m.base)] + uint64(m.disp)
		if m.index != nil {
			a += c.gp[number(m.index)] * uint64(r)
		}
		return uintptr(a)
	}
	switch m.name {
	case "vdpbf16ps":
		for l := 0; l < 64; l += 4 {
			multiply(c.vec[m.dst][l:l+4], c.vec[m.s1][l:], c.vec[m.s2][l:])
		}
	case "ldtilecfg":
		b := c.memory(row(0), 64, false)
		if b[0] != 1 {
			panic("tile palette")
		}
		for t := range 8 {
			c.colBytes[t], c.rows[t] = int(binary.LittleEndian.Uint16(b[16+2*t:])), int(b[48+t])
		}
	case "tilezero":
		c.tile[m.dst] = [16][64]byte{}
	case "tileloadd":
		c.tile[m.dst] = [16][64]byte{}
		for r := range c.rows[m.dst] {
			copy(c.tile[m.dst][r][:], c.memory(row(r), c.colBytes[m.dst], false))
		}
	case "tilestored":
		for r := range c.rows[m.dst] {
			n := c.colBytes[m.dst]
			copy(c.memory(row(r), n, true), c.tile[m.dst][r][:n])
		}
	case "tdpbf16ps":
		for r := range c.rows[m.dst] {
			for k := range c.colBytes[m.s1] / 4 {
				for n := range c.colBytes[m.dst] / 4 {
					multiply(c.tile[m.dst][r][4*n:4*n+4], c.tile[m.s1][r][4*k:], c.tile[m.s2][k][4*n:])
				}
			}
		}
	case "tilerelease":
		c.rows, c.colBytes = [8]int{}, [8]int{}
	default:
		panic("unknown instruction " + m.name)
	}
}
