package task

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
	"github.com/pierrec/lz4/v4"
)

// The most that a page of a Parquet file may hold, some hundred times what writers put
// into one.
const (
	maxPageBytes  = 256 << 20
	maxPageValues = 1 << 26
)

// checkPages reads the pages of a Parquet file as far as it needs to know what they
// expand to. The library allocates what a page says of itself, and for a broken LZ4
// page ever more: a file of a few bytes could take all memory.
func checkPages(p *parquet.File, f io.ReaderAt, size int64) error {
	schema := p.Schema()
	for g, group := range p.Metadata().RowGroups {
		for _, column := range group.Columns {
			m := column.MetaData
			path := []string(m.PathInSchema)
			leaf, ok := schema.Lookup(path...)
			if !ok {
				return fmt.Errorf("expected columns of the schema, found %q", path)
			}
			begin := m.DataPageOffset
			if m.DictionaryPageOffset > 0 {
				begin = min(begin, m.DictionaryPageOffset)
			}
			if begin < 0 || m.TotalCompressedSize < 0 || begin > size-m.TotalCompressedSize {
				return fmt.Errorf("row group %d: column %q: expected pages within the file, found %d bytes at %d", g, path, m.TotalCompressedSize, begin)
			}
			c := pageChecker{m.Codec, [2]int{bits.Len(uint(leaf.MaxRepetitionLevel)), bits.Len(uint(leaf.MaxDefinitionLevel))}}
			if err := c.check(io.NewSectionReader(f, begin, m.TotalCompressedSize)); err != nil {
				return fmt.Errorf("row group %d: column %q: %w", g, path, err)
			}
		}
	}
	return nil
}

// pageChecker checks the pages of a column.
type pageChecker struct {
	codec     format.CompressionCodec
	levelBits [2]int // of repetition and definition levels
}

func (c *pageChecker) check(section *io.SectionReader) error {
	r := bufio.NewReader(section)
	headers := thrift.NewDecoder(new(thrift.CompactProtocol).NewReader(r))
	for n := 0; ; n++ {
		if _, err := r.Peek(1); err == io.EOF {
			return nil
		}
		var h format.PageHeader
		if err := headers.Decode(&h); err != nil {
			return fmt.Errorf("page %d: %w", n, err)
		}
		at, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		left := section.Size() - at + int64(r.Buffered())
		if h.CompressedPageSize < 0 || int64(h.CompressedPageSize) > left {
			return fmt.Errorf("page %d: expected at most the column's %d bytes, found %d", n, left, h.CompressedPageSize)
		}
		if h.UncompressedPageSize < 0 || h.UncompressedPageSize > maxPageBytes {
			return fmt.Errorf("page %d: expected at most %d bytes, found %d", n, maxPageBytes, h.UncompressedPageSize)
		}
		data := make([]byte, h.CompressedPageSize)
		if _, err := io.ReadFull(r, data); err != nil {
			return fmt.Errorf("page %d: %w", n, err)
		}
		if err := c.page(&h, data); err != nil {
			return fmt.Errorf("page %d: %w", n, err)
		}
	}
}

