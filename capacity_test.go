package main

import (
	"strings"
	"testing"
)

// TestMemoryLent holds what is said of a host that lends next to no memory, or more than there is.
func TestMemoryLent(t *testing.T) {
	t.Setenv("MAYFLY_MEMORY", "1")
	if _, err := readConfig(); err == nil || !strings.Contains(err.Error(), "MAYFLY_MEMORY") || !strings.Contains(err.Error(), "16MiB or more") {
		t.Errorf("1 byte: %v", err)
	}
	for text, over := range map[string]bool{"9999TB": true, "16MiB": false} {
		t.Setenv("MAYFLY_MEMORY", text)
		c, err := readConfig()
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if err := overlent(c); (err != nil) != over {
			t.Errorf("%q: %v", text, err)
		}
	}
}
