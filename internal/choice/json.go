package choice

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// JSONType says of a JSON value of another type than the program reads which key has
// it and what it should be; other errors stay as they are.
func JSONType(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err
	}
	expected := map[reflect.Kind]string{reflect.Int: "a whole number", reflect.Float64: "a number", reflect.Float32: "a number", reflect.String: "a string", reflect.Bool: "true or false",
		reflect.Slice: "a list", reflect.Map: "an object", reflect.Struct: "an object"}[wrong.Type.Kind()]
	found := wrong.Value
	if n, ok := strings.CutPrefix(found, "number "); ok {
		found = "the number " + n
	} else {
		found = map[string]string{"array": "a list", "bool": "true or false", "object": "an object"}[found]
		if found == "" {
			found = "a " + wrong.Value
		}
	}
	if wrong.Field == "" {
		return fmt.Errorf("expected %s, found %s", expected, found)
	}
	return fmt.Errorf("%s: expected %s, found %s", wrong.Field, expected, found)
}
