// Command bench keeps what benchmarks measured, with what they were measured on, and draws it.
//
//	bench json VERSION <bench.txt >bench.json
//	bench svg FOLDER <bench.json
//
// It is run by `make bench` and `make plots`.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	switch {
	case len(args) == 2 && args[0] == "json":
		r, err := parse(in)
		if err != nil {
			return err
		}
		r.Date = time.Now().UTC().Truncate(time.Second)
		r.Machine.look()
		r.Versions = versions(args[1])
		text, err := json.MarshalIndent(r, "", "\t")
		if err != nil {
			return fmt.Errorf("cannot write the results: %w", err)
		}
		_, err = fmt.Fprintf(out, "%s\n", text)
		return err
	case len(args) == 2 && args[0] == "svg":
		var r report
		if err := json.NewDecoder(in).Decode(&r); err != nil {
			return fmt.Errorf("cannot read the results: %w", err)
		}
		for name, plot := range plots {
			text, err := plot(&r).svg()
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(args[1], name), text, 0o644); err != nil {
				return fmt.Errorf("cannot write a plot: %w", err)
			}
		}
		return nil
	}
	return errors.New("usage: bench json VERSION <bench.txt >bench.json, or bench svg FOLDER <bench.json")
}
