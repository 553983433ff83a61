package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/mayfly/mayfly/cli"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

// examples stand below the settings of a group.
var examples = map[string]string{
	"The queue":                 "# it holds amqps://user:password@broker-1:5671/render,amqps://user:password@broker-2:5671/render\nMAYFLY_AMQP_URL_FILE=/etc/mayfly/amqp-url\nMAYFLY_AMQP_CA=/etc/mayfly/ca.pem",
	"The host":                  "MAYFLY_HOST=node-17\nMAYFLY_POOLS=default,render",
	"The API by TCP":            "MAYFLY_LISTEN=:7070\nMAYFLY_TOKEN_FILE=/etc/mayfly/token\nMAYFLY_TLS_CERT=/etc/mayfly/cert.pem\nMAYFLY_TLS_KEY=/etc/mayfly/key.pem",
	"What messages may ask for": "MAYFLY_TYPES_DIR=/etc/mayfly/types\nMAYFLY_ALLOW=types",
	"What is lent to workers":   "MAYFLY_RESERVED_CPUS=1\nMAYFLY_RESERVED_MEMORY=4GiB\nMAYFLY_DISK=500GB",
	"Tasks that do not say":     "MAYFLY_TIMEOUT=2h\nMAYFLY_MAX_ATTEMPTS=3\nMAYFLY_FAIR_SHARE=label:team",
	"What is kept":              "MAYFLY_HISTORY=100000\nMAYFLY_HISTORY_AGE=720h\nMAYFLY_OUTPUT_MAX=64MiB",
	"Leaving":                   "MAYFLY_IDLE_EXIT=10m\nMAYFLY_IDLE_COMMAND=systemctl poweroff",
	"Confinement":               "MAYFLY_TASK_USER=70000-70999\nMAYFLY_TASK_WRITABLE=/data/results",
	"Containers":                "MAYFLY_CONTAINERS=on\nMAYFLY_PULL=always\nMAYFLY_REGISTRY_AUTH=/etc/mayfly/registries.json",
	"GPUs":                      "MAYFLY_GPUS=0,1\nMAYFLY_GPU_SHARING=memory",
	"The log":                   "MAYFLY_LOG_LEVEL=debug\nMAYFLY_LOG_FORMAT=json",
}

const configurationIntro = `# Settings

All settings of ` + "`mayfly run`" + ` are environment variables; the service reads them from ` + "`/etc/mayfly/mayfly.env`" + `, one ` + "`NAME=VALUE`" + ` a line. A variable that is misspelt or
has an impossible value stops the start with one sentence. A change takes effect with the next start, which running workers do not notice.

Sizes are written ` + "`8GB`" + ` (decimal), ` + "`8GiB`" + ` (binary) or in bytes; times ` + "`90s`, `2h30m`" + ` or in seconds; lists with commas.

This page is made of the program's own list, which ` + "`mayfly run --help`" + ` prints, too: after a change, ` + "`go test . -run TestConfigurationDocument -update`" + `.
`

// configurationDocument is docs/configuration.md.
func configurationDocument() string {
	var b strings.Builder
	b.WriteString(configurationIntro)
	group := ""
	example := func() {
		if text := examples[group]; text != "" {
			fmt.Fprintf(&b, "\n```sh\n%s\n```\n", text)
		}
	}
	for _, v := range variables(&config{}) {
		if v.group != group {
			example()
			group = v.group
			fmt.Fprintf(&b, "\n## %s\n\n| variable | default | what |\n| --- | --- | --- |\n", group)
		}
		value := ""
		if v.value != "" {
			value = "`" + v.value + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", v.name, value, strings.ReplaceAll(v.description, "|", `\|`))
	}
	example()
	b.WriteString("\nFor the other commands: `MAYFLY_SOCKET`, or `MAYFLY_URL` (`https://host:7070`) with `MAYFLY_TOKEN_FILE`; see [api.md](api.md).\n")
	return b.String()
}

func TestConfigurationDocument(t *testing.T) {
	t.Parallel()
	const document = "docs/configuration.md"
	want := configurationDocument()
	if *update {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, err := os.ReadFile(document); err != nil || string(got) != want {
		t.Errorf("%s is not what the settings are (%v): go test . -run TestConfigurationDocument -update", document, err)
	}
	for group, text := range examples {
		if !strings.Contains(want, "## "+group+"\n") {
			t.Errorf("an example of no group: %s", group)
		}
		for line := range strings.Lines(text) {
			name, _, _ := strings.Cut(line, "=")
			if !strings.HasPrefix(line, "#") && !slices.ContainsFunc(variables(&config{}), func(v variable) bool { return v.name == name && v.group == group }) {
				t.Errorf("%s is no setting of %s", name, group)
			}
		}
	}
}

// documents are what people read, by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, path := range append(paths, "README.md", "CHANGELOG.md", "deploy/mayfly.env") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(text)
	}
	return texts
}

