//go:build !noasm

package kernel

import "unsafe"

// What packs pairs of bfloat16, made of the assembly for whole vectors: edges pass through
// memory that is filled up with zeros.

// offset returns the address of p's i-th element.
func offset(p *float32, i int) *float32 {
	return (*float32)(unsafe.Add(unsafe.Pointer(p), 4*i))
}

// pairPanels16 is gemmKernel.pairPanels: k rows of n floats to panels of 16 words a pair of
// rows. Strides are in bytes.
func pairPanels16(dst, src *float32, stride, panel, k, n int) {
	var edge [2][16]float32
	for l := 0; l < k; l += 2 {
		even := offset(src, l*stride/4)
		odd := &edge[1][0] // zeros beside a last row that is alone
		whole := n / 16
		if l+1 < k {
			odd = offset(even, stride/4)
			if whole > 0 {
				pairPanels16BF16(dst, even, odd, panel, whole)
			}
		} else {
			clear(edge[1][:])
			for p := range whole {
				pairPanels16BF16(offset(dst, p*panel/4), offset(even, 16*p), odd, panel, 1)
			}
		}
		if rest := n % 16; rest > 0 {
			copy(edge[0][:], unsafe.Slice(offset(even, n-rest), rest))
			if l+1 < k {
				copy(edge[1][:], unsafe.Slice(offset(odd, n-rest), rest))
			}
			pairPanels16BF16(offset(dst, whole*panel/4), &edge[0][0], &edge[1][0], panel, 1)
		}
		dst = offset(dst, 16)
	}
}

// pairRow16 is gemmKernel.pairRow: n floats, two to a word.
func pairRow16(dst, src *float32, n int) {
	whole := n &^ 7
	if whole > 0 {
		pairRowBF16(dst, src, whole)
	}
	if rest := n - whole; rest > 0 {
		var edge [8]float32
		copy(edge[:], unsafe.Slice(offset(src, whole), rest))
		var words [4]float32
		pairRowBF16(&words[0], &edge[0], 8)
		copy(unsafe.Slice(offset(dst, whole/2), (rest+1)/2), words[:])
	}
}

// pairColumns16 is gemmKernel.pairColumns: 16 rows of k floats to rows of words of their pairs.
func pairColumns16(dst *float32, rows *[16]*float32, k int) {
	const most = 32 // of k at a time
	var words [16][most / 2]float32
	var at [16]*float32
	for l := 0; l < k; l += most {
		n := min(most, k-l)
		for r := range rows {
			pairRow16(&words[r][0], offset(rows[r], l), n)
		}
		for h := 0; h < 16; h += 8 {
			for r := range 8 {
				at[r] = &words[h+r][0]
			}
			transpose8NEON(offset(dst, l/2*16+h), 64, &at, (n+1)/2, nil)
		}
	}
}

// pairRows16 is gemmKernel.pairRows: k ≤ 32 rows of m ≤ 16 floats to m rows of 16 words of
// pairs of the rows.
func pairRows16(dst *float32, stride int, src *float32, srcStride, k, m int) {
	var words [16][16]float32
	pairPanels16(&words[0][0], src, srcStride, 0, k, m)
	var at [16]*float32
	for h := 0; h < part(k, 1, 16)/2; h += 8 {
		for r := range 8 {
			at[r] = &words[h+r][0]
		}
		transpose8NEON(offset(dst, h), stride, &at, m, nil)
	}
}
