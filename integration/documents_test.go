package integration

import (
	"regexp"
	"strings"
	"testing"
)

// commandsIn returns the commands of a document's first shell block after a heading or another text: what it tells people to do is what
// the tests do. Long lines are joined, comments stay.
func commandsIn(t *testing.T, document, after string) string {
	t.Helper()
	_, text, found := strings.Cut(read(t, "../docs", document), after+"\n")
	block := regexp.MustCompile("(?s)\n```sh\n(.*?)```").FindStringSubmatch("\n" + text)
	if !found || block == nil {
		t.Fatalf("there are no commands after %q in docs/%s", after, document)
	}
	return strings.ReplaceAll(block[1], " \\\n", "")
}

// adapted replaces words of documented commands, each of which must be there.
func adapted(t *testing.T, commands string, words ...string) string {
	t.Helper()
	for i := 0; i < len(words); i += 2 {
		if !strings.Contains(commands, words[i]) {
			t.Fatalf("%q is not in\n%s", words[i], commands)
		}
		commands = strings.ReplaceAll(commands, words[i], words[i+1])
	}
	return commands
}
