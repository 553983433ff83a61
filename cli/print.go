package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/mayfly/mayfly/internal/plain"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

func printJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(plain.JSON(b.Bytes()))
	return err
}

// printJSONLine prints JSON on a line of its own.
func printJSONLine(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err == nil {
		_, err = fmt.Fprintf(w, "%s\n", plain.JSON(text))
	}
	return err
}

// output is where a worker's output goes: as it is, unless a person looks on whose terminal would obey it. flush is called at the end.
func output(w io.Writer, raw bool) (to io.Writer, flush func()) {
	if raw || terminal(w) == 0 {
		return w, func() {}
	}
	p := plain.NewWriter(w)
	return p, func() { _ = p.Flush() }
}

// fields prints names and values, one a line; a value of many lines is indented below its name.
func fields(w io.Writer, list [][2]string) error {
	width := 0
	for _, f := range list {
		width = max(width, len(f[0]))
	}
	for _, f := range list {
		if f[1] == "" {
			continue
		}
		value := clean(f[1])
		if strings.Contains(value, "\n") {
			value = "\n    " + strings.ReplaceAll(strings.TrimRight(value, "\n"), "\n", "\n    ")
		}
		line := fmt.Sprintf("%-*s  %s", width, f[0], value)
		if strings.HasPrefix(value, "\n") {
			line = f[0] + value
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// human writes a size with three figures, which is what people read.
func human(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	f, i := float64(n), 0
	for f >= 1000 && i < len(units)-1 {
		f /= 1024
		i++
	}
	return fmt.Sprintf("%.3g%s", f, units[i])
}

// clean takes from a text what a terminal would obey: it may come from a worker or a producer.
func clean(s string) string { return plain.Text(s) }

// column is one column of a table.
type column struct {
	title string
	// flexible columns give way on a narrow terminal.
	flexible bool
}

// printTable prints rows below the titles: aligned, without lines, cut to the terminal's width.
func printTable(w io.Writer, columns []column, rows [][]string) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format.Header = text.FormatUpper
	t.SetStyle(style)
	header := make(table.Row, len(columns))
	widths := make([]int, len(columns))
	for i, c := range columns {
		header[i] = c.title
		widths[i] = text.StringWidth(c.title)
	}
	t.AppendHeader(header)
	for _, r := range rows {
		for i, cell := range r {
			r[i] = strings.Join(strings.Fields(clean(cell)), " ")
			widths[i] = max(widths[i], text.StringWidthWithoutEscSequences(r[i]))
		}
	}
	if width := terminal(w); width > 0 {
		shrink(columns, widths, width-1-2*len(columns))
	}
	for _, r := range rows {
		row := make(table.Row, len(r))
		for i, cell := range r {
			row[i] = text.Snip(cell, widths[i], "…")
		}
		if colours(w) {
			colourRow(columns, row)
		}
		t.AppendRow(row)
	}
	t.SuppressTrailingSpaces()
	t.Render()
}

// shrink takes width from the flexible columns, the last first, until all fit.
func shrink(columns []column, widths []int, room int) {
	total := 0
	for _, n := range widths {
		total += n
	}
	const least = 10
	for i := len(columns) - 1; i >= 0 && total > room; i-- {
		if columns[i].flexible && widths[i] > least {
			cut := min(total-room, widths[i]-least)
			widths[i] -= cut
			total -= cut
		}
	}
}

// colourRow colours the status of a row.
func colourRow(columns []column, row table.Row) {
	for i, c := range columns {
		if c.title != "status" && c.title != "state" {
			continue
		}
		cell := fmt.Sprint(row[i])
		switch strings.TrimSpace(cell) {
		case string(queue.Succeeded):
			row[i] = text.FgGreen.Sprint(cell)
		case string(queue.Failed), string(queue.Rejected):
			row[i] = text.FgRed.Sprint(cell)
		case string(manager.Running):
			row[i] = text.FgCyan.Sprint(cell)
		case string(queue.Cancelled), string(manager.BackingOff), string(manager.Stopping):
			row[i] = text.FgYellow.Sprint(cell)
		}
	}
}