// TestDocumentedSettings holds that documents name settings and metrics that exist.
func TestDocumentedSettings(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, v := range variables(&config{}) {
		known[v.name] = true
	}
	for _, name := range append(slices.Clone(ofCommands), "MAYFLY_RESULT", "MAYFLY_TEST_REQUIRE") {
		known[name] = true
	}
	texts := documents(t)
	metrics := regexp.MustCompile("(?m)^\\| `(mayfly_[a-z_]+)` ").FindAllStringSubmatch(texts["docs/metrics.md"], -1)
	for _, m := range metrics {
		known[m[1]] = true
	}
	for path, text := range texts {
		for _, m := range regexp.MustCompile(`\bMAYFLY_[A-Z_]*[A-Z]\b(_\.\.\.)?`).FindAllStringSubmatch(text, -1) {
			if m[1] == "" && !known[m[0]] && !ofWorkers.MatchString(m[0]) {
				t.Errorf("%s names %s, which is no setting", path, m[0])
			}
		}
		for _, m := range regexp.MustCompile("`(mayfly_[a-z_]+)[`{]").FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				t.Errorf("%s names %s, which is no metric", path, m[1])
			}
		}
	}
}

// TestDocumentedCommands holds that documents name commands and flags that exist.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	root := cli.New(cli.Program{Version: "v", Run: func(context.Context, cli.RunArgs) error { return nil }, Keeper: func([]string) error { return nil },
		GPUHelper: func([]string) error { return nil }, RunHelp: func(io.Writer) {}, Check: check, Depth: brokerDepth, Socket: defaultSocket})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	spoken := regexp.MustCompile("(?m)(?:^|`|sudo |\\./|; |exec mayfly |\\$ )mayfly ([a-z][^`\n|;)]*)")
	seen := 0
	for path, text := range documents(t) {
		for _, m := range spoken.FindAllStringSubmatch(text, -1) {
			words := strings.Fields(strings.ReplaceAll(m[1], "\\", ""))
			cmd, rest, err := root.Find(words)
			if err != nil || cmd == root || !cmd.Runnable() {
				if strings.Contains(m[0], "`") || strings.Contains(m[0], "sudo") { // else it is a sentence
					t.Errorf("%s: there is no command mayfly %s", path, m[1])
				}
				continue
			}
			seen++
			checkFlags(t, path, cmd, rest)
		}
	}
	if seen < 60 {
		t.Errorf("only %d commands were found", seen)
	}
}

func checkFlags(t *testing.T, path string, cmd *cobra.Command, words []string) {
	t.Helper()
	for _, word := range words {
		word = strings.Trim(word, `"',.:`)
		if word == "--" || word == "#" {
			return // what follows is another's
		}
		name, _, _ := strings.Cut(word, "=")
		switch {
		case strings.HasPrefix(name, "--") && name != "--help":
			if f := strings.TrimPrefix(name, "--"); cmd.Flags().Lookup(f) == nil && cmd.InheritedFlags().Lookup(f) == nil {
				t.Errorf("%s: %s has no flag %s", path, cmd.CommandPath(), name)
			}
		case len(name) == 2 && name[0] == '-' && name != "-h":
			if cmd.Flags().ShorthandLookup(name[1:]) == nil {
				t.Errorf("%s: %s has no flag %s", path, cmd.CommandPath(), name)
			}
		}
	}
}

// TestDocumentedLinks holds that what documents lead to is there: files, and headings within documents.
func TestDocumentedLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	for path, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(m[1], "://") {
				continue
			}
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			body, err := os.ReadFile(target)
			if info, isThere := os.Stat(target); isThere == nil && info.IsDir() {
				continue
			}
			if err != nil {
				t.Errorf("%s leads to %s: %v", path, m[1], err)
				continue
			}
			found := anchor == ""
			for _, h := range heading.FindAllStringSubmatch(string(body), -1) {
				found = found || anchorOf(h[1]) == anchor
			}
			if !found {
				t.Errorf("%s leads to %s, where there is no such heading", path, m[1])
			}
		}
	}
}

// anchorOf is the anchor of a heading as GitHub makes it.
func anchorOf(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r > 0x7f:
			return r
		}
		return -1
	}, strings.ToLower(heading))
}
