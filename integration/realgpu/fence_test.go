package realgpu

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/queue"
)

// opens tells of each device file whether it can be opened.
const opens = `for f in "$@"; do
  if ! test -e "$f"; then echo "$f hidden"
  elif out=$( { : <"$f"; } 2>&1 ); then echo "$f opened"
  else echo "$f ${out##*: }"; fi
done`

// files are the driver's device files.
func (c *check) files() []string {
	files, _ := filepath.Glob(c.root + "dev/nvidia*")
	caps, _ := filepath.Glob(c.root + "dev/nvidia-caps/*")
	return slices.DeleteFunc(append(files, caps...), func(path string) bool {
		info, err := os.Stat(path)
		return err != nil || info.Mode()&os.ModeCharDevice == 0
	})
}

// fence has tasks open device files that are not theirs.
func fence(c *check) {
	files := c.files()
	if len(files) == 0 {
		c.fatal("there are no device files")
	}
	heard := func(s said) string {
		words := map[string]int{}
		for _, list := range s {
			words[list[0]]++
		}
		return fmt.Sprint(words)[len("map"):]
	}
	r := c.shell(nil, opens, files...)
	s := c.succeeded(&r)
	for _, path := range files {
		if how := s.of(path); how == "opened" || how == "" {
			c.wrong("without a GPU, %s is %q", path, how)
		}
	}
	c.measured("without a GPU, %d device files of the driver: %s", len(files), heard(s))
	c.whole()
	r = c.shell(one, opens, files...)
	s = c.succeeded(&r)
	for _, f := range c.idle[r.GPUs[0]].Files {
		if how := s.of(f.Path); how != "opened" {
			c.wrong("with a GPU, its own %s is %q", f.Path, how)
		}
	}
	c.measured("with one GPU: %s, of which %d are other devices' own", heard(s), c.others(&r, s))
}

// others says how many device files are those of devices that a task does not have, none of which it may have opened.
func (c *check) others(r *queue.Result, s said) int {
	c.Helper()
	var list []string
	for _, d := range c.all {
		for _, f := range d.Files {
			if slices.Contains(c.idle[r.GPUs[0]].Files, f) || slices.Contains(list, f.Path) {
				continue
			}
			list = append(list, f.Path)
			if how := s.of(f.Path); how == "opened" || how == "" {
				c.wrong("with GPU %d, %s of GPU %d is %q", c.idle[r.GPUs[0]].Index, f.Path, d.Index, how)
			}
		}
	}
	return len(list)
}

// instance has a task compute on a MIG instance.
func instance(c *check) {
	at := slices.IndexFunc(c.all, func(d gpu.Status) bool { _, free := c.idle[d.UUID]; return free && d.Parent != "" })
	if at < 0 {
		c.without("no GPU is divided (MIG)")
	}
	wanted := resources{"gpu": 1, "gpu_model": c.all[at].Profile}
	r := c.run(wanted, "sum")
	s := c.succeeded(&r)
	c.measured("on an instance %s %s; %s", c.all[at].Profile, c.seen(&r, s), c.sum(s))
	r = c.shell(wanted, opens, c.files()...)
	s = c.succeeded(&r)
	c.measured("it opened none of %d files of others; free again after %s", c.others(&r, s), c.free())
}
