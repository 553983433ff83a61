package tasktype

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly/mayfly/queue"
)

func TestLoadNamesFileAndField(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"a.yaml", "", `body: empty; send a JSON object such as {"command": ["true"]}`},
		{"a.json", "{", `body is {: must be one JSON object, but a name in double quotes was expected at byte 2`},
		{"a.yaml", "- x", `body is ["x"]: must be a JSON object, not an array`},
		{"a.yaml", "shell: [", "yaml: line 1: did not find expected node content"},
		{"a.yaml", "shell: a\nshell: b", `yaml: unmarshal errors: line 2: key "shell" already set in map`},
		{"a.yaml", "shell: a\n---\nshell: b\n", "a second YAML document follows; a file holds one type"},
		{"a.yaml", "comand: [x]", "comand: this field is unknown; did you mean command?"},
		{"a.yaml", "shell: a\nparams: {}", "params: this field is unknown; the fields here are command, shell, image, environment, workdir, " +
			"resources, alternatives, timeout, grace, max_attempts, backoff, priority, labels, description, override and max"},
		{"a.yaml", "description: nothing", "command: missing; give command, shell or image"},
		{"a.yaml", "shell: a\ncommand: [b]", `shell is "a": given together with command; give one of them`},
		{"a.yaml", "shell: a\nresources: {memory: 8 gigs}", `resources.memory is "8 gigs": write "8GB" (decimal) or "8GiB" (binary)`},
		{"a.yaml", "shell: a\nenvironment: {PORT: 8080}", "environment.PORT: must be a string, not a number"},
		{"a.yaml", "shell: a\nenvironment: {ON: yes}", "the name true is no string; put it in quotes"},
		{"a.yaml", "shell: a\nenvironment: {MODE: yes}", "environment.MODE: must be a string, not a boolean"},
		{"a.yaml", "shell: a\nenvironment: {8080: a}", "the name 8080 is no string; put it in quotes"},
		{"a.yaml", "shell: a\nresources: {cpu: .inf}", "json: unsupported value: +Inf"},
		{"a.yaml", "shell: !!binary /w==", `"\xff" is not UTF-8`},
		{"a.yaml", "shell: a\nworkdir: <here>", `workdir is "<here>": must be an absolute path of at most 4095 bytes, such as "/data/run1"`},
		{"a.yaml", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
			"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n" +
			"g: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n", "yaml: document contains excessive aliasing"},
		{"a.yaml", "shell: a\noverride: timeout", `override is "timeout": must be an array of names of fields, not a string`},
		{"a.yaml", "shell: a\noverride: [timeout, memory]", `override[1] is "memory": must be one of image, environment, workdir, timeout, ` +
			"grace, alternatives, resources, resources.cpu, resources.memory, resources.gpu, resources.gpu_memory, resources.gpu_model, " +
			"resources.disk, resources.network, resources.pids"},
		{"a.yaml", "shell: a\noverride: [command]", `override[0] is "command": a message of a type never brings its own program; leave it out`},
		{"a.yaml", "shell: a\nmax: {gpu: 0}", "max.gpu is 0: must be a whole number from 1 to 1024"},
		{"a.yaml", "shell: a\nmax: {network: true}", "max.network: this field is unknown; the fields here are cpu, memory, gpu_memory, disk, pids, gpu and timeout"},
		{"a.yaml", "shell: a\nmax: {memory: 1GB}\nresources: {memory: 2GB}", `resources.memory is "2GB": max allows at most 1GB`},
		{"a.yaml", "shell: a\nmax: {timeout: 1h}\ntimeout: 2h", `timeout is "2h0m0s": max allows at most 1h0m0s`},
		{"a b.yaml", "shell: a", "the file's name must be 1 to 64 characters of A-Z a-z 0-9 . _ - that begin with a letter or a digit, and the suffix"},
		{"a.yaml", "shell: a" + strings.Repeat("\n", maxFile), "the file has 1048584 bytes; at most 1048576 are accepted"},
	} {
		dir := t.TempDir()
		write(t, dir, c.name, c.text)
		_, err := Load(dir)
		want := "cannot read task type " + filepath.Join(dir, c.name) + ": " + c.want
		if err == nil || err.Error() != want {
			t.Errorf("%q\n got %v\nwant %s", c.text[:min(len(c.text), 60)], err, want)
		}
	}
}

func TestLoadRefusesTwoFilesOfOneType(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.json", `{"shell": "x"}`)
	write(t, dir, "a.yaml", "shell: x")
	_, err := Load(dir)
	want := "cannot read task type " + filepath.Join(dir, "a.yaml") + ": " + filepath.Join(dir, "a.json") +
		" holds the same type; remove one of them"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestLoadRefusesWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the directory: %v", err)
	}
	dir := t.TempDir()
	if err := os.Symlink("nowhere", filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("with a link to nowhere: %v", err)
	}
}

