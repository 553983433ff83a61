package main

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/mayfly/mayfly/internal/logkey"
)

// hostsFile is a file of the other hosts that a manager knows, for the next one. Without it that one learns who they are from them.
func hostsFile(stateDir string, log *slog.Logger) (known map[string][]string, keep func(map[string][]string)) {
	path := filepath.Join(stateDir, "hosts.json")
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &known)
	}
	if err != nil && !os.IsNotExist(err) {
		log.Warn("other hosts not known from before", logkey.Path, path, logkey.Err, err)
		known = nil
	}
	return known, func(now map[string][]string) {
		text, err := json.Marshal(now)
		if err == nil {
			err = os.WriteFile(path+".new", text, 0o600)
		}
		if err == nil {
			err = os.Rename(path+".new", path)
		}
		if err != nil {
			log.Warn("other hosts not kept", logkey.Path, path, logkey.Err, err)
		}
	}
}