// page checks a page: that its data expand to the bytes and the values that it says.
func (c *pageChecker) page(h *format.PageHeader, data []byte) error {
	var values int32
	var encoding format.Encoding
	var levels []int32 // the bytes of those before the data
	compressed := true
	switch {
	case h.DictionaryPageHeader.Valid:
		values = h.DictionaryPageHeader.V.NumValues
	case h.DataPageHeader.Valid:
		values, encoding = h.DataPageHeader.V.NumValues, h.DataPageHeader.V.Encoding
	case h.DataPageHeaderV2.Valid:
		v := h.DataPageHeaderV2.V
		values, encoding = v.NumValues, v.Encoding
		levels = []int32{v.RepetitionLevelsByteLength, v.DefinitionLevelsByteLength}
		compressed = !v.IsCompressed.Valid || v.IsCompressed.V
	default:
		return errors.New("expected a page of data or a dictionary, found another")
	}
	if values < 0 || values > maxPageValues {
		return fmt.Errorf("expected at most %d values, found %d", maxPageValues, values)
	}
	size := h.UncompressedPageSize
	for i, n := range levels {
		if n < 0 || int(n) > len(data) || n > size {
			return fmt.Errorf("expected levels within the page, found %d bytes", n)
		}
		if err := checkRuns(data[:n], c.levelBits[i], int(values)); err != nil {
			return err
		}
		data, size = data[n:], size-n
	}
	if compressed && c.codec != format.Uncompressed {
		var err error
		if data, err = expand(c.codec, data, int(size)); err != nil {
			return err
		}
	}
	if h.DataPageHeader.Valid {
		for _, width := range c.levelBits {
			if width == 0 {
				continue
			}
			if len(data) < 4 || binary.LittleEndian.Uint32(data) > uint32(len(data)-4) {
				return errors.New("expected levels within the page, found more bytes")
			}
			end := 4 + binary.LittleEndian.Uint32(data)
			if err := checkRuns(data[4:end], width, int(values)); err != nil {
				return err
			}
			data = data[end:]
		}
	}
	if h.DictionaryPageHeader.Valid || values == 0 {
		return nil
	}
	switch encoding {
	case format.PlainDictionary, format.RLEDictionary: //nolint:staticcheck // as older files call it
		if len(data) == 0 {
			return nil // all values are null
		}
		return checkRuns(data[1:], int(data[0]), int(values))
	case format.RLE:
		if len(data) < 4 || binary.LittleEndian.Uint32(data) > uint32(len(data)-4) {
			return errors.New("expected runs within the page, found more bytes")
		}
		return checkRuns(data[4:4+binary.LittleEndian.Uint32(data)], 1, int(values))
	case format.DeltaBinaryPacked, format.DeltaLengthByteArray, format.DeltaByteArray:
		// Values of a block, blocks' parts, values.
		for i := range 3 {
			n, used := binary.Uvarint(data)
			if used <= 0 || n > maxPageValues || i == 2 && n > uint64(values) {
				return fmt.Errorf("expected at most %d values, found %d", values, n)
			}
			data = data[used:]
		}
	}
	return nil
}

// checkRuns reads the hybrid of runs and packed numbers of this many bits, of which there
// may not be more than values.
func checkRuns(data []byte, width, values int) error {
	if width > 32 {
		return fmt.Errorf("expected numbers of at most 32 bits, found %d", width)
	}
	found := uint64(0)
	for len(data) > 0 {
		head, n := binary.Uvarint(data)
		if n <= 0 {
			return errors.New("expected the length of a run, found the end")
		}
		data = data[n:]
		count, bytes := head>>1, (width+7)/8
		if head&1 != 0 { // in groups of eight, of which the last may be filled up
			if count > maxPageValues/8 {
				return fmt.Errorf("expected runs of at most %d values, found %d", values, 8*count)
			}
			bytes, count = int(count)*width, 8*count
		}
		if found += count; count > maxPageValues || found > uint64(values)+7 {
			return fmt.Errorf("expected runs of at most %d values, found %d", values, found)
		}
		data = data[min(bytes, len(data)):]
	}
	return nil
}

// expand decompresses a page to the size that it is said to have.
func expand(codec format.CompressionCodec, data []byte, size int) ([]byte, error) {
	wrong := func(found any) error { return fmt.Errorf("expected a page of %d bytes, found %v", size, found) }
	var stream io.Reader
	switch codec {
	case format.Snappy:
		if n, err := snappy.DecodedLen(data); err != nil || n != size {
			return nil, wrong(n)
		}
		return snappy.Decode(nil, data)
	case format.Lz4Raw:
		out := make([]byte, size)
		n, err := lz4.UncompressBlock(data, out)
		if err != nil {
			return nil, wrong(err)
		}
		return out, exact(n, size)
	case format.Gzip:
		r, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, wrong(err)
		}
		stream = r
	case format.Brotli:
		stream = brotli.NewReader(bytes.NewReader(data))
	case format.Zstd:
		r, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxPageBytes))
		if err != nil {
			return nil, wrong(err)
		}
		defer r.Close()
		stream = r
	default:
		return nil, fmt.Errorf("expected a compression of snappy, gzip, brotli, zstd or lz4_raw, found %v", codec)
	}
	out := bytes.NewBuffer(make([]byte, 0, min(size, 64*len(data)+bytes.MinRead)))
	n, err := io.Copy(out, io.LimitReader(stream, int64(size)+1))
	if err != nil {
		return nil, wrong(err)
	}
	return out.Bytes(), exact(int(n), size)
}

func exact(found, size int) error {
	switch {
	case found < size:
		return fmt.Errorf("expected a page of %d bytes, found %d", size, found)
	case found > size:
		return fmt.Errorf("expected a page of %d bytes, found more", size)
	}
	return nil
}
