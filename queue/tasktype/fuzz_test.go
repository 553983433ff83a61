package tasktype

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// FuzzTypeFile has a type file hold anything: it is a type that keeps its own limits, or an error.
func FuzzTypeFile(f *testing.F) {
	f.Add("command: [python3, /opt/jobs/process.py]\nresources: {cpu: 2, memory: 4GB}\ntimeout: 1h\noverride: [resources.cpu, timeout]\nmax: {cpu: 8, timeout: 4h}\n", false)
	f.Add(`{"shell": "true", "environment": {"A": "1"}}`, true)
	f.Add("a: &a [x,x]\nb: [*a,*a]\nc: !!binary /w==\n", false)
	f.Add("? [a]\n: b\n---\n<<: {a: 1}\n", false)
	f.Fuzz(func(t *testing.T, text string, plain bool) {
		name := "a.yaml"
		if plain {
			name = "a.json"
		}
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		read, err := readFile(path)
		if err != nil {
			return
		}
		if err := read.checkLimits(read.Task.Resources, read.Task.Alternatives, read.Task.Timeout, "max allows"); err != nil {
			t.Errorf("the defaults exceed the limits: %v", err)
		}
		if read.Task.Command == nil && read.Task.Shell == "" && read.Task.Image == "" {
			t.Error("a type without a program")
		}
		if _, err := json.Marshal(read.Task); err != nil {
			t.Error(err)
		}
	})
}
