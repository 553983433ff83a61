package tasktype

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// maxFile is the size in bytes of the largest accepted type file.
const maxFile = 1 << 20

// file is what is compared to learn whether a type file has changed.
type file struct {
	size    int64
	changed time.Time
}

// list returns the type files of dir by their names: what has one of our suffixes, is no directory, and is not hidden. The
// backups and locks of editors are not among them.
func list(dir string) (map[string]file, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := make(map[string]file)
	for _, entry := range entries {
		name := entry.Name()
		if _, ok := typeName(name); !ok {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, name)) // follows symbolic links, with which such directories are often made
		if errors.Is(err, fs.ErrNotExist) && entry.Type()&fs.ModeSymlink == 0 {
			continue // removed just now
		}
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() {
			files[name] = file{info.Size(), info.ModTime()}
		}
	}
	return files, nil
}

// typeName returns the name of the type that a file holds, if it is a type file.
func typeName(name string) (string, bool) {
	suffix := filepath.Ext(name)
	ours := suffix == ".yaml" || suffix == ".yml" || suffix == ".json"
	return strings.TrimSuffix(name, suffix), ours && !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "#")
}

// read decodes the type files of dir.
func read(dir string, files map[string]file) (map[string]template, error) {
	types := make(map[string]template, len(files))
	from := make(map[string]string, len(files))
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, name)
		key, _ := typeName(name)
		if !queue.ValidType(key) {
			return nil, fmt.Errorf("cannot read task type %s: the file's name must be 1 to 64 characters of A-Z a-z 0-9 . _ - "+
				"that begin with a letter or a digit, and the suffix", path)
		}
		if other, ok := from[key]; ok {
			return nil, fmt.Errorf("cannot read task type %s: %s holds the same type; remove one of them", path, other)
		}
		t, err := readFile(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read task type %s: %w", path, err)
		}
		types[key], from[key] = t, path
	}
	return types, nil
}

func readFile(path string) (template, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		if cause := errors.Unwrap(err); cause != nil {
			err = cause // the path is in the caller's sentence
		}
		return template{}, err
	}
	if len(text) > maxFile {
		return template{}, fmt.Errorf("the file has %d bytes; at most %d are accepted", len(text), maxFile)
	}
	if !strings.HasSuffix(path, ".json") {
		if text, err = toJSON(text); err != nil {
			return template{}, err
		}
	}
	t, err := queue.DecodeTemplate(text)
	if err != nil {
		return template{}, err
	}
	return newTemplate(t)
}
