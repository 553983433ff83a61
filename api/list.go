package api

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

const (
	// pageMost is the longest page.
	pageMost = 1000
	// endedMost is how many ended tasks a list without pages has.
	endedMost = 10_000
	// filterMost bounds the length of what is searched for.
	filterMost = 512
	// briefCommand is how much of a command a brief list shows.
	briefCommand = 300
)

// What a filter may ask for.
var (
	statuses = []manager.Status{manager.Queued, manager.Waiting, manager.Parked, manager.Elsewhere, manager.Running, manager.Stopping, manager.Settling, manager.BackingOff, manager.Ended}
	states   = []queue.State{queue.Succeeded, queue.Failed, queue.Cancelled, queue.Rejected}
	causes   = []queue.Cause{queue.CauseNone, queue.CauseExit, queue.CauseSignal, queue.CauseTimeout, queue.CauseDeadline, queue.CauseOOM, queue.CauseGPUOOM,
		queue.CauseGPUFault, queue.CauseDiskFull, queue.CauseStartError, queue.CauseHostLost, queue.CauseCancelled, queue.CauseRejected}
)

// list shows the active tasks, with so many ended ones, or with a limit a page of all.
func (s *Server) list(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	f, err := Filter(q)
	if err != nil {
		return err
	}
	var views []manager.View
	if q.Has("limit") || q.Has("cursor") {
		views, err = s.page(w, r, f)
	} else {
		views, err = s.listAll(r, f)
	}
	if err != nil {
		return err
	}
	if views == nil {
		views = []manager.View{}
	}
	if yes(q.Get("brief")) {
		for i := range views {
			brief(&views[i])
		}
	}
	answer(w, http.StatusOK, views)
	return nil
}

func (s *Server) listAll(r *http.Request, f manager.Filter) ([]manager.View, error) {
	ended, err := natural(r.URL.Query(), "ended", 0)
	if err != nil {
		return nil, err
	}
	if ended > endedMost {
		return nil, &badRequest{fmt.Sprintf("cannot use ended=%d: it is %d at most; status=ended&limit=%d shows them all, a page at a time", ended, endedMost, pageMost)}
	}
	views, err := s.backend.List(r.Context(), ended)
	return slices.DeleteFunc(views, func(v manager.View) bool { return !f.Matches(&v) }), err
}

// page answers with a part of the list, and says where the next one is.
func (s *Server) page(w http.ResponseWriter, r *http.Request, f manager.Filter) ([]manager.View, error) {
	q := r.URL.Query()
	if q.Has("ended") {
		return nil, &badRequest{"cannot use ended together with limit or cursor: a page goes on to all that have ended; status=ended shows those alone"}
	}
	limit, err := natural(q, "limit", 100)
	if err != nil {
		return nil, err
	}
	if limit < 1 || limit > pageMost {
		return nil, &badRequest{fmt.Sprintf("cannot use limit=%d: it is 1 to %d", limit, pageMost)}
	}
	p, err := s.backend.Page(r.Context(), f, q.Get("cursor"), limit)
	if err != nil {
		return nil, err
	}
	if p.Next != "" {
		q.Set("limit", strconv.Itoa(limit))
		q.Set("cursor", p.Next)
		w.Header().Set("Link", "</v1/tasks?"+q.Encode()+`>; rel="next"`)
	}
	return p.Tasks, nil
}

// Filter reads what a list is to show.
func Filter(q url.Values) (f manager.Filter, err error) {
	for _, name := range []string{"pool", "label", "text"} {
		if n := len(q.Get(name)); n > filterMost {
			return f, &badRequest{fmt.Sprintf("cannot use %s of %d bytes: it has at most %d", name, n, filterMost)}
		}
	}
	f.Pool, f.Text = q.Get("pool"), q.Get("text")
	f.Label, f.Value, f.WithValue = strings.Cut(q.Get("label"), "=")
	if f.Statuses, err = words(q, "status", statuses); err != nil {
		return f, err
	}
	if f.States, err = words(q, "state", states); err != nil {
		return f, err
	}
	f.Causes, err = words(q, "cause", causes)
	return f, err
}

// words reads a list of words, separated by commas, of which all are known.
func words[T ~string](q url.Values, name string, known []T) (list []T, err error) {
	if q.Get(name) == "" {
		return nil, nil
	}
	for word := range strings.SplitSeq(q.Get(name), ",") {
		if !slices.Contains(known, T(word)) {
			return nil, &badRequest{fmt.Sprintf("cannot use %s=%q: it is one or more of %v, separated by commas", name, word, known)}
		}
		list = append(list, T(word))
	}
	return list, nil
}

// yes reads a switch.
func yes(text string) bool { return text != "" && text != "0" && text != "false" }

// brief takes from a task what may be long: what it said, its attempts, and most of its command.
func brief(v *manager.View) {
	if command := []rune(v.Command); len(command) > briefCommand {
		v.Command = string(command[:briefCommand]) + "…"
	}
	v.Attempts = nil
	if v.Result != nil {
		r := *v.Result
		r.Attempts, r.Result, r.StdoutTail, r.StderrTail = []queue.Past{}, nil, "", ""
		v.Result = &r
	}
}
