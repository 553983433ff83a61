package main

import (
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"

	"github.com/mayfly/mayfly/internal/plain"
)

func logLevel(name string) (slog.Level, error) {
	var level slog.Level
	err := level.UnmarshalText([]byte(name))
	return level, err
}

// newLogger writes text where a person looks on and JSON elsewhere.
func newLogger(w *os.File, c *config) *slog.Logger {
	level, err := logLevel(c.LogLevel)
	if err != nil {
		level = slog.LevelInfo // check has refused it already
	}
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "text" || c.LogFormat == "auto" && term.IsTerminal(int(w.Fd())) {
		return slog.New(newTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(jsonWriter{w}, options))
}

// newTextHandler leaves out the date: whoever looks on knows it.
func newTextHandler(w io.Writer, options *slog.HandlerOptions) slog.Handler {
	o := *options
	o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.String(slog.TimeKey, a.Value.Time().Format("15:04:05.000"))
		}
		return a
	}
	return slog.NewTextHandler(w, &o)
}

// jsonWriter writes by their numbers what a terminal would obey that shows the log: encoding/json does that for a part of it. The text handler
// quotes all of it.
type jsonWriter struct{ w io.Writer }

func (j jsonWriter) Write(line []byte) (int, error) {
	if _, err := j.w.Write(plain.JSON(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}
