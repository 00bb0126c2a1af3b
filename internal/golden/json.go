package golden

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// JSON reads a file of expected results into to. The test ends if the file has a
// field that to lacks, or lacks one of to or its elements; only a field with the
// option omitempty may be missing or empty. A test that went on would compare less
// than it seems to.
func JSON(t testing.TB, path string, to any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = decode(data, to)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func decode(data []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	return complete(data, reflect.TypeOf(to).Elem(), "the file")
}

var reader = reflect.TypeFor[json.Unmarshaler]()

// complete fails if something of data, which has been decoded into a t, is missing
// or empty.
func complete(data []byte, t reflect.Type, at string) error {
	var list []json.RawMessage
	var object map[string]json.RawMessage
	switch {
	case reflect.PointerTo(t).Implements(reader):
		return nil
	case t.Kind() == reflect.Pointer && string(data) != "null":
		return complete(data, t.Elem(), at)
	case t.Kind() == reflect.Slice:
		if err := json.Unmarshal(data, &list); err != nil {
			return err
		}
		for i, item := range list {
			if err := complete(item, t.Elem(), fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case t.Kind() == reflect.Map || t.Kind() == reflect.Struct:
		if err := json.Unmarshal(data, &object); err != nil {
			return err
		}
		if t.Kind() == reflect.Struct {
			return completeFields(object, t, at)
		}
		for name, item := range object {
			if err := complete(item, t.Elem(), at+"."+name); err != nil {
				return err
			}
		}
	default:
		return nil
	}
	if len(list)+len(object) == 0 {
		return fmt.Errorf("%s: expected elements, found none", at)
	}
	return nil
}

func completeFields(object map[string]json.RawMessage, t reflect.Type, at string) error {
	found := map[string]json.RawMessage{}
	for name, item := range object {
		found[strings.ToLower(name)] = item
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		if option == "omitempty" {
			continue
		}
		item, ok := found[name]
		if !ok {
			return fmt.Errorf("%s: expected the field %s, found none", at, name)
		}
		if err := complete(item, f.Type, at+"."+name); err != nil {
			return err
		}
	}
	return nil
}
