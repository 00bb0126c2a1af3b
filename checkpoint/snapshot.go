package checkpoint

import (
	"encoding/json"
	"fmt"
)

// The metadata of a snapshot file.
const (
	snapshotFormat = "mlpfusion-snapshot-1"
	snapshotState  = "state"
)

// Section is a named part of a snapshot: float32 values or bytes, not both.
type Section struct {
	Name    string
	Float32 []float32
	Bytes   []byte
}

// SaveSnapshot writes a training state to one file: state as JSON and the
// sections, bit for bit. It is a safetensors file with the state in its
// metadata. Until the new snapshot is whole and synced the old one stays.
func SaveSnapshot(path string, state any, sections []Section) error {
	raw, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("%s: state: %w", path, err)
	}
	specs := make([]Spec, len(sections))
	for i, s := range sections {
		specs[i] = Spec{s.Name, F32, []int{len(s.Float32)}}
		if s.Bytes != nil {
			specs[i] = Spec{s.Name, U8, []int{len(s.Bytes)}}
		}
	}
	w, err := CreateFile(path, specs, map[string]string{"format": snapshotFormat, snapshotState: string(raw)})
	if err != nil {
		return err
	}
	defer w.Abort()
	for _, s := range sections {
		if s.Bytes != nil {
			err = w.WriteBytes(s.Name, s.Bytes)
		} else {
			err = w.WriteFloat32(s.Name, s.Float32)
		}
		if err != nil {
			return err
		}
	}
	return w.Commit()
}

// LoadSnapshot opens a snapshot and decodes its state. Its sections are the
// reader's tensors: ReadFloat32 for values, Bytes for bytes. The caller closes
// the reader.
func LoadSnapshot(path string, state any) (*Reader, error) {
	r := newReader()
	err := r.openFile(path)
	if err == nil {
		err = r.decodeState(path, state)
	}
	if err != nil {
		_ = r.Close() // the first error says it
		return nil, err
	}
	return r, nil
}

func (r *Reader) decodeState(path string, state any) error {
	if found := r.metadata["format"]; found != snapshotFormat {
		return fmt.Errorf("%s: expected a training snapshot of format %q, found format %q", path, snapshotFormat, found)
	}
	if err := json.Unmarshal([]byte(r.metadata[snapshotState]), state); err != nil {
		return fmt.Errorf("%s: state: %w", path, err)
	}
	return nil
}
