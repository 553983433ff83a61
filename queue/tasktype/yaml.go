package tasktype

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v2"
)

// toJSON converts a file of one YAML document. It is stricter than ready-made converters: in YAML 1.1 the names NO, ON and 8080
// are a boolean and a number, of which they would make the names "false", "true" and "8080", passing over a second document.
func toJSON(text []byte) ([]byte, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.SetStrict(true) // refuses names that are given twice
	var document, second any
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil // which is refused as an empty JSON document is
	case err != nil:
		return nil, oneLine(err)
	}
	if err := decoder.Decode(&second); err == nil {
		return nil, errors.New("a second YAML document follows; a file holds one type")
	} else if !errors.Is(err, io.EOF) {
		return nil, oneLine(err)
	}
	converted, err := convert(document)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false) // a refusal shows the value as the file has it
	if err := encoder.Encode(converted); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(out.Bytes()), nil
}

// convert makes of a YAML value one that encoding/json takes, and takes for the same.
func convert(value any) (any, error) {
	switch value := value.(type) {
	case map[any]any:
		object := make(map[string]any, len(value))
		for key, member := range value {
			name, ok := key.(string)
			if !ok || !utf8.ValidString(name) {
				return nil, fmt.Errorf("the name %v is no string; put it in quotes", key)
			}
			converted, err := convert(member)
			if err != nil {
				return nil, err
			}
			object[name] = converted
		}
		return object, nil
	case []any:
		array := make([]any, len(value))
		for i, element := range value {
			converted, err := convert(element)
			if err != nil {
				return nil, err
			}
			array[i] = converted
		}
		return array, nil
	case string:
		if !utf8.ValidString(value) {
			return nil, fmt.Errorf("%s is not UTF-8", quote(value))
		}
	}
	return value, nil
}

// oneLine puts an error of the parser, which may have several lines, into one.
func oneLine(err error) error { return errors.New(strings.Join(strings.Fields(err.Error()), " ")) }