func TestLoadPassesOverWhatIsNoType(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{".a.yaml", ".#a.yaml", "#a.yaml#", "a.yaml~", "a.yaml.bak", ".a.yaml.swp", "README.md", "a.yaml.dpkg-new"} {
		write(t, dir, name, "not a type")
	}
	if err := os.Mkdir(filepath.Join(dir, "sub.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, dir, ".data", "shell: x")
	if err := os.Symlink(".data", filepath.Join(dir, "linked.yaml")); err != nil {
		t.Fatal(err)
	}
	c, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if types := c.Types(); len(types) != 1 || types[0].Name != "linked" {
		t.Errorf("the types are %v, want linked", types)
	}
}

// The clock of a synctest bubble moves at once when all sleep, so that a test can wait for the next look at the directory.
func TestResolveSeesWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := load(t, map[string]string{"a.yaml": "shell: one"})
		var told []error
		c.Reloaded = func(err error) { told = append(told, err) }
		shell := func() string {
			got, err := c.Resolve(task(t, `{"type": "a"}`), all)
			if err != nil {
				return err.Error()
			}
			return got.Shell
		}
		expect := func(when, want string, news int) {
			t.Helper()
			if got := shell(); got != want {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
			if len(told) != news {
				t.Errorf("%s: %d pieces of news, want %d: %v", when, len(told), news, told)
			}
		}

		time.Sleep(checkEvery)
		expect("unchanged", "one", 0)
		write(t, c.dir, "a.yaml", "shell: second")
		expect("changed within a second", "one", 0)
		time.Sleep(checkEvery)
		expect("changed", "second", 1)

		write(t, c.dir, "b.yaml", "shell: [")
		time.Sleep(checkEvery)
		expect("with a mistake", "second", 2)
		time.Sleep(checkEvery)
		expect("with the same mistake", "second", 2)
		if told[1] == nil || !strings.Contains(told[1].Error(), "b.yaml") {
			t.Errorf("the news is %v, want the file", told[1])
		}
		remove(t, filepath.Join(c.dir, "b.yaml"))
		time.Sleep(checkEvery)
		expect("without the mistake", "second", 3)

		write(t, c.dir, "b.yaml", "shell: x")
		remove(t, filepath.Join(c.dir, "a.yaml"))
		time.Sleep(checkEvery)
		expect("removed", `type is "a": this host has no such task type; it has b`, 4)

		away := c.dir + "-away"
		if err := os.Rename(c.dir, away); err != nil {
			t.Fatal(err)
		}
		time.Sleep(checkEvery)
		expect("without the directory", `type is "a": this host has no such task type; it has b`, 5)
		if told[0] != nil || told[2] != nil || told[3] != nil || !errors.Is(told[4], os.ErrNotExist) {
			t.Errorf("the news is %v", told)
		}
	})
}

// TestResolveSeesNewType asks for a type whose file was written a moment ago.
func TestResolveSeesNewType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := load(t, map[string]string{"a.yaml": "shell: one"})
		time.Sleep(checkEvery)
		if _, err := c.Resolve(task(t, `{"type": "a"}`), all); err != nil { // which looks
			t.Fatal(err)
		}
		write(t, c.dir, "b.yaml", "shell: two")
		time.Sleep(checkForNew)
		if got, err := c.Resolve(task(t, `{"type": "b"}`), all); err != nil || got.Shell != "two" {
			t.Errorf("%q, %v", got.Shell, err)
		}
	})
}

func TestManyResolveWhileTheDirectoryChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := load(t, map[string]string{"a.yaml": "shell: one"})
		message := queue.Task{ID: "x", Type: "a", Grace: -1, Backoff: -1, Priority: queue.DefaultPriority, NoPriority: true}
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				for range 20 {
					if got, err := c.Resolve(message, all); err != nil || !strings.HasPrefix(got.Shell, "one") {
						t.Errorf("got %q, %v", got.Shell, err)
					}
					time.Sleep(checkEvery / 2)
				}
			})
		}
		for i := range 9 {
			temporary := filepath.Join(c.dir, ".new")
			write(t, c.dir, ".new", "shell: one"+strings.Repeat("!", i))
			if err := os.Rename(temporary, filepath.Join(c.dir, "a.yaml")); err != nil {
				t.Error(err)
			}
			time.Sleep(checkEvery)
		}
		wait.Wait()
	})
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
